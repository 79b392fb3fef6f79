"""Quotas as Django models: edits by every road hold at once, and reach Redis."""

import logging
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection, transaction
from django.utils import timezone

from quota_redis import QuotaInUse, StateLost
from quota_redis.django.engine import Engine
from quota_redis.postgres import sync
from shargain.offers.models import OfferQuota, ScrapingTarget

NewQuota = Callable[..., OfferQuota]
Use = Callable[[OfferQuota, int], int]


def limit_in_redis(engine: Engine, quota: OfferQuota) -> int | None:
    return engine.counters.usage(quota.subject)[quota.pk].limit


def run_sync(engine: Engine) -> None:
    sync(engine.counters, engine.ledger, engine.connection())


class TestUsedCount:
    def test_saving_an_old_instance_leaves_it_alone(self, new_quota: NewQuota) -> None:
        quota = new_quota(10)
        OfferQuota.objects.filter(pk=quota.pk).update(used_offers_count=4)
        quota.max_offers_per_period = 20
        quota.save()
        quota.refresh_from_db()
        assert (quota.used_offers_count, quota.max_offers_per_period) == (4, 20)

    def test_it_can_be_given_to_a_new_one(self, new_quota: NewQuota) -> None:
        quota = new_quota(10, used_offers_count=4)
        quota.refresh_from_db()
        assert quota.used_offers_count == 4

    def test_it_is_written_where_it_is_named(self, new_quota: NewQuota) -> None:
        quota = new_quota(10)
        quota.used_offers_count = 4
        quota.save(update_fields=["used_offers_count"])
        quota.refresh_from_db()
        assert quota.used_offers_count == 4

    def test_sync_writes_it(self, new_quota: NewQuota, use: Use, engine: Engine) -> None:
        quota = new_quota(10)
        use(quota, 4)
        run_sync(engine)
        quota.refresh_from_db()
        assert quota.used_offers_count == 4


class TestEdits:
    def test_saving_reaches_redis_at_commit(self, new_quota: NewQuota, engine: Engine) -> None:
        quota = new_quota(10)
        assert limit_in_redis(engine, quota) == 10
        quota.max_offers_per_period = None
        quota.save()
        assert limit_in_redis(engine, quota) is None

    def test_not_before(self, new_quota: NewQuota, engine: Engine) -> None:
        quota = new_quota(10)
        with transaction.atomic():
            quota.max_offers_per_period = 20
            quota.save()
            assert limit_in_redis(engine, quota) == 10
        assert limit_in_redis(engine, quota) == 20

    def test_not_where_it_is_rolled_back(self, new_quota: NewQuota, engine: Engine) -> None:
        quota = new_quota(10)
        with transaction.atomic():
            quota.max_offers_per_period = 20
            quota.save()
            transaction.set_rollback(True)
        assert limit_in_redis(engine, quota) == 10

    def test_deleting_reaches_redis(self, new_quota: NewQuota, engine: Engine) -> None:
        quota = new_quota(10)
        subject, number = quota.subject, quota.pk
        quota.delete()
        assert number not in engine.counters.usage(subject)

    @pytest.mark.usefixtures("redis_is_down")
    def test_an_edit_needs_no_redis(
        self, new_quota: NewQuota, caplog: pytest.LogCaptureFixture
    ) -> None:
        with caplog.at_level(logging.WARNING, "quota_redis"):
            quota = new_quota(10)
        assert OfferQuota.objects.filter(pk=quota.pk).exists()
        assert "reaches Redis with the next sync" in caplog.text

    @pytest.mark.parametrize("road", ["update", "sql", "bulk_update"])
    def test_other_roads_hold_at_once_and_reach_redis_with_the_next_sync(
        self, new_quota: NewQuota, use: Use, engine: Engine, road: str
    ) -> None:
        quota = new_quota(10)
        use(quota, 4)
        if road == "update":
            OfferQuota.objects.filter(pk=quota.pk).update(max_offers_per_period=5)
        elif road == "sql":
            with connection.cursor() as cursor:
                cursor.execute("UPDATE offers_offerquota SET max_offers_per_period = 5")
        else:
            quota.max_offers_per_period = 5
            OfferQuota.objects.bulk_update([quota], ["max_offers_per_period"])
        assert limit_in_redis(engine, quota) == 10
        run_sync(engine)
        assert limit_in_redis(engine, quota) == 5
        assert use(quota, 9) == 1

    def test_a_limit_lowered_past_redis_holds_for_the_very_next_unit(
        self, new_quota: NewQuota, use: Use, engine: Engine
    ) -> None:
        quota = new_quota(10)
        use(quota, 4)
        OfferQuota.objects.update(max_offers_per_period=5)
        assert limit_in_redis(engine, quota) == 10
        assert use(quota, 9) == 1

    def test_created_in_bulk(self, target: ScrapingTarget, use: Use, engine: Engine) -> None:
        now = timezone.now()
        quotas = OfferQuota.objects.bulk_create(
            OfferQuota(target=target, max_offers_per_period=n, period_start=now - timedelta(days=n))
            for n in (1, 2)
        )
        with pytest.raises(StateLost):
            engine.counters.usage(quotas[0].subject)
        assert use(quotas[0], 5) == 1
        assert set(engine.counters.usage(quotas[0].subject)) == {q.pk for q in quotas}


class TestDeletion:
    def test_a_used_quota_stays(self, new_quota: NewQuota, use: Use) -> None:
        quota = new_quota(10)
        use(quota, 1)
        with pytest.raises(QuotaInUse, match="was used and cannot be deleted"):
            quota.delete()
        assert OfferQuota.objects.filter(pk=quota.pk).exists()

    def test_also_by_a_query(self, new_quota: NewQuota, use: Use) -> None:
        quota = new_quota(10)
        use(quota, 1)
        with pytest.raises(Exception, match="was used and cannot be deleted"):
            OfferQuota.objects.all().delete()
        assert OfferQuota.objects.filter(pk=quota.pk).exists()

    def test_an_unused_one_goes(self, new_quota: NewQuota) -> None:
        new_quota(10).delete()
        assert not OfferQuota.objects.exists()


class TestActive:
    def test_the_latest_start_first(self, new_quota: NewQuota) -> None:
        now = timezone.now()
        old = new_quota(1)
        new = new_quota(2, period_start=now - timedelta(hours=1))
        new_quota(3, period_start=now + timedelta(hours=1))
        new_quota(4, period_start=now - timedelta(hours=3), period_end=now - timedelta(hours=2))
        assert [quota.pk for quota in OfferQuota.objects.active()] == [new.pk, old.pk]

    def test_a_quota_knows_its_subject(self, new_quota: NewQuota, target: ScrapingTarget) -> None:
        assert new_quota(1).subject == f"target:{target.pk}"


class TestEngine:
    def test_no_connection_inside_a_transaction(self, engine: Engine) -> None:
        from quota_redis import InsideTransaction

        with transaction.atomic(), pytest.raises(InsideTransaction, match=r"transaction\.atomic"):
            engine.connection()

    def test_a_connection_that_postgresql_dropped_is_replaced(self, engine: Engine) -> None:
        engine.connection().close()
        row: Any = engine.connection().execute("SELECT 1").fetchone()
        assert row == (1,)
