"""Runs of the machine, chosen by a seed."""

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import hypothesis
from hypothesis import HealthCheck, Phase
from hypothesis.stateful import get_state_machine_test

from shargain.demo.servers import Valkey
from tests.interleavings.gate import Fault
from tests.interleavings.machine import Totals, machine_in
from tests.interleavings.world import World, database_dsn

RULES_PER_RUN = 80
RUNS_PER_SEED = 50


@contextmanager
def open_world() -> Iterator[World]:
    """A world on Django's database and a Valkey of its own, whose whole content the runs may destroy."""
    with (
        tempfile.TemporaryDirectory(prefix="interleavings-") as folder,
        Valkey(Path(folder) / "valkey", persistent=False) as valkey,
        World(database_dsn(), valkey.url).open() as world,
    ):
        yield world


def search(world: World, seed: int, runs: int, totals: Totals, *, is_shrunk: bool = True) -> None:
    """Make so many runs; the same seed makes the same ones. Raises Violation, with the rules that led to it."""
    phases = [Phase.generate, Phase.shrink] if is_shrunk else [Phase.generate]
    settings = hypothesis.settings(
        max_examples=runs,
        stateful_step_count=RULES_PER_RUN,
        deadline=None,
        database=None,
        phases=phases,
        print_blob=False,
        suppress_health_check=list(HealthCheck),
    )
    test = get_state_machine_test(machine_in(world, totals), settings=settings)
    hypothesis.seed(seed)(test)()


def search_for(world: World, first_seed: int, minutes: float) -> int:
    """Search with one seed after the other until the time is over. Raises Violation."""
    totals, began = Totals(), time.monotonic()
    for seed in count(first_seed):
        try:
            search(world, seed, RUNS_PER_SEED, totals)
        except BaseException:
            print(f"Again: python -m tests.interleavings --minutes 0 --seed {seed}", flush=True)
            raise
        spent = (time.monotonic() - began) / 60
        print(totals.line(spent, seed), flush=True)
        if spent >= minutes:
            break
    print(totals.table())
    return 0


def replay(world: World, text: str) -> int:
    """Make the run that a failure printed (its lines `state.rule(...)`), and print every step of it."""
    state = machine_in(world, Totals(print))()
    rules = [line.strip() for line in text.splitlines() if line.strip().startswith("state.")]
    try:
        for line in rules:
            if line != "state.teardown()":
                print(line)
                exec(line, {"state": state, "Fault": Fault})
    finally:
        state.teardown()
    return 0
