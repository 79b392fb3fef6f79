"""The pages of quotas: live figures, edits through the facade, closing instead of deleting."""

import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from admin_pages import NewQuota, Spend, cells, posted, text_of
from django.contrib.admin.models import LogEntry
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from shargain.offers.admin import State, with_state
from shargain.offers.models import MAX_LIMIT, OfferQuota, ScrapingTarget
from shargain.offers.services.errors import InvalidQuota, ServiceUnavailable
from shargain.offers.services.quota import QuotaInfo, QuotaService

LIST = "/admin/offers/offerquota/"
ADD = f"{LIST}add/"
START = datetime(2031, 5, 1, 12, tzinfo=UTC)


def page_of(quota: QuotaInfo, view: str = "change") -> str:
    return f"{LIST}{quota.id}/{view}/"


def fields(
    target: ScrapingTarget, limit: object = 400, *, start: Any = START, end: Any = None
) -> dict[str, Any]:
    limit_text = "" if limit is None else str(limit)
    return {
        "target": target.pk,
        "max_offers_per_period": limit_text,
        **posted(start, "period_start"),
        **posted(end, "period_end"),
    }


def act(client: Client, action: str, *quotas: QuotaInfo, **more: str) -> str:
    chosen = [quota.id for quota in quotas]
    data = {"action": action, "_selected_action": chosen, **more}
    response = client.post(LIST, data, follow=True)
    assert response.status_code == 200
    return " ".join(response.content.decode().split())


