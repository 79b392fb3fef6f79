"""AsyncExactQuota: exact quotas for asyncio, on an AsyncConnection of psycopg.

exact = AsyncExactQuota(AsyncCounters.from_url(url, namespace="api"), Ledger(table))
spent = await exact.spend(connection, "team:7", 20, work=insert)
"""

import asyncio
from collections.abc import Awaitable, Callable

from quota_redis.aio import AsyncCounters
from quota_redis.postgres.ledger import Ledger, refuse_transaction
from quota_redis.postgres.queries import AsyncPgConnection, LaterDatabase
from quota_redis.postgres.spending import (
    AsyncSlotSource,
    AsyncWork,
    Course,
    Observer,
    Spending,
    Spent,
    Units,
    observed,
)
from quota_redis.types import MAX_RESERVE, check_integer


class AsyncExactQuota:
    """ExactQuota for asyncio: the same logic, awaited.

    absorb: brings a subject in line with the ledger when Redis has lost or mistaken it, True where it did: for
    example `absorb_soon` in a thread with a connection of its own. Without it such a subject takes the direct
    road, as exact and slower, until the periodic sync has absorbed it.
    """

    def __init__(
        self,
        counters: AsyncCounters,
        ledger: Ledger,
        *,
        slots: AsyncSlotSource | None = None,
        absorb: Callable[[str], Awaitable[bool]] | None = None,
        refuse_without_redis: bool = False,
        observe: Observer | None = None,
    ) -> None:
        self.counters = counters
        self.ledger = ledger
        self.slots = slots or counters
        self.refuse_without_redis = refuse_without_redis
        self._absorb = absorb or _leave_it
        self._observe = observe

    async def spend(
        self,
        connection: AsyncPgConnection,
        subject: str,
        amount: int,
        work: Callable[[int], Awaitable[int]],
    ) -> Spent:
        """Do up to `amount` units of work (1 to 1,000) under the subject's quota; `work` as for ExactQuota.spend.

        The connection is this call's alone until it ends.
        """
        check_integer("amount", amount, 1, MAX_RESERVE)
        units = Units(self.ledger, LaterDatabase(connection), subject, amount, work)
        return units.spent(await self.run(connection, subject, units))

    async def run(self, connection: AsyncPgConnection, subject: str, work: AsyncWork) -> Course:
        """Drive any work to its end. Raises Unavailable where PostgreSQL fails, Contention where it gives up."""
        refuse_transaction(connection)

        async def try_absorb() -> bool:
            return await self._absorb(subject)

        call = Spending(
            self.counters.calls,
            subject,
            work,
            self.slots,
            try_absorb,
            asyncio.sleep,
            refuses=self.refuse_without_redis,
        )
        return await observed(call, self._observe)


async def _leave_it(_subject: str) -> bool:
    return False
