"""absorb, sync and compaction: what the periodic tasks do, and what an edit's push and an audit do to Redis."""

from collections.abc import Iterator
from itertools import combinations
from typing import TypeAlias

from tests.model import counters, ledger
from tests.model.world import (
    NEW_MARK,
    READ_MARK,
    Hold,
    Plan,
    Postgres,
    Redis,
    Scenario,
    Seen,
    Settle,
    Sync,
    SyncPc,
    Transaction,
    World,
)

Step: TypeAlias = tuple[str, World]


def steps(scenario: Scenario, world: World) -> Iterator[Step]:
    """What the absorbs, syncs and compactions that nobody waits for may do next."""
    for i, doing in enumerate(world.absorbs):
        for label, after in _absorb_steps(scenario, world, i, doing):
            yield f"absorb {i} {label}", after
    for i, sync in enumerate(world.syncs):
        for label, after in _sync_steps(scenario, world, i, sync):
            yield f"sync {i} {label}", after
    yield from _compact_steps(scenario, world)


# absorb: read Redis, read PostgreSQL, apply.


def begin_absorb(scenario: Scenario, world: World) -> Seen:
    if scenario.protocol.absorb_reads_redis_first:
        return Seen(world.redis, None)
    return Seen(None, world.postgres)


def read_ledger(scenario: Scenario, world: World, seen: Seen) -> tuple[Plan, World]:
    """The second read; the last counts of quotas that Redis is about to forget are written with it."""
    if scenario.protocol.absorb_reads_redis_first:
        plan, postgres = ledger.read_for_absorb(scenario, world, seen.redis, world.postgres)
    else:
        assert seen.postgres is not None
        plan, postgres = ledger.read_for_absorb(scenario, world, world.redis, seen.postgres)
    if scenario.leases_last:
        in_use = _in_use(world)
        plan = plan._replace(expired=tuple(hold for hold in plan.expired if hold.id not in in_use))
    return plan, world._replace(postgres=postgres)


def end_absorb(scenario: Scenario, world: World, plan: Plan) -> Iterator[tuple[bool, World]]:
    """What may be after it was applied, for each set of holds that may have been expired when the hash was read."""
    if not scenario.protocol.absorb_has_one_snapshot:
        plan = plan._replace(version=world.postgres.version)
    token = _fresh_token(world) if scenario.protocol.absorb_is_alone else 0
    for expired in _sets_of_expired(world.redis, plan):
        redis = counters.absorb(scenario, world.redis, plan, expired, token)
        if redis is None:
            yield False, world
            return
        yield True, world._replace(redis=redis, is_changed=True)


def _sets_of_expired(redis: Redis | None, plan: Plan) -> Iterator[tuple[Hold, ...]]:
    """A hold that changed since it was read is another one."""
    seen = [hold for hold in plan.expired if redis is not None and hold in redis.holds]
    for count in range(len(seen) + 1):
        yield from combinations(seen, count)


def _in_use(world: World) -> set[int]:
    """Holds whose worker has not come to the end of its transaction and of its settle."""
    doing = [worker.doing for worker in world.workers]
    under_way = [work for work in (*doing, *world.zombies) if isinstance(work, Transaction)]
    return {work.hold for work in under_way} | {
        call.hold for call in doing if isinstance(call, Settle)
    }


def _fresh_token(world: World) -> int:
    """A token that nobody remembers is as good as one that never was."""
    known = {world.copy[0].absorbed} if world.copy and world.copy[0] else set()
    for doing in (*(w.doing for w in world.workers), *world.absorbs, *(s.doing for s in world.syncs)):
        if isinstance(doing, Seen) and doing.redis is not None:
            known.add(doing.redis.absorbed)
        elif isinstance(doing, Plan) and doing.absorbed is not None:
            known.add(doing.absorbed)
    return next(token for token in range(len(known) + 1) if token not in known)


def _absorb_steps(
    scenario: Scenario, world: World, i: int, doing: Seen | Plan | None
) -> Iterator[Step]:
    def put(after: World, now: Seen | Plan | None) -> World:
        return after._replace(absorbs=(*after.absorbs[:i], now, *after.absorbs[i + 1 :]))

    if doing is None:
        if world.faults.absorb:
            faults = world.faults._replace(absorb=world.faults.absorb - 1)
            yield "reads first", put(world._replace(faults=faults), begin_absorb(scenario, world))
    elif isinstance(doing, Seen):
        plan, after = read_ledger(scenario, world, doing)
        yield "reads second", put(after, plan)
    else:
        for _, after in end_absorb(scenario, world, doing):
            yield "applies", put(after, None)


# sync: marks of PostgreSQL, then subjects that changed in Redis.


