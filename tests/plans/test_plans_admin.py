"""The admin of plans: apply one to many targets, stop it, grant units."""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.contrib.auth.models import Permission
from django.test import Client
from django.urls import reverse

from shargain.offers.models import OfferQuota, ScrapingTarget
from shargain.offers.services.edits import edits
from shargain.offers.services.quota import QuotaInfo, QuotaService
from shargain.plans.models import Correction, Plan, Subscription
from shargain.plans.subscriptions import apply_plan

TARGETS = "/admin/offers/scrapingtarget/"


@pytest.fixture
def quota(target: ScrapingTarget) -> QuotaInfo:
    start = datetime.now(UTC) - timedelta(hours=1)
    return QuotaService().set_new_quota(target, max_offers_per_period=400, period_start=start)


@pytest.fixture
def clerk(django_user_model: Any, quota_db: None) -> Callable[..., Client]:
    """A client of a staff user with no more than these permissions."""

    def log_in(*codenames: str) -> Client:
        user = django_user_model.objects.create_user("clerk", password="x", is_staff=True)
        user.user_permissions.set(Permission.objects.filter(codename__in=codenames))
        client = Client()
        client.force_login(user)
        return client

    return log_in


def grant_page(quota_id: int) -> str:
    return reverse("admin:plans_grant", args=[quota_id])


def said(response: Any) -> str:
    return " ".join(str(message) for message in response.context["messages"])


def test_a_plan_is_applied_to_selected_targets(
    admin_client: Client, new_target: Callable[[], ScrapingTarget], plan: Plan
) -> None:
    one, two, other = (new_target() for _ in range(3))
    form = {"action": "apply_plan_to_selected", "_selected_action": [one.pk, two.pk]}
    page = admin_client.post(TARGETS, form)
    assert page.status_code == 200
    html = page.content.decode()
    assert "small" in html
    assert not Subscription.objects.exists(), "it asks first"
    sent = dict(
        re.findall(r'type="hidden" name="(action|confirmed|select_across)" value="(\w*)"', html)
    )
    selected = re.findall(r'name="_selected_action" value="(\d+)"', html)
    response = admin_client.post(
        TARGETS, {**sent, "_selected_action": selected, "plan": plan.pk}, follow=True
    )
    assert "applied to 2 targets" in said(response)
    assert set(Subscription.objects.values_list("target", flat=True)) == {one.pk, two.pk}
    assert not other.quotas.exists()
    first = OfferQuota.objects.filter(target=one).order_by("period_start")[0]
    assert edits(first.pk)[0].who == "admin admin"


def test_a_plan_is_applied_to_all_pages(
    admin_client: Client, new_target: Callable[[], ScrapingTarget], plan: Plan
) -> None:
    targets = [new_target() for _ in range(25)]
    form = {
        "action": "apply_plan_to_selected", "_selected_action": [targets[0].pk],
        "select_across": "1", "confirmed": "yes", "plan": plan.pk,
    }  # fmt: skip
    response = admin_client.post(TARGETS, form, follow=True)
    assert "applied to 25 targets" in said(response)
    assert "within minutes" in said(response)
    assert Subscription.objects.count() == 25


def test_no_plan_is_no_answer(admin_client: Client, target: ScrapingTarget, plan: Plan) -> None:
    form = {
        "action": "apply_plan_to_selected", "_selected_action": [target.pk], "confirmed": "yes",
        "plan": "",
    }  # fmt: skip
    page = admin_client.post(TARGETS, form)
    assert "This field is required" in page.content.decode()
    assert not Subscription.objects.exists()


def test_who_may_not_apply_plans_has_no_such_action(
    clerk: Callable[..., Client], target: ScrapingTarget, plan: Plan
) -> None:
    client = clerk("view_scrapingtarget", "change_scrapingtarget")
    assert b"apply_plan_to_selected" not in client.get(TARGETS).content
    client.post(
        TARGETS,
        {"action": "apply_plan_to_selected", "_selected_action": [target.pk], "confirmed": "yes",
         "plan": plan.pk},
    )  # fmt: skip
    assert not Subscription.objects.exists()


def test_a_plan_is_made_and_bad_ones_are_refused(admin_client: Client, quota_db: None) -> None:
    form = {
        "name": "big", "max_offers_per_period": "1000", "repeats": "monthly", "every_days": "",
        "anchor": "2026-01-31", "time_zone": "Europe/Warsaw",
    }  # fmt: skip
    for field, value, sentence in (
        ("time_zone", "Europe/Nowhere", "time_zone is"),
        ("every_days", "5", "every month none"),
        ("max_offers_per_period", "-1", "Give a limit of 0"),
        ("anchor", "1200-01-01", "1970 to 2999"),
    ):
        page = admin_client.post("/admin/plans/plan/add/", {**form, field: value})
        assert sentence in page.content.decode(), field
    admin_client.post("/admin/plans/plan/add/", form)
    assert Plan.objects.get().rhythm.time_zone == "Europe/Warsaw"
    html = admin_client.get("/admin/plans/plan/").content.decode()
    assert "every month" in html


