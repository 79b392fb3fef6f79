"""Measures how long the server works on each page of the admin with many targets and offers, on its own servers.

    python -m shargain.demo.pages --targets 5000 --offers 200000
    python -m shargain.demo.pages --slowest 300

Every page is asked for several times in this process, without a network; the best run counts, for the machine has
other work. Milliseconds are from the request to the last byte; those of the processor are Python's alone. With
`--slowest` the exit status is 1 where a page takes longer than so many milliseconds. Servers that DATABASE_URL and
REDIS_URL name are used instead.
"""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from shargain.demo.folders import ServerError
from shargain.demo.load import INTERRUPTED, ROOT, integer, servers, set_up

MAX_TARGETS = 100_000
MAX_OFFERS = 5_000_000
MAX_RUNS = 100


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and return the exit status."""
    options = parse(arguments)
    try:
        # Alerts that the counts raise go nowhere: nobody is here to deliver them.
        os.environ["CELERY_BROKER_URL"] = "memory://"
        with servers(options.state / "pages"):
            set_up()
            from shargain.demo.pages_measuring import measure

            report = measure(options.targets, options.offers, options.runs)
    except (ServerError, OSError) as error:
        print(f"The measurement cannot go on: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return INTERRUPTED
    print(json.dumps(report, indent=1) if options.json else _as_text(report))
    worst = max(page["milliseconds"] for page in report["pages"])
    return 1 if options.slowest is not None and worst > options.slowest else 0


def _as_text(report: dict[str, Any]) -> str:
    counts = ", ".join(f"{count:,} {name}" for name, count in report["rows"].items())
    lines = [counts, f"{'page':<28}{'ms':>9}{'cpu ms':>9}{'queries':>9}{'kB':>8}"]
    lines += [
        f"{page['page']:<28}{page['milliseconds']:>9.1f}{page['cpu']:>9.1f}{page['queries']:>9}"
        f"{page['bytes'] / 1000:>8.0f}"
        for page in report["pages"]
    ]
    return "\n".join(lines)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line, and refuse what makes no measurement."""
    parser = argparse.ArgumentParser(description="Measure the pages of the admin.")
    parser.add_argument("--targets", type=integer(1, MAX_TARGETS), default=5000)
    parser.add_argument("--offers", type=integer(0, MAX_OFFERS), default=200_000)
    parser.add_argument("--runs", type=integer(1, MAX_RUNS), default=7)
    parser.add_argument("--slowest", type=integer(1, 600_000), metavar="MILLISECONDS")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--state", type=Path, default=ROOT / ".state", metavar="FOLDER")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
