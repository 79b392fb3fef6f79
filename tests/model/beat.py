"""absorb, by whoever calls it, and compaction."""

from collections.abc import Iterator
from itertools import combinations
from typing import TypeAlias

from tests.model import counters, ledger
from tests.model.world import (
    Hold,
    Plan,
    Redis,
    Scenario,
    Seen,
    Settle,
    Transaction,
    World,
)

Step: TypeAlias = tuple[str, World]


def steps(scenario: Scenario, world: World) -> Iterator[Step]:
    """What the absorbs that no worker waits for, and compactions, may do next."""
    for i, doing in enumerate(world.absorbs):
        for label, after in _absorb_steps(scenario, world, i, doing):
            yield f"absorb {i} {label}", after
    yield from _compact_steps(scenario, world)


def begin_absorb(scenario: Scenario, world: World) -> Seen:
    """The first of absorb's three steps: the hash is read."""
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
    """The last step: whether it was applied and what is then, for each set of holds that may have expired."""
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
    for doing in (
        *(w.doing for w in world.workers),
        *world.absorbs,
        *(s.doing for s in world.syncs),
    ):
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


def absorbing(
    scenario: Scenario, world: World, doing: Seen | Plan | None
) -> Iterator[tuple[str, World, Seen | Plan | None, bool]]:
    """The next step of an absorb that its caller sees through: what it is doing then, and whether it is done.

    Where somebody else's absorb came between, it begins again.
    """
    if doing is None:
        yield "absorbs: reads first", world, begin_absorb(scenario, world), False
    elif isinstance(doing, Seen):
        plan, after = read_ledger(scenario, world, doing)
        yield "absorbs: reads second", after, plan, False
    else:
        for is_applied, after in end_absorb(scenario, world, doing):
            is_done = is_applied or not scenario.protocol.absorb_is_alone
            yield "absorbs: applies", after, None, is_done


def _compact_steps(scenario: Scenario, world: World) -> Iterator[Step]:
    """Compaction merges rows, which does nothing to a set of slots where it is one transaction."""
    used = tuple(quota.used for quota in world.postgres.quotas)
    if world.compacting is not None:
        postgres = world.postgres
        for number, mask in enumerate(world.compacting):
            postgres = ledger.put_quota(
                postgres, number, postgres.quotas[number]._replace(used=mask)
            )
        yield "compaction writes", world._replace(postgres=postgres, compacting=None)
    elif world.faults.compact:
        faults = world.faults._replace(compact=world.faults.compact - 1)
        rows = None if scenario.protocol.compaction_is_atomic else used
        yield "compaction reads", world._replace(faults=faults, compacting=rows)
