"""Posts batches of real listings to targets, most of them known and some of them new.

    python -m shargain.demo.post TARGET_ID... [--batches-per-second 5] [--new-per-second 2]

How far the listings have come is told by the clock alone, so all posters meet at the same ones, and
a later run goes on with later ones. Ends on SIGTERM.
"""

import argparse
import os
import random
import time
from collections.abc import Sequence

import django

from shargain.stopping import StopRequest

BATCH = 20
REACH = 60
"""How many listings back from the newest a batch may begin."""
MAX_QUEUED = 100


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Post batches of real listings to targets.")
    parser.add_argument("target_ids", type=int, nargs="+", metavar="TARGET_ID")
    parser.add_argument("--batches-per-second", type=float, default=5.0)
    parser.add_argument("--new-per-second", type=float, default=2.0, help="for each target")
    options = parser.parse_args(arguments)
    if not 0 < options.batches_per_second <= 1000 or not 0 <= options.new_per_second <= 1000:
        parser.error("give rates above 0, and at most 1,000 a second")
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shargain.settings")
    django.setup()
    post(options.target_ids, 1 / options.batches_per_second, options.new_per_second)


def post(target_ids: Sequence[int], pause: float, new_per_second: float) -> None:
    """Post until asked to end; holds back while the workers cannot keep up."""
    from shargain.demo.broker import queued
    from shargain.demo.listings import listings
    from shargain.offers.management.commands.scrape import Stopped, hand_over

    stop = StopRequest()
    stop.listen()
    while not stop.wait(pause):
        if (queued() or 0) >= MAX_QUEUED:
            continue
        newest = int(time.time() * new_per_second)
        first = newest - random.randrange(REACH)  # noqa: S311
        try:
            hand_over(random.choice(target_ids), listings(first, BATCH), stop)  # noqa: S311
        except Stopped:
            return


if __name__ == "__main__":
    main()
