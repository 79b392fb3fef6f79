"""Periods: contiguous, on the anchor's day, at midnight where people live."""

import itertools
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shargain.plans.rhythm import Period, Rhythm, next_begin, periods

ZONES = [
    "UTC", "Europe/Warsaw", "America/New_York", "America/Havana", "America/Sao_Paulo",
    "Africa/Cairo", "Asia/Beirut", "Asia/Kolkata", "Australia/Lord_Howe", "Pacific/Apia",
    "Pacific/Kiritimati", "America/Asuncion",
]  # fmt: skip
RHYTHMS = st.builds(
    Rhythm,
    anchor=st.dates(date(1971, 1, 1), date(2998, 12, 31)),
    time_zone=st.sampled_from(ZONES),
    every_days=st.none() | st.integers(1, 366),
)
MOMENTS = st.integers(0, 1018 * 365 * 86_400).map(
    lambda seconds: datetime(1972, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)
)


def begins(rhythm: Rhythm, from_: datetime, count: int) -> list[str]:
    zone = ZoneInfo(rhythm.time_zone)
    return [f"{p.start.astimezone(zone):%Y-%m-%d %H:%M}" for p in periods(rhythm, from_, count)]


@settings(max_examples=300, deadline=None, derandomize=True, database=None)
@given(rhythm=RHYTHMS, moment=MOMENTS, count=st.integers(1, 30))
def test_periods_are_contiguous_and_the_first_holds_the_moment(
    rhythm: Rhythm, moment: datetime, count: int
) -> None:
    found = periods(rhythm, moment, count)
    assert len(found) == count
    assert found[0].start <= moment < found[0].end
    assert all(one.end == two.start for one, two in itertools.pairwise(found))
    assert all(period.start < period.end for period in found)


@settings(max_examples=200, deadline=None, derandomize=True, database=None)
@given(rhythm=RHYTHMS, moment=MOMENTS, step=st.integers(1, 12))
def test_it_does_not_matter_where_one_begins_to_count(
    rhythm: Rhythm, moment: datetime, step: int
) -> None:
    """The same periods come out from inside any of them: nothing drifts."""
    found = periods(rhythm, moment, step + 3)
    assert periods(rhythm, found[step].start, 3) == found[step:]
    assert periods(rhythm, found[step].end - timedelta(microseconds=1), 1) == [found[step]]


@settings(max_examples=200, deadline=None, derandomize=True, database=None)
@given(rhythm=RHYTHMS, moment=MOMENTS)
def test_periods_begin_with_a_local_day_of_the_rhythm(rhythm: Rhythm, moment: datetime) -> None:
    for period in periods(rhythm, moment, 4):
        local = period.start.astimezone(ZoneInfo(rhythm.time_zone))
        earlier = (period.start - timedelta(microseconds=1)).astimezone(local.tzinfo)
        assert earlier.date() < local.date()
        if rhythm.every_days:
            # Where a place skipped a day, the period begins with the next one.
            assert (local.date() - rhythm.anchor).days % rhythm.every_days in (0, 1)
        else:
            tomorrow = local.date() + timedelta(days=1)
            is_last = tomorrow.month != local.month
            assert local.day == rhythm.anchor.day or (is_last and local.day < rhythm.anchor.day)


def test_the_31st_comes_back_after_short_months() -> None:
    rhythm = Rhythm(date(2023, 12, 31))
    found = begins(rhythm, datetime(2024, 1, 5, tzinfo=UTC), 5)
    assert [text[:10] for text in found] == [
        "2023-12-31", "2024-01-31", "2024-02-29", "2024-03-31", "2024-04-30",
    ]  # fmt: skip


def test_a_leap_day_is_the_anchor_in_other_years_too() -> None:
    rhythm = Rhythm(date(2024, 2, 29))
    found = begins(rhythm, datetime(2025, 1, 30, tzinfo=UTC), 3)
    assert [text[:10] for text in found] == ["2025-01-29", "2025-02-28", "2025-03-29"]


def test_clocks_that_change_make_days_of_23_and_25_hours() -> None:
    rhythm = Rhythm(date(2026, 1, 1), "Europe/Warsaw", 1)
    [spring] = periods(rhythm, datetime(2026, 3, 29, 12, tzinfo=UTC), 1)
    [autumn] = periods(rhythm, datetime(2026, 10, 25, 12, tzinfo=UTC), 1)
    assert spring == Period(
        datetime(2026, 3, 28, 23, tzinfo=UTC), datetime(2026, 3, 29, 22, tzinfo=UTC)
    )
    assert autumn.end - autumn.start == timedelta(hours=25)


def test_months_begin_at_local_midnight_in_summer_and_in_winter() -> None:
    rhythm = Rhythm(date(2026, 1, 1), "Europe/Warsaw")
    found = begins(rhythm, datetime(2026, 1, 1, tzinfo=UTC), 12)
    assert found == [f"2026-{month:02}-01 00:00" for month in range(1, 13)]


def test_a_midnight_that_clocks_skip_is_the_first_moment_of_the_day() -> None:
    rhythm = Rhythm(date(2024, 4, 26), "Africa/Cairo", 1)
    assert begins(rhythm, datetime(2024, 4, 26, 12, tzinfo=UTC), 1) == ["2024-04-26 01:00"]


def test_a_midnight_that_comes_twice_is_the_earlier_one() -> None:
    rhythm = Rhythm(date(2024, 11, 3), "America/Havana", 1)
    [period] = periods(rhythm, datetime(2024, 11, 3, 12, tzinfo=UTC), 1)
    assert period.end - period.start == timedelta(hours=25)


def test_a_day_that_a_place_skips_is_no_period() -> None:
    rhythm = Rhythm(date(2011, 12, 1), "Pacific/Apia", 1)
    found = begins(rhythm, datetime(2011, 12, 29, 20, tzinfo=UTC), 3)
    assert [text[:10] for text in found] == ["2011-12-29", "2011-12-31", "2012-01-01"]


def test_the_next_begin_is_after_the_moment_itself() -> None:
    rhythm = Rhythm(date(2026, 1, 1))
    first = datetime(2026, 2, 1, tzinfo=UTC)
    assert next_begin(rhythm, first) == datetime(2026, 3, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"every_days": 0}, "every_days is 0"),
        ({"every_days": 367}, "every_days is 367"),
        ({"time_zone": "Europe/Nowhere"}, "time_zone is 'Europe/Nowhere'"),
        ({"time_zone": "../etc/passwd"}, "time_zone"),
        ({"time_zone": ""}, "time_zone"),
        ({"anchor": date(1969, 1, 1)}, "anchor is 1969-01-01"),
    ],
)
def test_a_rhythm_that_is_none(values: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Rhythm(**{"anchor": date(2026, 1, 1), **values})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("moment", "count", "said"),
    [
        (datetime(2026, 1, 1, tzinfo=UTC).replace(tzinfo=None), 1, "time zone"),
        (datetime(1200, 1, 1, tzinfo=UTC), 1, "1970 to 2999"),
        (datetime(2026, 1, 1, tzinfo=UTC), 0, "count is 0"),
        (datetime(2026, 1, 1, tzinfo=UTC), 1001, "count is 1001"),
    ],
)
def test_bad_questions_are_refused(moment: datetime, count: int, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        periods(Rhythm(date(2026, 1, 1)), moment, count)
