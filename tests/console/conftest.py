from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.contrib.auth.models import Permission
from django.test import Client
from django.utils import timezone

from shargain.offers.models import ScrapingTarget
from shargain.offers.services.quota import QuotaInfo, QuotaService
from tests.console.reading import NewQuota


@pytest.fixture
def target(quota_db: None, admin_user: Any) -> ScrapingTarget:
    return ScrapingTarget.objects.create(name="diamonds", owner=admin_user)


@pytest.fixture
def now() -> datetime:
    return timezone.now().replace(microsecond=0)


@pytest.fixture
def new_quota(target: ScrapingTarget, now: datetime) -> NewQuota:
    """A quota that began an hour ago and ends in so many hours (None = never), unless start and end are given."""

    def make(
        limit: int | None = 400,
        *,
        ends: float | None = None,
        start: datetime | None = None,
        end: datetime | None = None,
        of: ScrapingTarget = target,
    ) -> QuotaInfo:
        if ends is not None:
            end = now + timedelta(hours=ends)
        return QuotaService().set_new_quota(
            of,
            max_offers_per_period=limit,
            period_start=start or now - timedelta(hours=1),
            period_end=end,
        )

    return make


@pytest.fixture
def staff(django_user_model: Any, quota_db: None) -> Callable[[Sequence[str]], Client]:
    """A client of a staff user with no more than these permissions ("view_offerquota")."""

    def log_in(codenames: Sequence[str]) -> Client:
        user = django_user_model.objects.create_user("clerk", password="x", is_staff=True)
        user.user_permissions.set(Permission.objects.filter(codename__in=codenames))
        client = Client()
        client.force_login(user)
        return client

    return log_in


@pytest.fixture
def no_redis(settings: Any) -> Callable[[], None]:
    def cut() -> None:
        nobody_listens = {**settings.CACHES["quotas"], "LOCATION": "redis://127.0.0.1:1/0"}
        settings.CACHES = {**settings.CACHES, "quotas": nobody_listens}

    return cut
