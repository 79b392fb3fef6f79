"""What became of offers: counted where batches are decided, written later, and asked for."""

import os
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import DatabaseError, connection, transaction
from usage_rows import DAY, HOUR, MINUTE, QUOTA, TODAY, one_query, put_offers

from shargain.offers.models import ScrapingTarget
from shargain.offers.services.offer_creation import batch_decided
from shargain.offers.services.quota import QuotaService
from shargain.usage import activity, roles
from shargain.usage.activity import Buffer, Counts
from shargain.usage.models import NO_QUOTA, OfferCount, Resolution
from shargain.usage.services import (
    Activity,
    HotTarget,
    RefusedTarget,
    activity_series,
    hottest_targets,
    refused_targets,
)

Create = Callable[..., Any]
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)
PATIENCE = 30.0


def sums(resolution: Resolution = Resolution.HOUR) -> list[int]:
    counts = OfferCount.objects.filter(resolution=resolution)
    columns = ("created", "duplicates", "discarded")
    return [sum(counts.values_list(column, flat=True)) for column in columns]


def each_sum() -> list[list[int]]:
    return [sums(step) for step in (Resolution.MINUTE, Resolution.HOUR, Resolution.DAY)]


@pytest.mark.usefixtures("counting_offers")
class TestCounting:
    def test_what_becomes_of_batches_is_counted_in_each_resolution(
        self, target: ScrapingTarget, create: Create
    ) -> None:
        quota = QuotaService().set_new_quota(target, max_offers_per_period=5, period_start=LONG_AGO)
        create(1, 2, 3, 4)
        create(3, 4, 5, 6, 7, 8)
        assert OfferCount.objects.count() == 0
        assert activity.flush()
        assert each_sum() == [[5, 2, 3]] * 3
        assert set(OfferCount.objects.values_list("quota_id", "target_id")) == {
            (quota.id, target.pk)
        }
        assert activity.flush()
        create(9, 10)
        assert activity.flush()
        assert each_sum() == [[5, 2, 5]] * 3

    def test_without_a_quota_too(self, create: Create) -> None:
        create(1, 2, 3)
        activity.flush()
        assert set(OfferCount.objects.values_list("quota_id", "created")) == {(NO_QUOTA, 3)}

    def test_no_batch_waits_for_what_is_being_written(
        self, create: Create, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        begun, is_free = threading.Event(), threading.Event()
        waited: list[bool] = []

        def write(_counts: object) -> None:
            begun.set()
            waited.append(is_free.wait(PATIENCE))

        monkeypatch.setattr(activity, "_write", write)
        monkeypatch.setattr(activity, "buffer", Buffer(flush_seconds=0.01))
        create(1)
        assert begun.wait(PATIENCE)
        for number in range(5):
            create(number)
        assert waited == []
        is_free.set()
        assert activity.flush()
        assert all(waited)

    def test_an_outage_costs_no_batch(
        self, target: ScrapingTarget, create: Create, caplog: pytest.LogCaptureFixture
    ) -> None:
        with connection.cursor() as cursor:
            cursor.execute("ALTER TABLE usage_offercount RENAME TO away")
        try:
            for number in range(3):
                assert create(number).created == 1
                assert not activity.flush()
        finally:
            with connection.cursor() as cursor:
                cursor.execute("ALTER TABLE away RENAME TO usage_offercount")
        assert caplog.text.count("statistics of offers wait for PostgreSQL") == 1
        create(4)
        assert activity.flush()
        assert sums() == [4, 0, 0]


def test_nothing_counts_where_no_role_has_begun_to(create: Create) -> None:
    create(1)
    activity.flush()
    assert not OfferCount.objects.exists()


@pytest.mark.usefixtures("usage_buffer")
def test_roles_count_once_however_often_they_begin(create: Create) -> None:
    try:
        roles.start()
        roles.start()
        create(1)
        assert activity.flush()
    finally:
        batch_decided.disconnect(dispatch_uid="shargain.usage")
    assert sums() == [1, 0, 0]


@pytest.mark.django_db(transaction=True)
class TestBuffer:
    def test_it_writes_when_traffic_stops(self) -> None:
        buffer = Buffer(flush_seconds=0.01)
        for number in (1, 2):
            buffer.add(1, QUOTA, Counts(created=1))
            deadline = time.monotonic() + PATIENCE
            while sums() != [number, 0, 0] and time.monotonic() < deadline:
                time.sleep(0.01)
        assert sums() == [2, 0, 0]

    def test_it_tries_again_by_itself(self, monkeypatch: pytest.MonkeyPatch) -> None:
        tried = threading.Event()

        def fail(_counts: object) -> None:
            tried.set()
            raise DatabaseError("down")

        buffer = Buffer(flush_seconds=0.01)
        with monkeypatch.context() as patch:
            patch.setattr(activity, "_write", fail)
            buffer.add(1, QUOTA, Counts(created=1))
            assert tried.wait(PATIENCE)
        deadline = time.monotonic() + PATIENCE
        while sums() != [1, 0, 0] and time.monotonic() < deadline:
            time.sleep(0.01)
        assert sums() == [1, 0, 0]

    def test_threads_lose_nothing(self, usage_buffer: Buffer) -> None:
        def work() -> None:
            for number in range(500):
                usage_buffer.add(number % 3, QUOTA, Counts(1, 2, 3))

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for _ in range(5):
            usage_buffer.flush()
        for thread in threads:
            thread.join()
        assert usage_buffer.flush()
        assert each_sum() == [[2000, 4000, 6000]] * 3

    def test_processes_that_write_at_once_add_up(self) -> None:
        buffers = [Buffer(flush_seconds=3600) for _ in range(6)]
        for shift, buffer in enumerate(buffers):
            for number in range(300):
                buffer.add((number * 7 + shift * 50) % 300, QUOTA, Counts(created=1))
        done: list[bool] = []
        threads = [threading.Thread(target=lambda b=b: done.append(b.flush())) for b in buffers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert done == [True] * 6
        assert each_sum() == [[1800, 0, 0]] * 3

    def test_what_is_written_is_not_written_again_where_the_rest_fails(
        self, usage_buffer: Buffer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write, written = activity._write, []

        def fail_at_the_third(counts: Any) -> None:
            if len(written) == 2:
                raise DatabaseError("down")
            write(counts)
            written.append(len(counts))

        monkeypatch.setattr(activity, "FLUSH_ROWS", 3)
        for target in range(10):
            usage_buffer.add(target, QUOTA, Counts(created=1))
        with monkeypatch.context() as patch:
            patch.setattr(activity, "_write", fail_at_the_third)
            assert not usage_buffer.flush()
        assert sums() == [6, 0, 0]
        assert usage_buffer.flush()
        assert each_sum() == [[10, 0, 0]] * 3

    def test_it_is_bounded_and_drops_the_oldest_with_one_line(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        buffer = Buffer(flush_seconds=3600, size=20)
        for target in range(100):
            buffer.add(target, QUOTA, Counts(created=1))
        assert buffer.flush()
        kept = OfferCount.objects.filter(resolution=Resolution.DAY)
        assert sorted(kept.values_list("target_id", flat=True)) == list(range(80, 100))
        assert caplog.text.count("dropping the oldest") == 1

    def test_what_was_not_written_is_dropped_before_what_came_later(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        buffer = Buffer(flush_seconds=3600, size=20)

        def fail(_counts: object) -> None:
            for target in range(100, 110):
                buffer.add(target, QUOTA, Counts(created=1))
            raise DatabaseError("down")

        for target in range(20):
            buffer.add(target, QUOTA, Counts(created=1))
        with monkeypatch.context() as patch:
            patch.setattr(activity, "_write", fail)
            assert not buffer.flush()
        assert buffer.flush()
        kept = OfferCount.objects.filter(resolution=Resolution.DAY).order_by("target_id")
        assert list(kept.values_list("target_id", flat=True)) == [*range(10, 20), *range(100, 110)]

    def test_a_callers_transaction_has_no_part_in_it(self, usage_buffer: Buffer) -> None:
        usage_buffer.add(1, QUOTA, Counts(created=1))
        with transaction.atomic():
            assert usage_buffer.flush()
            transaction.set_rollback(True)
        assert sums() == [1, 0, 0]

    def test_a_lock_that_somebody_holds_is_not_waited_for_for_ever(
        self, usage_buffer: Buffer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(activity, "STATEMENT_SECONDS", 0.2)
        usage_buffer.add(1, QUOTA, Counts(created=1))
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("LOCK TABLE usage_offercount")
            assert not usage_buffer.flush()
        assert usage_buffer.flush()
        assert sums() == [1, 0, 0]

    def test_a_child_does_not_write_what_its_parent_has_counted(self) -> None:
        activity.buffer.forget()
        activity.buffer.add(1, QUOTA, Counts(created=1))
        # As in the moment of a fork in which another thread has the lock.
        with activity.buffer._lock:
            child = os.fork()
            if child == 0:
                os._exit(7 if not activity.buffer._counts and _can_count() else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        assert activity.flush()
        assert sums() == [1, 0, 0]


def _can_count() -> bool:
    activity.buffer.add(2, QUOTA, Counts(created=1))
    return len(activity.buffer._counts) == 1


@pytest.mark.django_db
class TestSeries:
    def test_hours_follow_each_other_and_empty_ones_have_zeros(self) -> None:
        begin = TODAY - 20 * HOUR
        put_offers(begin, 1, 2, 3, resolution=Resolution.HOUR)
        put_offers(begin + 2 * HOUR, 4, 5, 6, resolution=Resolution.HOUR)
        put_offers(begin + 2 * HOUR, 10, 10, 10, target=2, resolution=Resolution.HOUR)
        put_offers(begin + 2 * HOUR, 9, 9, 9, quota=QUOTA + 1, resolution=Resolution.HOUR)
        put_offers(begin + 2 * HOUR, 9, 9, 9, resolution=Resolution.MINUTE)
        put_offers(begin + 3 * HOUR, 9, 9, 9, resolution=Resolution.HOUR)
        with one_query():
            hours = activity_series(QUOTA, begin + 30 * MINUTE, begin + 3 * HOUR)
        assert hours == [
            Activity(begin, 1, 2, 3),
            Activity(begin + HOUR, 0, 0, 0),
            Activity(begin + 2 * HOUR, 14, 15, 16),
        ]

    def test_days_too(self) -> None:
        put_offers(TODAY - DAY, 1, 2, 3, resolution=Resolution.DAY)
        days = activity_series(QUOTA, TODAY - 2 * DAY, TODAY, step="day")
        assert days == [Activity(TODAY - 2 * DAY, 0, 0, 0), Activity(TODAY - DAY, 1, 2, 3)]

    def test_it_ends_now_and_begins_where_hours_are_kept(self) -> None:
        hours = activity_series(QUOTA, TODAY - 4000 * DAY, TODAY + 4000 * DAY)
        now = datetime.now(UTC)
        assert timedelta() <= now - hours[-1].at < HOUR + MINUTE
        assert timedelta() <= now - 90 * DAY - hours[0].at < HOUR + MINUTE
        assert activity_series(QUOTA, TODAY + DAY, TODAY + 2 * DAY) == []

    def test_too_many_steps_are_refused(self, settings: Any) -> None:
        settings.USAGE_RETENTION = settings.USAGE_RETENTION.__class__(DAY, 730 * DAY, 730 * DAY)
        with pytest.raises(ValueError, match="steps of a hour: give one of 5000"):
            activity_series(QUOTA, TODAY - 300 * DAY, TODAY)

    def test_what_makes_no_series_is_refused(self) -> None:
        with pytest.raises(ValueError, match="step is 'week': give 'hour' or 'day'"):
            activity_series(QUOTA, TODAY - DAY, TODAY, step="week")  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="give a moment before"):
            activity_series(QUOTA, TODAY, TODAY - DAY)


@pytest.mark.django_db
class TestTargets:
    @pytest.mark.parametrize(
        ("age", "resolution"),
        [(HOUR, Resolution.MINUTE), (DAY, Resolution.HOUR), (9 * DAY, Resolution.DAY)],
    )
    def test_they_are_summed_up_in_a_resolution_that_fits(
        self, age: timedelta, resolution: Resolution
    ) -> None:
        at = datetime.now(UTC) - age / 2
        for target, outcomes in ((1, (1, 0, 4)), (2, (0, 9, 0)), (3, (1, 0, 6)), (4, (0, 0, 4))):
            put_offers(at, *outcomes, target=target, resolution=resolution)
        put_offers(at + MINUTE, 0, 1, 2, target=1, quota=NO_QUOTA, resolution=resolution)
        put_offers(at - 2 * age, 0, 0, 99, target=1, resolution=resolution)
        for other in {Resolution.MINUTE, Resolution.HOUR, Resolution.DAY} - {resolution}:
            put_offers(at, 0, 0, 99, target=5, resolution=other)
        since = datetime.now(UTC) - age
        with one_query():
            refused = refused_targets(since)
        assert refused == [
            RefusedTarget(1, 6, at + MINUTE),
            RefusedTarget(3, 6, at),
            RefusedTarget(4, 4, at),
        ]
        assert refused_targets(since, limit=1) == refused[:1]
        with one_query():
            hottest = hottest_targets(since, limit=3)
        assert hottest == [HotTarget(2, 0, 9, 0), HotTarget(1, 1, 1, 6), HotTarget(3, 1, 0, 6)]

    @pytest.mark.parametrize("ask", [refused_targets, hottest_targets])
    def test_what_cannot_be_asked_is_refused(self, ask: Callable[..., Any]) -> None:
        for limit in (0, 1001):
            with pytest.raises(ValueError, match=f"limit is {limit}: give 1 to 1000"):
                ask(TODAY, limit=limit)
        with pytest.raises(ValueError, match="give a datetime with a time zone"):
            ask(TODAY.replace(tzinfo=None))
        with pytest.raises(ValueError, match="give a moment of the last 31 days"):
            ask(TODAY - 32 * DAY)
