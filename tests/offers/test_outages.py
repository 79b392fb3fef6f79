"""Creation while a server is away: exact as ever, or a clear error."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
from django.db import connection
from django.test import override_settings
from offer_batches import LONG_AGO, all_of, used

from shargain.offers.models import ScrapingTarget
from shargain.offers.services.errors import ServiceUnavailable
from shargain.offers.services.offer_creation import BatchResult
from shargain.offers.services.quota import QuotaService

Create = Callable[..., BatchResult]
service = QuotaService()
DEAD = "redis://127.0.0.1:1/0"


@pytest.fixture
def without_redis(settings: Any) -> Callable[..., Any]:
    """A context in which the quota Redis is at an address where nobody listens."""

    def away(**options: Any) -> Any:
        caches = {
            **settings.CACHES,
            "quotas": {**settings.CACHES["quotas"], "LOCATION": DEAD},
        }
        return override_settings(CACHES=caches, QUOTA_REDIS={**settings.QUOTA_REDIS, **options})

    return away


def test_without_redis_creation_goes_on_exactly(
    target: ScrapingTarget, create: Create, without_redis: Callable[..., Any]
) -> None:
    quota = service.set_new_quota(target, max_offers_per_period=4, period_start=LONG_AGO)
    create(1)
    with without_redis():
        result = create(1, 2, 3)
        assert (result.created, result.duplicates) == (2, 1)
        assert result.quota is not None
        assert (result.quota.used, result.quota.is_live) == (3, False)
        assert not service.is_redis_up()
        result = create(4, 5, 6)
        assert (result.created, result.discarded) == (1, 2)
    assert create(7).discarded == 1
    assert used(quota.id) == all_of(4)


def test_a_quota_that_is_deleted_under_a_direct_batch_refuses_nothing(
    target: ScrapingTarget, create: Create, without_redis: Callable[..., Any]
) -> None:
    quota = service.set_new_quota(target, max_offers_per_period=4, period_start=LONG_AGO)
    queue, editor = connection.copy(), connection.copy()

    def create_and_close() -> BatchResult:
        try:
            return create(1, 2, 3)
        finally:
            connection.close()

    with without_redis(), ThreadPoolExecutor(1) as pool:
        with transaction_of(queue), queue.cursor() as cursor:
            # Direct users of a quota queue here, after they have seen which one rules.
            cursor.execute(
                "SELECT pg_advisory_xact_lock(hashtextextended('quota_redis:shargain', %s))",
                [quota.id],
            )
            creating = pool.submit(create_and_close)
            wait_for_a_waiter()
            with editor.cursor() as edit:
                edit.execute("DELETE FROM offers_offerquota WHERE id = %s", [quota.id])
        result = creating.result(timeout=30)
    queue.close()
    editor.close()
    assert (result.created, result.quota) == (3, None)


@contextmanager
def transaction_of(wrapper: Any) -> Iterator[None]:
    wrapper.set_autocommit(False)
    yield
    wrapper.commit()


def wait_for_a_waiter() -> None:
    for _ in range(2000):
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")
            if cursor.fetchone():
                return
        time.sleep(0.005)
    pytest.fail("nobody waits")


def test_an_owner_who_would_rather_refuse(
    target: ScrapingTarget, create: Create, without_redis: Callable[..., Any]
) -> None:
    quota = service.set_new_quota(target, max_offers_per_period=4, period_start=LONG_AGO)
    with without_redis(REFUSE_WITHOUT_REDIS=True), pytest.raises(ServiceUnavailable):
        create(1)
    assert used(quota.id) == all_of(0)


def test_edits_without_redis_hold_and_arrive_later(
    target: ScrapingTarget, create: Create, without_redis: Callable[..., Any]
) -> None:
    quota = service.set_new_quota(target, max_offers_per_period=1, period_start=LONG_AGO)
    create(1)
    with without_redis():
        service.set_new_quota(target, max_offers_per_period=2, period_start=LONG_AGO)
    assert create(2, 3).created == 1
    assert used(quota.id) == all_of(2)


def test_a_connection_that_postgresql_ended_is_an_outage_once(
    target: ScrapingTarget, create: Create
) -> None:
    quota = service.set_new_quota(target, max_offers_per_period=2, period_start=LONG_AGO)
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        [pid] = cursor.fetchone()
    _terminate(pid)
    with pytest.raises(ServiceUnavailable, match="PostgreSQL"):
        create(1)
    assert create(1, 2, 3).created == 2
    assert used(quota.id) == all_of(2)


def test_questions_without_postgresql_are_outages(target: ScrapingTarget) -> None:
    settings = dict(connection.settings_dict)
    connection.close()
    connection.settings_dict.update(HOST="127.0.0.1", PORT="1")
    try:
        with pytest.raises(ServiceUnavailable, match="PostgreSQL failed"):
            service.get_active_quota(target.pk)
    finally:
        connection.close()
        connection.settings_dict.update(settings)
    assert service.get_active_quota(target.pk) is None


def test_a_flushed_redis_loses_no_usage(target: ScrapingTarget, create: Create) -> None:
    from quota_redis.django.engine import counters

    quota = service.set_new_quota(target, max_offers_per_period=3, period_start=LONG_AGO)
    create(1, 2)
    service.flush()
    counters().connection.client.flushdb()
    result = create(3, 4)
    assert (result.created, result.discarded) == (1, 1)
    assert used(quota.id) == all_of(3)


def test_rebuilding_loads_redis_from_the_ledger(target: ScrapingTarget, create: Create) -> None:
    from quota_redis.django.engine import counters

    quota = service.set_new_quota(target, max_offers_per_period=3, period_start=LONG_AGO)
    create(1, 2)
    service.flush()
    for rebuild in (lambda: service.rebuild(target), service.rebuild):
        counters().connection.client.flushdb()
        assert rebuild() == 1
        info = service.describe([quota.id])[quota.id]
        assert (info.used, info.held, info.is_live) == (2, 0, True)


def _terminate(pid: int) -> None:
    import psycopg

    with psycopg.connect(**connection.get_connection_params(), autocommit=True) as other:
        other.execute("SELECT pg_terminate_backend(%s, 5000)", (pid,))
