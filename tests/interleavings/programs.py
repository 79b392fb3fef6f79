"""What actors do: the shipped code, called as its own callers call it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from quota_redis.errors import QuotaError
from quota_redis.postgres import ExactQuota, Ledger, Spent, absorb, audit, compact, rebuild, sync
from quota_redis.postgres.queries import Query
from quota_redis.ranges import Ranges
from shargain.offers.services.offer_creation import NewOffer, Outcome, _Batch
from shargain.offers.services.quota import _Work
from tests.interleavings.gate import Actor
from tests.interleavings.world import TARGET, World

Program = Callable[[Actor], Any]

SPEND_SQL = b"""
INSERT INTO offers_offer (target_id, url, title, main_image_url, list_url, metadata, batch_id)
SELECT %s, 'https://example.org/spent/' || %s || '/' || gen_random_uuid(), 'spent', '', '', '{}', %s
FROM generate_series(1, %s) RETURNING id"""


@dataclass(frozen=True)
class BatchDone:
    """How a batch ended, as its caller is told."""

    batch_id: UUID
    urls: Sequence[str]
    outcomes: Sequence[Outcome]
    went_direct: bool


@dataclass(frozen=True)
class SpendDone:
    """How a spend ended, as its caller is told."""

    batch_id: UUID
    spent: Spent


def batch(world: World, batch_id: UUID, urls: Sequence[str]) -> Program:
    """shargain's way: each road of the batch is one statement, in autocommit."""

    def run(actor: Actor) -> BatchDone:
        offers = _Batch(TARGET, batch_id, [NewOffer(url, "an offer") for url in urls])
        exact = ExactQuota(actor.counters, Ledger(world.table))
        work = _Work(actor.connection, offers)
        course = exact.run(actor.connection, world.subject, work)
        return BatchDone(batch_id, urls, offers.outcomes(), course.went_direct)

    return run


class LabellingLedger(Ledger):
    """Writes on the offers of a spend which quota counted them, for the work itself is not told."""

    fresh: list[int]

    def recording(self, subject: str, quota_id: int, slots: Ranges, used: int) -> Query[None]:
        query = super().recording(subject, quota_id, slots, used)
        label = "WITH labelled AS (UPDATE offers_offer SET quota_id = %s WHERE id = ANY(%s))"
        return Query(f"{label} {query.text}", (quota_id, self.fresh, *query.values), query.read)


def spend(world: World, batch_id: UUID, amount: int) -> Program:
    """The package's way: work and ledger are statements of one transaction, with a stop between them."""

    def run(actor: Actor) -> SpendDone:
        ledger = LabellingLedger(world.table)

        def work(allowed: int) -> int:
            rows = actor.connection.execute(
                SPEND_SQL, (TARGET, str(batch_id), batch_id, allowed)
            ).fetchall()
            ledger.fresh = [row[0] for row in rows]
            return len(rows)

        exact = ExactQuota(actor.counters, ledger)
        return SpendDone(batch_id, exact.spend(actor.connection, world.subject, amount, work))

    return run


def edit(world: World, query: str, values: Sequence[object], *, is_pushed: bool) -> Program:
    """A change of definitions by plain SQL, which may reach Redis right after its commit, or by the next sync."""

    def run(actor: Actor) -> None:
        with actor.connection.transaction():
            actor.connection.execute(query.encode(), values)
        if is_pushed:
            try:
                absorb(actor.counters, Ledger(world.table), actor.connection, [world.subject])
            except QuotaError:
                return

    return run


def upkeep(world: World, kind: str) -> Program:
    """One run of what beat or an operator starts."""

    def run(actor: Actor) -> Any:
        ledger = Ledger(world.table)
        if kind == "sync":
            return sync(actor.counters, ledger, actor.connection)
        if kind == "audit":
            return audit(actor.counters, ledger, actor.connection)
        if kind == "compact":
            return compact(ledger, actor.connection, above=1)
        if kind == "rebuild":
            return rebuild(actor.counters, ledger, actor.connection, [world.subject])
        return absorb(actor.counters, ledger, actor.connection, [world.subject])

    return run
