"""Creation where Redis and PostgreSQL, or two batches, do not know of each other."""

import threading
import time
from collections.abc import Callable
from datetime import datetime

import psycopg
from django.db import connection
from offer_batches import HOUR, LONG_AGO, all_of, used

from shargain.offers.models import OfferQuota, ScrapingTarget
from shargain.offers.services.offer_creation import BatchResult, Outcome
from shargain.offers.services.quota import QuotaService

Create = Callable[..., BatchResult]
WAIT_SECONDS = 20.0
service = QuotaService()


def test_a_quota_that_redis_believes_in_counts_nothing_any_more(
    target: ScrapingTarget, create: Create, now: datetime
) -> None:
    old = service.set_new_quota(target, max_offers_per_period=9, period_start=LONG_AGO)
    assert create(1).created == 1
    service.flush()
    with connection.cursor() as cursor:
        # Raw SQL is not pushed: Redis goes on with the old quota.
        cursor.execute(
            """INSERT INTO offers_offerquota (target_id, max_offers_per_period, period_start, used_offers_count)
            VALUES (%s, 2, %s, 0) RETURNING id""",
            (target.pk, now - HOUR),
        )
        new = cursor.fetchone()[0]
    # The number that the old quota's slot has is free in the new one too: it must not be used there.
    assert create(2).created == 1
    service.flush()
    assert service.describe([old.id])[old.id].used == 1
    assert create(3, 4).created == 1
    assert (used(old.id), used(new)) == (all_of(1), all_of(2))


def test_an_audit_repairs_unless_it_is_told_not_to(target: ScrapingTarget, create: Create) -> None:
    quota = service.set_new_quota(target, max_offers_per_period=9, period_start=LONG_AGO).id
    create(1, 2)
    service.flush()
    service.sync()
    OfferQuota.objects.update(used_offers_count=7)
    assert len(service.audit(repair=False).drifts) == 1
    assert OfferQuota.objects.get().used_offers_count == 7
    assert len(service.audit().drifts) == 1
    assert used(quota) == all_of(2)


def test_an_address_that_another_transaction_is_about_to_create(
    target: ScrapingTarget, create: Create
) -> None:
    quota = service.set_new_quota(target, max_offers_per_period=9, period_start=LONG_AGO).id
    settings = connection.settings_dict
    with psycopg.connect(
        host=settings["HOST"],
        port=settings["PORT"],
        dbname=settings["NAME"],
        user=settings["USER"],
        password=settings["PASSWORD"],
    ) as other:
        other.execute(
            """INSERT INTO offers_offer (target_id, batch_id, url, title, main_image_url, list_url, metadata,
                created_at)
            VALUES (%s, gen_random_uuid(), 'https://example.org/1', '', '', '', '{}', now())""",
            (target.pk,),
        )
        committer = threading.Thread(target=_commit_when_awaited, args=(other,))
        committer.start()
        outcomes = create(1, 2).outcomes
        committer.join()
    assert outcomes == (Outcome.DUPLICATE, Outcome.CREATED)
    assert used(quota) == all_of(1)


def _commit_when_awaited(other: "psycopg.Connection[tuple[object, ...]]") -> None:
    """Commit as soon as somebody waits for the transaction."""
    deadline = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < deadline:
        row = other.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE pg_backend_pid() = ANY(pg_blocking_pids(pid))"
        ).fetchone()
        if row and row[0]:
            break
        time.sleep(0.01)
    other.commit()
