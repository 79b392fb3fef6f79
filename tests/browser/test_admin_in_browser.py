"""An operator looks at a quota, previews and confirms an edit, and repairs what differs."""

from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest
from django.utils import timezone

from shargain.offers.models import OfferQuota, ScrapingTarget
from shargain.offers.services.edits import edits
from shargain.offers.services.offer_creation import NewOffer, create_offers
from shargain.offers.services.quota import QuotaInfo, QuotaService

from .conftest import PASSWORD, Visitor


@pytest.fixture
def quota(quota_db: None, django_user_model: Any) -> QuotaInfo:
    admin = django_user_model.objects.create_superuser("operator", password=PASSWORD)
    target = ScrapingTarget.objects.create(name="diamond rings", owner=admin)
    service = QuotaService()
    start = timezone.now().replace(microsecond=0, day=1)
    quota = service.set_new_quota(target, max_offers_per_period=50, period_start=start)
    service.set_new_quota(
        target, max_offers_per_period=90, period_start=datetime(2026, 1, 1, tzinfo=UTC)
    )
    offers = [NewOffer(url=f"https://example.org/{n}", title="ring") for n in range(12)]
    create_offers(target.pk, offers, batch_id=uuid4())
    service.flush()
    service.sync()
    return quota


def test_from_the_list_to_an_edit_that_is_confirmed(quota: QuotaInfo, visitor: Visitor) -> None:
    visitor.log_in("operator", "/admin/login/?next=/admin/offers/offerquota/")
    assert "12 / 50" in visitor.text()
    visitor.check(context="main, #content, #main")
    visitor.open(f"/admin/offers/offerquota/{quota.id}/change/")
    assert "12 used" in visitor.text()
    visitor.check(context=".cq-panel")

    limit = visitor.page.get_by_label("Max offers per period")
    limit.fill("10")
    visitor.page.get_by_label("Why").fill("They left")
    visitor.tab_to("Preview")
    visitor.enter()
    assert "stops creation at once" in visitor.text()
    visitor.check(context=".cq-panel")
    assert OfferQuota.objects.get(pk=quota.id).max_offers_per_period == 50

    visitor.page.get_by_role("button", name="Save", exact=True).last.click()
    visitor.page.wait_for_load_state()
    if OfferQuota.objects.get(pk=quota.id).max_offers_per_period == 50:
        # What stops creation at once is asked about once more.
        visitor.page.get_by_role("button", name="Save", exact=True).last.click()
        visitor.page.wait_for_load_state()
    assert OfferQuota.objects.get(pk=quota.id).max_offers_per_period == 10
    last = edits(quota.id)[0]
    assert (last.who, last.why) == ("admin operator", "They left")


def test_what_differs_is_repaired(quota: QuotaInfo, visitor: Visitor) -> None:
    OfferQuota.objects.filter(pk=quota.id).update(used_offers_count=3)
    visitor.log_in("operator", f"/admin/login/?next=/admin/offers/offerquota/{quota.id}/change/")
    assert "count" in visitor.page.locator(".cq-table", has_text="why").first.inner_text()
    visitor.tab_to("Repair this target", most=120)
    visitor.enter()
    visitor.check(context=".cq-panel")
    visitor.tab_to("Repair")
    visitor.enter()
    assert OfferQuota.objects.get(pk=quota.id).used_offers_count == 12


def test_quotas_are_closed_in_bulk_once_that_is_confirmed(
    quota: QuotaInfo, visitor: Visitor
) -> None:
    visitor.log_in("operator", "/admin/login/?next=/admin/offers/offerquota/")
    visitor.page.locator(f'input[name="_selected_action"][value="{quota.id}"]').check()
    visitor.page.locator('select[name="action"]').first.select_option("bulk_close")
    with visitor.page.expect_navigation():
        visitor.page.locator('button[name="index"]').first.click()
    assert "1 change." in visitor.text()
    visitor.check(context=".cq-panel")
    assert OfferQuota.objects.get(pk=quota.id).period_end is None
    with visitor.page.expect_navigation():
        visitor.page.locator('[name="confirmed"]').first.click()
    assert "1 done" in visitor.text()
    assert OfferQuota.objects.get(pk=quota.id).period_end is not None
