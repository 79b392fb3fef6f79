"""Making old statistics coarse, and forgetting the oldest. Every batch is one statement that may be the last:
what is left is found by the next run, and two runs at once share the work."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from django.conf import settings
from django.db import connection

from shargain.usage.models import Resolution
from shargain.usage.moments import begin
from shargain.usage.retention import Retention

MINUTE, HOUR, DAY = Resolution.MINUTE, Resolution.HOUR, Resolution.DAY
BATCH = 5_000
MAX_BATCHES = 200
"""Batches of one kind in a run: a backlog of a million rows."""

_COARSEN = """
WITH batch AS (
    SELECT quota_id, at, EXISTS (
        SELECT FROM usage_usedcount AS later
        WHERE later.quota_id = old.quota_id AND later.at > old.at
            AND later.at < date_trunc(%(unit)s, old.at, 'UTC') + %(span)s
    ) AS is_passed
    FROM usage_usedcount AS old
    WHERE resolution = %(fine)s AND at < %(before)s
    ORDER BY at LIMIT %(batch)s
    FOR UPDATE OF old SKIP LOCKED
), gone AS (
    DELETE FROM usage_usedcount AS old USING batch
    WHERE batch.is_passed AND (old.quota_id, old.at) = (batch.quota_id, batch.at)
), kept AS (
    UPDATE usage_usedcount AS old SET resolution = %(coarse)s FROM batch
    WHERE NOT batch.is_passed AND (old.quota_id, old.at) = (batch.quota_id, batch.at)
)
SELECT count(*) FROM batch
"""
# The last count before the end of all keeping stands for what was before it.
_FORGET_USED = """
WITH batch AS (
    SELECT quota_id, at FROM usage_usedcount
    WHERE resolution = %(fine)s AND at < %(before)s
    ORDER BY at LIMIT %(batch)s
    FOR UPDATE SKIP LOCKED
), latest AS (
    SELECT quota_id, max(at) AS at FROM batch GROUP BY quota_id
), gone AS (
    DELETE FROM usage_usedcount AS old USING latest
    WHERE old.quota_id = latest.quota_id AND old.at < latest.at
), kept AS (
    UPDATE usage_usedcount AS old SET resolution = %(coarse)s FROM latest
    WHERE (old.quota_id, old.at) = (latest.quota_id, latest.at)
)
SELECT count(*) FROM batch
"""
_FORGET_OFFERS = """
WITH batch AS (
    SELECT quota_id, resolution, at, target_id FROM usage_offercount
    WHERE resolution = %(fine)s AND at < %(before)s
    ORDER BY at LIMIT %(batch)s
    FOR UPDATE SKIP LOCKED
), gone AS (
    DELETE FROM usage_offercount AS old USING batch
    WHERE (old.quota_id, old.resolution, old.at, old.target_id)
        = (batch.quota_id, batch.resolution, batch.at, batch.target_id)
)
SELECT count(*) FROM batch
"""


@dataclass(frozen=True, slots=True)
class RollUpReport:
    """Rows that a run looked at. `is_complete` is False where it left some to the next run."""

    used_counts: int
    offer_counts: int
    is_complete: bool


def roll_up(
    *, now: datetime | None = None, batch: int = BATCH, max_batches: int = MAX_BATCHES
) -> RollUpReport:
    """Bring the statistics to what USAGE_RETENTION says. Safe to start twice, and to kill."""
    kept: Retention = settings.USAGE_RETENTION
    moment = (now or datetime.now(UTC)).astimezone(UTC)
    hour = begin(moment - kept.minutes, HOUR)
    day, end = (begin(moment - span, DAY) for span in (kept.hours, kept.days))
    run = partial(_repeat, batch, max_batches)
    used = [
        run(_COARSEN, fine=MINUTE, coarse=HOUR, before=hour, unit="hour", span=timedelta(hours=1)),
        run(_COARSEN, fine=HOUR, coarse=DAY, before=day, unit="day", span=timedelta(days=1)),
        run(_FORGET_USED, fine=DAY, coarse=Resolution.EARLIEST, before=end),
    ]
    offers = [
        run(_FORGET_OFFERS, fine=MINUTE, before=hour),
        run(_FORGET_OFFERS, fine=HOUR, before=day),
        run(_FORGET_OFFERS, fine=DAY, before=end),
    ]
    is_complete = max(*used, *offers) < batch * max_batches
    return RollUpReport(sum(used), sum(offers), is_complete)


def _repeat(batch: int, max_batches: int, statement: str, **values: Any) -> int:
    """Run a statement until it finds less than a batch; returns the rows that it found."""
    found = 0
    for _ in range(max_batches):
        with connection.cursor() as cursor:
            cursor.execute(statement, {**values, "batch": batch})
            [count] = cursor.fetchone() or [0]
        found += count
        if count < batch:
            break
    return found
