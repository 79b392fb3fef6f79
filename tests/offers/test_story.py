"""The story's acceptance criteria, one by one."""

import ast
import inspect
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from offer_batches import HOUR, LONG_AGO, all_of, used

import shargain
from shargain.offers.models import Offer, OfferQuota, ScrapingTarget
from shargain.offers.services import offer_creation
from shargain.offers.services.offer_creation import BatchResult
from shargain.offers.services.quota import QuotaInfo, QuotaService

Create = Callable[..., BatchResult]
service = QuotaService()


def test_ac1_the_model_has_the_fields_and_nullable_limit_and_end() -> None:
    fields = {field.name: field for field in OfferQuota._meta.get_fields()}
    assert {
        "target",
        "max_offers_per_period",
        "used_offers_count",
        "period_start",
        "period_end",
    } <= fields.keys()
    assert fields["max_offers_per_period"].null
    assert fields["period_end"].null
    assert not fields["period_start"].null


MEASURING = ("demo/chaos/", "demo/bench/")


def test_ac2_the_facade_is_the_only_module_that_uses_the_quota_system() -> None:
    package = Path(shargain.__file__).parent
    # Beside the facade: the definition model, its admin and migrations, who edits it, the periodic tasks'
    # schedule, what counts for Prometheus and for statistics, and the faults that are put between the parts.
    allowed = {
        "offers/services/quota.py",
        "offers/services/edits.py",
        "offers/models.py",
        "offers/admin/quotas.py",
        "celery.py",
        "monitoring/metrics.py",
        "usage/receivers.py",
        "alerts/receivers.py",
    }
    for path in package.rglob("*.py"):
        name = path.relative_to(package).as_posix()
        if name in allowed or "/migrations/" in name or name.startswith(MEASURING):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            names = (
                [alias.name for alias in getattr(node, "names", [])]
                if isinstance(node, ast.Import)
                else []
            )
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not any(n.split(".")[0] == "quota_redis" for n in names), name


def test_ac2_no_model_leaves_the_facade(target: ScrapingTarget) -> None:
    info = service.set_new_quota(target, max_offers_per_period=1, period_start=LONG_AGO)
    assert type(info) is QuotaInfo
    assert type(service.get_active_quota(target)) is QuotaInfo
    with pytest.raises(AttributeError):
        info.used = 7  # type: ignore[misc]


def test_ac3_the_active_quota_or_none(target: ScrapingTarget, now: datetime) -> None:
    assert service.get_active_quota(target) is None
    service.set_new_quota(target, max_offers_per_period=1, period_start=now + HOUR)
    service.set_new_quota(
        target, max_offers_per_period=2, period_start=now - 2 * HOUR, period_end=now - HOUR
    )
    assert service.get_active_quota(target) is None
    made = service.set_new_quota(target, max_offers_per_period=3, period_start=now - HOUR)
    assert service.get_active_quota(target) == made
    assert service.get_active_quota(target.pk) == made


def test_ac4_the_same_call_twice_is_one_quota_and_keeps_its_usage(
    target: ScrapingTarget, create: Create
) -> None:
    first = service.set_new_quota(target, max_offers_per_period=5, period_start=LONG_AGO)
    create(1, 2)
    service.flush()
    again = service.set_new_quota(target, max_offers_per_period=5, period_start=LONG_AGO)
    assert again.id == first.id
    assert (again.used, again.remaining) == (2, 3)
    assert OfferQuota.objects.count() == 1


def test_ac4_what_is_passed_is_what_stands(target: ScrapingTarget, now: datetime) -> None:
    service.set_new_quota(
        target, max_offers_per_period=5, period_start=LONG_AGO, period_end=now + HOUR
    )
    info = service.set_new_quota(target, max_offers_per_period=None, period_start=LONG_AGO)
    assert (info.max_offers_per_period, info.period_end) == (None, None)
    assert service.get_active_quota(target) == info


def test_ac5_creation_asks_the_facade() -> None:
    source = inspect.getsource(offer_creation)
    assert "QuotaService().spend" in source
    assert "used_offers_count" not in source


def test_ac6_at_the_limit_offers_are_discarded_and_a_created_one_counts_one(
    target: ScrapingTarget, create: Create
) -> None:
    quota = service.set_new_quota(target, max_offers_per_period=3, period_start=LONG_AGO)
    assert create(1, 2).created == 2
    assert create(1, 2).duplicates == 2
    result = create(3, 4, 5)
    assert (result.created, result.discarded) == (1, 2)
    assert create(6).discarded == 1
    assert used(quota.id) == all_of(3)


def test_ac7_without_an_active_quota_everything_is_created(
    target: ScrapingTarget, create: Create, now: datetime
) -> None:
    service.set_new_quota(target, max_offers_per_period=0, period_start=now + HOUR)
    result = create(*range(50))
    assert (result.created, result.quota) == (50, None)
    assert set(Offer.objects.values_list("quota_id", flat=True)) == {None}


def test_ac8_of_overlapping_quotas_the_latest_start_rules(
    target: ScrapingTarget, create: Create, now: datetime
) -> None:
    older = service.set_new_quota(target, max_offers_per_period=100, period_start=LONG_AGO)
    newer = service.set_new_quota(
        target, max_offers_per_period=2, period_start=now - HOUR, period_end=now + HOUR
    )
    active = service.get_active_quota(target)
    assert active is not None
    assert active.id == newer.id
    assert create(1, 2, 3).created == 2
    service.close_quota(newer.id)
    assert create(3, 4).created == 2
    assert used(older.id) == all_of(2)
    assert used(newer.id)["column"] == 2


def test_unlimited_still_counts(target: ScrapingTarget, create: Create) -> None:
    quota = service.set_new_quota(target, max_offers_per_period=None, period_start=LONG_AGO)
    result = create(*range(7))
    assert result.quota is not None
    assert (result.created, result.quota.remaining) == (7, None)
    assert used(quota.id) == all_of(7)


def test_the_facade_and_the_script_agree_at_boundaries(
    target: ScrapingTarget, create: Create
) -> None:
    """Start included, end excluded, to the microsecond, by PostgreSQL and by Redis."""
    from django.db import connection

    for shift in (-2, 2):
        with connection.cursor() as cursor:
            cursor.execute("SELECT statement_timestamp()")
            [at] = cursor.fetchone()
        boundary = at + timedelta(seconds=shift)
        OfferQuota.objects.all().delete()
        first = service.set_new_quota(
            target, max_offers_per_period=9, period_start=LONG_AGO, period_end=boundary
        )
        second = service.set_new_quota(target, max_offers_per_period=9, period_start=boundary)
        active = service.get_active_quota(target)
        assert active is not None
        assert active.id == (second if shift < 0 else first).id
        reservation = _reserve(target)
        assert reservation == active.id


def _reserve(target: ScrapingTarget) -> int:
    from quota_redis.django.engine import counters
    from quota_redis.types import Reservation

    answer = counters().reserve(f"target:{target.pk}", 1)
    assert isinstance(answer, Reservation)
    counters().release(answer.subject, answer.hold_id)
    return answer.quota_id
