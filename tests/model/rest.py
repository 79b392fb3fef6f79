"""What sync and audit leave behind once nothing is under way any more."""

from tests.model import beat, counters, ledger, sync
from tests.model.invariants import judge
from tests.model.world import UNDEFINED, Pc, Postgres, Redis, Scenario, World, is_long_over


def is_at_rest(world: World) -> bool:
    """Nothing is under way but settles, which find no hold any more once the leases have ended."""
    return (
        all(worker.pc is Pc.DONE for worker in world.workers)
        and not world.zombies
        and not any(world.absorbs)
        and not any(other.pc for other in world.syncs)
        and world.compacting is None
    )


def check(scenario: Scenario, world: World) -> None:
    """Run one sync and one audit to their ends and judge what is left; all leases have ended."""
    audited = _audit(scenario, world)
    judge(scenario, "AUDIT", all(_is_counted(audited, q) for q in range(len(scenario.limits))))
    world = _sync(scenario, world)
    _judge_sync(scenario, world)
    world = _audit(scenario, world)
    redis = world.redis
    judge(scenario, "REST", redis is not None and not redis.holds)
    for number in range(len(scenario.limits)):
        judge(scenario, "REST", _is_counted(world, number))
        judge(scenario, "REST", _is_in_redis(scenario, world, number))


def _is_counted(world: World, number: int) -> bool:
    quota = world.postgres.quotas[number]
    return quota.limit == UNDEFINED or quota.column == quota.used.bit_count()


def _is_in_redis(scenario: Scenario, world: World, number: int) -> bool:
    """The hash hands out what the ledger leaves, and nothing else."""
    redis, quota = world.redis, world.postgres.quotas[number]
    if redis is None or redis.version != world.postgres.version:
        return False
    stock = redis.stocks[number]
    if quota.limit == UNDEFINED or is_long_over(scenario, world, number):
        return True
    free = scenario.universe & ~quota.used & ~quota.void
    return (
        stock is not None
        and stock.free == free
        and counters.used(redis, number) == quota.used.bit_count()
    )


def _judge_sync(scenario: Scenario, world: World) -> None:
    redis, postgres = world.redis, world.postgres
    judge(scenario, "SYNC", redis is None or redis.version == postgres.version)
    for number, quota in enumerate(postgres.quotas):
        judge(scenario, "SYNC", _is_counted(world, number))
        if redis is not None and redis.stocks[number] is not None:
            judge(scenario, "SYNC", counters.used(redis, number) == quota.used.bit_count())


def _absorb(scenario: Scenario, world: World) -> World:
    plan, world = beat.read_ledger(scenario, world, beat.begin_absorb(scenario, world))
    redis = counters.absorb(scenario, world.redis, plan, plan.expired)
    return world if redis is None else world._replace(redis=redis, is_changed=True)


def _sync(scenario: Scenario, world: World) -> World:
    if world.postgres.marks:
        counted = ledger.count_from_ledger(scenario, world)._replace(marks=0)
        world = _absorb(scenario, world._replace(postgres=counted))
    if not world.is_changed:
        return world
    redis = world.redis
    if redis is None or (redis.holds and scenario.protocol.sync_reclaims):
        world = _absorb(scenario, world)
    postgres = sync.write_counts(scenario, world.postgres, world.redis)
    return world._replace(postgres=postgres)


def _audit(scenario: Scenario, world: World) -> World:
    """Absorb where Redis differs, and write the counts that differ from the ledger."""
    postgres = world.postgres
    for number, quota in enumerate(postgres.quotas):
        if quota.limit == UNDEFINED:
            continue
        if not is_long_over(scenario, world, number) and _drifts(world.redis, postgres, number):
            world = _absorb(scenario, world)
            break
    written = world.postgres
    for number, quota in enumerate(written.quotas):
        if quota.limit != UNDEFINED:
            written = ledger.put_count(written, number, quota.used.bit_count())
    return world._replace(postgres=written)


def _drifts(redis: Redis | None, postgres: Postgres, number: int) -> bool:
    """Whether the audit would absorb for this quota: differences that a live hold explains are none."""
    quota = postgres.quotas[number]
    stock = redis.stocks[number] if redis is not None else None
    if redis is None or stock is None or redis.version != postgres.version:
        return True
    counted, in_ledger = counters.used(redis, number), quota.used.bit_count()
    held = counters.held(redis, number).bit_count()
    is_explained = counted <= in_ledger <= counted + held
    return not is_explained or bool(stock.free & (quota.used | quota.void))
