from argparse import ArgumentParser
from datetime import datetime
from typing import Any

from django.core.management.base import BaseCommand

from quota_redis.django.management.printing import (
    EXIT_STATUS,
    as_json,
    engine_of,
    escaped,
    failing_clearly,
    moment,
    number,
    parse_moment,
    row,
)
from quota_redis.postgres import Explanation, Span, spans

MAX_SHOWN = 50
"""Holds and spans that are printed one by one; JSON has all."""
QUOTAS = (8, 13, 8, 13, 13, -42, -9, -1)
HOLDS = (-36, 8, 8, -20)


class Command(BaseCommand):
    help = (
        "Say which quota rules a subject, why, and what a batch would get; then its quotas, which of them "
        "rules when, and what workers hold. " + EXIT_STATUS
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("subject", help="as `target:42`")
        parser.add_argument(
            "--at",
            type=parse_moment,
            metavar="TIME",
            help="another moment than now, in ISO 8601 with a time zone: 2026-01-31T12:00:00Z",
        )
        parser.add_argument(
            "--amount", type=int, default=1, metavar="N", help="units of the batch, 1 to 1,000"
        )
        parser.add_argument("--json", action="store_true", help="print one object as JSON")

    def handle(self, **options: Any) -> None:
        at: datetime | None = options["at"]
        with failing_clearly():
            engine = engine_of(options["subject"])
            told = engine.explain(options["subject"], amount=options["amount"], at=at)
        if options["json"]:
            self.stdout.write(as_json({"explanation": told, "timeline": spans(told.quotas)}))
            return
        self.stdout.write(escaped(told.sentence))
        for line in (*_quotas(told), *_timeline(spans(told.quotas)), *_holds(told)):
            self.stdout.write(line)


def _quotas(told: Explanation) -> list[str]:
    if not told.quotas:
        return []
    header = ("QUOTA", "USED", "HELD", "LIMIT", "REMAINING", "PERIOD", "STATE", "WHY")
    lines = [
        row(
            (
                quota.id,
                number(quota.used),
                number(quota.held),
                number(quota.limit),
                number(quota.remaining),
                f"{moment(quota.start)} {moment(quota.end)}",
                quota.state,
                quota.why,
            ),
            QUOTAS,
        )
        for quota in told.quotas
    ]
    return ["", row(header, QUOTAS), *lines]


def _timeline(timeline: tuple[Span, ...]) -> list[str]:
    if not timeline:
        return []
    lines = [
        f"{moment(span.start)}  {moment(span.end):<20}  "
        + ("no quota" if span.quota_id is None else f"quota {span.quota_id}")
        for span in timeline[-MAX_SHOWN:]
    ]
    return ["", "WHICH RULES WHEN", *lines]


def _holds(told: Explanation) -> list[str]:
    holds = [hold for quota in told.quotas for hold in quota.holds]
    if not holds:
        return []
    lines = [
        row(
            (
                hold.hold_id,
                hold.quota_id,
                number(hold.amount),
                moment(hold.expires_at) + (" (expired)" if hold.is_expired else ""),
            ),
            HOLDS,
        )
        for hold in sorted(holds, key=lambda hold: hold.expires_at)[:MAX_SHOWN]
    ]
    more = [f"and {len(holds) - MAX_SHOWN:,} more"] if len(holds) > MAX_SHOWN else []
    return ["", row(("HOLD", "QUOTA", "AMOUNT", "UNTIL"), HOLDS), *lines, *more]
