"""What may go wrong, or change, while workers are under way."""

from collections.abc import Iterator

from tests.model import counters, ledger
from tests.model.beat import Step
from tests.model.worker import redelivered, spend
from tests.model.world import (
    NEXT_CLOCKS,
    UNDEFINED,
    Pc,
    Scenario,
    Transaction,
    World,
    put_worker,
)


def steps(scenario: Scenario, world: World) -> Iterator[Step]:
    """Every fault and every edit that may come now."""
    faults = world.faults
    if faults.kill:
        yield from _kill(scenario, world)
    yield from _zombies(scenario, world)
    for call in world.late:
        rest = tuple(other for other in world.late if other is not call)
        redis = counters.settle(scenario, world.redis, call.hold, call.returned)
        yield "a late settle arrives", world._replace(redis=redis, late=rest)
    yield from _redis(world)
    if faults.limit:
        yield from _limits(scenario, world)
    if faults.define:
        yield from _definitions(scenario, world)
    if faults.delete:
        left = world._replace(faults=spend(world, "delete"))
        for offer in (1 << i for i in range(world.postgres.offers.bit_length())):
            if offer & world.postgres.offers:
                postgres = ledger.delete_offer(scenario, world.postgres, offer)
                yield "an offer is deleted", left._replace(postgres=postgres)
    if scenario.has_boundary:
        for clock in NEXT_CLOCKS[world.clock]:
            yield "time goes on", world._replace(clock=clock)


def _kill(scenario: Scenario, world: World) -> Iterator[Step]:
    """A task that was not acknowledged is delivered again."""
    left = world._replace(faults=spend(world, "kill"))
    for i, worker in enumerate(world.workers):
        if worker.pc in (Pc.DONE, Pc.ASK):
            continue
        killed = left
        if worker.pc is Pc.COMMIT:
            assert isinstance(worker.doing, Transaction)
            killed = left._replace(zombies=tuple(sorted((*left.zombies, worker.doing))))
        again = redelivered(scenario, i, worker)
        if not scenario.protocol.tasks_are_acked_late:
            again = worker._replace(pc=Pc.ASK, left=0, doing=None)
        yield f"worker {i} is killed", put_worker(killed, i, again)


def _zombies(scenario: Scenario, world: World) -> Iterator[Step]:
    for work in world.zombies:
        rest = tuple(other for other in world.zombies if other is not work)
        yield "a transaction of the dead rolls back", world._replace(zombies=rest)
        done = ledger.commit(scenario, world.postgres, work)
        if done is not None:
            yield (
                "a transaction of the dead commits",
                world._replace(postgres=done[0], zombies=rest),
            )


def _redis(world: World) -> Iterator[Step]:
    if world.faults.lose and world.redis is not None:
        lost = world._replace(faults=spend(world, "lose"), redis=None)
        yield "Redis loses all", lost._replace(is_changed=False)
        yield "Redis loses the hash", lost
    if world.faults.promote:
        if world.copy is None:
            yield (
                "the replica stops to follow",
                world._replace(copy=(world.redis, world.is_changed)),
            )
        elif world.copy != (world.redis, world.is_changed):
            redis, is_changed = world.copy
            promoted = world._replace(faults=spend(world, "promote"), redis=redis)
            yield "the stale replica is promoted", promoted._replace(is_changed=is_changed)


def _limits(scenario: Scenario, world: World) -> Iterator[Step]:
    left = world._replace(faults=spend(world, "limit"))
    for quota, now in enumerate(world.postgres.quotas):
        if now.limit == UNDEFINED:
            continue
        for limit in {max(0, now.limit - 1), min(scenario.slots, now.limit + 1)} - {now.limit}:
            postgres = ledger.edit_limit(scenario, world.postgres, quota, limit)
            yield f"the limit of quota {quota} is {limit}", left._replace(postgres=postgres)


def _definitions(scenario: Scenario, world: World) -> Iterator[Step]:
    """The last quota is defined; or it is deleted, which PostgreSQL refuses once it was used."""
    left = world._replace(faults=spend(world, "define"))
    quota = len(scenario.limits) - 1
    now = world.postgres.quotas[quota]
    if now.limit == UNDEFINED and not now.void:
        postgres = ledger.edit_limit(scenario, world.postgres, quota, scenario.slots - 1)
        yield f"quota {quota} is defined", left._replace(postgres=postgres)
    elif now.limit != UNDEFINED and not now.used:
        postgres = ledger.edit_limit(scenario, world.postgres, quota, UNDEFINED)
        yield f"quota {quota} is deleted", left._replace(postgres=postgres)