def _sync_steps(scenario: Scenario, world: World, i: int, sync: Sync) -> Iterator[Step]:
    def put(after: World, pc: SyncPc, doing: Seen | Plan | None = None) -> World:
        return after._replace(syncs=(*after.syncs[:i], Sync(pc, doing), *after.syncs[i + 1 :]))

    if sync.pc is SyncPc.IDLE:
        if world.faults.sync and not _is_locked(scenario, world):
            faults = world.faults._replace(sync=world.faults.sync - 1)
            begun = world._replace(faults=faults, postgres=_read_marks(world.postgres))
            if world.postgres.marks:
                postgres = ledger.count_from_ledger(scenario, begun)
                yield "counts what is marked", put(begun._replace(postgres=postgres), SyncPc.ABSORB_MARKED)
            else:
                yield "finds no mark", put(begun, SyncPc.READ)
        return
    if world.faults.kill:
        faults = world.faults._replace(kill=world.faults.kill - 1)
        yield "is killed", put(world._replace(faults=faults, postgres=_keep_marks(world.postgres)), SyncPc.IDLE)
    if sync.pc is SyncPc.ABSORB_MARKED:
        if not scenario.protocol.marks_go_last and world.postgres.marks & READ_MARK:
            yield "deletes marks", put(_delete_marks(scenario, world), SyncPc.ABSORB_MARKED)
            return
        for label, after, now in _absorbing(scenario, world, sync.doing):
            yield label, put(after, SyncPc.UNMARK_POSTGRES if now is None else sync.pc, now)
    elif sync.pc is SyncPc.UNMARK_POSTGRES:
        yield "deletes marks", put(_delete_marks(scenario, world), SyncPc.READ)
    elif sync.pc is SyncPc.READ:
        if not world.is_changed:
            yield "ends", put(world, SyncPc.IDLE)
            return
        redis = world.redis
        if redis is not None:
            yield "reads counts", put(world, SyncPc.WRITE, Seen(redis, None))
        if redis is None or (redis.holds and scenario.protocol.sync_reclaims):
            yield "finds it lost or expired", put(world, SyncPc.ABSORB_STALE)
    elif sync.pc is SyncPc.ABSORB_STALE:
        for label, after, now in _absorbing(scenario, world, sync.doing):
            yield label, put(after, SyncPc.READ_AGAIN if now is None else sync.pc, now)
    elif sync.pc is SyncPc.READ_AGAIN:
        yield "reads counts", put(world, SyncPc.WRITE, Seen(world.redis, None))
    elif sync.pc is SyncPc.WRITE:
        assert isinstance(sync.doing, Seen)
        postgres = write_counts(scenario, world.postgres, sync.doing.redis)
        yield "writes counts", put(world._replace(postgres=postgres), SyncPc.UNMARK_REDIS, sync.doing)
    else:
        assert isinstance(sync.doing, Seen)
        is_changed = world.is_changed and not may_unmark(scenario, world.redis, sync.doing.redis)
        yield "unmarks", put(world._replace(is_changed=is_changed), SyncPc.IDLE)


def _is_locked(scenario: Scenario, world: World) -> bool:
    under_lock = scenario.protocol.sync_reads_under_lock
    return under_lock and any(sync.pc is not SyncPc.IDLE for sync in world.syncs)


def _read_marks(postgres: Postgres) -> Postgres:
    return postgres._replace(marks=READ_MARK) if postgres.marks else postgres


def _keep_marks(postgres: Postgres) -> Postgres:
    """Marks that a sync read and did not delete are as new to the next one."""
    return postgres._replace(marks=NEW_MARK) if postgres.marks else postgres


def _delete_marks(scenario: Scenario, world: World) -> World:
    left = world.postgres.marks & NEW_MARK if scenario.protocol.marks_go_by_id else 0
    return world._replace(postgres=world.postgres._replace(marks=left))


def _absorbing(
    scenario: Scenario, world: World, doing: Seen | Plan | None
) -> Iterator[tuple[str, World, Seen | Plan | None]]:
    if doing is None:
        yield "absorbs: reads first", world, begin_absorb(scenario, world)
    elif isinstance(doing, Seen):
        plan, after = read_ledger(scenario, world, doing)
        yield "absorbs: reads second", after, plan
    else:
        for _, after in end_absorb(scenario, world, doing):
            yield "absorbs: applies", after, None


def write_counts(scenario: Scenario, postgres: Postgres, redis: Redis | None) -> Postgres:
    for quota, stock in enumerate(redis.stocks if redis else ()):
        if stock is not None and redis is not None:
            count = counters.used(redis, quota)
            if not scenario.protocol.sync_sets:
                count += postgres.quotas[quota].column
            postgres = ledger.put_count(postgres, quota, count)
    return postgres


def may_unmark(scenario: Scenario, now: Redis | None, seen: Redis | None) -> bool:
    """Whether the mark of the subject may go: nothing was held, and definitions and free lists are as they were."""
    rules = scenario.protocol
    if seen is None or (seen.holds and rules.sync_unmarks_unheld):
        return False
    if not rules.sync_unmarks_unchanged:
        return True
    return now is not None and (now.version, now.stocks) == (seen.version, seen.stocks) and (
        [counters.held(now, quota) for quota in range(len(now.stocks))]
        == [counters.held(seen, quota) for quota in range(len(seen.stocks))]
    )


# Compaction merges rows; on a set of slots that is no change, where it is one transaction.


def _compact_steps(scenario: Scenario, world: World) -> Iterator[Step]:
    used = tuple(quota.used for quota in world.postgres.quotas)
    if world.compacting is not None:
        postgres = world.postgres
        for number, mask in enumerate(world.compacting):
            postgres = ledger.put_quota(postgres, number, postgres.quotas[number]._replace(used=mask))
        yield "compaction writes", world._replace(postgres=postgres, compacting=None)
    elif world.faults.compact:
        faults = world.faults._replace(compact=world.faults.compact - 1)
        rows = None if scenario.protocol.compaction_is_atomic else used
        yield "compaction reads", world._replace(faults=faults, compacting=rows)
