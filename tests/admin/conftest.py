from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from admin_pages import NewQuota, Spend
from django.contrib.auth.models import Permission
from django.test import Client
from django.utils import timezone

from shargain.offers.models import ScrapingTarget
from shargain.offers.services.offer_creation import NewOffer, create_offers
from shargain.offers.services.quota import QuotaInfo, QuotaService


@pytest.fixture
def target(quota_db: None, admin_user: Any) -> ScrapingTarget:
    return ScrapingTarget.objects.create(name="diamonds", owner=admin_user)


@pytest.fixture
def new_quota(target: ScrapingTarget) -> NewQuota:
    """A quota that began some hours ago (or begins in some: negative hours)."""

    def make(
        limit: int | None = 400,
        *,
        began: float = 1,
        ended: float | None = None,
        of: ScrapingTarget = target,
    ) -> QuotaInfo:
        now = timezone.now().replace(microsecond=0)
        return QuotaService().set_new_quota(
            of,
            max_offers_per_period=limit,
            period_start=now - timedelta(hours=began),
            period_end=None if ended is None else now - timedelta(hours=ended),
        )

    return make


@pytest.fixture
def spend(target: ScrapingTarget) -> Spend:
    """Create that many new offers for a target."""

    def make(count: int, *, of: ScrapingTarget = target) -> None:
        batch = uuid4()
        offers = [
            NewOffer(url=f"https://example.org/{batch}/{number}", title=f"ring {number}")
            for number in range(count)
        ]
        create_offers(of.pk, offers, batch_id=batch)
        QuotaService().flush()

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
