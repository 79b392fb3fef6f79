"""How fast quotas are used, and when they are full at that pace."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from django.db import connection

from shargain.offers.services.quota import QuotaInfo
from shargain.usage.models import Resolution
from shargain.usage.moments import aware

WINDOW = timedelta(days=1)
"""What the pace is measured over: a whole day and night, so that it says the same at noon and at midnight, and
no longer, so that a change shows within a day."""
SHORTEST = timedelta(hours=1)
"""The least that is divided by, or the first batch of a period would foretell its end."""
MAX_PACES = 10_000
_FAR_HOURS = 24 * 365.25 * 100

_LOOK_BACK = """
SELECT asked.id, known.used, known.at, first.used, first.at, first.resolution, filled.at
FROM unnest(%s::bigint[], %s::timestamptz[], %s::timestamptz[], %s::bigint[])
    AS asked (id, since, until, filled_at)
LEFT JOIN LATERAL (
    SELECT used, at FROM usage_usedcount
    WHERE quota_id = asked.id AND at <= asked.since ORDER BY at DESC LIMIT 1
) AS known ON true
LEFT JOIN LATERAL (
    SELECT used, at, resolution FROM usage_usedcount
    WHERE known.at IS NULL AND quota_id = asked.id AND at > asked.since AND at <= asked.until
    ORDER BY at LIMIT 1
) AS first ON true
LEFT JOIN LATERAL (
    SELECT at FROM usage_usedcount
    WHERE asked.filled_at IS NOT NULL AND quota_id = asked.id AND at > coalesce((
        SELECT at FROM usage_usedcount
        WHERE quota_id = asked.id AND used < asked.filled_at ORDER BY at DESC LIMIT 1
    ), '-infinity')
    ORDER BY at LIMIT 1
) AS filled ON true
"""


@dataclass(frozen=True, slots=True)
class Pace:
    """Units used per hour, and when the limit is reached at that pace; in the past for a quota that is full.

    `runs_out_at` is None where that is not before the period ends nor within a century: unlimited, ended, or
    nothing used of late.
    """

    per_hour: float
    runs_out_at: datetime | None


@dataclass(frozen=True, slots=True)
class _Window:
    """What a quota's pace is measured over."""

    since: datetime
    until: datetime

    @property
    def hours(self) -> float:
        return max(self.until - self.since, SHORTEST) / timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class _Look:
    """What the history knows: the count before the window, or the first one inside it, and when it was full."""

    known_used: int | None = None
    known_at: datetime | None = None
    first_used: int | None = None
    first_at: datetime | None = None
    first_resolution: int | None = None
    filled_at: datetime | None = None


def pace(info: QuotaInfo, *, now: datetime | None = None) -> Pace:
    """The pace of a quota over the last 24 hours, or over its period so far where that is less. One query.

    Whatever is used at once counts as spread over an hour at least. A quota that is full ran out when the history
    had its present limit, or now where it does not say. Raises ValueError for a moment without a time zone.
    """
    return paces([info], now=now)[info.id]


def paces(infos: Sequence[QuotaInfo], *, now: datetime | None = None) -> dict[int, Pace]:
    """The paces of many quotas, 10,000 at the most, by quota id. One query."""
    if len(infos) > MAX_PACES:
        raise ValueError(f"There are {len(infos)} quotas: give at most {MAX_PACES}.")
    moment = datetime.now(UTC) if now is None else aware(now, "now")
    windows = {info.id: _window(info, moment) for info in infos}
    looks = _look_back(infos, windows)
    return {info.id: _pace(info, windows[info.id], looks[info.id], moment) for info in infos}


def _window(info: QuotaInfo, now: datetime) -> _Window:
    until = now if info.period_end is None else min(now, info.period_end)
    return _Window(max(info.period_start, until - WINDOW), until)


def _look_back(infos: Sequence[QuotaInfo], windows: dict[int, _Window]) -> dict[int, _Look]:
    asked = [
        (info.id, windows[info.id].since, windows[info.id].until, _limit_if_full(info))
        for info in infos
    ]
    if not asked:
        return {}
    with connection.cursor() as cursor:
        cursor.execute(_LOOK_BACK, [list(column) for column in zip(*asked, strict=True)])
        return {quota_id: _Look(*rest) for quota_id, *rest in cursor.fetchall()}


def _limit_if_full(info: QuotaInfo) -> int | None:
    limit = info.max_offers_per_period
    return limit if limit is not None and info.used >= limit else None


def _pace(info: QuotaInfo, window: _Window, look: _Look, now: datetime) -> Pace:
    window, before = _measured(window, look)
    has_begun = info.period_start < now
    per_hour = max(0, info.used - before) / window.hours if has_begun else 0.0
    if _limit_if_full(info) is not None:
        return Pace(per_hour, max(look.filled_at or now, info.period_start))
    return Pace(per_hour, _runs_out_at(info, per_hour, now))


def _measured(window: _Window, look: _Look) -> tuple[_Window, int]:
    """The window that the history covers, and what was used when it began."""
    if look.known_used is not None:
        return window, look.known_used
    if look.first_resolution == Resolution.EARLIEST:
        assert look.first_at is not None
        assert look.first_used is not None
        return _Window(look.first_at, window.until), look.first_used
    return window, 0


def _runs_out_at(info: QuotaInfo, per_hour: float, now: datetime) -> datetime | None:
    limit, end = info.max_offers_per_period, info.period_end
    if limit is None or per_hour == 0 or (end is not None and end <= now):
        return None
    hours = (limit - info.used) / per_hour
    if hours > _FAR_HOURS:
        return None
    moment = now + timedelta(hours=hours)
    return moment if end is None or moment < end else None
