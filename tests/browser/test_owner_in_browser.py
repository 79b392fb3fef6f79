"""An owner reads their quotas, on a desk and on a phone, in the light and in the dark, with a keyboard alone."""

from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest

from shargain.offers.models import ScrapingTarget
from shargain.offers.services.offer_creation import NewOffer, create_offers
from shargain.offers.services.quota import QuotaService

from .conftest import PASSWORD, Visitor


@pytest.fixture
def target(quota_db: None, django_user_model: Any) -> ScrapingTarget:
    owner = django_user_model.objects.create_user("owner", password=PASSWORD)
    target = ScrapingTarget.objects.create(name="diamond rings", owner=owner)
    ScrapingTarget.objects.create(name="pearls, which nobody limits", owner=owner)
    service = QuotaService()
    service.set_new_quota(
        target, max_offers_per_period=10, period_start=datetime(2026, 1, 1, tzinfo=UTC)
    )
    offers = [NewOffer(url=f"https://example.org/{n}", title="ring") for n in range(9)]
    create_offers(target.pk, offers, batch_id=uuid4())
    service.flush()
    service.sync()
    return target


def test_from_the_login_to_a_target_and_out(target: ScrapingTarget, visitor: Visitor) -> None:
    visitor.open("/quotas/")
    visitor.check()
    visitor.log_in("owner", "/login/")
    assert "9 / 10" in visitor.text()
    assert "nearly used up" in visitor.text()
    visitor.check()
    visitor.tab_to("diamond rings")
    visitor.enter()
    assert visitor.page.url.endswith(f"/quotas/{target.pk}/")
    assert "used 9 remaining 1 limit 10" in visitor.text()
    visitor.tab_to("As a table")
    visitor.page.keyboard.press("Enter")
    assert visitor.page.get_by_role("table", name="Used offers").is_visible()
    visitor.check()
    visitor.tab_to("Log out")
    visitor.enter()
    assert "/login/" in visitor.page.url
    visitor.open("/quotas/")
    assert "/login/" in visitor.page.url
