"""Search for a violation for as long as is wanted: `python -m tests.interleavings --minutes 10 --seed 1`.

A failure prints the rules that lead to it, and the command that finds it again.
"""

import argparse
import logging
import os
from pathlib import Path

import django


def main() -> int:
    options = _options()
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shargain.settings")
    logging.disable(logging.WARNING)  # Outages are made on purpose.

    # It starts the servers, whose addresses Django's settings read.
    import tests.plugin  # noqa: F401

    django.setup()
    from django.core.management import call_command

    from tests.interleavings.mutants import hunt_all
    from tests.interleavings.search import open_world, replay, search_for

    call_command("migrate", verbosity=0)
    with open_world() as world:
        if options.replay is not None:
            return replay(world, options.replay.read_text())
        if options.mutants is not None:
            return hunt_all(world, options.mutants, options.seed, options.minutes)
        return search_for(world, options.seed, options.minutes)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.interleavings", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="how long to search")
    parser.add_argument("--seed", type=int, default=1, help="where to begin")
    parser.add_argument(
        "--mutants",
        metavar="NAME",
        nargs="?",
        const="",
        help="break the code in each way whose name has NAME, and search so long for each of them",
    )
    parser.add_argument(
        "--replay",
        metavar="FILE",
        type=Path,
        help="make the run of a failure, from the lines `state.rule(...)` that it printed",
    )
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())
