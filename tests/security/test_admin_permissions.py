"""Every page and every action of the admin, asked for by those who may not have it.

The pages are those that the admin itself lists, so one that is added is covered without a word here.
"""

import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest
from django.contrib import admin
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.auth.models import Group, Permission
from django.db import connection
from django.test import Client
from django.urls import URLResolver

from shargain.alerts.models import Alert, Endpoint, TargetThresholds
from shargain.offers.models import FailedBatch, OfferQuota
from shargain.plans.models import Correction, Plan, Subscription

from .conftest import Party

LogIn = Callable[[str], Client]
# A page's kind is the end of its name; whoever may view sees the first ones, and nobody else any.
SEEN_BY_VIEWERS = {"changelist", "history", "change", "export"}
# `login` is for everybody, and the words of the widgets are no secret.
OPEN = {"login", "jsi18n"}
OF_THE_SITE = {
    "index",
    "password_change",
    "password_change_done",
    "logout",
    "autocomplete",
    "search",
}

BY_ARGUMENT = {"view_on_site", "app_list"}


def routes(patterns: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    for entry in patterns:
        route = prefix + str(entry.pattern)
        if isinstance(entry, URLResolver):
            yield from routes(entry.url_patterns, route)
        elif entry.name:
            yield entry.name, route


ROUTES = dict(routes(admin.site.urls[0]))
MODELS = {f"{m._meta.app_label}_{m._meta.model_name}": m for m in admin.site._registry}
MODEL_PAGES = {
    name: model
    for name in ROUTES
    for label, model in MODELS.items()
    if name.removeprefix(label) in {"_changelist", "_add", "_history", "_delete", "_change"}
    or name.removeprefix(label) in {"_password_change", "_repair", "_bulk", "_export", "_import"}
}
MODEL_PAGES["plans_grant"] = OfferQuota
ACTIONS = [
    (model, name, function)
    for model, its_admin in admin.site._registry.items()
    for function, name, _ in its_admin._get_base_actions()
]


@pytest.fixture(autouse=True)
def one_of_each(party: Party) -> None:
    """A row of every model that has pages; a new model needs one here."""
    FailedBatch.objects.create(batch_id=uuid4(), target_id=1, payload={}, error="?", attempts=1)
    Group.objects.create(name="editors")
    one_of_plans_and_alerts(party)
    assert all(model._default_manager.exists() for model in MODELS.values())


def one_of_plans_and_alerts(party: Party) -> None:
    day = datetime(2026, 1, 1, tzinfo=UTC)
    about = {"quota_id": 1, "target_id": party.target.pk}
    plan = Plan.objects.create(name="small", anchor=day)
    Subscription.objects.create(target=party.target, plan=plan)
    Correction.objects.create(
        **about, key=uuid4(), units=1, limit_before=1, reason="spam", who="admin alice"
    )
    Endpoint.objects.create(name="pager", url="https://example.org/")
    TargetThresholds.objects.create(target=party.target, percents=[50])
    Alert.objects.create(**about, threshold="80", limit=10, used=8, period_start=day, at=day)


@pytest.fixture
def log_in(django_user_model: Any) -> LogIn:
    """A client of a staff user who may do one thing ("view") to every model, or nothing ("")."""

    def make(verb: str, *, is_staff: bool = True) -> Client:
        user = django_user_model.objects.create_user(f"clerk-{verb}", is_staff=is_staff)
        if verb:
            user.user_permissions.set(Permission.objects.filter(codename__startswith=f"{verb}_"))
        client = Client()
        client.force_login(user)
        return client

    return make


def path_of(name: str) -> str:
    model = MODEL_PAGES.get(name)
    pk = model._default_manager.order_by("pk")[0].pk if model else 1
    return "/admin/" + re.sub(r"<[^>]*>", str(pk), ROUTES[name])


def rows() -> dict[str, Any]:
    """Everything in the database, but for what every visit writes."""
    tables = set(connection.introspection.table_names()) - {"django_session"}
    with connection.cursor() as cursor:
        found = {}
        for table in tables:
            cursor.execute(
                f"SELECT (to_jsonb(t) - 'last_login')::text FROM \"{table}\" t ORDER BY 1"
            )
            found[table] = cursor.fetchall()
    return found


def test_the_list_of_pages_is_whole() -> None:
    """A page that is neither of the site nor of a model would be tested by nothing below."""
    others = ROUTES.keys() - MODEL_PAGES.keys() - OF_THE_SITE - OPEN
    assert others == BY_ARGUMENT
    assert len(MODEL_PAGES) >= 5 * len(MODELS)


@pytest.mark.parametrize("is_known", [False, True], ids=["anonymous", "customer"])
def test_who_is_no_staff_is_sent_to_the_login(is_known: bool, log_in: Any) -> None:
    client = log_in("view", is_staff=False) if is_known else Client()
    before = rows()
    for name in sorted(ROUTES.keys() - OPEN - BY_ARGUMENT - {"logout"}):
        for ask in (client.get, client.post):
            response = ask(path_of(name), {"post": "yes"})
            assert response.status_code == 302, name
            assert response["Location"].startswith("/admin/login/"), name
    assert rows() == before


def test_staff_without_permissions_see_no_page_of_a_model(log_in: LogIn) -> None:
    client, before = log_in(""), rows()
    for name in MODEL_PAGES:
        assert client.get(path_of(name)).status_code == 403, name
        assert client.post(path_of(name), {"post": "yes"}).status_code == 403, name
    for path in ("offers/", "auth/", "api/", "r/1/1/"):
        assert client.get(f"/admin/{path}").status_code in (403, 404), path
    assert "/add/" not in client.get("/admin/").content.decode()
    assert rows() == before


def test_who_may_view_changes_nothing(log_in: LogIn) -> None:
    client, before = log_in("view"), rows()
    for name in MODEL_PAGES:
        is_seen = kind_of(name) in SEEN_BY_VIEWERS
        assert client.get(path_of(name)).status_code == (200 if is_seen else 403), name
        if kind_of(name) in {"add", "change", "delete", "password_change", "repair", "grant"}:
            assert client.post(path_of(name), {"post": "yes"}).status_code == 403, name
    assert rows() == before


def test_who_may_change_neither_adds_nor_deletes(log_in: LogIn) -> None:
    client, before = log_in("change"), rows()
    for name in MODEL_PAGES:
        if kind_of(name) in {"add", "delete"}:
            assert client.get(path_of(name)).status_code == 403, name
            assert client.post(path_of(name), {"post": "yes"}).status_code == 403, name
    for model in MODELS.values():
        run_action(client, model, "delete_selected")
    assert rows() == before


@pytest.mark.parametrize("verb", ["", "view", "add"])
def test_no_action_runs_without_its_permission(verb: str, log_in: LogIn) -> None:
    client, before = log_in(verb), rows()
    for model, action, function in ACTIONS:
        assert getattr(function, "allowed_permissions", None), f"{action} may be run by everybody"
        run_action(client, model, action)
        assert rows() == before, action


def test_the_same_action_runs_with_its_permission(log_in: LogIn) -> None:
    """The tests above would be worth nothing if nobody could run an action this way."""
    client = log_in("view")
    run_action(client, FailedBatch, "delete_selected")
    assert FailedBatch.objects.exists()
    clerk = client.session["_auth_user_id"]
    Permission.objects.get(codename="delete_failedbatch").user_set.add(clerk)
    run_action(client, FailedBatch, "delete_selected")
    assert not FailedBatch.objects.exists()


def test_looking_up_takes_the_permission_to_view_what_is_looked_up(log_in: LogIn) -> None:
    blind, seeing = log_in("add"), log_in("view")
    for model, its_admin in admin.site._registry.items():
        meta = model._meta
        for field in its_admin.autocomplete_fields:
            asked = {
                "app_label": meta.app_label,
                "model_name": meta.model_name,
                "field_name": field,
            }
            assert blind.get("/admin/autocomplete/", asked).status_code == 403, asked
            assert seeing.get("/admin/autocomplete/", asked).status_code == 200, asked


def test_a_form_of_another_site_is_refused(admin_user: Any) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(admin_user)
    before = rows()
    for name in sorted(ROUTES.keys() - BY_ARGUMENT - {"jsi18n", "autocomplete"}):
        response = client.post(path_of(name), {"post": "yes", "action": "delete_selected"})
        assert response.status_code == 403, name
    assert rows() == before


def kind_of(name: str) -> str:
    return "password_change" if name.endswith("_password_change") else name.rpartition("_")[2]


def run_action(client: Client, model: type[Any], action: str) -> None:
    meta = model._meta
    chosen = [row.pk for row in model._default_manager.all()]
    client.post(
        f"/admin/{meta.app_label}/{meta.model_name}/",
        {"action": action, ACTION_CHECKBOX_NAME: chosen, "post": "yes"},
    )
