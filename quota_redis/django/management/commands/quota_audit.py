import json
from argparse import ArgumentParser
from dataclasses import asdict
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from quota_redis.django.engine import engines
from quota_redis.errors import QuotaError
from quota_redis.postgres import AuditReport


class Command(BaseCommand):
    help = (
        "Compare Redis, used counts and the ledger, and repair towards the ledger. "
        "Exit status 1 where anything differed or the schema has gaps."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--check", action="store_true", help="only look, repair nothing")
        parser.add_argument("--json", action="store_true", help="print the report as JSON")

    def handle(self, **options: Any) -> None:
        try:
            reports = [
                engine.audit(
                    repair=not options["check"],
                    progress=lambda n: self.stderr.write(f"{n} subjects"),
                )
                for engine in engines()
            ]
        except QuotaError as error:
            raise CommandError(str(error)) from error
        for report in reports:
            self.stdout.write(json.dumps(asdict(report)) if options["json"] else _as_text(report))
        if any(report.drifts or report.problems or not report.is_complete for report in reports):
            raise SystemExit(1)


def _as_text(report: AuditReport) -> str:
    lines = [f"{report.subjects} subjects, {len(report.drifts)} differences"]
    if not report.is_complete:
        lines.append(
            "Redis was out of reach for a part: only counts and ledger were compared there"
        )
    lines += [f"{code}: {sentence}" for code, sentence in report.problems.items()]
    lines += [
        f"{d.subject} quota {d.quota_id}: {d.reason} (ledger {d.ledger}, count {d.column}, Redis {d.redis})"
        for d in report.drifts
    ]
    if report.drifts and report.repaired:
        lines.append("repaired towards the ledger")
    return "\n".join(lines)