def test_a_subscription_is_made_changed_and_stopped(
    admin_client: Client, target: ScrapingTarget, plan: Plan
) -> None:
    form = {"target": target.pk, "plan": plan.pk, "own_limit": "", "repeats": "on"}
    admin_client.post("/admin/plans/subscription/add/", form)
    row = Subscription.objects.get()
    assert target.quotas.count() == 2
    change = f"/admin/plans/subscription/{row.pk}/change/"
    page = admin_client.post(change, {**form, "own_limit": "5"})
    assert "has its own limit" in page.content.decode()
    admin_client.post(change, {**form, "has_own_limit": "on", "own_limit": "5"})
    assert set(target.quotas.values_list("max_offers_per_period", flat=True)) == {400, 5}
    page = admin_client.get("/admin/plans/subscription/")
    assert "5 (its own)" in page.content.decode()
    action = {"action": "stop_selected", "_selected_action": [row.pk]}
    response = admin_client.post("/admin/plans/subscription/", action, follow=True)
    assert "nothing limits these targets" in said(response)
    assert target.quotas.count() == 1
    admin_client.post(change, form)
    assert target.quotas.count() == 2
    assert admin_client.post(f"/admin/plans/subscription/{row.pk}/delete/").status_code == 403


def test_lists_of_many_cost_no_more_queries(
    admin_client: Client,
    new_target: Callable[[], ScrapingTarget],
    plan: Plan,
    django_assert_max_num_queries: Any,
) -> None:
    apply_plan(plan, [new_target().pk for _ in range(15)], who="test")
    for page in ("plan", "subscription", "correction"):
        with django_assert_max_num_queries(8):
            admin_client.get(f"/admin/plans/{page}/")


def test_units_are_granted_once_by_a_page_that_is_sent_twice(
    admin_client: Client, quota: QuotaInfo
) -> None:
    page = admin_client.get(grant_page(quota.id))
    assert page.status_code == 200
    [key] = re.findall(r'name="key" value="([0-9a-f-]{36})"', page.content.decode())
    form = {"units": "50", "reason": "spam <b>counted</b>", "key": key}
    for _ in range(2):
        response = admin_client.post(grant_page(quota.id), form)
        assert response.headers["Location"] == f"/admin/offers/offerquota/{quota.id}/change/"
    correction = Correction.objects.get()
    assert (correction.units, correction.who) == (50, "admin admin")
    assert OfferQuota.objects.get(pk=quota.id).max_offers_per_period == 450
    for path in ("/admin/plans/correction/", grant_page(quota.id)):
        assert "spam &lt;b&gt;counted" in admin_client.get(path).content.decode()
    assert admin_client.get(f"/admin/plans/correction/{correction.pk}/change/").status_code == 200
    assert admin_client.post(f"/admin/plans/correction/{correction.pk}/delete/").status_code == 403


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"units": "0"}, "greater than or equal to 1"),
        ({"units": "-3"}, "greater than or equal to 1"),
        ({"units": "999999999999"}, "the limit is 400"),
        ({"reason": "  "}, "This field is required"),
        ({"reason": "x" * 501}, "at most 500"),
    ],
)
def test_bad_grants_are_explained(
    admin_client: Client, quota: QuotaInfo, values: dict[str, str], sentence: str
) -> None:
    form = {"units": "5", "reason": "spam", "key": str(uuid4()), **values}
    page = admin_client.post(grant_page(quota.id), form)
    assert page.status_code == 200
    assert sentence in page.content.decode()
    assert not Correction.objects.exists()


def test_who_may_not_change_quotas_may_not_grant(
    clerk: Callable[..., Client], quota: QuotaInfo
) -> None:
    client = clerk("view_offerquota", "view_correction", "add_correction")
    assert client.get(grant_page(quota.id)).status_code == 403
    form = {"units": "5", "reason": "spam", "key": str(uuid4())}
    assert client.post(grant_page(quota.id), form).status_code == 403
    assert not Correction.objects.exists()
    assert Client().get(grant_page(quota.id)).status_code == 302


def test_a_grant_needs_the_token_of_a_form(
    quota: QuotaInfo, admin_user: Any, target: ScrapingTarget
) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(admin_user)
    form = {"units": "5", "reason": "spam", "key": str(uuid4())}
    assert client.post(grant_page(quota.id), form).status_code == 403


def test_a_quota_that_is_gone(admin_client: Client, quota_db: None) -> None:
    response = admin_client.get(grant_page(1), follow=True)
    assert "There is no quota 1." in said(response)
