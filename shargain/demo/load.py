"""Measures creation under load, on servers of its own with durable settings, and judges the outcome.

    python -m shargain.demo.load --processes 8 --targets 20 --limit 10000 --seconds 20
    python -m shargain.demo.load --targets 2000 --limit 1-50
    python -m shargain.demo.load --naive
    python -m shargain.demo.load --count-round-trips

Processes post batches of real listings straight through `create_offers`. A share of each batch, the
overlap, is the same in all processes at about the same time. Servers that DATABASE_URL and REDIS_URL
name are used instead. The exit status is 1 where the judge disagrees with the outcome.
"""

import argparse
import json
import os
import secrets
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from shargain.demo.folders import ServerError, locked
from shargain.demo.servers import Postgres, Server, Valkey
from shargain.demo.supervisor import ProcessError
from shargain.demo.wire import proxied
from shargain.stopping import uninterrupted

ROOT = Path(__file__).resolve().parent.parent.parent
INTERRUPTED = 130
DURABLE = {"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and return the exit status."""
    options = parse(arguments)
    folder = options.state / "load"
    try:
        with servers(folder):
            report = _count_on_the_wire(options) if options.count_round_trips else _load(options)
    except (ServerError, ProcessError, OSError) as error:
        print(f"The measurement cannot go on: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return INTERRUPTED
    print(json.dumps(report, indent=1) if options.json else _as_text(report))
    return 1 if report.get("disagreements") else 0


def _load(options: argparse.Namespace) -> dict[str, Any]:
    set_up()
    from shargain.demo.measuring import measure

    return measure(options, options.state / "load" / "processes")


def _count_on_the_wire(options: argparse.Namespace) -> dict[str, Any]:
    with (
        proxied(os.environ["DATABASE_URL"]) as postgres,
        proxied(os.environ["REDIS_URL"]) as redis,
    ):
        os.environ["DATABASE_URL"], os.environ["REDIS_URL"] = postgres.url, redis.url
        set_up()
        from shargain.demo.round_trips import count_round_trips
        from shargain.offers.services.quota import QuotaService

        counted = count_round_trips(options.batch, postgres, redis)
        QuotaService().flush()
        return counted


def set_up() -> None:
    """Prepare Django, and the database that the environment names."""
    with uninterrupted():
        import django

        django.setup()
        from django.core.management import call_command

    call_command("migrate", verbosity=0, interactive=False)


def _as_text(report: Mapping[str, Any], indent: str = "") -> str:
    lines = []
    for name, value in report.items():
        shown = str(name).replace("_", " ")
        if isinstance(value, Mapping):
            lines.append(f"{indent}{shown}:\n{_as_text(value, indent + '  ')}")
        else:
            lines.append(f"{indent}{shown}: {value}")
    if not indent and "disagreements" in report:
        wrong = report["disagreements"]
        lines.append(f"VERDICT {f'{len(wrong)} disagreements' if wrong else 'exact'}")
    return "\n".join(lines)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line, and refuse what makes no measurement."""
    parser = argparse.ArgumentParser(description="Measure the creation of offers under load.")
    parser.add_argument("--processes", type=integer(1, 64), default=8)
    parser.add_argument("--targets", type=integer(1, 100_000), default=1)
    parser.add_argument("--limit", type=_limits, default=(10_000, 10_000), metavar="N or LOW-HIGH")
    parser.add_argument("--batch", type=integer(1, 1000), default=20)
    parser.add_argument("--seconds", type=integer(1, 3600), default=20)
    parser.add_argument("--overlap", type=_share, default=0.5, help="0 to 1; 0.5 by default")
    parser.add_argument("--naive", action="store_true", help="check, create, add: not exact")
    parser.add_argument("--count-round-trips", action="store_true", help="on the wire, per batch")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--state", type=Path, default=ROOT / ".state", metavar="FOLDER")
    return parser.parse_args(arguments)


def integer(lowest: int, highest: int) -> Callable[[str], int]:
    """For argparse: reads an integer of this range."""

    def read(text: str) -> int:
        if not text.isascii() or not text.isdecimal() or not lowest <= int(text) <= highest:
            raise argparse.ArgumentTypeError(f"{text!r}: give {lowest} to {highest}")
        return int(text)

    return read


def _limits(text: str) -> tuple[int, int]:
    low, _, high = text.partition("-")
    read = integer(0, 10**12)
    lowest, highest = read(low), read(high or low)
    if lowest > highest:
        raise argparse.ArgumentTypeError(f"{text!r}: give the lower one first")
    return lowest, highest


def _share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise argparse.ArgumentTypeError(f"{text!r}: give 0 to 1")
    return share


@contextmanager
def servers(folder: Path) -> Iterator[None]:
    """Empty servers for one measurement; what it leaves is thrown away before and after."""
    folder.parent.mkdir(mode=0o711, parents=True, exist_ok=True)
    folder.mkdir(mode=0o711, exist_ok=True)
    with ExitStack() as stack:
        stack.enter_context(locked(folder))
        servers: dict[str, Server] = {
            "DATABASE_URL": Postgres(folder / "postgres", settings=DURABLE),
            "REDIS_URL": Valkey(folder / "quotas", persistent=True),
        }
        for variable, server in servers.items():
            if not os.environ.get(variable):
                server.erase()
                stack.callback(server.erase)
                os.environ[variable] = stack.enter_context(server).url
        os.environ.setdefault("DJANGO_SECRET_KEY", secrets.token_urlsafe(50))
        os.environ["DJANGO_SETTINGS_MODULE"] = "shargain.settings"
        os.environ.setdefault("QUOTA_TIMEOUT_SECONDS", "0.5")
        yield


if __name__ == "__main__":
    sys.exit(main())
