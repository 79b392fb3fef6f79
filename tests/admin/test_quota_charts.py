"""The charts' geometry: whatever the numbers are, what is drawn lies in its box and tells the truth."""

import re
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quota_redis.postgres.explain import State
from shargain.console.charts import (
    HEIGHT,
    TABLE_ROWS,
    WIDTH,
    Scale,
    activity_chart,
    nice,
    period_bar,
    sample,
    usage_chart,
)
from shargain.console.quota_page import outlook
from shargain.console.timelines import MAX_LINES, timeline
from shargain.offers.services.quota import QuotaView, Span
from shargain.usage.services import Activity, Pace, UsagePoint

START = datetime(2031, 5, 1, tzinfo=UTC)
DAY = timedelta(days=1)
units = st.integers(0, 10**12)


def quota(
    number: int = 1, start: datetime = START, end: datetime | None = None, **values: int | None
) -> QuotaView:
    limit, used = values.get("limit", 100), values.get("used") or 0
    remaining = None if limit is None else max(0, limit - used)
    return QuotaView(number, limit, start, end, used, 0, remaining, State.RULES, "", ())


def coordinates(path: str) -> list[float]:
    return [float(number) for number in re.findall(r"[\d.e+]+", path)]


@given(
    used=st.lists(units, max_size=50).map(sorted),
    limit=st.none() | units,
    per_hour=st.floats(0, 10**9),
    hours=st.integers(-100, 1000),
)
def test_a_usage_chart_stays_in_its_box(
    used: list[int], limit: int | None, per_hour: float, hours: int
) -> None:
    end, now = START + 30 * DAY, START + timedelta(hours=hours)
    points = [UsagePoint(START + number * timedelta(hours=7), u) for number, u in enumerate(used)]

    chart = usage_chart(
        points,
        span=(START, end),
        now=now,
        used=used[-1] if used else 0,
        limit=limit,
        per_hour=per_hour,
    )

    for path in (chart.line, chart.area, chart.pace):
        assert all(0 <= number <= WIDTH for number in coordinates(path))
    assert chart.scale.top >= (used[-1] if used else 0)
    assert chart.limit_y is None or 0 <= chart.limit_y <= HEIGHT
    assert bool(chart.line) == bool(points)


def test_the_line_is_where_the_numbers_are() -> None:
    points = [UsagePoint(START, 0), UsagePoint(START + 5 * DAY, 50)]

    chart = usage_chart(
        points, span=(START, START + 10 * DAY), now=START + 5 * DAY, used=50, limit=95, per_hour=0.2
    )

    assert chart.scale.top == 100
    assert chart.line == "M0.0 300.0H500.0V150.0"
    assert chart.limit_y == 15
    assert chart.now_x == 500
    assert chart.pace == "M500.0 150.0L1000.0 78.0H1000.0"


def test_a_limit_far_above_leaves_the_line_its_height() -> None:
    chart = usage_chart(
        [UsagePoint(START, 9)],
        span=(START, START + DAY),
        now=START,
        used=9,
        limit=10**12,
        per_hour=0,
    )

    assert chart.limit_y is None
    assert chart.scale.top == 10


@given(st.lists(st.tuples(units, units, units), max_size=60))
def test_stacked_bars_add_up_to_their_hour(hours: list[tuple[int, int, int]]) -> None:
    steps = [Activity(START + timedelta(hours=n), *counts) for n, counts in enumerate(hours)]

    chart = activity_chart(steps, (START, START + 3 * DAY))

    for bar in chart.bars:
        assert bar.x >= 0
        assert bar.x + bar.width <= WIDTH + 1
        assert -0.2 <= bar.y <= bar.y + bar.height <= HEIGHT + 0.2
    assert (chart.created, chart.duplicates, chart.discarded) == tuple(
        map(sum, zip(*hours, strict=True)) if hours else (0, 0, 0)
    )
    assert len(chart.rows) == sum(any(counts) for counts in hours)


def test_bars_of_an_hour_stand_on_each_other() -> None:
    chart = activity_chart([Activity(START, 5, 3, 2)], (START, START + timedelta(hours=1)))

    drawn = [(bar.kind, bar.y, bar.height) for bar in chart.bars]
    assert drawn == [("created", 150, 150), ("duplicates", 60, 90), ("discarded", 0, 60)]


@given(st.floats(0, 10**13))
def test_the_top_of_an_axis_is_near_and_never_below(top: float) -> None:
    assert max(top, 1) <= nice(top) <= max(1, 2.01 * top)


@given(st.integers(0, 400))
def test_a_table_has_the_first_and_the_last(count: int) -> None:
    points = [UsagePoint(START + n * DAY, n) for n in range(count)]

    rows = sample(points)

    assert len(rows) == min(count, TABLE_ROWS)
    assert rows[:1] == points[:1]
    assert rows[-1:] == points[-1:]


def test_a_period_that_lasts_a_moment_is_seen() -> None:
    scale = Scale(START, START + 3650 * DAY)

    assert period_bar(scale, "rules", START + DAY, START + DAY + timedelta(seconds=1)).width >= 2


def test_a_timeline_shows_what_is_near_and_counts_the_rest() -> None:
    this = quota(0, START, START + 10 * DAY)
    others = [quota(n, START + n * timedelta(hours=6)) for n in range(1, 30)]
    far = [quota(99, START - 900 * DAY, START - 800 * DAY)]
    spans = [
        Span(this.start, START + timedelta(hours=6), 0),
        Span(START + timedelta(hours=6), None, 1),
    ]

    shown = timeline(this, [this, *others, *far], spans, START)

    assert [line.quota.id for line in shown.lines] == list(range(MAX_LINES))
    assert shown.more == 31 - MAX_LINES
    assert [line.is_this for line in shown.lines].count(True) == 1
    assert [bar.kind for bar in shown.lines[0].bars] == ["period", "rules"]


@pytest.mark.parametrize(
    ("view", "pace", "said"),
    [
        (quota(start=START + DAY), Pace(0, None), "has not begun"),
        (quota(end=START, start=START - DAY, used=7), Pace(3, None), "ended with 7 used"),
        (quota(limit=None), Pace(3, None), "Without a limit"),
        (quota(used=100), Pace(3, START - DAY), "used up since 2031-04-30 00:00 UTC"),
        (quota(used=9), Pace(0, None), "Nothing was used of late"),
        (quota(used=9), Pace(2.5, START + DAY), "2.5 an hour, it runs out on 2031-05-02 00:00 UTC"),
        (
            quota(used=9, end=START + DAY),
            Pace(0.1, None),
            "will not run out before the period ends",
        ),
    ],
)
def test_the_outlook_is_a_sentence(view: QuotaView, pace: Pace, said: str) -> None:
    assert said in outlook(view, pace, START)
