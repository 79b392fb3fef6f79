"""Takes the figures that are judged: from the tables by their own SQL, from Redis by the facade."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from django.conf import settings
from django.contrib.admin.models import DELETION
from django.db import connection

from shargain.demo.folders import ServerError, write_private
from shargain.demo.judge import Account, Figures
from shargain.offers.services.quota import QuotaInfo, QuotaService

# The parts must not say what the whole says: repeated is what they have more than their union.
_QUOTAS = """
    SELECT q.id, t.name, q.max_offers_per_period, q.used_offers_count,
           coalesce(q.period_end <= now(), false), coalesce(l.used, 0),
           coalesce(l.parts - l.whole, 0), 4503599627370495 - coalesce(l.whole, 0),
           coalesce(o.offers, 0)
    FROM offers_offerquota q
    JOIN offers_scrapingtarget t ON t.id = q.target_id
    LEFT JOIN (
        SELECT quota_id, used, parts,
               (SELECT sum(upper(r) - lower(r)) FROM unnest(slots) AS r)::bigint AS whole
        FROM (
            SELECT quota_id, range_agg(slots) AS slots,
                   sum(upper(slots) - lower(slots))::bigint AS parts,
                   sum(upper(slots) - lower(slots)) FILTER (WHERE NOT void)::bigint AS used
            FROM (
                SELECT quota_id, void, slots * int8range(1, 4503599627370496) AS slots
                FROM quota_redis_ledger WHERE namespace = %s
            ) AS clipped
            GROUP BY quota_id
        ) AS summed
    ) AS l ON l.quota_id = q.id
    LEFT JOIN (
        SELECT quota_id, count(*) AS offers FROM offers_offer GROUP BY quota_id
    ) AS o ON o.quota_id = q.id
    ORDER BY q.id
"""
_DELETED = """
    SELECT count(*) FROM django_admin_log l JOIN django_content_type c ON c.id = l.content_type_id
    WHERE l.action_flag = %s AND c.app_label = 'offers' AND c.model = 'offer'
"""
_STRAY = """
    SELECT count(*) FROM offers_offer o WHERE o.quota_id IS NOT NULL
    AND NOT EXISTS (SELECT FROM offers_offerquota q WHERE q.id = o.quota_id)
"""
_LIMITS = """
    SELECT q.id, q.max_offers_per_period, coalesce(sum(upper(slots) - lower(slots)), 0)::bigint
    FROM offers_offerquota q
    LEFT JOIN quota_redis_ledger l ON l.namespace = %s AND l.quota_id = q.id AND NOT l.void
    GROUP BY q.id
"""


@dataclass(frozen=True, slots=True)
class _Seen:
    """A limit, and what was used when it was first seen."""

    limit: int | None
    used: int


class LimitWatch:
    """Follows edits of limits, to know what a quota may have used when its limit was lowered.

    Args:
        file: where it remembers them from run to run; None forgets them.
    """

    def __init__(self, file: Path | None = None) -> None:
        self._file = file
        self._seen = _load(file) if file is not None and file.exists() else {}

    def permitted(self, quota_id: int, limit: int | None) -> int | None:
        """The most that the quota may have used, given its limit now; None is unlimited."""
        seen = self._seen.get(quota_id, _Seen(limit, 0))
        if limit is None or seen.limit is None:
            return None
        return max(limit, seen.limit, seen.used)

    def look(self, *, is_start: bool = False) -> None:
        """Notice new limits. At the start, usage above a limit that was never seen is believed."""
        before = dict(self._seen)
        for quota_id, limit, used in _rows(_LIMITS, _namespace()):
            seen, permitted = self._seen.get(quota_id), self.permitted(quota_id, limit)
            if seen is not None and seen.limit == limit:
                continue
            if permitted is None or used <= permitted or (is_start and seen is None):
                self._seen[quota_id] = _Seen(limit, used)
        if self._file is not None and self._seen != before:
            write_private(self._file, json.dumps({k: asdict(v) for k, v in self._seen.items()}))


def _load(file: Path) -> dict[int, _Seen]:
    try:
        stored = json.loads(file.read_text(encoding="utf-8"))
        return {int(quota_id): _Seen(**seen) for quota_id, seen in stored.items()}
    except (ValueError, TypeError, AttributeError) as error:
        raise ServerError(f"{file} cannot be read ({error}): start anew (--fresh).") from error


def take(watch: LimitWatch) -> Figures:
    """All figures as they are now; changes nothing."""
    rows = _rows(_QUOTAS, _namespace())
    live = QuotaService().describe([row[0] for row in rows])
    return Figures(
        accounts=tuple(_account(row, watch, live.get(row[0])) for row in rows),
        deleted=_rows(_DELETED, DELETION)[0][0],
        stray=_rows(_STRAY)[0][0],
    )


def _account(row: Sequence[Any], watch: LimitWatch, info: QuotaInfo | None) -> Account:
    quota_id, target, limit, count, is_over, ledger, repeated, free, offers = row
    is_live = info is not None and info.is_live
    return Account(
        quota_id=quota_id,
        target=target,
        limit=limit,
        permitted=watch.permitted(quota_id, limit),
        offers=offers,
        ledger=ledger,
        repeated=repeated,
        free=free,
        used_offers_count=count,
        redis_used=info.used if info and is_live else None,
        redis_held=info.held if info and is_live else None,
        is_over=is_over,
    )


def write(file: Path, before: Figures, after: Figures | None = None) -> None:
    """Keep figures as JSON: those before any sync or repair, and those after."""
    document = {
        "taken_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "before_sync": asdict(before),
        "after_sync": after and asdict(after),
    }
    write_private(file, json.dumps(document, indent=1) + "\n")


def _rows(query: str, *values: Any) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(query, values)
        return cursor.fetchall()


def _namespace() -> str:
    namespace: str = settings.QUOTA_REDIS["NAMESPACE"]
    return namespace
