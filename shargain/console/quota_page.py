"""Everything that the page of one quota says of it, read once, in a number of queries that does not grow."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Generic, TypeVar

from shargain.console.charts import ActivityChart, UsageChart, activity_chart, shifted, usage_chart
from shargain.console.timelines import Timeline, timeline
from shargain.offers.services.edits import Edit
from shargain.offers.services.quota import (
    AuditReport,
    Explanation,
    HoldView,
    QuotaInfo,
    QuotaService,
    QuotaView,
)
from shargain.usage.services import (
    Pace,
    Upkeep,
    activity_series,
    last_upkeep,
    pace,
    usage_series,
)

BATCH = 20
"""The batch whose fate the page tells, in offers."""
ACTIVITY = timedelta(hours=48)
LONGEST_WITHOUT_END = timedelta(days=90)
"""How far back the chart of a quota without an end goes."""
# Shares of the limit from which a bar changes its colour, once and once more.
SCARCE_FROM, RARE_FROM = 0.8, 0.95
MAX_HOLDS = 20
MAX_EDITS = 20
MAX_ACTIVITY_ROWS = 24

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Shortlist(Generic[Item]):
    """The first of many, and how many were left out."""

    shown: tuple[Item, ...]
    more: int

    @classmethod
    def of(cls, items: Sequence[Item], most: int) -> "Shortlist[Item]":
        return cls(tuple(items[:most]), max(0, len(items) - most))


@dataclass(frozen=True, slots=True)
class QuotaPage:
    """What stands on the page. `usage` and `activity` are None for a quota that has not begun."""

    quota: QuotaView
    explanation: Explanation
    pace: Pace
    outlook: str
    usage: UsageChart | None
    activity: ActivityChart | None
    activity_rows: Shortlist[object]
    timeline: Timeline
    holds: Shortlist[HoldView]
    edits: Shortlist[Edit]
    drift: AuditReport | None
    upkeep: dict[str, Upkeep]

    @property
    def scarce_from(self) -> float:
        """Units from which the bar changes its colour; `rare_from`, once more."""
        return SCARCE_FROM * (self.quota.limit or 1)

    @property
    def rare_from(self) -> float:
        return RARE_FROM * (self.quota.limit or 1)

    @property
    def is_overdrawn(self) -> bool:
        return self.quota.limit is not None and self.quota.used > self.quota.limit

    @property
    def share(self) -> int | None:
        """Percent of the limit that is used, at most 100."""
        limit = self.quota.limit
        if limit is None:
            return None
        return min(100, 100 * self.quota.used // limit) if limit else 100


def quota_page(info: QuotaInfo, *, with_drift: bool = True) -> QuotaPage | None:
    """Read the page of a quota; None where it is gone meanwhile. Raises ServiceUnavailable.

    with_drift: compare Redis, counts and ledger too, which is not possible inside a transaction.
    """
    service = QuotaService()
    explanation = service.explain(info.target_id, amount=BATCH)
    view = next((quota for quota in explanation.quotas if quota.id == info.id), None)
    if view is None:
        return None
    now, rate = explanation.at, pace(info, now=explanation.at)
    activity = _activity(view, now)
    return QuotaPage(
        quota=view,
        explanation=explanation,
        pace=rate,
        outlook=outlook(view, rate, now),
        usage=_usage(view, rate, now),
        activity=activity,
        activity_rows=Shortlist.of(activity.rows if activity else (), MAX_ACTIVITY_ROWS),
        timeline=timeline(view, explanation.quotas, service.timeline(info.target_id), now),
        holds=Shortlist.of(sorted(view.holds, key=lambda hold: hold.expires_at), MAX_HOLDS),
        edits=Shortlist.of(service.edits(info.id), MAX_EDITS),
        drift=service.audit_target(info.target_id, repair=False) if with_drift else None,
        upkeep=last_upkeep(),
    )


def outlook(quota: QuotaView, rate: Pace, now: datetime) -> str:
    """When the quota runs out, in a sentence."""
    if quota.start > now:
        return "The period has not begun."
    if quota.end is not None and quota.end <= now:
        return f"The period has ended with {quota.used:,} used."
    if quota.limit is None:
        return "Without a limit it does not run out."
    if quota.used >= quota.limit:
        return _full(rate)
    if not rate.per_hour:
        return "Nothing was used of late, so nothing can be foretold."
    speed = f"At this pace, {rate.per_hour:,.1f} an hour,"
    if rate.runs_out_at is None:
        until = "" if quota.end is None else " before the period ends"
        return f"{speed} it will not run out{until}."
    return f"{speed} it runs out on {_minute(rate.runs_out_at)}."


def _full(rate: Pace) -> str:
    since = f" since {_minute(rate.runs_out_at)}" if rate.runs_out_at else ""
    return f"It is used up{since}."


def _minute(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC"


def _usage(quota: QuotaView, rate: Pace, now: datetime) -> UsageChart | None:
    if quota.start >= now:
        return None
    span = _span(quota, now)
    points = usage_series(quota.id, span[0], min(now, span[1]))
    return usage_chart(
        points, span=span, now=now, used=quota.used, limit=quota.limit, per_hour=rate.per_hour
    )


def _span(quota: QuotaView, now: datetime) -> tuple[datetime, datetime]:
    """The period; without an end, so much of it as tells something, and a third of that ahead."""
    if quota.end is not None:
        return quota.start, quota.end
    start = max(quota.start, now - LONGEST_WITHOUT_END)
    return start, shifted(now, max((now - start) / 3, timedelta(hours=1)))


def _activity(quota: QuotaView, now: datetime) -> ActivityChart | None:
    if quota.start >= now:
        return None
    until = now if quota.end is None else min(now, quota.end)
    start = until - ACTIVITY
    return activity_chart(activity_series(quota.id, start, until), (start, until))
