"""Statistics become coarse with age, and nothing that is asked of them becomes wrong by it."""

import threading
from datetime import datetime, timedelta

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.db import connection
from usage_rows import DAY, HOUR, MINUTE, QUOTA, TODAY, put, put_offers, rows

from shargain.celery import app
from shargain.usage.models import OfferCount, Resolution, UsedCount
from shargain.usage.retention import Retention, retention
from shargain.usage.rollup import roll_up
from shargain.usage.services import UsagePoint, usage_series
from shargain.usage.tasks import usage_roll_up

pytestmark = pytest.mark.django_db
KEPT = Retention(2 * DAY, 90 * DAY, 1826 * DAY)
M, H, D, FIRST = Resolution.MINUTE, Resolution.HOUR, Resolution.DAY, Resolution.EARLIEST


@pytest.fixture(autouse=True)
def kept(settings: object) -> None:
    settings.USAGE_RETENTION = KEPT  # type: ignore[attr-defined]


def value_at(moment: datetime) -> int:
    return usage_series(QUOTA, moment, moment + timedelta(seconds=1))[0].used


def test_of_old_minutes_the_last_of_each_hour_stays() -> None:
    old = TODAY - 3 * DAY
    for minutes, used in ((0, 1), (59, 2), (60, 3), (61, 4), (240, 5)):
        put(old + minutes * MINUTE, used)
    put(TODAY - DAY, 6)
    put(TODAY - DAY + MINUTE, 7)
    roll_up(now=TODAY)
    assert rows() == [
        (old + 59 * MINUTE, 2, H),
        (old + 61 * MINUTE, 4, H),
        (old + 240 * MINUTE, 5, H),
        (TODAY - DAY, 6, M),
        (TODAY - DAY + MINUTE, 7, M),
    ]


def test_of_old_hours_the_last_of_each_day_stays() -> None:
    old = TODAY - 100 * DAY
    for hours, used in ((0, 1), (23, 2), (24, 3), (30, 4)):
        put(old + hours * HOUR, used, resolution=H)
    roll_up(now=TODAY)
    assert rows() == [(old + 23 * HOUR, 2, D), (old + 30 * HOUR, 4, D)]


def test_minutes_that_nobody_rolled_up_for_months_become_days_at_once() -> None:
    old = TODAY - 100 * DAY
    for minutes in range(0, 2880, 30):
        put(old + minutes * MINUTE, minutes)
    roll_up(now=TODAY)
    assert [(used, step) for _, used, step in rows()] == [(1410, D), (2850, D)]


def test_of_what_is_too_old_the_last_count_stays_and_nothing_is_said_of_before() -> None:
    begin = TODAY - 2000 * DAY
    for days in (0, 50, 100):
        put(begin + days * DAY, days, resolution=D)
    roll_up(now=TODAY)
    assert rows() == [(begin + 100 * DAY, 100, FIRST)]
    assert value_at(TODAY - DAY) == 100
    assert usage_series(QUOTA, begin, begin + 50 * DAY)[0].used == 0
    [first, *_] = usage_series(QUOTA, begin, TODAY)
    assert first == UsagePoint(begin + 100 * DAY, 100)
    # A year later there is another last one, and no more rows than before.
    put(TODAY - DAY, 120, resolution=D)
    roll_up(now=TODAY + 1900 * DAY)
    assert rows() == [(TODAY - DAY, 120, FIRST)]


def test_an_edge_is_a_whole_hour_and_none_is_rolled_up_in_part() -> None:
    edge = TODAY - 2 * DAY
    for minutes in (-1, 0, 10):
        put(edge + minutes * MINUTE, minutes)
    roll_up(now=TODAY + 59 * MINUTE)
    assert [step for _, _, step in rows()] == [H, M, M]
    roll_up(now=TODAY + HOUR)
    assert [step for _, _, step in rows()] == [H, H]


def test_what_was_used_at_the_end_of_an_hour_or_a_day_is_never_lost() -> None:
    begin = TODAY - 100 * DAY
    moments = [begin + 37 * number * MINUTE for number in range(400)]
    for number, moment in enumerate(moments):
        put(moment, number)
    midnights = [begin + days * DAY - MINUTE for days in range(1, 12)]
    before = [value_at(moment) for moment in midnights]
    for day in range(0, 120, 7):
        roll_up(now=begin + day * DAY, batch=13)
    assert [value_at(moment) for moment in midnights] == before
    assert len(rows()) < 20


