"""`QuotaAdminMixin` alone, as another project's plain admin would use it: no facade between."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from admin_pages import NewQuota, Spend, posted
from django.contrib import admin
from django.db import OperationalError, ProgrammingError, connection
from django.test import Client
from django.urls import include, path

from quota_redis.django.admin import QuotaAdminMixin
from shargain.offers.models import OfferQuota, ScrapingTarget
from shargain.offers.services.quota import QuotaInfo

site = admin.AdminSite(name="plain")
LIST = "/plain/offers/offerquota/"


@admin.register(ScrapingTarget, site=site)
class PlainTargetAdmin(admin.ModelAdmin):
    search_fields = ("name",)


@admin.register(OfferQuota, site=site)
class PlainQuotaAdmin(QuotaAdminMixin, admin.ModelAdmin):
    pass


urlpatterns = [path("plain/", site.urls), path("", include("shargain.urls"))]


@pytest.fixture(autouse=True)
def plain_site(settings: Any) -> None:
    """Django's own templates, which this project's admin replaces."""
    settings.ROOT_URLCONF = __name__
    own = Path(admin.__file__).parent / "templates"
    settings.TEMPLATES = [{**settings.TEMPLATES[0], "DIRS": [own]}]


@pytest.fixture
def refusing_trigger(quota_db: None) -> Iterator[None]:
    """A database that says no to every update of a quota."""
    with connection.cursor() as cursor:
        cursor.execute(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS"
            " $$ BEGIN RAISE EXCEPTION 'Not <today>' USING ERRCODE = 'P0001'; END $$"
        )
        cursor.execute(
            "CREATE TRIGGER refuse BEFORE UPDATE OR DELETE ON offers_offerquota"
            " FOR EACH ROW EXECUTE FUNCTION refuse()"
        )
    yield
    with connection.cursor() as cursor:
        cursor.execute("DROP FUNCTION refuse CASCADE")


def data_of(quota: QuotaInfo, limit: int) -> dict[str, Any]:
    return {
        "target": quota.target_id,
        "max_offers_per_period": limit,
        **posted(quota.period_start, "period_start"),
        **posted(quota.period_end, "period_end"),
    }


def change(client: Client, quota: QuotaInfo, **data: Any) -> Any:
    return client.post(f"{LIST}{quota.id}/change/", data)


def test_a_quota_is_added_and_changed(
    admin_client: Client, new_quota: NewQuota, target: ScrapingTarget
) -> None:
    quota = new_quota(10)
    later = posted(quota.period_start + timedelta(days=1), "period_start")

    added = admin_client.post(f"{LIST}add/", {**data_of(quota, 5), **later})
    changed = change(admin_client, quota, **data_of(quota, 20))

    assert (added.status_code, changed.status_code) == (302, 302)
    limits = OfferQuota.objects.order_by("period_start")
    assert list(limits.values_list("max_offers_per_period", flat=True)) == [20, 5]


def test_a_count_that_moves_while_the_form_is_saved_is_kept(
    admin_client: Client, new_quota: NewQuota, monkeypatch: pytest.MonkeyPatch
) -> None:
    quota = new_quota(10)
    save = OfferQuota.save

    def synced_meanwhile(self: OfferQuota, **how: Any) -> None:
        OfferQuota.objects.update(used_offers_count=7)
        save(self, **how)

    monkeypatch.setattr(OfferQuota, "save", synced_meanwhile)

    change(admin_client, quota, **data_of(quota, 20), used_offers_count=0)

    row = OfferQuota.objects.get()
    assert (row.max_offers_per_period, row.used_offers_count) == (20, 7)


def test_the_subject_is_fixed(
    admin_client: Client, new_quota: NewQuota, target: ScrapingTarget, admin_user: Any
) -> None:
    quota = new_quota(10)
    other = ScrapingTarget.objects.create(name="other", owner=admin_user)

    change(admin_client, quota, **{**data_of(quota, 20), "target": other.pk})

    row = OfferQuota.objects.get()
    assert (row.target_id, row.max_offers_per_period) == (target.pk, 20)


@pytest.mark.usefixtures("refusing_trigger")
def test_what_a_trigger_refuses_is_a_form_error(admin_client: Client, new_quota: NewQuota) -> None:
    quota = new_quota(10)

    response = change(admin_client, quota, **data_of(quota, 20))

    assert response.status_code == 200
    assert response.context["adminform"].form.errors == {"__all__": ["Not <today>"]}
    assert 'value="20"' in response.content.decode()
    assert OfferQuota.objects.get().max_offers_per_period == 10


@pytest.mark.usefixtures("refusing_trigger")
def test_what_a_trigger_refuses_to_delete_or_close_is_said(
    admin_client: Client, new_quota: NewQuota
) -> None:
    quota = new_quota(10)
    chosen = {"_selected_action": [quota.id], "post": "yes"}

    answers = [
        admin_client.post(f"{LIST}{quota.id}/delete/", {"post": "yes"}, follow=True),
        admin_client.post(LIST, {"action": "delete_selected", **chosen}, follow=True),
        admin_client.post(LIST, {"action": "close_selected", **chosen}, follow=True),
    ]

    assert all("Not &lt;today&gt;" in answer.content.decode() for answer in answers)
    paths = [urlsplit(answer.redirect_chain[-1][0]).path for answer in answers]
    assert paths == [f"{LIST}{quota.id}/change/", LIST, LIST]
    assert OfferQuota.objects.get().period_end is None


@pytest.mark.parametrize("error", [OperationalError("gone"), ProgrammingError("no such column")])
def test_an_outage_or_a_bug_is_no_form_error(
    admin_client: Client,
    new_quota: NewQuota,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
) -> None:
    quota = new_quota(10)

    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(OfferQuota, "save", fail)

    with pytest.raises(type(error)):
        change(admin_client, quota, **data_of(quota, 20))


def test_a_constraint_that_the_form_did_not_see_is_a_form_error(
    admin_client: Client, new_quota: NewQuota, monkeypatch: pytest.MonkeyPatch
) -> None:
    quota = new_quota(10)
    monkeypatch.setattr(OfferQuota, "validate_constraints", lambda *_, **__: None)

    response = admin_client.post(f"{LIST}add/", data_of(quota, 20))

    assert "duplicate key" in str(response.context["adminform"].form.errors)
    assert OfferQuota.objects.get().max_offers_per_period == 10


def test_a_used_quota_is_closed_and_not_deleted(
    admin_client: Client, new_quota: NewQuota, spend: Spend
) -> None:
    quota = new_quota(10)
    spend(1)
    OfferQuota.objects.update(used_offers_count=1)
    chosen = {"_selected_action": [quota.id]}

    deleted = admin_client.post(f"{LIST}{quota.id}/delete/", {"post": "yes"})
    closed = admin_client.post(LIST, {"action": "close_selected", **chosen}, follow=True)

    assert "close it instead" in deleted.content.decode()
    assert "Closed 1 offer quota." in closed.content.decode()
    row = OfferQuota.objects.get()
    assert row.period_end is not None
    assert row.used_offers_count == 1


def test_a_quota_whose_use_is_not_synced_yet_is_not_deleted(
    admin_client: Client, new_quota: NewQuota, spend: Spend
) -> None:
    quota = new_quota(10)
    spend(1)
    OfferQuota.objects.update(used_offers_count=0)
    chosen = {"_selected_action": [quota.id], "post": "yes"}

    answers = [
        admin_client.post(f"{LIST}{quota.id}/delete/", {"post": "yes"}, follow=True),
        admin_client.post(LIST, {"action": "delete_selected", **chosen}, follow=True),
    ]

    for answer in answers:
        assert "was used and cannot be deleted" in answer.content.decode()
    assert OfferQuota.objects.filter(pk=quota.id).exists()
