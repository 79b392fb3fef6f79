"""What was used, what came of offers, how fast a quota goes, and how upkeep went: for pages, alerts and commands.

Numbers here may be a few seconds old. What decides is QuotaService.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from django.conf import settings
from django.db import connection
from django.db.models import F, Max, QuerySet, Sum

from shargain.usage.models import OfferCount, Resolution
from shargain.usage.moments import aware, begin
from shargain.usage.pace import Pace, pace, paces
from shargain.usage.retention import Retention
from shargain.usage.upkeep import Upkeep, audit_findings, last_upkeep

__all__ = [
    "Activity",
    "HotTarget",
    "Pace",
    "RefusedTarget",
    "Upkeep",
    "UsagePoint",
    "activity_series",
    "audit_findings",
    "hottest_targets",
    "last_upkeep",
    "pace",
    "paces",
    "refused_targets",
    "usage_series",
]

MAX_POINTS = 5_000
MAX_TARGETS = 1_000
MINUTES_UP_TO = timedelta(hours=2)
HOURS_UP_TO = timedelta(days=2)
DAYS_UP_TO = timedelta(days=31)
"""Spans up to which targets are summed up by the minute, by the hour, and by the day, so that rows stay few."""

_SERIES = """
(SELECT at, used, resolution FROM usage_usedcount
 WHERE quota_id = %(quota)s AND at <= %(since)s ORDER BY at DESC LIMIT 1)
UNION ALL
(SELECT max(at), (array_agg(used ORDER BY at DESC))[1], min(resolution) FROM usage_usedcount
 WHERE quota_id = %(quota)s AND at > %(since)s AND at < %(until)s
 GROUP BY floor(extract(epoch FROM at - %(since)s) / %(width)s))
ORDER BY 1
"""


@dataclass(frozen=True, slots=True)
class UsagePoint:
    """Units that were used from a moment on, until the next point."""

    at: datetime
    used: int


@dataclass(frozen=True, slots=True)
class Activity:
    """What became of the offers that came in the hour or day (UTC) that begins at `at`."""

    at: datetime
    created: int
    duplicates: int
    discarded: int


@dataclass(frozen=True, slots=True)
class RefusedTarget:
    """A target whose quota refused offers; `last_at` is the minute, hour or day (UTC) of the last."""

    target_id: int
    discarded: int
    last_at: datetime


@dataclass(frozen=True, slots=True)
class HotTarget:
    """What became of a target's offers."""

    target_id: int
    created: int
    duplicates: int
    discarded: int


def usage_series(
    quota_id: int, since: datetime, until: datetime, *, max_points: int = 200
) -> list[UsagePoint]:
    """A quota's used units in a span, as steps: at most `max_points` (3 to 5,000), in order of time. One query.

    The first point is at `since` and has what was used until then, be it days old; the last one is at `until`, or
    now where that is in the future. A quota without any count was never used. Where its counts are known only from
    some moment on (it is older than the history, or the history was pruned), the first point is there.
    Raises ValueError for moments without a time zone, a span that is none, and another max_points.
    """
    if not 3 <= max_points <= MAX_POINTS:
        raise ValueError(f"max_points is {max_points}: give 3 to {MAX_POINTS}.")
    since, until = _span(since, until)
    if since >= until:
        return []
    width = (until - since).total_seconds() / (max_points - 2)
    values: dict[str, Any] = {"quota": quota_id, "since": since, "until": until, "width": width}
    with connection.cursor() as cursor:
        cursor.execute(_SERIES, values)
        rows = cursor.fetchall()
    points = [UsagePoint(max(at, since), used) for at, used, _ in rows]
    if not rows or (points[0].at > since and rows[0][2] != Resolution.EARLIEST):
        points.insert(0, UsagePoint(since, 0))
    return [*points, UsagePoint(until, points[-1].used)]