def test_batches_are_bounded_and_the_next_run_goes_on() -> None:
    for minutes in range(100):
        put(TODAY - 3 * DAY + minutes * MINUTE, minutes)
        put_offers(TODAY - 3 * DAY + minutes * MINUTE, 1, 0, 0)
    report = roll_up(now=TODAY, batch=10, max_batches=3)
    assert (report.used_counts, report.offer_counts, report.is_complete) == (30, 30, False)
    assert OfferCount.objects.count() == 70
    assert not roll_up(now=TODAY, batch=10, max_batches=3).is_complete
    assert roll_up(now=TODAY).is_complete
    assert [(used, step) for _, used, step in rows()] == [(59, H), (99, H)]
    assert roll_up(now=TODAY).used_counts == 0


@pytest.mark.django_db(transaction=True)
def test_two_runs_at_once_do_what_one_does() -> None:
    for minutes in range(600):
        put(TODAY - 3 * DAY + minutes * MINUTE, minutes)
        put_offers(TODAY - 3 * DAY + minutes * MINUTE, 1, 0, 0)
    failed: list[Exception] = []

    def run() -> None:
        try:
            roll_up(now=TODAY, batch=7)
        except Exception as error:  # noqa: BLE001
            failed.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # Whoever came last may have left rows to those who had them in hand.
    roll_up(now=TODAY)
    assert failed == []
    assert [used for _, used, _ in rows()] == list(range(59, 600, 60))
    assert not OfferCount.objects.exists()


def test_offers_go_resolution_by_resolution() -> None:
    for step, span in ((M, KEPT.minutes), (H, KEPT.hours), (D, KEPT.days)):
        put_offers(TODAY - span, 1, 0, 0, resolution=step)
        put_offers(TODAY - span - MINUTE, 1, 0, 0, resolution=step)
    roll_up(now=TODAY)
    assert list(OfferCount.objects.order_by("resolution").values_list("resolution", "at")) == [
        (M, TODAY - KEPT.minutes),
        (H, TODAY - KEPT.hours),
        (D, TODAY - KEPT.days),
    ]


def test_a_quota_has_no_more_rows_than_is_said() -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            """INSERT INTO usage_usedcount (quota_id, at, used, resolution)
            SELECT %s, at, 1, 1 FROM generate_series(%s::timestamptz, %s, '1 minute') AS at""",
            [QUOTA, TODAY - 95 * DAY, TODAY],
        )
    roll_up(now=TODAY + HOUR - MINUTE)
    assert len(rows()) == 2881 + 88 * 24 + 5 < 2940 + 2184 + 1827


def test_beat_starts_it_in_the_queue_of_quotas() -> None:
    entry = app.conf.beat_schedule["shargain.usage.roll_up"]
    assert entry["task"] == usage_roll_up.name
    assert app.amqp.router.route({}, usage_roll_up.name)["queue"].name == "quotas"
    put(TODAY - 5 * DAY, 1)
    put(TODAY - 5 * DAY + MINUTE, 2)
    usage_roll_up()
    assert UsedCount.objects.get().used == 2


@pytest.mark.parametrize(
    ("days", "message"),
    [
        ((1, 90, 1826), "USAGE_MINUTES_KEPT_DAYS is 1: give days from 2 to 14"),
        ((2, 731, 1826), "USAGE_HOURS_KEPT_DAYS is 731: give days from 7 to 730"),
        ((2, 90, 10**9), "USAGE_DAYS_KEPT_DAYS is 1000000000: give days from 90 to 7305"),
        ((8, 7, 90), "are 8, 7 and 90: give each at least"),
        ((2, 91, 90), "are 2, 91 and 90: give each at least"),
    ],
)
def test_what_cannot_be_kept_is_refused(days: tuple[int, int, int], message: str) -> None:
    minutes, hours, rest = days
    with pytest.raises(ImproperlyConfigured, match=message):
        retention(minutes=minutes, hours=hours, days=rest)


def test_what_can_be_kept() -> None:
    assert retention(minutes=2, hours=90, days=1826) == KEPT
