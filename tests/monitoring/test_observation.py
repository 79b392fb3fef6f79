"""What a call tells whoever observes it, and what the metrics make of it."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from django.db import connection
from django.test import override_settings
from prometheus_client import REGISTRY

from quota_redis import Unavailable
from quota_redis.django.engine import counters, engine_for
from quota_redis.django.events import spend_ended
from quota_redis.postgres import Course, DirectReason, ExactQuota, Outcome
from shargain.offers.models import OfferQuota, ScrapingTarget
from shargain.offers.services.errors import ServiceUnavailable
from shargain.offers.services.offer_creation import BatchResult
from shargain.offers.services.quota import QuotaService

service = QuotaService()
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)
Create = Callable[..., BatchResult]


@pytest.fixture
def courses() -> Iterator[list[Course]]:
    seen: list[Course] = []

    def receive(course: Course, **_: Any) -> None:
        seen.append(course)

    spend_ended.connect(receive, sender=OfferQuota)
    yield seen
    spend_ended.disconnect(receive, sender=OfferQuota)


@contextmanager
def counted(name: str, **labels: str) -> Iterator[Callable[[], float]]:
    """How much a sample of this process has grown."""
    before = REGISTRY.get_sample_value(name, labels) or 0
    yield lambda: (REGISTRY.get_sample_value(name, labels) or 0) - before


def limit(target: ScrapingTarget, most: int | None) -> None:
    service.set_new_quota(target, max_offers_per_period=most, period_start=LONG_AGO)


def away() -> Any:
    from django.conf import settings

    dead = {**settings.CACHES["quotas"], "LOCATION": "redis://127.0.0.1:1/0"}
    return override_settings(CACHES={**settings.CACHES, "quotas": dead})


def test_each_outcome_is_told_and_counted(
    target: ScrapingTarget, create: Create, courses: list[Course]
) -> None:
    create(1)
    limit(target, 3)
    create(2, 3)
    create(4, 5)
    create(6)
    assert [course.outcome for course in courses] == ["no_quota", "granted", "partly", "denied"]
    assert [(course.wanted, course.left) for course in courses] == [(1, 0), (2, 0), (2, 1), (1, 1)]
    # The last is refused from memory.
    assert all(0 <= course.reserve_seconds < course.seconds for course in courses)
    assert all(course.reserve_seconds > 0 for course in courses[:3])
    assert {course.subject for course in courses} == {f"target:{target.pk}"}
    assert not any(course.went_direct for course in courses)


def test_counts_of_outcomes_and_units(target: ScrapingTarget, create: Create) -> None:
    limit(target, 3)
    with (
        counted("quota_redis_spends_total", outcome="partly") as partly,
        counted("quota_redis_units_total", outcome="done") as done,
        counted("quota_redis_units_total", outcome="denied") as denied,
        counted("quota_redis_spend_seconds_count") as spends,
        counted("quota_redis_reserve_seconds_count") as reserves,
    ):
        create(*range(5))
    assert (partly(), done(), denied(), spends(), reserves()) == (1, 3, 2, 1, 1)


def test_without_redis_the_direct_road_is_counted_and_the_breaker_opens(
    target: ScrapingTarget, create: Create, courses: list[Course]
) -> None:
    limit(target, 100)
    with away(), counted("quota_redis_direct_road_total", reason="unavailable") as direct:
        for number in range(4):
            create(number)
        assert REGISTRY.get_sample_value("quota_redis_breaker_open") == 1
    assert direct() == 4
    assert {course.direct_reason for course in courses} == {DirectReason.UNAVAILABLE}
    create(9)
    assert REGISTRY.get_sample_value("quota_redis_breaker_open") == 0


def test_a_slot_that_is_taken_is_a_conflict_and_an_absorb(
    target: ScrapingTarget, create: Create, courses: list[Course]
) -> None:
    limit(target, 10)
    create(1)
    service.flush()
    client, key = counters().connection.client, counters().keys.subject(f"target:{target.pk}")
    before = client.hgetall(key)
    create(2)
    service.flush()
    # Redis forgets the last batch, as after a failover.
    client.hset(key, mapping=before)
    with (
        counted("quota_redis_conflicts_total") as conflicts,
        counted("quota_redis_direct_road_total", reason="conflict") as direct,
        counted("quota_redis_absorbs_total", by="spend") as absorbs,
    ):
        create(3)
    assert (conflicts(), direct(), absorbs()) == (1, 1, 1)
    assert (courses[-1].direct_reason, courses[-1].conflicts) == (DirectReason.CONFLICT, 1)
    assert courses[-1].outcome is Outcome.GRANTED


def test_a_lost_subject_is_absorbed_and_not_direct(
    target: ScrapingTarget, create: Create, courses: list[Course]
) -> None:
    limit(target, 10)
    create(1)
    service.flush()
    counters().connection.client.flushdb()
    create(2)
    assert (courses[-1].absorbs, courses[-1].went_direct) == (1, False)


def test_near_the_end_of_a_period_the_reason_is_the_boundary(
    target: ScrapingTarget, create: Create, courses: list[Course]
) -> None:
    now = datetime.now(UTC)
    service.set_new_quota(
        target,
        max_offers_per_period=1,
        period_start=LONG_AGO,
        period_end=now + timedelta(milliseconds=900),
    )
    create(1, 2)
    assert courses[-1].direct_reason is DirectReason.BOUNDARY


def test_what_others_hold_is_busy(
    target: ScrapingTarget, create: Create, courses: list[Course]
) -> None:
    limit(target, 1)
    create(0)
    limit(target, 2)
    engine_for(OfferQuota).counters.reserve(f"target:{target.pk}", 1, hold_id=uuid4().hex)
    create(1)
    assert courses[-1].direct_reason is DirectReason.BUSY


def test_a_call_that_fails_is_told_as_failed(
    target: ScrapingTarget, create: Create, courses: list[Course]
) -> None:
    create(1)
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        [pid] = cursor.fetchone()
    with psycopg.connect(**connection.get_connection_params(), autocommit=True) as other:
        other.execute("SELECT pg_terminate_backend(%s, 5000)", (pid,))
    with (
        counted("quota_redis_units_total", outcome="undecided") as undecided,
        pytest.raises(ServiceUnavailable),
    ):
        create(2, 3)
    assert courses[-1].outcome is Outcome.FAILED
    assert undecided() == 2


def test_an_observer_that_fails_harms_nobody(
    target: ScrapingTarget, create: Create, caplog: pytest.LogCaptureFixture
) -> None:
    limit(target, 5)
    create(1)
    engine = engine_for(OfferQuota)

    def fail(_: Course) -> None:
        raise RuntimeError("no room for metrics")

    exact = ExactQuota(engine.counters, engine.ledger, observe=fail)
    done: list[int] = []

    def work(allowed: int) -> int:
        done.append(allowed)
        return allowed

    spent = exact.spend(engine.connection(), f"target:{target.pk}", 2, work)
    assert (spent.used, done) == (2, [2])
    assert "no room for metrics" in caplog.text


def test_upkeep_is_counted(target: ScrapingTarget, create: Create) -> None:
    limit(target, 5)
    create(1)
    service.flush()
    service.sync()
    table = OfferQuota._meta.db_table
    assert (
        REGISTRY.get_sample_value(
            "quota_redis_sync_last_success_timestamp_seconds", {"table": table}
        )
        or 0
    ) > 1e9
    OfferQuota.objects.update(used_offers_count=3)
    service.audit()
    drift = {"table": table, "reason": "count"}
    assert REGISTRY.get_sample_value("quota_redis_drift_quotas", drift) == 1
    assert REGISTRY.get_sample_value("quota_redis_schema_problems", {"table": table}) == 0
    service.audit()
    assert REGISTRY.get_sample_value("quota_redis_drift_quotas", drift) == 0


def test_a_sync_without_redis_is_no_success(target: ScrapingTarget, create: Create) -> None:
    limit(target, 5)
    create(1)
    name, table = "quota_redis_sync_last_success_timestamp_seconds", OfferQuota._meta.db_table
    before = REGISTRY.get_sample_value(name, {"table": table})
    with away():
        create(2)
        assert not service.sync().is_complete
    assert REGISTRY.get_sample_value(name, {"table": table}) == before


def test_batches_are_counted_by_what_came_of_them(target: ScrapingTarget, create: Create) -> None:
    limit(target, 3)
    for outcome, numbers in (
        ("created", (1, 2)),
        ("duplicates", (1, 2)),
        ("partly", (2, 3, 4)),
        ("refused", (5,)),
    ):
        with counted("shargain_batches_total", outcome=outcome) as batches:
            create(*numbers)
        assert batches() == 1, outcome


def test_threads_lose_no_count(target: ScrapingTarget, create: Create) -> None:
    limit(target, None)

    def work(first: int) -> None:
        for number in range(first, first + 10):
            create(number)
        connection.close()

    with counted("shargain_offers_total", outcome="created") as created:
        threads = [threading.Thread(target=work, args=(n * 100,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert created() == 40


def test_probing_a_dead_redis_says_so(target: ScrapingTarget) -> None:
    from quota_redis.metrics import probe

    assert probe()
    with away():
        assert [probe() for _ in range(4)] == [False] * 4
        assert REGISTRY.get_sample_value("quota_redis_breaker_open") == 1
        with pytest.raises(Unavailable):
            counters().connection.command("PING")
