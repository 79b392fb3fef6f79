"""sync: the marks of PostgreSQL are absorbed, then the counts of subjects that changed in Redis are written."""

from collections.abc import Callable, Iterator
from typing import TypeAlias

from tests.model import counters, ledger
from tests.model.beat import Step, absorbing
from tests.model.world import (
    NEW_MARK,
    READ_MARK,
    Plan,
    Postgres,
    Redis,
    Scenario,
    Seen,
    Sync,
    SyncPc,
    World,
)

Move: TypeAlias = tuple[str, World, Sync]
"""A step: its label, the world after it, and where this sync is then."""


def steps(scenario: Scenario, world: World) -> Iterator[Step]:
    """What each sync may do next, or be killed instead."""
    for i, sync in enumerate(world.syncs):
        for label, after, now in _STEPS[sync.pc](scenario, world, sync):
            yield f"sync {i} {label}", _put(after, i, now)
        if world.faults.kill and sync.pc is not SyncPc.IDLE:
            faults = world.faults._replace(kill=world.faults.kill - 1)
            killed = world._replace(faults=faults, postgres=_keep_marks(world.postgres))
            yield f"sync {i} is killed", _put(killed, i, Sync(SyncPc.IDLE))


def _put(world: World, i: int, sync: Sync) -> World:
    return world._replace(syncs=(*world.syncs[:i], sync, *world.syncs[i + 1 :]))


def _idle(scenario: Scenario, world: World, sync: Sync) -> Iterator[Move]:
    under_lock = scenario.protocol.sync_reads_under_lock
    is_running = any(other.pc is not SyncPc.IDLE for other in world.syncs)
    if not world.faults.sync or (under_lock and is_running):
        return
    begun = world._replace(faults=world.faults._replace(sync=world.faults.sync - 1))
    if not world.postgres.marks:
        yield "finds no mark", begun, Sync(SyncPc.READ)
        return
    postgres = ledger.count_from_ledger(scenario, world)._replace(marks=READ_MARK)
    yield "counts what is marked", begun._replace(postgres=postgres), Sync(SyncPc.ABSORB_MARKED)


def _absorb_marked(scenario: Scenario, world: World, sync: Sync) -> Iterator[Move]:
    if not scenario.protocol.marks_go_last and world.postgres.marks & READ_MARK:
        yield "deletes marks", _delete_marks(scenario, world), sync
        return
    yield from _absorb(scenario, world, sync, SyncPc.UNMARK_POSTGRES)


def _absorb_stale(scenario: Scenario, world: World, sync: Sync) -> Iterator[Move]:
    yield from _absorb(scenario, world, sync, SyncPc.READ_AGAIN)


def _absorb(scenario: Scenario, world: World, sync: Sync, then: SyncPc) -> Iterator[Move]:
    assert sync.doing is None or isinstance(sync.doing, (Seen, Plan))
    for label, after, doing, is_done in absorbing(scenario, world, sync.doing):
        yield label, after, Sync(then) if is_done else Sync(sync.pc, doing)


def _unmark_postgres(scenario: Scenario, world: World, sync: Sync) -> Iterator[Move]:
    yield "deletes marks", _delete_marks(scenario, world), Sync(SyncPc.READ)


def _read(scenario: Scenario, world: World, sync: Sync) -> Iterator[Move]:
    redis = world.redis
    if not world.is_changed:
        yield "ends", world, Sync(SyncPc.IDLE)
        return
    if redis is not None:
        yield "reads counts", world, Sync(SyncPc.WRITE, Seen(redis, None))
    if redis is None or (redis.holds and scenario.protocol.sync_reclaims):
        yield "finds it lost or expired", world, Sync(SyncPc.ABSORB_STALE)


def _read_again(scenario: Scenario, world: World, sync: Sync) -> Iterator[Move]:
    yield "reads counts", world, Sync(SyncPc.WRITE, Seen(world.redis, None))


def _write(scenario: Scenario, world: World, sync: Sync) -> Iterator[Move]:
    assert isinstance(sync.doing, Seen)
    postgres = write_counts(scenario, world.postgres, sync.doing.redis)
    written = world._replace(postgres=postgres)
    yield "writes counts", written, Sync(SyncPc.UNMARK_REDIS, sync.doing)


def _unmark_redis(scenario: Scenario, world: World, sync: Sync) -> Iterator[Move]:
    assert isinstance(sync.doing, Seen)
    is_changed = world.is_changed and not _may_unmark(scenario, world.redis, sync.doing.redis)
    yield "unmarks", world._replace(is_changed=is_changed), Sync(SyncPc.IDLE)


def write_counts(scenario: Scenario, postgres: Postgres, redis: Redis | None) -> Postgres:
    """The columns as Redis has the counts."""
    for quota, stock in enumerate(redis.stocks if redis else ()):
        if stock is not None and redis is not None:
            count = counters.used(redis, quota)
            if not scenario.protocol.sync_sets:
                count += postgres.quotas[quota].column
            postgres = ledger.put_count(postgres, quota, count)
    return postgres


def _may_unmark(scenario: Scenario, now: Redis | None, seen: Redis | None) -> bool:
    """Whether nothing was held, and definitions and quotas are as they were when the counts were read."""
    rules = scenario.protocol
    if seen is None or (seen.holds and rules.sync_unmarks_unheld):
        return False
    if now is None or not rules.sync_unmarks_unchanged:
        return not rules.sync_unmarks_unchanged
    quotas = range(len(seen.stocks))
    return (now.version, now.stocks) == (seen.version, seen.stocks) and all(
        counters.held(now, quota) == counters.held(seen, quota) for quota in quotas
    )


def _delete_marks(scenario: Scenario, world: World) -> World:
    left = world.postgres.marks & NEW_MARK if scenario.protocol.marks_go_by_id else 0
    return world._replace(postgres=world.postgres._replace(marks=left))


def _keep_marks(postgres: Postgres) -> Postgres:
    """Marks that a sync read and did not delete are as new to the next one."""
    return postgres._replace(marks=NEW_MARK) if postgres.marks else postgres


_STEPS: dict[SyncPc, Callable[[Scenario, World, Sync], Iterator[Move]]] = {
    SyncPc.IDLE: _idle,
    SyncPc.ABSORB_MARKED: _absorb_marked,
    SyncPc.UNMARK_POSTGRES: _unmark_postgres,
    SyncPc.READ: _read,
    SyncPc.ABSORB_STALE: _absorb_stale,
    SyncPc.READ_AGAIN: _read_again,
    SyncPc.WRITE: _write,
    SyncPc.UNMARK_REDIS: _unmark_redis,
}
