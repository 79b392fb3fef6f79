"""How fast a quota goes and when it is full."""

from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest
from usage_rows import DAY, HOUR, MINUTE, QUOTA, TODAY, one_query, put

from shargain.offers.services.quota import QuotaInfo
from shargain.usage.models import Resolution
from shargain.usage.services import Pace, pace, paces

pytestmark = pytest.mark.django_db
NOON = TODAY - 12 * HOUR


def info(
    limit: int | None, used: int, *, began: datetime = NOON - 10 * DAY, **values: Any
) -> QuotaInfo:
    quota = QuotaInfo(QUOTA, 1, limit, began, None, used, 0, is_live=True)
    return replace(quota, **values)


def test_it_is_that_of_the_last_day() -> None:
    put(NOON - 30 * HOUR, 100)
    put(NOON - HOUR, 340)
    with one_query():
        found = pace(info(400, 340), now=NOON)
    assert found == Pace(10.0, NOON + 6 * HOUR)


def test_of_a_young_period_it_is_that_of_the_period() -> None:
    assert pace(info(100, 30, began=NOON - 3 * HOUR), now=NOON) == Pace(10.0, NOON + 7 * HOUR)


def test_the_first_batch_does_not_foretell_the_end() -> None:
    assert pace(info(100, 30, began=NOON - MINUTE), now=NOON).per_hour == 30


def test_what_was_used_under_an_earlier_start_is_not_of_this_period() -> None:
    put(NOON - 5 * HOUR, 50)
    assert pace(info(100, 60, began=NOON - 2 * HOUR), now=NOON).per_hour == 5


def test_a_quota_without_counts_was_not_used_before() -> None:
    put(NOON - HOUR, 24)
    assert pace(info(100, 48), now=NOON).per_hour == 2


def test_a_history_that_is_younger_than_a_day_is_measured_from_its_beginning() -> None:
    put(NOON - 4 * HOUR, 5000, resolution=Resolution.EARLIEST)
    assert pace(info(10_000, 5040), now=NOON).per_hour == 10


def test_a_quota_that_rests_has_no_end() -> None:
    put(NOON - 9 * DAY, 50, resolution=Resolution.HOUR)
    assert pace(info(100, 50), now=NOON) == Pace(0.0, None)


def test_a_count_that_was_put_right_is_no_negative_pace() -> None:
    put(NOON - 2 * DAY, 50)
    assert pace(info(100, 40), now=NOON) == Pace(0.0, None)


@pytest.mark.parametrize(("hours", "is_before"), [(7, False), (8, True)])
def test_the_end_of_the_period_may_come_first(hours: int, is_before: bool) -> None:
    ending = info(100, 30, began=NOON - 3 * HOUR, period_end=NOON + hours * HOUR)
    assert (pace(ending, now=NOON).runs_out_at is not None) == is_before


def test_a_full_quota_ran_out_when_it_had_its_limit() -> None:
    for hours, used in ((5, 90), (3, 100), (1, 100)):
        put(NOON - hours * HOUR, used)
    assert pace(info(100, 100), now=NOON).runs_out_at == NOON - 3 * HOUR
    assert pace(info(95, 100), now=NOON).runs_out_at == NOON - 3 * HOUR
    assert pace(info(90, 100), now=NOON).runs_out_at == NOON - 5 * HOUR


@pytest.mark.parametrize(
    ("quota", "runs_out_at"),
    [
        (info(None, 30), None),
        (info(100, 0), None),
        (info(100, 100), NOON),
        (info(50, 100), NOON),
        (info(0, 0), NOON),
        (info(0, 0, began=NOON + DAY), NOON + DAY),
        (info(10**12, 1), None),
        (info(100, 5, began=NOON + HOUR), None),
        (info(100, 5, period_end=NOON), None),
        (info(100, 5, period_end=NOON - DAY), None),
    ],
)
def test_at_the_edges(quota: QuotaInfo, runs_out_at: datetime | None) -> None:
    assert pace(quota, now=NOON).runs_out_at == runs_out_at


def test_an_ended_quota_has_the_pace_of_its_last_day() -> None:
    put(NOON - 40 * HOUR, 10)
    put(NOON - 20 * HOUR, 58)
    ended = info(100, 58, period_end=NOON - 12 * HOUR)
    assert pace(ended, now=NOON).per_hour == 2


def test_many_are_one_query() -> None:
    quotas = [info(100, number, id=number, began=NOON - 2 * HOUR) for number in range(300)]
    for number in range(300):
        put(NOON - HOUR, number, quota=number)
    with one_query():
        found = paces(quotas, now=NOON)
    assert {number: each.per_hour for number, each in found.items()} == {
        number: number / 2 for number in range(300)
    }
    assert paces([]) == {}


def test_what_has_no_pace_is_refused() -> None:
    with pytest.raises(ValueError, match="give a datetime with a time zone"):
        pace(info(1, 1), now=NOON.replace(tzinfo=None))
    with pytest.raises(ValueError, match="There are 10001 quotas: give at most 10000"):
        paces([info(1, 1)] * 10_001)
