"""Used counts over time: what syncs and audits write, and the series made of it."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from importlib import import_module
from typing import Any

import pytest
from django.db import connection
from usage_rows import DAY, HOUR, MINUTE, QUOTA, TODAY, one_query, put

from quota_redis.django.events import counts_written
from shargain.offers.models import OfferQuota, ScrapingTarget
from shargain.offers.services.quota import QuotaService
from shargain.usage.history import write_counts
from shargain.usage.models import Resolution, UsedCount
from shargain.usage.services import UsagePoint, usage_series

LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


def series(since: datetime, until: datetime, **options: Any) -> list[tuple[timedelta, int]]:
    """Points as time since the beginning, and used."""
    with one_query():
        points = usage_series(QUOTA, since, until, **options)
    return [(point.at - since, point.used) for point in points]


def test_a_sync_writes_down_what_it_counted(
    target: ScrapingTarget, create: Callable[..., Any]
) -> None:
    service = QuotaService()
    quota = service.set_new_quota(target, max_offers_per_period=9, period_start=LONG_AGO)
    before = datetime.now(UTC)
    for batch in (range(3), range(5)):
        create(*batch)
        service.flush()
        service.sync()
    counts = UsedCount.objects.filter(quota_id=quota.id).order_by("at")
    assert counts.latest("at").used == 5
    assert len(counts) <= 2
    now = datetime.now(UTC)
    assert before - MINUTE < counts[0].at <= now
    assert usage_series(quota.id, before - HOUR, now)[-1] == UsagePoint(now, 5)


@pytest.mark.django_db
def test_the_last_count_of_a_minute_stands() -> None:
    for used in (3, 5):
        with one_query():
            write_counts({n: used * n for n in range(1, 201)})
    assert UsedCount.objects.filter(quota_id=200).latest("at").used == 1000
    assert 200 <= UsedCount.objects.count() <= 400


def test_what_an_audit_puts_right_is_written_down_too(
    target: ScrapingTarget, create: Callable[..., Any]
) -> None:
    service = QuotaService()
    quota = service.set_new_quota(target, max_offers_per_period=9, period_start=LONG_AGO)
    create(1, 2, 3)
    OfferQuota.objects.update(used_offers_count=8)
    counts_written.send(OfferQuota, counts={quota.id: 8})
    service.flush()
    assert service.audit().drifts
    assert UsedCount.objects.latest("at").used == 3


def test_a_history_that_fails_holds_no_sync_up(
    target: ScrapingTarget, create: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    quota = QuotaService().set_new_quota(target, max_offers_per_period=9, period_start=LONG_AGO)
    create(1, 2)
    QuotaService().flush()
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE usage_usedcount RENAME TO away")
    try:
        QuotaService().sync()
    finally:
        with connection.cursor() as cursor:
            cursor.execute("ALTER TABLE away RENAME TO usage_usedcount")
    assert OfferQuota.objects.get(pk=quota.id).used_offers_count == 2
    assert "usage_usedcount" in caplog.text


def test_quotas_that_are_older_than_the_history_begin_with_what_they_have_used(
    target: ScrapingTarget,
) -> None:
    used = QuotaService().set_new_quota(target, max_offers_per_period=9, period_start=LONG_AGO)
    OfferQuota.objects.update(used_offers_count=4)
    QuotaService().set_new_quota(target, max_offers_per_period=9, period_start=TODAY)
    migration = import_module("shargain.usage.migrations.0001_initial")
    with connection.cursor() as cursor:
        cursor.execute(migration._BEGIN)
    [row] = UsedCount.objects.all()
    assert (row.quota_id, row.used, row.resolution) == (used.id, 4, Resolution.EARLIEST)


@pytest.mark.django_db
class TestSeries:
    def test_it_has_steps_between_the_ends_of_the_span(self) -> None:
        put(TODAY - 20 * HOUR, 3)
        put(TODAY - 10 * HOUR, 8)
        assert series(TODAY - 24 * HOUR, TODAY) == [
            (0 * HOUR, 0),
            (4 * HOUR, 3),
            (14 * HOUR, 8),
            (24 * HOUR, 8),
        ]

    def test_a_count_stands_for_as_long_as_nothing_changes(self) -> None:
        put(TODAY - 40 * DAY, 30, resolution=Resolution.DAY)
        put(TODAY, 99)
        assert series(TODAY - 3 * DAY, TODAY - DAY) == [(0 * DAY, 30), (2 * DAY, 30)]

    def test_other_quotas_have_no_part_in_it(self) -> None:
        put(TODAY - 2 * DAY, 5, quota=QUOTA - 1)
        put(TODAY - HOUR, 6, quota=QUOTA + 1)
        assert series(TODAY - DAY, TODAY) == [(0 * DAY, 0), (DAY, 0)]

    def test_a_span_without_a_known_beginning_begins_where_it_is_known(self) -> None:
        put(TODAY - 5 * HOUR, 70, resolution=Resolution.EARLIEST)
        put(TODAY - 2 * HOUR, 75)
        assert series(TODAY - DAY, TODAY) == [(19 * HOUR, 70), (22 * HOUR, 75), (24 * HOUR, 75)]

    def test_it_ends_now(self) -> None:
        put(TODAY - DAY, 70)
        before = datetime.now(UTC)
        end = usage_series(QUOTA, TODAY - 2 * DAY, TODAY + 9 * DAY)[-1]
        assert before <= end.at <= datetime.now(UTC)
        assert end.used == 70
        assert usage_series(QUOTA, TODAY + 8 * DAY, TODAY + 9 * DAY) == []

    @pytest.mark.parametrize("most", [3, 10, 200])
    def test_many_counts_are_thinned_to_the_last_ones(self, most: int) -> None:
        for minute in range(300):
            put(TODAY - DAY + minute * MINUTE, minute)
        points = series(TODAY - DAY, TODAY - DAY + 300 * MINUTE, max_points=most)
        assert len(points) == most
        assert (points[0][1], points[-1][1]) == (0, 299)
        # Each point is a count as it was at that moment.
        assert all(used == at // MINUTE for at, used in points[:-1])
        assert points == sorted(set(points))

    @pytest.mark.parametrize(
        ("since", "until", "most", "message"),
        [
            (TODAY.replace(tzinfo=None), TODAY, 10, "since is .*: give a datetime with a time"),
            (TODAY, TODAY.replace(tzinfo=None), 10, "until is .*: give a datetime with a time"),
            (TODAY, TODAY, 10, "give a moment before"),
            (TODAY - DAY, TODAY, 2, "max_points is 2: give 3 to 5000"),
            (TODAY - DAY, TODAY, 5001, "max_points is 5001"),
        ],
    )
    def test_what_makes_no_series_is_refused(
        self, since: datetime, until: datetime, most: int, message: str
    ) -> None:
        with pytest.raises(ValueError, match=message):
            usage_series(QUOTA, since, until, max_points=most)
