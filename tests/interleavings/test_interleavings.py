"""A short search, the same one at every run; `python -m tests.interleavings` makes long ones."""

import pytest

from tests.interleavings.machine import Totals
from tests.interleavings.mutants import MUTANTS, Mutant, hunt
from tests.interleavings.search import open_world, search

SEED = 1
RUNS = 30
QUICKLY_FOUND = [m for m in MUTANTS if m.name in ("settle twice", "a taken slot is no error")]


def test_no_interleaving_breaks_the_guarantee(transactional_db: None) -> None:
    totals = Totals()
    with open_world() as world:
        search(world, SEED, RUNS, totals)
    assert totals.steps > 100 * RUNS
    assert totals.done["batch"] > RUNS
    assert totals.done["spend"] > RUNS


@pytest.mark.parametrize("mutant", QUICKLY_FOUND, ids=lambda mutant: mutant.name)
def test_the_search_finds_a_mistake(transactional_db: None, mutant: Mutant) -> None:
    with open_world() as world:
        assert hunt(world, mutant, SEED, Totals(), minutes=5), f"not found: {mutant.name}"
