"""ExactQuota: slots from Redis, work and ledger in one transaction, and the direct road where they disagree."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol, TypeAlias

from quota_redis.calls import Reserved
from quota_redis.counters import Counters
from quota_redis.now import run_now
from quota_redis.postgres.absorb import absorb_soon
from quota_redis.postgres.ledger import Ledger, refuse_transaction
from quota_redis.postgres.queries import NowDatabase, PgConnection
from quota_redis.postgres.spending import (
    AsyncWork,
    Course,
    Observer,
    Spending,
    Spent,
    Units,
    observed,
)
from quota_redis.types import MAX_RESERVE, Reservation, check_integer

Transaction: TypeAlias = Callable[[], AbstractContextManager[object]]


class Work(Protocol):
    """What a caller wants to have done under a quota, in as many transactions as it takes.

    Each method is one transaction of its own, which raises SlotConflict or QuotaMoved where the ledger says so.
    """

    @property
    def left(self) -> int:
        """Units that are still wanted; 0 ends the call."""

    def with_slots(self, reservation: Reservation) -> int:
        """Do what fits the reservation and record its slots; returns the units used."""

    def without_quota(self) -> None:
        """Do all that is left, where PostgreSQL agrees that no quota is active."""

    def direct(self) -> bool:
        """Do what fits a gap of the ledger; False where the ledger has no slot left."""

    def is_refusal(self, version: int) -> bool:
        """Whether PostgreSQL has this version of the definitions, so that a FULL under it is one."""


class SlotSource(Protocol):
    """Where reservations come from: Counters, or Stocks over them."""

    def reserve(self, subject: str, amount: int, *, hold_id: str | None = None) -> Reserved: ...

    def settle(self, reservation: Reservation, used: int, *, wait: bool = True) -> None: ...

    def release(self, subject: str, hold_id: str, *, wait: bool = True) -> None: ...


class ExactQuota:
    """Spends units exactly: never one more than the limit, whatever Redis, workers or tasks do.

    The connection must be READ COMMITTED and outside a transaction; each call commits by itself.
    slots: where slots come from, by default the counters themselves.
    refuse_without_redis: raise Unavailable where Redis does not answer, instead of taking the slower direct road.
    observe: is told of every call once it has ended, for metrics; what it raises is logged and no more.
    """

    def __init__(
        self,
        counters: Counters,
        ledger: Ledger,
        *,
        slots: SlotSource | None = None,
        refuse_without_redis: bool = False,
        observe: Observer | None = None,
    ) -> None:
        self.counters = counters
        self.ledger = ledger
        self.slots = slots or counters
        self.refuse_without_redis = refuse_without_redis
        self._observe = observe

    def spend(
        self,
        connection: PgConnection,
        subject: str,
        amount: int,
        work: Callable[[int], int],
        *,
        transaction: Transaction | None = None,
    ) -> Spent:
        """Do up to `amount` units of work (1 to 1,000) under the subject's quota.

        `work(allowed)` runs inside a transaction on the connection, does at most `allowed` units and returns
        how many it did; fewer means that there is nothing left to do. It may be called several times, also
        again after a rollback, so what it does must be in the transaction alone. `transaction` opens one on the
        connection, where a framework wants to do that itself; by default it is psycopg's.
        """
        check_integer("amount", amount, 1, MAX_RESERVE)

        async def do(allowed: int) -> int:
            return work(allowed)

        database = NowDatabase(connection, transaction or connection.transaction)
        units = Units(self.ledger, database, subject, amount, do)
        return units.spent(self._run(connection, subject, units))

    def run(self, connection: PgConnection, subject: str, work: Work) -> Course:
        """Drive any Work to its end. Raises Unavailable where PostgreSQL fails, Contention where it gives up."""
        return self._run(connection, subject, _NowWork(work))

    def _run(self, connection: PgConnection, subject: str, work: AsyncWork) -> Course:
        refuse_transaction(connection)

        async def try_absorb() -> bool:
            return absorb_soon(self.counters, self.ledger, connection, subject)

        call = Spending(
            self.counters.calls,
            subject,
            work,
            _NowSlots(self.slots),
            try_absorb,
            _pause_now,
            refuses=self.refuse_without_redis,
        )
        return run_now(observed(call, self._observe))


async def _pause_now(seconds: float) -> None:
    time.sleep(seconds)  # noqa: ASYNC251  nothing is awaited where this runs


class _NowSlots:
    """Slots whose methods are awaited and never wait."""

    def __init__(self, slots: SlotSource) -> None:
        self._slots = slots

    async def reserve(self, subject: str, amount: int, *, hold_id: str | None = None) -> Reserved:
        return self._slots.reserve(subject, amount, hold_id=hold_id)

    async def settle(self, reservation: Reservation, used: int, *, wait: bool = True) -> None:
        self._slots.settle(reservation, used, wait=wait)

    async def release(self, subject: str, hold_id: str, *, wait: bool = True) -> None:
        self._slots.release(subject, hold_id, wait=wait)


class _NowWork:
    """Work whose methods are awaited and never wait."""

    def __init__(self, work: Work) -> None:
        self._work = work

    @property
    def left(self) -> int:
        return self._work.left

    async def with_slots(self, reservation: Reservation) -> int:
        return self._work.with_slots(reservation)

    async def without_quota(self) -> None:
        self._work.without_quota()

    async def direct(self) -> bool:
        return self._work.direct()

    async def is_refusal(self, version: int) -> bool:
        return self._work.is_refusal(version)
