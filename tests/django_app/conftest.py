from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from quota_redis.django.engine import Engine, engine_for
from shargain.offers.models import OfferQuota, ScrapingTarget

START = datetime(2020, 1, 1, tzinfo=UTC)


@pytest.fixture
def target(quota_db: None, django_user_model: Any) -> ScrapingTarget:
    owner = django_user_model.objects.create_user("owner")
    return ScrapingTarget.objects.create(name="diamonds", owner=owner)


@pytest.fixture
def new_quota(target: ScrapingTarget) -> Callable[..., OfferQuota]:
    """A quota of the target, saved by Django."""

    def make(limit: int | None = 10, **fields: Any) -> OfferQuota:
        values = {"target": target, "period_start": START, **fields}
        return OfferQuota.objects.create(max_offers_per_period=limit, **values)  # type: ignore[return-value]

    return make


@pytest.fixture
def engine(quota_db: None) -> Engine:
    return engine_for(OfferQuota)


@pytest.fixture
def use(engine: Engine) -> Callable[[OfferQuota, int], int]:
    """Use so many units of a quota's subject; returns how many were granted."""

    def spend(quota: OfferQuota, amount: int) -> int:
        used = engine.exact.spend(engine.connection(), quota.subject, amount, lambda n: n).used
        engine.counters.flush()
        return used

    return spend


@pytest.fixture
def redis_is_down(quota_db: None, settings: Any) -> None:
    """Let this process find nobody where the Redis of the quotas was."""
    gone = {**settings.CACHES["quotas"], "LOCATION": "redis://127.0.0.1:1/0"}
    settings.CACHES = {**settings.CACHES, "quotas": gone}
