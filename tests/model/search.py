"""Breadth-first search of all worlds that a scenario can reach; it stops at the shortest way to a violation."""

from collections.abc import Iterator
from dataclasses import dataclass

from tests.model import beat, counters, faults, rest, sync, worker
from tests.model.invariants import Violation
from tests.model.world import Scenario, World, initial

HOLDS = "holds"
TOO_MANY = "too many states"


@dataclass(frozen=True, slots=True)
class Verdict:
    """HOLDS, TOO_MANY or the invariant that does not hold; `path` is the steps that lead to the violation."""

    word: str
    states: int
    path: tuple[str, ...] = ()
    last: World | None = None


def steps(scenario: Scenario, world: World) -> Iterator[tuple[str, World]]:
    """Everything that can happen next."""
    yield from worker.steps(scenario, world)
    yield from beat.steps(scenario, world)
    yield from sync.steps(scenario, world)
    yield from faults.steps(scenario, world)


def search(scenario: Scenario, most: int) -> Verdict:
    """Walk through all states, at most `most` of them; memory grows by about 1 kB for each."""
    first = initial(scenario)
    came_from: dict[World, World | None] = {first: None}
    frontier = [first]
    shared: dict[object, object] = {}
    while frontier:
        following: list[World] = []
        for world in frontier:
            try:
                _check(scenario, world)
                for _, after in steps(scenario, world):
                    if after not in came_from:
                        after = _shared(after, shared)
                        came_from[after] = world
                        following.append(after)
            except Violation as violation:
                path = _path(scenario, came_from, world)
                return Verdict(str(violation), len(came_from), path, world)
        if len(came_from) > most:
            return Verdict(TOO_MANY, len(came_from))
        frontier = following
    return Verdict(HOLDS, len(came_from))


def _shared(world: World, known: dict[object, object]) -> World:
    """The same world made of parts that other worlds have too: a third of the memory."""
    return World(*[known.setdefault(part, part) for part in world])  # type: ignore[arg-type]


def _check(scenario: Scenario, world: World) -> None:
    if scenario.is_lying:
        return
    counters.check_holds(scenario, world.redis)
    if rest.is_at_rest(world):
        rest.check(scenario, world)


def _path(
    scenario: Scenario, came_from: dict[World, World | None], world: World
) -> tuple[str, ...]:
    path = []
    before = came_from[world]
    while before is not None:
        path.append(next(label for label, after in _until(scenario, before) if after == world))
        world, before = before, came_from[before]
    return tuple(reversed(path))


def _until(scenario: Scenario, world: World) -> Iterator[tuple[str, World]]:
    """The steps up to one that breaks an invariant."""
    try:
        yield from steps(scenario, world)
    except Violation:
        return
