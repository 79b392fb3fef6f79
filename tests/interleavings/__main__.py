"""Search for a violation for as long as is wanted: `python -m tests.interleavings --minutes 10 --seed 1`.

A failure prints the rules that lead to it, and the command that finds it again.
"""

import argparse
import os
import time

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shargain.settings")
import tests.plugin

assert tests.plugin  # It has started the servers, of which Django's settings read the addresses.

import django

django.setup()

from django.core.management import call_command

from tests.interleavings.machine import Totals
from tests.interleavings.search import open_world, search

RUNS_PER_SEED = 50


def main() -> int:
    options = _options()
    call_command("migrate", verbosity=0)
    totals, seed, began = Totals(), options.seed, time.monotonic()
    with open_world() as world:
        while True:
            try:
                search(world, seed, RUNS_PER_SEED, totals)
            except BaseException:
                print(f"Again: python -m tests.interleavings --minutes 0 --seed {seed}", flush=True)
                raise
            minutes = (time.monotonic() - began) / 60
            print(totals.line(minutes, seed), flush=True)
            if minutes >= options.minutes:
                break
            seed += 1
    print(totals.table())
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.interleavings", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="how long to search")
    parser.add_argument("--seed", type=int, default=1, help="of the first %d runs" % RUNS_PER_SEED)
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())
