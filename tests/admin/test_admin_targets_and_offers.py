"""The pages of targets and offers: cheap with many rows, harmless with hostile text."""

import re
from typing import Any
from uuid import uuid4

import pytest
from admin_pages import NewQuota, Spend, cells, text_of
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from shargain.offers.models import Offer, OfferQuota, ScrapingTarget
from shargain.offers.services.quota import QuotaService

TARGETS = "/admin/offers/scrapingtarget/"
OFFERS = "/admin/offers/offer/"


def offer_of(target: ScrapingTarget, **values: Any) -> Offer:
    values = {"url": f"https://example.org/{uuid4()}", "title": "ring", **values}
    return Offer.objects.create(target=target, batch_id=uuid4(), **values)


class TestTargets:
    def test_shows_the_live_quota_and_the_number_of_offers(
        self, admin_client: Client, new_quota: NewQuota, spend: Spend
    ) -> None:
        new_quota(900, began=8)
        new_quota(5, began=1)
        new_quota(70, began=-1)
        spend(7)

        html = text_of(admin_client, TARGETS)

        assert cells(html, "active_quota") == ["5 / 5 5 / 5"]
        assert cells(html, "offer_count") == ["5"]

    def test_a_target_without_a_quota_says_none(
        self, admin_client: Client, target: ScrapingTarget
    ) -> None:
        html = text_of(admin_client, TARGETS)

        assert cells(html, "active_quota") == ["none"]
        assert cells(html, "offer_count") == ["0"]

    def test_a_page_costs_the_same_queries_for_one_target_and_for_twenty(
        self, admin_client: Client, new_quota: NewQuota, admin_user: Any
    ) -> None:
        new_quota()
        text_of(admin_client, TARGETS)
        with CaptureQueriesContext(connection) as one:
            text_of(admin_client, TARGETS)
        for number in range(19):
            other = ScrapingTarget.objects.create(name=f"target {number}", owner=admin_user)
            offer_of(other)
            new_quota(of=other)
        with CaptureQueriesContext(connection) as twenty:
            html = text_of(admin_client, TARGETS)

        assert len(cells(html, "active_quota")) == 20
        assert len(twenty) == len(one)

    def test_a_target_with_offers_is_not_deleted_and_an_empty_one_is(
        self, admin_client: Client, target: ScrapingTarget, admin_user: Any
    ) -> None:
        offer_of(target)
        empty = ScrapingTarget.objects.create(name="mistake", owner=admin_user)

        refused = admin_client.post(f"{TARGETS}{target.pk}/delete/", {"post": "yes"})
        gone = admin_client.post(f"{TARGETS}{empty.pk}/delete/", {"post": "yes"})

        assert (refused.status_code, gone.status_code) == (403, 302)
        assert list(ScrapingTarget.objects.all()) == [target]

    def test_a_target_is_added_and_switched_off(
        self, admin_client: Client, target: ScrapingTarget, admin_user: Any
    ) -> None:
        data = {"name": "rings", "owner": admin_user.pk}
        admin_client.post(f"{TARGETS}add/", {**data, "is_active": "on"})
        added = ScrapingTarget.objects.get(name="rings")

        admin_client.post(f"{TARGETS}{added.pk}/change/", data)

        assert added.is_active
        assert not ScrapingTarget.objects.get(name="rings").is_active

    def test_owners_are_looked_up_and_not_listed(
        self, admin_client: Client, target: ScrapingTarget, django_user_model: Any
    ) -> None:
        django_user_model.objects.create_user("somebody else")

        assert "somebody else" not in text_of(admin_client, f"{TARGETS}add/")

    def test_targets_are_found_while_typing(
        self, admin_client: Client, target: ScrapingTarget
    ) -> None:
        where = {"app_label": "offers", "model_name": "offer", "field_name": "target"}

        response = admin_client.get("/admin/autocomplete/", {**where, "term": "diam"})

        assert [found["text"] for found in response.json()["results"]] == ["diamonds"]