def activity_series(
    quota_id: int, since: datetime, until: datetime, *, step: Literal["hour", "day"] = "hour"
) -> list[Activity]:
    """What became of a quota's offers in each hour or day (UTC) that begins or lies in a span, in order of time.

    Steps in which none came have zeros. The span ends now at the latest, and begins where such steps are still
    kept (USAGE_RETENTION). One query. Raises ValueError for moments without a time zone, a span that is none,
    another step, and more than 5,000 steps.
    """
    if step not in ("hour", "day"):
        raise ValueError(f"step is {step!r}: give 'hour' or 'day'.")
    since, until = _span(since, until)
    resolution = Resolution.HOUR if step == "hour" else Resolution.DAY
    width = timedelta(minutes=resolution)
    since = begin(max(since, datetime.now(UTC) - _kept(resolution)), resolution)
    count = max(0, -((since - until) // width))
    if count > MAX_POINTS:
        raise ValueError(f"The span has {count} steps of a {step}: give one of {MAX_POINTS}.")
    rows = OfferCount.objects.filter(
        quota_id=quota_id, resolution=resolution, at__gte=since, at__lt=until
    )
    sums = {
        row["at"]: (row["c"], row["d"], row["x"])
        for row in rows.values("at").annotate(
            c=Sum("created"), d=Sum("duplicates"), x=Sum("discarded")
        )
    }
    moments = [since + number * width for number in range(count)]
    return [Activity(at, *sums.get(at, (0, 0, 0))) for at in moments]


def refused_targets(since: datetime, *, limit: int = 100) -> list[RefusedTarget]:
    """Targets of which offers were discarded since a moment, the most first; at most `limit`, 1 to 1,000.

    One query. The moment is rounded down: to the minute within two hours, to the hour within two days, else to the
    day. Raises ValueError for a moment without a time zone or more than 31 days ago, and another limit.
    """
    rows = _since(since, limit).filter(discarded__gt=0).values("target_id")
    sums = rows.annotate(sum=Sum("discarded"), last=Max("at")).order_by("-sum", "target_id")
    return [RefusedTarget(row["target_id"], row["sum"], row["last"]) for row in sums[:limit]]


def hottest_targets(since: datetime, *, limit: int = 20) -> list[HotTarget]:
    """Targets that most offers came for since a moment, whatever became of them; at most `limit`, 1 to 1,000.

    One query. The moment is rounded as for refused_targets, and so are the errors.
    """
    rows = _since(since, limit).values("target_id")
    sums = rows.annotate(c=Sum("created"), d=Sum("duplicates"), x=Sum("discarded"))
    ordered = sums.annotate(all=F("c") + F("d") + F("x")).order_by("-all", "target_id")
    return [HotTarget(row["target_id"], row["c"], row["d"], row["x"]) for row in ordered[:limit]]


def _span(since: datetime, until: datetime) -> tuple[datetime, datetime]:
    """Both in UTC, the end now at the latest."""
    since, until = aware(since, "since"), aware(until, "until")
    if since >= until:
        raise ValueError(f"since is {since.isoformat()}: give a moment before {until.isoformat()}.")
    return since, min(until, datetime.now(UTC))


def _kept(resolution: Resolution) -> timedelta:
    kept: Retention = settings.USAGE_RETENTION
    return kept.hours if resolution == Resolution.HOUR else kept.days


def _since(since: datetime, limit: int) -> "QuerySet[OfferCount]":
    """The rows of all targets since a moment, in a resolution that keeps them few."""
    if not 1 <= limit <= MAX_TARGETS:
        raise ValueError(f"limit is {limit}: give 1 to {MAX_TARGETS}.")
    since = aware(since, "since")
    age = datetime.now(UTC) - since
    if age > DAYS_UP_TO:
        raise ValueError(
            f"since is {since.isoformat()}: give a moment of the last {DAYS_UP_TO.days} days."
        )
    resolution = Resolution.DAY
    if age <= HOURS_UP_TO:
        resolution = Resolution.MINUTE if age <= MINUTES_UP_TO else Resolution.HOUR
    return OfferCount.objects.filter(resolution=resolution, at__gte=begin(since, resolution))
