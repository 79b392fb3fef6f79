"""What must hold between any two steps, and once all is at rest."""

from collections import Counter
from collections.abc import Collection, Sequence
from uuid import UUID

from quota_redis import ranges
from quota_redis.types import Snapshot
from shargain.offers.services.offer_creation import Outcome
from tests.interleavings.programs import BatchDone
from tests.interleavings.world import Seen


class Violation(AssertionError):  # noqa: N818  a name says what happened
    """The code did what it must never do."""


def demand(holds: bool, what: str) -> None:
    if not holds:
        raise Violation(what)


def check_committed(before: Seen, now: Seen, deleted: Counter[int]) -> None:
    """Ledger, offers and limits, after whatever was committed between the two.

    `deleted` counts the offers of each quota that were deleted: they stay counted.
    """
    for quota in now.quotas.values():
        made = quota.offers + deleted[quota.id]
        demand(
            quota.used == made,
            f"quota {quota.id}: the ledger has {quota.used}, but {made} offers were created",
        )
        old = before.quotas.get(quota.id)
        was = old.used if old else 0
        demand(quota.used >= was, f"quota {quota.id}: the ledger went from {was} to {quota.used}")
        limit = quota.limit if quota.is_defined else 0
        if quota.used > was and limit is not None:
            # Where an edit's commit let go of a statement that waited for it, the edit came first.
            demand(
                quota.used <= limit,
                f"quota {quota.id}: {quota.used} offers were created under a limit of {limit}",
            )
        if limit is not None:
            room = max(0, limit - quota.used)
            demand(
                quota.free == room,
                f"quota {quota.id}: {quota.free} slots are free and {limit} - {quota.used} are left",
            )


def check_hash(seen: Snapshot) -> None:
    """The hash agrees with itself: whatever is free is held by nobody, and the sums are right."""
    for quota_id, state in seen.quotas.items():
        free, held, holds, earliest, _ = state.raw.split(":")
        mine = [hold for hold in seen.holds if hold.quota_id == quota_id]
        slots = [slot for hold in mine for slot in hold.ranges]
        everything = ranges.union(state.free, slots)
        name = f"quota {quota_id} in Redis ({state.raw}, {[h.raw for h in mine]})"
        demand(int(free) == ranges.size(state.free), f"{name}: free is wrong")
        demand(int(held) == sum(ranges.size(h.ranges) for h in mine), f"{name}: held is wrong")
        demand(int(holds) == len(mine), f"{name}: holds is wrong")
        demand(ranges.size(everything) == int(free) + int(held), f"{name}: a slot is there twice")
        demand(
            not mine or int(earliest) <= min(h.expires_ms for h in mine),
            f"{name}: earliest is late",
        )


def check_holds(history: Sequence[Seen], settled: Collection[str]) -> set[str]:
    """A live hold keeps every slot that the ledger has not, until it is settled or its lease ends.

    What the ledger had when an absorb read it counts too, though an edit may have freed it since. Returns the
    holds that left because their lease had ended.
    """
    before, now = history[-2:]
    demand(
        now.hash.version >= before.hash.version,
        f"Redis went from version {before.hash.version} back to {now.hash.version}",
    )
    kept = {hold.id: hold.ranges for hold in now.hash.holds}
    expired = set()
    for hold in before.hash.holds:
        quota = now.quotas.get(hold.quota_id)
        gone = ranges.subtract(hold.ranges, kept.get(hold.id, ()))
        if hold.expires_ms <= now.hash.now_ms:
            expired |= {hold.id} if gone else set()
            continue
        if hold.id in settled or hold.quota_id not in now.hash.quotas or quota is None:
            continue
        lost = gone and ranges.subtract(gone, _taken_at(history, hold.quota_id, now.hash.version))
        demand(
            not lost, f"hold {hold.id} lost the slots {ranges.render(lost)} before its lease ended"
        )
    return expired


def _taken_at(history: Sequence[Seen], quota_id: int, version: int) -> ranges.Ranges:
    """The slots that the ledger has now, or had while the definitions were of this version."""
    states = [seen for seen in history if seen.version == version] + [history[-1]]
    return ranges.union(
        *(seen.quotas[quota_id].taken for seen in states if quota_id in seen.quotas)
    )


def check_batch(
    done: BatchDone, rows: dict[str, UUID], deleted: set[tuple[str, UUID]], was_full: bool
) -> None:
    """What the caller was told is true. `rows` are the urls that are stored, with their batches."""
    for url, outcome in zip(done.urls, done.outcomes, strict=True):
        mine = rows.get(url) == done.batch_id or (url, done.batch_id) in deleted
        known = url in rows or any(gone == url for gone, _ in deleted)
        if outcome is Outcome.CREATED:
            demand(mine, f"{url} was reported as created and is not there")
        elif outcome is Outcome.DUPLICATE:
            demand(known, f"{url} was reported as a duplicate and is not there")
        else:
            demand(was_full, f"{url} was discarded, and the quota always had room")


def check_rest(seen: Seen) -> None:
    """After an audit with nothing under way, the three accounts say the same."""
    for quota in seen.quotas.values():
        if not quota.is_defined:
            continue
        demand(
            quota.column == quota.used,
            f"quota {quota.id}: the column has {quota.column}, the ledger {quota.used}",
        )
        state = seen.hash.quotas.get(quota.id)
        if state is None:
            continue
        demand(
            state.usage.used == quota.used,
            f"quota {quota.id}: Redis has {state.usage.used}, the ledger {quota.used}",
        )
        demand(
            not ranges.subtract(state.free, ranges.subtract(ranges.EVERYTHING, quota.taken)),
            f"quota {quota.id}: Redis would hand out slots that are taken",
        )
        demand(state.holds == 0, f"quota {quota.id}: {state.holds} holds are left")