class TestOffers:
    def test_a_page_costs_the_same_queries_for_one_offer_and_for_twenty(
        self, admin_client: Client, new_quota: NewQuota, spend: Spend
    ) -> None:
        new_quota()
        spend(1)
        text_of(admin_client, OFFERS)
        with CaptureQueriesContext(connection) as one:
            text_of(admin_client, OFFERS)
        spend(19)
        with CaptureQueriesContext(connection) as twenty:
            html = text_of(admin_client, OFFERS)

        assert len(cells(html, "counted_by")) == 20
        assert len(twenty) == len(one)

    def test_a_quota_that_no_longer_exists_breaks_no_page(
        self, admin_client: Client, target: ScrapingTarget
    ) -> None:
        offer = offer_of(target, quota_id=987654)

        assert cells(text_of(admin_client, OFFERS), "counted_by") == ["987654 (no longer exists)"]
        assert "987654 (no longer exists)" in text_of(admin_client, f"{OFFERS}{offer.pk}/change/")

    def test_an_offer_names_the_quota_that_counted_it(
        self, admin_client: Client, target: ScrapingTarget, new_quota: NewQuota, spend: Spend
    ) -> None:
        offer_of(target)
        quota = new_quota()
        spend(1)

        html = text_of(admin_client, OFFERS)

        assert cells(html, "counted_by")[1] == "none was active"
        assert f'href="/admin/offers/offerquota/{quota.id}/change/"' in html

    @pytest.mark.parametrize(
        "url",
        ["javascript:alert(1)", "JavaScript:alert(1)", " https://x", "data:text/html,x", "ftp://x"],
    )
    def test_only_http_urls_are_links(
        self, admin_client: Client, target: ScrapingTarget, url: str
    ) -> None:
        offer = offer_of(target, url=url, main_image_url=url, list_url=url)

        for path in (OFFERS, f"{OFFERS}{offer.pk}/change/"):
            assert f'href="{url}' not in text_of(admin_client, path)

    def test_links_leave_without_opener_and_referrer(
        self, admin_client: Client, target: ScrapingTarget
    ) -> None:
        offer_of(target, url="https://example.org/ring?a=1&b=2")

        html = text_of(admin_client, OFFERS)

        [attributes] = re.findall(r'<a href="https://example\.org/ring\?a=1&amp;b=2"([^>]*)>', html)
        assert 'rel="noopener noreferrer"' in attributes

    def test_text_from_outside_is_escaped(
        self, admin_client: Client, target: ScrapingTarget
    ) -> None:
        evil = "<script>alert('x')</script>"
        offer = offer_of(
            target, title=evil, url=f'https://x/"{evil}', list_url=evil, metadata={evil: evil}
        )

        for path in (OFFERS, f"{OFFERS}{offer.pk}/change/"):
            html = text_of(admin_client, path)
            assert "<script>alert" not in html
            assert "&lt;script&gt;alert" in html

    def test_large_metadata_are_cut(self, admin_client: Client, target: ScrapingTarget) -> None:
        offer = offer_of(target, metadata={"text": "x" * 100_000})

        html = text_of(admin_client, f"{OFFERS}{offer.pk}/change/")

        assert "more characters" in html
        assert html.count("x") < 50_000

    def test_offers_are_not_added_or_edited(
        self, admin_client: Client, target: ScrapingTarget
    ) -> None:
        offer = offer_of(target)

        added = admin_client.post(f"{OFFERS}add/", {"title": "mine"})
        edited = admin_client.post(f"{OFFERS}{offer.pk}/change/", {"title": "mine"})

        assert (added.status_code, edited.status_code) == (403, 403)
        assert Offer.objects.get().title == "ring"

    def test_deleting_an_offer_refunds_nothing(
        self, admin_client: Client, target: ScrapingTarget, new_quota: NewQuota, spend: Spend
    ) -> None:
        quota = new_quota(5)
        spend(2)
        chosen = list(Offer.objects.values_list("pk", flat=True))

        admin_client.post(
            OFFERS, {"action": "delete_selected", "_selected_action": chosen, "post": "yes"}
        )

        assert not Offer.objects.exists()
        assert QuotaService().describe([quota.id])[quota.id].used == 2
        assert OfferQuota.objects.filter(pk=quota.id).exists()

    def test_search_and_target_filter(
        self, admin_client: Client, target: ScrapingTarget, admin_user: Any
    ) -> None:
        other = ScrapingTarget.objects.create(name="other", owner=admin_user)
        offer_of(target, title="gold ring")
        offer_of(other, title="gold coin", url="https://example.org/99-coin")

        assert len(cells(text_of(admin_client, OFFERS, q="gold"), "price")) == 2
        assert len(cells(text_of(admin_client, OFFERS, q="99-coin"), "price")) == 1
        assert len(cells(text_of(admin_client, OFFERS, target=str(other.pk)), "price")) == 1
