import time
from argparse import ArgumentParser, ArgumentTypeError
from collections.abc import Iterator
from dataclasses import dataclass
from shutil import get_terminal_size
from typing import Any

from django.core.management.base import BaseCommand

from quota_redis.django.engine import Engine, engines
from quota_redis.django.management.printing import (
    EXIT_STATUS,
    as_json,
    engine_of,
    failing_clearly,
    moment,
    number,
    row,
)
from quota_redis.postgres import QuotaView, Status, all_subjects
from quota_redis.postgres.explain import State

HEADER = ("SUBJECT", "QUOTA", "USED", "HELD", "LIMIT", "REMAINING", "PERIOD", "STATE")
WIDTHS = (-20, 8, 13, 8, 13, 13, -42, -9)
CLEAR = "\x1b[2J\x1b[H"
LINES_AROUND = 5
"""Lines of a redrawn table that are no quotas."""


@dataclass(slots=True)
class Totals:
    """Sums over what was shown, in units; `quotas` that rule, of `shown` ones."""

    shown: int = 0
    quotas: int = 0
    used: int = 0
    held: int = 0
    is_live: bool = True
    is_cut: bool = False

    def add(self, quota: QuotaView) -> None:
        self.shown += 1
        self.quotas += quota.state is State.RULES
        self.used += quota.used
        self.held += quota.held


class Command(BaseCommand):
    help = (
        "Show quotas with their live numbers: those that have not ended, or all of one subject. "
        "With --json an object a line, the totals last. " + EXIT_STATUS
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("subject", nargs="?", help="as `target:42`; none means all")
        parser.add_argument("--json", action="store_true", help="print JSON, an object a line")
        parser.add_argument(
            "--watch",
            nargs="?",
            type=_seconds,
            const=2.0,
            metavar="SECONDS",
            help="show it again and again, every 2 seconds unless said; ctrl-C ends it",
        )
        parser.add_argument(
            "--near",
            type=_percent,
            metavar="PERCENT",
            help="only quotas that rule and have used so much of their limit",
        )
        parser.add_argument(
            "--limit", type=_rows, metavar="N", help="show at most N quotas (in --watch: what fits)"
        )

    def handle(self, **options: Any) -> None:
        with failing_clearly():
            if options["watch"] is None:
                self._show(options)
                return
            if options["limit"] is None:
                options["limit"] = max(1, get_terminal_size().lines - LINES_AROUND)
            try:
                while True:
                    self._redraw(options)
                    time.sleep(options["watch"])
            except KeyboardInterrupt:
                self.stdout.write("")

    def _redraw(self, options: dict[str, Any]) -> None:
        if self.stdout.isatty() and not options["json"]:
            self.stdout.write(CLEAR, ending="")
        self._show(options)
        self.stdout.flush()

    def _show(self, options: dict[str, Any]) -> None:
        totals = Totals()
        if not options["json"]:
            self.stdout.write(row(HEADER, WIDTHS))
        for status in _statuses(options["subject"]):
            self._show_one(status, totals, options)
            if totals.is_cut:
                break
        self._show_totals(totals, as_lines=options["json"])

    def _show_one(self, status: Status, totals: Totals, options: dict[str, Any]) -> None:
        totals.is_live = totals.is_live and (status.is_live or not status.quotas)
        for quota in status.quotas:
            if not _is_near(quota, options["near"]):
                continue
            if options["limit"] is not None and totals.shown == options["limit"]:
                totals.is_cut = True
                return
            totals.add(quota)
            self.stdout.write(
                as_json(_object(status, quota))
                if options["json"]
                else row(_cells(status, quota), WIDTHS)
            )

    def _show_totals(self, totals: Totals, *, as_lines: bool) -> None:
        if as_lines:
            self.stdout.write(as_json({"totals": totals}))
            return
        more = ", and there are more" if totals.is_cut else ""
        self.stdout.write(
            f"{totals.shown:,} quotas{more}, {totals.quotas:,} rule: "
            f"{totals.used:,} used, {totals.held:,} held"
        )
        if not totals.is_live:
            self.stdout.write(
                "Redis did not answer for all: there the ledger's numbers stand, and held is unknown."
            )


def _statuses(subject: str | None) -> Iterator[Status]:
    """In batches, so that thousands of subjects need no more memory than a few."""
    if subject is not None:
        yield from engine_of(subject).examine([subject], ended=True)
        return
    for engine in engines():
        yield from _all(engine)


def _all(engine: Engine) -> Iterator[Status]:
    for names in all_subjects(engine.ledger, engine.reading()):
        yield from engine.examine(names)


def _is_near(quota: QuotaView, percent: float | None) -> bool:
    if percent is None:
        return True
    is_limited = quota.limit is not None and quota.state is State.RULES
    return is_limited and quota.used * 100 >= percent * (quota.limit or 0)


def _cells(status: Status, quota: QuotaView) -> tuple[object, ...]:
    is_held_known = status.is_live or quota.state is State.ENDED
    return (
        status.subject,
        quota.id,
        number(quota.used),
        number(quota.held) if is_held_known else "?",
        number(quota.limit),
        number(quota.remaining),
        f"{moment(quota.start)} {moment(quota.end)}",
        quota.state,
    )


def _object(status: Status, quota: QuotaView) -> dict[str, object]:
    names = ("id", "used", "held", "limit", "remaining", "start", "end", "state")
    values = {name: getattr(quota, name) for name in names}
    return {"subject": status.subject, **values, "is_live": status.is_live}


def _seconds(text: str) -> float:
    return _between("seconds", text, 0.1, 3600)


def _percent(text: str) -> float:
    return _between("percent", text, 0, 1000)


def _rows(text: str) -> int:
    return int(_between("rows", text, 1, 1_000_000))


def _between(what: str, text: str, lowest: float, highest: float) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not lowest <= value <= highest:
        raise ArgumentTypeError(f"{text!r} cannot be used: give {what} from {lowest} to {highest}.")
    return value
