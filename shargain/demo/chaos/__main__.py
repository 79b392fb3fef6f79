"""Faults on the real processes of the service, and a verdict.

    scripts/chaos [--for SECONDS] [--seed N] [--report FILE]
    scripts/chaos --measure [--subjects N] [--report FILE]

The first lets faults happen at random; the second measures what outages cost. Both use servers of
their own. The report is written as FILE and, as JSON, beside it. The exit status is 1 on any violation.
"""

import argparse
import json
import os
import secrets
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from shargain.demo.chaos.report import as_text, keep
from shargain.demo.chaos.world import ROOT, Servers
from shargain.demo.folders import ServerError
from shargain.demo.supervisor import ProcessError
from shargain.stopping import PatientStop, uninterrupted

MAX_SECONDS = 24 * 3600
MAX_SUBJECTS = 1_000_000
INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, print the report, and return the exit status."""
    options = parse(arguments)
    stop = PatientStop()
    stop.listen()
    folder = options.state / "chaos"
    try:
        shutil.rmtree(folder / "journals", ignore_errors=True)
        folder.parent.mkdir(mode=0o711, parents=True, exist_ok=True)
        folder.mkdir(mode=0o711, exist_ok=True)
        report = _measured(folder, options) if options.measure else _run(folder, options, stop)
    except (ServerError, ProcessError, OSError) as error:
        print(f"The run cannot go on: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Ended at once, without a verdict.", file=sys.stderr)
        return INTERRUPTED
    print(json.dumps(report, indent=1) if options.json else as_text(report))
    if options.report:
        keep(options.report, "outages" if options.measure else "run", report)
    return 1 if report["violations"] else 0


def _run(folder: Path, options: argparse.Namespace, stop: PatientStop) -> dict[str, Any]:
    with Servers(folder) as servers:
        _set_up(servers)
        with uninterrupted():
            from shargain.demo.chaos.run import Chaos

        return Chaos(servers, seconds=options.seconds, seed=options.seed, stop=stop, say=_say).run()


def _measured(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    with Servers(folder) as servers:
        _set_up(servers)
        with uninterrupted():
            from shargain.demo.chaos.outages import Outages

        return Outages(servers, subjects=options.subjects, say=_say).measure()


def _set_up(servers: Servers) -> None:
    """Lead Django, here and in all processes, to the servers; ours to PostgreSQL itself."""
    os.environ["DJANGO_SETTINGS_MODULE"] = "shargain.demo.chaos.settings"
    os.environ["DJANGO_SECRET_KEY"] = secrets.token_urlsafe(50)
    os.environ["REDIS_URL"] = servers.to_quotas.url
    os.environ["CELERY_BROKER_URL"] = servers.broker.url
    os.environ["QUOTA_TIMEOUT_SECONDS"] = "0.25"
    os.environ["LOG_LEVEL"] = "WARNING"
    os.environ["DATABASE_URL"] = servers.postgres.url
    with uninterrupted():
        import django

        django.setup()
    os.environ["DATABASE_URL"] = servers.to_postgres.url


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line, and refuse what makes no run."""
    parser = argparse.ArgumentParser(
        prog="scripts/chaos", description="Let faults happen to the service, and judge it."
    )
    parser.add_argument("--for", dest="seconds", type=float, default=60.0, metavar="SECONDS")
    parser.add_argument("--seed", type=int, help="the same seed draws the same faults")
    parser.add_argument("--measure", action="store_true", help="measure outages instead")
    parser.add_argument("--subjects", type=int, default=10_000, metavar="N")
    parser.add_argument("--report", type=Path, metavar="FILE", help="Markdown; JSON beside it")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    parser.add_argument("--state", type=Path, default=ROOT / ".state", metavar="FOLDER")
    options = parser.parse_args(arguments)
    if not 1 <= options.seconds <= MAX_SECONDS:
        parser.error(f"--for is {options.seconds:g}: give seconds from 1 to {MAX_SECONDS}")
    if not 100 <= options.subjects <= MAX_SUBJECTS:
        parser.error(f"--subjects is {options.subjects}: give 100 to {MAX_SUBJECTS}")
    if options.seed is None:
        options.seed = secrets.randbelow(10**6)
    options.state = options.state.absolute()
    return options


def _say(text: str) -> None:
    # The report alone goes to standard output.
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
