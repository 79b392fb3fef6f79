"""Times in which no quota rules a target: then nothing limits it."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from django.db import connection

# A span of the question from which the periods of all the target's quotas are taken away.
_UNCOVERED = """
SELECT asked.target_id, lower(gap), upper(gap)
FROM unnest(%s::bigint[], %s::timestamptz[], %s::timestamptz[]) AS asked (target_id, since, until)
CROSS JOIN LATERAL unnest(
    tstzmultirange(tstzrange(asked.since, greatest(asked.since, asked.until))) - coalesce((
        SELECT range_agg(tstzrange(period_start, period_end)) FROM offers_offerquota
        WHERE target_id = asked.target_id AND period_start < asked.until
            AND (period_end IS NULL OR period_end > asked.since)
    ), '{}'::tstzmultirange)
) AS gap
ORDER BY 1, 2
"""


@dataclass(frozen=True, slots=True)
class Gap:
    """From `start` to `end` the target has no quota."""

    target_id: int
    start: datetime
    end: datetime


def uncovered(asked: Iterable[tuple[int, datetime, datetime]]) -> list[Gap]:
    """The gaps of targets, each in a span of its own (target id, since, until). One query."""
    columns = list(zip(*asked, strict=True))
    if not columns:
        return []
    with connection.cursor() as cursor:
        cursor.execute(_UNCOVERED, [list(column) for column in columns])
        return [Gap(*row) for row in cursor.fetchall()]
