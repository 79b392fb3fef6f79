from argparse import ArgumentParser
from contextlib import closing
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from quota_redis.django.engine import engines
from quota_redis.django.management.printing import (
    DIFFERS,
    EXIT_STATUS,
    OUTAGE,
    Progress,
    as_json,
    failing_clearly,
)
from quota_redis.postgres import SyncReport


class Command(BaseCommand):
    help = (
        "Write the counts of changed subjects now, as the periodic task does. Exit status 1 also where "
        "another sync is running. " + EXIT_STATUS
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--json", action="store_true", help="print the report as JSON")

    def handle(self, **options: Any) -> None:
        reports = []
        with failing_clearly(), closing(Progress(self.stderr, "subjects")) as progress:
            for engine in engines():
                report = engine.sync(progress=progress)
                reports.append(report)
                table = engine.ledger.table.table
                self.stdout.write(
                    as_json({"table": table, "report": report})
                    if options["json"]
                    else _as_text(table, report)
                )
        if all(report.is_complete for report in reports):
            return
        raise CommandError(
            "not everything was written: see the log, or run it again",
            returncode=DIFFERS if any(report.was_running for report in reports) else OUTAGE,
        )


def _as_text(table: str, report: SyncReport) -> str:
    running = "; another sync is running" if report.was_running else ""
    return f"{table}: {report.counts} counts of {report.subjects} subjects, {report.absorbed} absorbed{running}"
