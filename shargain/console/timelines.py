"""The quotas of a target side by side: their periods, and which one rules when."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from shargain.console.charts import Bar, Scale, period_bar, shifted
from shargain.offers.services.quota import QuotaView, Span

MAX_LINES = 12
MAX_SPANS = 30
_LEAST = timedelta(days=1)
_AHEAD = timedelta(days=30)


@dataclass(frozen=True, slots=True)
class Line:
    """One quota: its period, and on it where it rules."""

    quota: QuotaView
    is_this: bool
    bars: tuple[Bar, ...]


@dataclass(frozen=True, slots=True)
class Timeline:
    """Quotas and spans around one quota; `more` are quotas left out, `more_spans` spans."""

    scale: Scale
    now_x: float | None
    lines: tuple[Line, ...]
    spans: tuple[Span, ...]
    more: int
    more_spans: int


def timeline(
    this: QuotaView, quotas: Sequence[QuotaView], spans: Sequence[Span], now: datetime
) -> Timeline:
    """What is around a quota: half its period before it and after it, and now if that is not far off."""
    scale = _scale(this, now)
    near = [q for q in quotas if _meets(q.start, q.end, scale)]
    shown = sorted(near, key=lambda q: abs(q.start - this.start))[:MAX_LINES]
    turns = [span for span in spans if _meets(span.start, span.end, scale)]
    lines = sorted(shown, key=lambda q: q.start)
    return Timeline(
        scale=scale,
        now_x=scale.x(now) if scale.start <= now <= scale.end else None,
        lines=tuple(Line(q, q.id == this.id, _bars(q, turns, scale)) for q in lines),
        spans=tuple(turns[:MAX_SPANS]),
        more=len(quotas) - len(shown),
        more_spans=len(spans) - len(turns[:MAX_SPANS]),
    )


def _scale(this: QuotaView, now: datetime) -> Scale:
    end = this.end or shifted(max(now, this.start), _AHEAD)
    pad = max((end - this.start) / 2, _LEAST)
    return Scale(shifted(this.start, -pad), shifted(end, pad))


def _meets(start: datetime, end: datetime | None, scale: Scale) -> bool:
    return start < scale.end and (end is None or end > scale.start)


def _bars(quota: QuotaView, spans: Sequence[Span], scale: Scale) -> tuple[Bar, ...]:
    ruled = [
        period_bar(scale, "rules", span.start, span.end)
        for span in spans
        if span.quota_id == quota.id
    ]
    return (period_bar(scale, "period", quota.start, quota.end), *ruled)
