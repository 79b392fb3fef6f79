from argparse import ArgumentParser
from contextlib import closing
from typing import Any

from django.core.management.base import BaseCommand

from quota_redis.django.management.printing import (
    DIFFERS,
    EXIT_STATUS,
    Progress,
    as_json,
    engine_of,
    engines_of,
    escaped,
    failing_clearly,
)
from quota_redis.postgres import AuditReport


class Command(BaseCommand):
    help = (
        "Compare Redis, used counts and the ledger, and repair towards the ledger. "
        "Gaps in the schema count as differences. " + EXIT_STATUS
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("subjects", nargs="*", help="as `target:42`; none means all")
        parser.add_argument("--check", action="store_true", help="only look, repair nothing")
        parser.add_argument("--json", action="store_true", help="print the report as JSON")

    def handle(self, **options: Any) -> None:
        with failing_clearly():
            reports = self._audit(options["subjects"], repair=not options["check"])
        for report in reports:
            self.stdout.write(as_json(report) if options["json"] else _as_text(report))
        if any(
            report.drifts or report.more or report.problems or not report.is_complete
            for report in reports
        ):
            raise SystemExit(DIFFERS)

    def _audit(self, subjects: list[str], *, repair: bool) -> list[AuditReport]:
        chosen = engines_of(subjects)
        for subject in subjects:
            engine_of(subject)
        with closing(Progress(self.stderr, "subjects")) as progress:
            return [
                engine.audit(names, repair=repair, progress=progress) for engine, names in chosen
            ]


def _as_text(report: AuditReport) -> str:
    lines = [f"{report.subjects} subjects, {len(report.drifts) + report.more} differences"]
    if not report.is_complete:
        lines.append(
            "Redis was out of reach for a part: only counts and ledger were compared there"
        )
    lines += [f"{code}: {sentence}" for code, sentence in report.problems.items()]
    lines += [
        f"{d.subject} quota {d.quota_id}: {d.reason} (ledger {d.ledger}, count {d.column}, Redis {d.redis})"
        for d in report.drifts
    ]
    if report.more:
        lines.append(f"and {report.more} more")
    if (report.drifts or report.more) and report.repaired:
        lines.append("repaired towards the ledger")
    return escaped("\n".join(lines))
