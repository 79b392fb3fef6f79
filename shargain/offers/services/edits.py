"""The history of quotas' edits: who, when, why, before and after; a trigger writes it, whatever road they come."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from django.db.models import QuerySet

from quota_redis.django.editing import MAX_WHY, editing
from shargain.offers.models import QuotaEdit

__all__ = ["MAX_WHY", "Edit", "edits", "edits_of_target", "recorded"]

MAX_EDITS = 1000
_MOMENTS = ("period_start", "period_end")


@dataclass(frozen=True, slots=True)
class Edit:
    """One edit. `before` and `after` have the definition's columns; empty where there was or is no quota."""

    quota_id: int
    at: datetime
    who: str
    why: str
    kind: str
    """created, changed or deleted"""
    before: dict[str, object]
    after: dict[str, object]

    @property
    def changed(self) -> tuple[str, ...]:
        """Names of the columns that differ."""
        names = {**self.before, **self.after}
        return tuple(name for name in names if self.before.get(name) != self.after.get(name))


@contextlib.contextmanager
def recorded(who: str, why: str = "") -> Iterator[None]:
    """One transaction, in which every edit of a quota is recorded with who makes it and why.

    who: 1 to 200 characters, as "admin alice"; why: at most 1,000. Raises ValueError for anything else.
    """
    with editing(who, why):
        yield


def edits(quota_id: int, *, limit: int = 200) -> list[Edit]:
    """The edits of a quota, deleted ones included, the latest first; at most `limit` (1 to 1,000)."""
    return _edits(QuotaEdit.objects.filter(quota_id=quota_id), limit)


def edits_of_target(target_id: int, *, limit: int = 200) -> list[Edit]:
    """The edits of all quotas of a target, the latest first; at most `limit` (1 to 1,000)."""
    return _edits(QuotaEdit.objects.filter(target_id=target_id), limit)


def _edits(rows: QuerySet[QuotaEdit], limit: int) -> list[Edit]:
    if not 1 <= limit <= MAX_EDITS:
        raise ValueError(f"limit is {limit}: give 1 to {MAX_EDITS:,} edits.")
    return [
        Edit(
            row.quota_id,
            row.at,
            row.who,
            row.why,
            row.kind,
            _values(row.before),
            _values(row.after),
        )
        for row in rows.order_by("-pk")[:limit]
    ]


def _values(columns: dict[str, object]) -> dict[str, object]:
    """Columns as PostgreSQL wrote them, with moments as moments."""
    return {
        name: datetime.fromisoformat(value)
        if name in _MOMENTS and isinstance(value, str)
        else value
        for name, value in columns.items()
    }
