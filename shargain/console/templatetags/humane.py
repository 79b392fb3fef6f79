"""Numbers, moments and edits as people read them."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from django import template

from shargain.offers.services.edits import Edit

register = template.Library()

_REASONS = {
    "count": "the count is not the ledger's, sync has not run since",
    "unknown": "Redis does not know the quota",
    "version": "Redis has other definitions than PostgreSQL",
    "behind": "Redis counts fewer than the ledger",
    "ahead": "Redis counts more than the ledger",
    "free": "Redis would hand out slots that are taken",
    "expired": "holds have outlived their lease",
}
_NAMES = {
    "max_offers_per_period": "limit",
    "period_start": "start",
    "period_end": "end",
    "target_id": "target",
}
_EMPTY = {"max_offers_per_period": "unlimited", "period_end": "no end"}


@dataclass(frozen=True, slots=True)
class Change:
    """One column of an edit, in words."""

    name: str
    before: str
    after: str


@register.filter
def number(value: float | None) -> str:
    """Units with separators; None is unlimited."""
    if value is None:
        return "unlimited"
    return f"{value:,.0f}" if value == int(value) else f"{value:,.1f}"


@register.filter
def plain(value: float) -> str:
    """A number for SVG, whatever the language of the page writes."""
    return f"{value:g}"


@register.filter
def until(moment: datetime, now: datetime) -> str:
    """How long it is to a moment, or how long ago it was."""
    return f"in {_span(moment - now)}" if moment > now else ago(moment, now)


@register.filter
def ago(moment: datetime, now: datetime) -> str:
    return f"{_span(max(now - moment, timedelta(0)))} ago"


@register.filter
def drift_reason(reason: str) -> str:
    return _REASONS.get(str(reason), "")


@register.filter
def changes(edit: Edit) -> list[Change]:
    """The definition's columns that an edit changed; for a new quota those that it has."""
    return [
        Change(words, _value(name, edit.before), _value(name, edit.after))
        for name, words in _NAMES.items()
        if name in edit.changed
    ]


def _value(name: str, columns: dict[str, object]) -> str:
    value = columns.get(name)
    if value is None:
        return _EMPTY.get(name, "-") if columns else "-"
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M}"
    return f"{value:,}" if isinstance(value, int) and name != "target_id" else str(value)


def _span(length: timedelta) -> str:
    seconds = int(length.total_seconds())
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"