class TestList:
    def test_shows_what_is_used_as_text_and_as_a_bar(
        self, admin_client: Client, new_quota: NewQuota, spend: Spend
    ) -> None:
        new_quota(400)
        spend(37)

        html = text_of(admin_client, LIST)

        assert "offers/admin.css" in html
        assert '<meter class="quota-usage" min="0" max="400" value="37"' in html
        assert cells(html, "usage") == ["37 / 400 37 / 400"]  # inside the bar and beside it
        assert cells(html, "held") == ["0"]
        assert cells(html, "remaining") == ["363"]
        assert cells(html, "counted_by") == ["live"]

    def test_says_unlimited_and_no_end_in_words(
        self, admin_client: Client, new_quota: NewQuota, spend: Spend
    ) -> None:
        new_quota(None)
        spend(2)

        html = text_of(admin_client, LIST)

        assert cells(html, "usage") == ["2 / unlimited"]
        assert cells(html, "remaining") == ["unlimited"]
        assert cells(html, "end") == ["no end"]
        assert "<meter" not in html

    def test_a_limit_of_zero_is_a_full_bar(self, admin_client: Client, new_quota: NewQuota) -> None:
        new_quota(0)

        html = text_of(admin_client, LIST)

        assert 'max="1" value="1"' in html
        assert cells(html, "remaining") == ["0"]

    def test_a_limit_lowered_below_used_shows_both(
        self, admin_client: Client, new_quota: NewQuota, spend: Spend
    ) -> None:
        quota = new_quota(10)
        spend(8)
        QuotaService().update_quota(
            quota.id, max_offers_per_period=5, period_start=quota.period_start, period_end=None
        )

        html = text_of(admin_client, LIST)

        assert cells(html, "usage") == ["8 / 5 8 / 5"]
        assert cells(html, "remaining") == ["0"]

    def test_a_page_costs_the_same_queries_for_one_quota_and_for_twenty(
        self, admin_client: Client, new_quota: NewQuota
    ) -> None:
        new_quota(1, began=1)
        text_of(admin_client, LIST)
        with CaptureQueriesContext(connection) as one:
            text_of(admin_client, LIST)
        for hours in range(2, 21):
            new_quota(hours, began=hours)
        with CaptureQueriesContext(connection) as twenty:
            html = text_of(admin_client, LIST)

        assert len(cells(html, "usage")) == 20
        assert len(twenty) == len(one)

    def test_asks_the_facade_once_for_a_page(
        self, admin_client: Client, new_quota: NewQuota, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked: list[Sequence[int]] = []
        describe = QuotaService.describe

        def counted(self: QuotaService, ids: Sequence[int]) -> dict[int, QuotaInfo]:
            asked.append(list(ids))
            return describe(self, ids)

        monkeypatch.setattr(QuotaService, "describe", counted)
        made = {new_quota(5, began=hours).id for hours in (1, 2, 3)}

        text_of(admin_client, LIST)

        assert [set(ids) for ids in asked] == [made]

    def test_says_ledger_where_redis_cannot_be_asked(
        self, admin_client: Client, new_quota: NewQuota, spend: Spend, settings: Any
    ) -> None:
        new_quota(None, began=5)
        new_quota(10, began=1)
        spend(4)
        nobody_listens = {**settings.CACHES["quotas"], "LOCATION": "redis://127.0.0.1:1/0"}
        settings.CACHES = {**settings.CACHES, "quotas": nobody_listens}

        html = text_of(admin_client, LIST)

        assert cells(html, "counted_by") == ["ledger", "ledger"]
        assert cells(html, "usage") == ["4 / 10 4 / 10", "0 / unlimited"]
        assert cells(html, "held") == ["unknown", "unknown"]
        assert cells(html, "remaining") == ["at most 6", "unlimited"]

    @pytest.mark.parametrize(
        "params", [{"q": "\0"}, {"q": "x" * 5000}, {"p": "9" * 30}, {"_facets": "True"}]
    )
    def test_bad_parameters_are_no_failure(
        self, admin_client: Client, new_quota: NewQuota, params: dict[str, str]
    ) -> None:
        new_quota()

        assert admin_client.get(LIST, params, follow=True).status_code == 200


class TestState:
    @pytest.fixture
    def one_of_each(self, new_quota: NewQuota) -> dict[State, QuotaInfo]:
        return {
            State.EXPIRED: new_quota(1, began=9, ended=8),
            State.SHADOWED: new_quota(2, began=5),
            State.ACTIVE: new_quota(3, began=2),
            State.SCHEDULED: new_quota(4, began=-3),
        }

    def test_every_state_is_told(
        self, admin_client: Client, one_of_each: dict[State, QuotaInfo]
    ) -> None:
        html = text_of(admin_client, LIST)

        assert cells(html, "state") == [
            "scheduled",
            "active",
            "shadowed by a newer one",
            "expired",
        ]

    @pytest.mark.parametrize("state", list(State))
    def test_the_filter_finds_its_state_alone(
        self, admin_client: Client, one_of_each: dict[State, QuotaInfo], state: State
    ) -> None:
        html = text_of(admin_client, LIST, state=state.value)

        assert re.findall(rf"{LIST}(\d+)/change/", html) == [str(one_of_each[state].id)]

    @pytest.mark.parametrize("value", ["", "unheard of", "\0"])
    def test_a_state_that_is_none_filters_nothing(
        self, admin_client: Client, one_of_each: dict[State, QuotaInfo], value: str
    ) -> None:
        assert len(cells(text_of(admin_client, LIST, state=value), "state")) == 4

    @pytest.mark.usefixtures("one_of_each")
    def test_active_is_what_the_facade_says(self, target: ScrapingTarget) -> None:
        active = with_state(OfferQuota.objects.all()).filter(state=State.ACTIVE)

        info = QuotaService().get_active_quota(target)

        assert info is not None
        assert list(active.values_list("pk", flat=True)) == [info.id]

    def test_a_newer_quota_of_another_target_shadows_nothing(
        self, new_quota: NewQuota, admin_user: Any
    ) -> None:
        mine = new_quota(1, began=5)
        other = ScrapingTarget.objects.create(name="other", owner=admin_user)
        new_quota(1, began=2, of=other)

        assert with_state(OfferQuota.objects.all()).get(pk=mine.id).state == State.ACTIVE

    def test_an_expired_newer_quota_shadows_nothing(self, new_quota: NewQuota) -> None:
        mine = new_quota(1, began=5)
        new_quota(1, began=3, ended=2)

        assert with_state(OfferQuota.objects.all()).get(pk=mine.id).state == State.ACTIVE


class TestTargetFilter:
    def test_shows_the_quotas_of_one_target_and_keeps_the_other_filters(
        self, admin_client: Client, new_quota: NewQuota, admin_user: Any
    ) -> None:
        new_quota()
        other = ScrapingTarget.objects.create(name="other", owner=admin_user)
        wanted = new_quota(7, of=other)

        html = text_of(admin_client, LIST, target=str(other.pk), state="active")

        assert re.findall(rf"{LIST}(\d+)/change/", html) == [str(wanted.id)]
        assert '<input type="hidden" name="state" value="active">' in html

    def test_loads_no_more_targets_than_the_chosen_one(
        self, admin_client: Client, new_quota: NewQuota, admin_user: Any
    ) -> None:
        new_quota()
        ScrapingTarget.objects.create(name="not to be listed", owner=admin_user)

        assert "not to be listed" not in text_of(admin_client, LIST)

    @pytest.mark.parametrize("value", ["x", "\0", "-1", "9" * 40])
    def test_a_target_that_is_none_is_no_failure(
        self, admin_client: Client, new_quota: NewQuota, value: str
    ) -> None:
        new_quota()

        response = admin_client.get(LIST, {"target": value})

        assert response.status_code == 302
        assert response["Location"].endswith("?e=1")


class TestAdd:
    def test_makes_a_quota_that_counts_at_once(
        self, admin_client: Client, target: ScrapingTarget, spend: Spend
    ) -> None:
        began = timezone.now() - timedelta(hours=1)

        response = admin_client.post(ADD, fields(target, 3, start=began))
        spend(5)

        assert response.status_code == 302
        info = QuotaService().get_active_quota(target)
        assert info is not None
        assert (info.max_offers_per_period, info.period_end) == (3, None)
        assert info.used == 3

    def test_an_empty_limit_is_unlimited(
        self, admin_client: Client, target: ScrapingTarget
    ) -> None:
        end = START + timedelta(days=30)

        admin_client.post(ADD, fields(target, None, end=end))

        quota = OfferQuota.objects.get()
        assert quota.max_offers_per_period is None
        assert (quota.period_start, quota.period_end) == (START, end)

    def test_a_start_that_exists_is_refused_and_overwrites_nothing(
        self, admin_client: Client, target: ScrapingTarget
    ) -> None:
        admin_client.post(ADD, fields(target, 5))

        response = admin_client.post(ADD, fields(target, 900))

        assert response.status_code == 200
        assert "already exists" in response.content.decode()
        assert OfferQuota.objects.get().max_offers_per_period == 5

    def test_a_start_that_appears_after_validation_is_refused_too(
        self, admin_client: Client, target: ScrapingTarget, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        admin_client.post(ADD, fields(target, 5))
        monkeypatch.setattr(OfferQuota, "validate_constraints", lambda *_, **__: None)

        response = admin_client.post(ADD, fields(target, 900))

        assert "already has a quota with this start" in response.content.decode()
        assert OfferQuota.objects.get().max_offers_per_period == 5

    @pytest.mark.parametrize(
        ("limit", "said"),
        [
            (-1, "greater than or equal to 0"),
            (MAX_LIMIT + 1, f"less than or equal to {MAX_LIMIT}"),
            (10**30, f"less than or equal to {MAX_LIMIT}"),
            ("many", "Enter a whole number"),
            ("1.5", "Enter a whole number"),
            ("9" * 5000, "Enter a whole number"),
        ],
    )
    def test_a_limit_out_of_range_is_said_at_its_field(
        self, admin_client: Client, target: ScrapingTarget, limit: object, said: str
    ) -> None:
        response = admin_client.post(ADD, fields(target, limit))

        assert response.status_code == 200
        errors = response.context["adminform"].form.errors
        assert list(errors) == ["max_offers_per_period"]
        assert said in str(errors)
        assert not OfferQuota.objects.exists()

    @pytest.mark.parametrize("length", [timedelta(0), timedelta(days=-1)])
    def test_an_end_that_is_not_after_the_start_is_said_at_its_field(
        self, admin_client: Client, target: ScrapingTarget, length: timedelta
    ) -> None:
        response = admin_client.post(ADD, fields(target, end=START + length))

        errors = response.context["adminform"].form.errors
        assert list(errors) == ["period_end"]
        assert "must be after the start" in str(errors)

    def test_a_moment_that_is_none_is_said_at_its_field(
        self, admin_client: Client, target: ScrapingTarget
    ) -> None:
        data = {**fields(target), "period_start_0": "tomorrow"}

        response = admin_client.post(ADD, data)

        assert list(response.context["adminform"].form.errors) == ["period_start"]

    @pytest.mark.parametrize("target_id", ["0", "9" * 40, ""])
    def test_a_target_that_is_none_is_said_at_its_field(
        self, admin_client: Client, target: ScrapingTarget, target_id: str
    ) -> None:
        response = admin_client.post(ADD, {**fields(target), "target": target_id})

        assert list(response.context["adminform"].form.errors) == ["target"]

    @pytest.mark.parametrize(
        ("error", "field"),
        [
            (InvalidQuota("no such day", field="period_start"), "period_start"),
            (InvalidQuota("no such thing", field="colour"), "__all__"),
            (ServiceUnavailable("nobody <there>"), "__all__"),
        ],
    )
    def test_what_the_facade_refuses_is_a_form_error_and_keeps_what_was_typed(
        self,
        admin_client: Client,
        target: ScrapingTarget,
        monkeypatch: pytest.MonkeyPatch,
        error: Exception,
        field: str,
    ) -> None:
        def refuse(*_: object, **__: object) -> None:
            raise error

        monkeypatch.setattr(QuotaService, "set_new_quota", refuse)

        response = admin_client.post(ADD, fields(target, 77))

        assert response.status_code == 200
        assert response.context["adminform"].form.errors == {field: [str(error)]}
        assert 'value="77"' in response.content.decode()
        assert "<there>" not in response.content.decode()


class TestChange:
    def test_a_new_limit_holds_from_the_next_offer(
        self, admin_client: Client, target: ScrapingTarget, new_quota: NewQuota, spend: Spend
    ) -> None:
        quota = new_quota(10)
        spend(4)

        response = admin_client.post(page_of(quota), fields(target, 6, start=quota.period_start))
        spend(5)

        assert response.status_code == 302
        info = QuotaService().get_active_quota(target)
        assert info is not None
        assert (info.id, info.max_offers_per_period, info.used) == (quota.id, 6, 6)

    def test_never_writes_the_count(
        self, admin_client: Client, target: ScrapingTarget, new_quota: NewQuota
    ) -> None:
        quota = new_quota(10)
        OfferQuota.objects.filter(pk=quota.id).update(used_offers_count=7)
        data = fields(target, 11, start=quota.period_start)

        admin_client.post(page_of(quota), {**data, "used_offers_count": "0"})

        row = OfferQuota.objects.get()
        assert (row.max_offers_per_period, row.used_offers_count) == (11, 7)

    def test_the_target_is_fixed(
        self,
        admin_client: Client,
        target: ScrapingTarget,
        new_quota: NewQuota,
        admin_user: Any,
    ) -> None:
        quota = new_quota(10)
        other = ScrapingTarget.objects.create(name="other", owner=admin_user)

        response = admin_client.post(page_of(quota), fields(other, 12, start=quota.period_start))

        assert response.status_code == 302
        row = OfferQuota.objects.get()
        assert (row.target_id, row.max_offers_per_period) == (target.pk, 12)

    def test_a_start_that_another_quota_has_is_refused(
        self, admin_client: Client, target: ScrapingTarget, new_quota: NewQuota
    ) -> None:
        newer, older = new_quota(1, began=1), new_quota(2, began=2)

        response = admin_client.post(page_of(older), fields(target, 2, start=newer.period_start))

        assert response.status_code == 200
        assert response.context["adminform"].form.errors
        assert OfferQuota.objects.get(pk=older.id).period_start == older.period_start

    def test_shows_the_live_figures(
        self, admin_client: Client, new_quota: NewQuota, spend: Spend
    ) -> None:
        quota = new_quota(10)
        spend(4)

        html = text_of(admin_client, page_of(quota))

        assert "4 / 10" in html
        assert 'value="4"' in html

    @pytest.mark.parametrize("pk", ["0", "x", "9" * 40])
    @pytest.mark.usefixtures("quota_db")
    def test_a_quota_that_is_none_is_no_failure(self, admin_client: Client, pk: str) -> None:
        assert admin_client.get(f"{LIST}{pk}/change/", follow=True).status_code == 200


class TestDelete:
    def test_an_unused_quota_goes(self, admin_client: Client, new_quota: NewQuota) -> None:
        quota = new_quota()

        response = admin_client.post(page_of(quota, "delete"), {"post": "yes"})

        assert response.status_code == 302
        assert not OfferQuota.objects.exists()

    def test_a_used_quota_stays_and_the_page_says_what_to_do(
        self, admin_client: Client, new_quota: NewQuota, spend: Spend
    ) -> None:
        quota = new_quota()
        spend(1)

        response = admin_client.post(page_of(quota, "delete"), {"post": "yes"})

        assert "it was used, so close it instead" in response.content.decode()
        assert OfferQuota.objects.filter(pk=quota.id).exists()

    def test_a_quota_that_is_used_after_the_page_was_shown_stays_with_all_selected(
        self,
        admin_client: Client,
        new_quota: NewQuota,
        spend: Spend,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        used, unused = new_quota(began=1), new_quota(began=-1)
        spend(1)
        monkeypatch.setattr("shargain.offers.admin.OfferQuotaAdmin.was_used", lambda *_: [])

        alone = admin_client.post(page_of(used, "delete"), {"post": "yes"}, follow=True)
        among = act(admin_client, "delete_selected", used, unused, post="yes")

        assert "close it instead" in alone.content.decode()
        assert "close it instead" in among
        assert OfferQuota.objects.count() == 2
        assert not LogEntry.objects.exists()

    def test_one_used_quota_among_the_selected_keeps_them_all(
        self, admin_client: Client, new_quota: NewQuota, spend: Spend
    ) -> None:
        unused = new_quota(began=5)
        used = new_quota(began=1)
        spend(1)

        html = act(admin_client, "delete_selected", unused, used, post="yes")

        assert html.count("it was used, so close it instead") == 1
        assert OfferQuota.objects.count() == 2

    def test_unused_quotas_go_together(self, admin_client: Client, new_quota: NewQuota) -> None:
        act(admin_client, "delete_selected", new_quota(began=1), new_quota(began=2), post="yes")

        assert not OfferQuota.objects.exists()


class TestPermissions:
    def test_who_may_only_view_sees_and_changes_nothing(
        self,
        staff: Callable[[Sequence[str]], Client],
        target: ScrapingTarget,
        new_quota: NewQuota,
    ) -> None:
        quota = new_quota(10)
        client = staff(["view_offerquota"])

        html = text_of(client, LIST)
        assert "0 / 10" in html
        assert "bulk_close" not in html
        assert "0 / 10" in text_of(client, page_of(quota))
        assert client.post(page_of(quota), fields(target, 99)).status_code == 403
        assert client.post(ADD, fields(target, 99)).status_code == 403
        assert client.post(page_of(quota, "delete"), {"post": "yes"}).status_code == 403
        act(client, "bulk_close", quota)
        act(client, "delete_selected", quota, post="yes")
        row = OfferQuota.objects.get()
        assert (row.max_offers_per_period, row.period_end) == (10, None)

    def test_who_may_change_may_close_and_not_delete(
        self, staff: Callable[[Sequence[str]], Client], new_quota: NewQuota
    ) -> None:
        quota = new_quota(10)
        client = staff(["view_offerquota", "change_offerquota"])

        act(client, "delete_selected", quota, post="yes")
        html = act(client, "bulk_close", quota)

        assert "What changes" in html
        assert OfferQuota.objects.count() == 1

    def test_strangers_are_sent_to_the_login(self, client: Client, quota_db: None) -> None:
        assert client.get(LIST)["Location"].startswith("/admin/login/")


def test_pages_carry_no_inline_script(admin_client: Client, new_quota: NewQuota) -> None:
    """A content security policy without 'unsafe-inline' must be possible."""
    quota = new_quota()
    for path in (LIST, ADD, page_of(quota)):
        html = text_of(admin_client, path)
        assert not re.search(r"<script(?![^>]*\bsrc=)(?![^>]*application/json)", html)
        assert not re.search(r"<[^>]+\son[a-z]+=", html)
