"""timeline: which quota rules when, by the rule of choose.lua and of the SQL function alike."""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol, TypeVar


class Period(Protocol):
    """A quota as far as precedence goes."""

    @property
    def id(self) -> int: ...
    @property
    def start(self) -> datetime: ...
    @property
    def end(self) -> datetime | None: ...


AnyPeriod = TypeVar("AnyPeriod", bound=Period)


@dataclass(frozen=True, slots=True)
class Span:
    """From `start` (included) to `end` (excluded, None = open) this quota rules, or none (None)."""

    start: datetime
    end: datetime | None
    quota_id: int | None


@dataclass(frozen=True, slots=True)
class Change:
    """In a span another quota rules after an edit than before it."""

    start: datetime
    end: datetime | None
    before: int | None
    after: int | None


def is_active(period: Period, at: datetime) -> bool:
    return period.start <= at and (period.end is None or at < period.end)


def ruling_at(periods: Iterable[AnyPeriod], at: datetime) -> AnyPeriod | None:
    """The quota that rules at a moment: the latest start among the active ones."""
    active = (period for period in periods if is_active(period, at))
    return max(active, key=lambda period: period.start, default=None)


def spans(periods: Iterable[Period]) -> tuple[Span, ...]:
    """Who rules when, from the first start on, without overlaps and with the gaps; the last span is open."""
    waiting = sorted(periods, key=lambda period: period.start, reverse=True)
    moments = {p.start for p in waiting} | {p.end for p in waiting if p.end is not None}
    begun: list[Period] = []  # the latest start is the last
    turns: list[tuple[datetime, int | None]] = []
    for moment in sorted(moments):
        while waiting and waiting[-1].start <= moment:
            begun.append(waiting.pop())
        while begun and not is_active(begun[-1], moment):
            begun.pop()
        quota_id = begun[-1].id if begun else None
        if not turns or turns[-1][1] != quota_id:
            turns.append((moment, quota_id))
    ends: list[datetime | None] = [start for start, _ in turns[1:]]
    return tuple(
        Span(start, end, quota) for (start, quota), end in zip(turns, [*ends, None], strict=False)
    )


def changes(before: Sequence[Span], after: Sequence[Span], since: datetime) -> list[Change]:
    """Where two timelines differ from a moment on, in order; what lies before it is past."""
    moments = {since} | {span.start for span in (*before, *after) if span.start > since}
    found: list[Change] = []
    for moment, end in _pairs(sorted(moments)):
        was, becomes = _quota_at(before, moment), _quota_at(after, moment)
        if was == becomes:
            continue
        last = found[-1] if found else None
        if last and last.end == moment and (last.before, last.after) == (was, becomes):
            found[-1] = Change(last.start, end, was, becomes)
        else:
            found.append(Change(moment, end, was, becomes))
    return found


def _pairs(moments: Sequence[datetime]) -> Iterator[tuple[datetime, datetime | None]]:
    yield from zip(moments, [*moments[1:], None], strict=True)


def _quota_at(timeline: Sequence[Span], moment: datetime) -> int | None:
    at = bisect_right(timeline, moment, key=lambda span: span.start)
    return timeline[at - 1].quota_id if at else None
