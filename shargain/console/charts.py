"""Geometry of the charts: paths and rectangles for templates to draw. No text, so that a chart may be stretched.

All are drawn in boxes of WIDTH by HEIGHT whose y grows downwards; what is to be read stands beside them in HTML.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from math import ceil, log10

from shargain.usage.services import Activity, UsagePoint

WIDTH = 1000
HEIGHT = 300
BAR_HEIGHT = 10
TABLE_ROWS = 12
"""Of a series, for who reads it as a table."""
_STEPS = (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10, 20)


@dataclass(frozen=True, slots=True)
class Scale:
    """Moments to x, units to y."""

    start: datetime
    end: datetime
    top: int = 1

    def x(self, moment: datetime) -> float:
        share = (moment - self.start) / (self.end - self.start)
        return round(min(max(share, 0), 1) * WIDTH, 1)

    def y(self, units: float) -> float:
        return round(HEIGHT - min(max(units / self.top, 0), 1) * HEIGHT, 1)

    @property
    def middle(self) -> datetime:
        return self.start + (self.end - self.start) / 2


@dataclass(frozen=True, slots=True)
class UsageChart:
    """Used units over time: paths, and where the limit and now are. `limit_y` None = no limit, or far above."""

    scale: Scale
    line: str
    area: str
    pace: str
    limit_y: float | None
    now_x: float | None
    rows: tuple[UsagePoint, ...]

    @property
    def units(self) -> tuple[float, float, int]:
        """What stands beside the axis: its top, its middle, and nothing."""
        return self.scale.top, self.scale.top / 2, 0


@dataclass(frozen=True, slots=True)
class Bar:
    """A rectangle, and the class that colours it."""

    kind: str
    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class ActivityChart:
    """Offers per hour, stacked. `rows` are the hours in which any came, the latest first."""

    scale: Scale
    bars: tuple[Bar, ...]
    rows: tuple[Activity, ...]
    created: int
    duplicates: int
    discarded: int


def usage_chart(
    points: Sequence[UsagePoint],
    *,
    span: tuple[datetime, datetime],
    now: datetime,
    used: int,
    limit: int | None,
    per_hour: float,
) -> UsageChart:
    """The chart of a quota's used units in a span; from now on, dashed, what the pace leads to."""
    start, end = span
    hours_left = max(0.0, (end - max(now, start)) / timedelta(hours=1))
    foretold = used + per_hour * hours_left
    expected = foretold if limit is None else min(foretold, max(limit, used))
    scale = Scale(start, end, _top(used, limit, expected))
    steps = _steps(points, scale)
    is_open = start <= now < end
    return UsageChart(
        scale=scale,
        line=f"M{steps[3:]}" if steps else "",
        area=f"M{scale.x(points[0].at)} {HEIGHT}{steps}V{HEIGHT}Z" if steps else "",
        pace=_pace(scale, now, used, expected, per_hour) if is_open and expected > used else "",
        limit_y=None if limit is None or limit > scale.top else scale.y(limit),
        now_x=scale.x(now) if is_open else None,
        rows=tuple(sample(points)),
    )


def activity_chart(activity: Sequence[Activity], span: tuple[datetime, datetime]) -> ActivityChart:
    """The chart of what became of offers, an hour (or whatever the steps are) a bar."""
    most = max((a.created + a.duplicates + a.discarded for a in activity), default=0)
    scale = Scale(*span, top=nice(most))
    width = WIDTH / max(len(activity), 1)
    bars = [bar for place, step in enumerate(activity) for bar in _stack(step, scale, place, width)]
    rows = [a for a in reversed(activity) if a.created or a.duplicates or a.discarded]
    return ActivityChart(
        scale=scale,
        bars=tuple(bars),
        rows=tuple(rows),
        created=sum(a.created for a in activity),
        duplicates=sum(a.duplicates for a in activity),
        discarded=sum(a.discarded for a in activity),
    )


def period_bar(scale: Scale, kind: str, start: datetime, end: datetime | None) -> Bar:
    """A period on a line of its own; without an end it reaches the chart's."""
    left, right = scale.x(start), scale.x(end or scale.end)
    # What lasts a moment on a chart of years is to be seen too.
    return Bar(kind, left, 0, max(right - left, 2), BAR_HEIGHT)


def shifted(moment: datetime, by: timedelta) -> datetime:
    """A moment earlier or later, as far as there are dates."""
    try:
        return moment + by
    except OverflowError:
        furthest = datetime.max if by > timedelta(0) else datetime.min  # noqa: DTZ901
        return furthest.replace(tzinfo=UTC)


def nice(units: float) -> int:
    """The next number with one digit, or 12, 15 or 25, and zeros that is not below."""
    if units <= 1:
        return 1
    power: int = 10 ** int(log10(units))
    return next(ceil(f * power) for f in _STEPS if f * power >= units)


def sample(points: Sequence[UsagePoint]) -> list[UsagePoint]:
    """At most TABLE_ROWS of the points, first and last among them, evenly."""
    if len(points) <= TABLE_ROWS:
        return list(points)
    last = len(points) - 1
    return [points[i * last // (TABLE_ROWS - 1)] for i in range(TABLE_ROWS)]


def _top(used: int, limit: int | None, expected: float) -> int:
    """The chart's highest unit: the limit where it is within reach, for a far one would flatten all the rest."""
    reached = max(used, expected, 1)
    if limit is not None and limit <= 4 * reached:
        reached = max(reached, limit) * 1.05
    return nice(reached)


def _steps(points: Sequence[UsagePoint], scale: Scale) -> str:
    """A path that stays level until the next point."""
    if not points:
        return ""
    first, *rest = points
    moves = [f" L {scale.x(first.at)} {scale.y(first.used)}"]
    moves += [f"H{scale.x(point.at)}V{scale.y(point.used)}" for point in rest]
    return "".join(moves)


def _pace(scale: Scale, now: datetime, used: int, expected: float, per_hour: float) -> str:
    left = (scale.end - now) / timedelta(hours=1)
    reached = now + timedelta(hours=min(left, (expected - used) / per_hour))
    drawn = f"M{scale.x(now)} {scale.y(used)}L{scale.x(reached)} {scale.y(expected)}"
    return f"{drawn}H{scale.x(scale.end)}"


def _stack(step: Activity, scale: Scale, place: int, width: float) -> list[Bar]:
    bars, base = [], 0
    for kind in ("created", "duplicates", "discarded"):
        units: int = getattr(step, kind)
        if units:
            top = scale.y(base + units)
            height = round(scale.y(base) - top, 1)
            bars.append(Bar(kind, round(place * width, 1), top, round(width * 0.8, 1), height))
        base += units
    return bars
