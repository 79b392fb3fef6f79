"""Search for a violation for as long as is wanted: `python -m tests.interleavings --minutes 10 --seed 1`.

A failure prints the rules that lead to it, and the command that finds it again.
"""

import argparse
import logging
import os
import time
from itertools import count

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shargain.settings")
import tests.plugin

assert tests.plugin  # It has started the servers, of which Django's settings read the addresses.

import django

django.setup()

from django.core.management import call_command

from tests.interleavings.machine import Totals
from tests.interleavings.mutants import MUTANTS, hunt
from tests.interleavings.search import open_world, search
from tests.interleavings.world import World

RUNS_PER_SEED = 50


def main() -> int:
    options = _options()
    logging.disable(logging.WARNING)  # Outages are made on purpose.
    call_command("migrate", verbosity=0)
    with open_world() as world:
        if options.mutants is not None:
            return _break_on_purpose(world, options.mutants, options.seed, options.minutes)
        return _search(world, options.seed, options.minutes)


def _search(world: World, first_seed: int, minutes: float) -> int:
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


def _break_on_purpose(world: World, only: str, seed: int, minutes: float) -> int:
    """Search with one mistake after the other in the code; each has its time, and each must be found."""
    survivors = 0
    for mutant in MUTANTS:
        if only not in mutant.name:
            continue
        totals, began = Totals(), time.monotonic()
        found = hunt(world, mutant, seed, totals, minutes)
        survivors += not found
        seconds = time.monotonic() - began
        print(
            f"{mutant.name}: {totals.runs} runs, {seconds:.0f} s, {found or 'SURVIVED'}", flush=True
        )
    return 1 if survivors else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.interleavings", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="how long to search")
    parser.add_argument("--seed", type=int, default=1, help="where to begin")
    parser.add_argument(
        "--mutants",
        metavar="NAME",
        nargs="?",
        const="",
        help="instead, break the code in each of the known ways (whose names have NAME), and search so long for each",
    )
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())
