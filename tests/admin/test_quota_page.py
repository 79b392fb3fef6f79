"""The page of one quota: what it says, how it looks ahead, how it repairs, and what it costs."""

import re
from collections.abc import Callable, Sequence
from datetime import timedelta
from html import unescape
from typing import Any

import psycopg
import pytest
from admin_pages import NewQuota, Spend, posted, text_of
from django.contrib.admin.models import LogEntry
from django.db import OperationalError
from django.test import Client
from django.utils import timezone

from quota_redis import Counters
from quota_redis.django.engine import counters
from shargain.console.quota_page import MAX_EDITS
from shargain.offers.models import OfferQuota, ScrapingTarget
from shargain.offers.services.edits import recorded
from shargain.offers.services.errors import ServiceUnavailable
from shargain.offers.services.quota import QuotaInfo, QuotaService
from shargain.usage import activity

LIST = "/admin/offers/offerquota/"


def page_of(quota: QuotaInfo, view: str = "change") -> str:
    return f"{LIST}{quota.id}/{view}/"


def plain(html: str) -> str:
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", html)).split())


def seen(client: Client, quota: QuotaInfo) -> str:
    return plain(text_of(client, page_of(quota)))


def values(quota: QuotaInfo, limit: int | None, **more: Any) -> dict[str, Any]:
    return {
        "max_offers_per_period": "" if limit is None else limit,
        **posted(quota.period_start, "period_start"),
        **posted(quota.period_end, "period_end"),
        **more,
    }


def limit_of(quota: QuotaInfo) -> int | None:
    return OfferQuota.objects.get(pk=quota.id).max_offers_per_period


@pytest.fixture
def no_redis(settings: Any) -> Callable[[], None]:
    def cut() -> None:
        nobody_listens = {**settings.CACHES["quotas"], "LOCATION": "redis://127.0.0.1:1/0"}
        settings.CACHES = {**settings.CACHES, "quotas": nobody_listens}

    return cut


class TestHead:
    def test_tells_the_numbers_the_state_and_what_a_batch_would_get(
        self, admin_client: Client, new_quota: NewQuota, spend: Spend
    ) -> None:
        quota = new_quota(400)
        spend(37)

        text = seen(admin_client, quota)

        assert "used 37 held 0 remaining 363 limit 400" in text
        assert "rules live" in text
        sentence = QuotaService().explain(quota.target_id, amount=20).sentence
        assert sentence.split(".")[0] in text

    def test_without_redis_the_ledger_speaks_and_says_so(
        self,
        admin_client: Client,
        new_quota: NewQuota,
        spend: Spend,
        no_redis: Callable[[], None],
    ) -> None:
        quota = new_quota(10)
        spend(4)
        no_redis()

        text = seen(admin_client, quota)

        assert "from the ledger" in text
        assert "used 4 held unknown remaining at most 6 limit 10" in text
        assert "holds are known to Redis alone" in text
        assert "only count and ledger are compared" in text

    @pytest.mark.parametrize("limit", [None, 0, 1, 10**12])
    def test_any_limit_can_be_drawn(
        self, admin_client: Client, new_quota: NewQuota, spend: Spend, limit: int | None
    ) -> None:
        quota = new_quota(limit)
        spend(1)

        text = seen(admin_client, quota)

        assert f"limit {'unlimited' if limit is None else f'{limit:,}'}" in text

    def test_a_quota_that_has_not_begun_or_has_ended_has_a_page(
        self, admin_client: Client, new_quota: NewQuota
    ) -> None:
        scheduled, ended = new_quota(5, began=-3), new_quota(5, began=9, ended=8)

        assert "The period has not begun." in seen(admin_client, scheduled)
        assert "The period has ended with 0 used." in seen(admin_client, ended)

    def test_periods_at_the_edge_of_the_calendar_have_a_page(
        self, admin_client: Client, target: ScrapingTarget
    ) -> None:
        first = timezone.now().replace(year=2, month=1, day=1)
        last = timezone.now().replace(year=9999, month=12, day=30)
        made = [
            QuotaService().set_new_quota(
                target, max_offers_per_period=5, period_start=start, period_end=end
            )
            for start, end in ((first, None), (last, None), (first + timedelta(1), last))
        ]

        for quota in made:
            assert "limit 5" in seen(admin_client, quota)

    def test_when_postgresql_is_gone_the_page_says_so(
        self, admin_client: Client, new_quota: NewQuota, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        quota = new_quota(5)

        def gone(*_: object, **__: object) -> None:
            raise ServiceUnavailable("PostgreSQL cannot be reached")

        monkeypatch.setattr(QuotaService, "explain", gone)
        response = admin_client.get(page_of(quota))

        assert response.status_code == 503
        assert "PostgreSQL does not answer" in response.content.decode()

    def test_an_outage_before_the_page_is_a_503_too(
        self, admin_client: Client, new_quota: NewQuota, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        quota = new_quota(5)

        def gone(*_: object, **__: object) -> None:
            raise OperationalError("gone") from psycopg.OperationalError("gone")

        monkeypatch.setattr("shargain.offers.admin.OfferQuotaAdmin.get_queryset", gone)

        assert admin_client.get(page_of(quota)).status_code == 503


@pytest.mark.usefixtures("counting_offers")
class TestCharts:
    def test_are_svg_with_words_and_a_table_and_without_script(
        self, admin_client: Client, new_quota: NewQuota, spend: Spend
    ) -> None:
        quota = new_quota(400)
        spend(30)
        QuotaService().sync()
        assert activity.flush()

        html = text_of(admin_client, page_of(quota))

        charts = re.findall(r'<svg class="cq-plot[^>]*>.*?</svg>', html)
        assert len(charts) == 2
        assert all("<title" in chart and "<desc" in chart for chart in charts)
        assert "30 of 400 are used" in html
        assert "30 created, 0 duplicates, 0 discarded" in html
        assert html.count("As a table") == 3
        assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son[a-z]+=", html)

    def test_the_timeline_tells_which_quota_rules_when(
        self, admin_client: Client, new_quota: NewQuota
    ) -> None:
        old, new = new_quota(5, began=10), new_quota(7, began=2)

        html = text_of(admin_client, page_of(old))
        table = plain(re.findall(r"<table.*?Which quota rules when.*?</table>", html)[0])

        assert table.index(f"quota {old.id}") < table.index(f"quota {new.id}")
        assert f"quota {old.id} (this one)" in plain(html)
        assert "shadowed" in plain(html)


class TestHolds:
    def test_live_and_expired_ones_are_told_apart(
        self, admin_client: Client, new_quota: NewQuota, spend: Spend
    ) -> None:
        quota = new_quota(50)
        spend(1)
        subject = f"target:{quota.target_id}"
        counters().reserve(subject, 7, hold_id="of-a-live-worker")
        hasty = Counters(
            counters().connection.client, namespace="shargain", lease=timedelta(milliseconds=1)
        )
        hasty.reserve(subject, 5, hold_id="of-a-dead-worker")

        text = seen(admin_client, quota)

        assert "of-a-live-worker 7 in" in text
        assert re.search(r"of-a-dead-worker 5 \d+ s ago expired", text)
        assert "held 12" in text


class TestPreview:
    def test_shows_what_an_edit_would_do_and_saves_nothing(
        self, admin_client: Client, new_quota: NewQuota, spend: Spend
    ) -> None:
        quota = new_quota(100)
        spend(8)

        response = admin_client.post(page_of(quota), values(quota, 50, _preview="1"))

        assert response.status_code == 200
        html = response.content.decode()
        assert "What this edit does" in html
        assert 'value="50"' in html
        assert not response.context["errors"]
        assert limit_of(quota) == 100

    def test_a_harmless_edit_is_saved_at_once(
        self, admin_client: Client, new_quota: NewQuota
    ) -> None:
        quota = new_quota(100)

        response = admin_client.post(page_of(quota), values(quota, 200))

        assert response.status_code == 302
        assert limit_of(quota) == 200

    @pytest.mark.parametrize("limit", [5, None], ids=["stops creation", "takes the limit away"])
    def test_a_dangerous_edit_is_asked_about_first(
        self, admin_client: Client, new_quota: NewQuota, spend: Spend, limit: int | None
    ) -> None:
        quota = new_quota(100)
        spend(8)

        asked = admin_client.post(page_of(quota), values(quota, limit))
        assert asked.status_code == 200
        assert "This is not saved yet" in asked.content.decode()
        assert limit_of(quota) == 100

        [token] = re.findall(r'name="confirmed" value="([^"]*)"', asked.content.decode())
        saved = admin_client.post(page_of(quota), values(quota, limit, confirmed=unescape(token)))
        assert saved.status_code == 302
        assert limit_of(quota) == limit

    def test_a_confirmation_is_of_the_values_that_were_shown(
        self, admin_client: Client, new_quota: NewQuota, spend: Spend
    ) -> None:
        quota = new_quota(100)
        spend(8)
        asked = admin_client.post(page_of(quota), values(quota, 5)).content.decode()
        [token] = re.findall(r'name="confirmed" value="([^"]*)"', asked)

        other = admin_client.post(page_of(quota), values(quota, 4, confirmed=unescape(token)))

        assert "This is not saved yet" in other.content.decode()
        assert limit_of(quota) == 100

    def test_a_new_quota_that_stops_creation_is_asked_about(
        self, admin_client: Client, target: ScrapingTarget
    ) -> None:
        began = posted(timezone.now() - timedelta(hours=1), "period_start")
        data = {
            "target": target.pk,
            "max_offers_per_period": 0,
            **began,
            **posted(None, "period_end"),
        }

        response = admin_client.post(f"{LIST}add/", data)

        assert "This is not saved yet" in response.content.decode()
        assert not OfferQuota.objects.exists()


class TestEdits:
    def test_tell_who_when_what_and_why(self, admin_client: Client, new_quota: NewQuota) -> None:
        quota = new_quota(100)
        admin_client.post(page_of(quota), values(quota, 250, why="they <paid> for more"))

        html = text_of(admin_client, page_of(quota))

        assert "<paid>" not in html
        assert "limit 100 → 250" in plain(html)
        assert "they <paid> for more" in plain(html)
        assert "admin admin" in plain(html)

    def test_a_reason_alone_is_asked_nothing_about(
        self, admin_client: Client, new_quota: NewQuota
    ) -> None:
        quota = new_quota(0)

        response = admin_client.post(page_of(quota), values(quota, 0, why="just so"))

        assert response.status_code == 302


def test_units_are_granted_from_here_where_there_is_a_limit(
    admin_client: Client, staff: Any, new_quota: NewQuota
) -> None:
    limited, unlimited = new_quota(10, began=2), new_quota(None)
    grant = f"/grant/{limited.id}/"
    assert grant in text_of(admin_client, page_of(limited))
    assert "Grant units" not in text_of(admin_client, page_of(unlimited))
    assert "Grant units" not in text_of(staff(["view_offerquota"]), page_of(limited))


class TestDrift:
    def test_is_named_and_repaired_once_it_is_confirmed(
        self, admin_client: Client, new_quota: NewQuota, spend: Spend
    ) -> None:
        quota = new_quota(100)
        spend(3)
        QuotaService().sync()
        OfferQuota.objects.filter(pk=quota.id).update(used_offers_count=99)

        page = text_of(admin_client, page_of(quota))
        assert "the count is not the ledger" in page
        assert page_of(quota, "repair") in page
        asked = text_of(admin_client, page_of(quota, "repair"))
        assert "Repairing writes" in asked
        assert OfferQuota.objects.get(pk=quota.id).used_offers_count == 99

        answer = admin_client.post(page_of(quota, "repair"), follow=True)

        assert OfferQuota.objects.get(pk=quota.id).used_offers_count == 3
        assert f"Repaired: quota {quota.id}: count." in answer.content.decode()
        assert "They agree." in answer.content.decode()
        entry = LogEntry.objects.get()
        assert (entry.user.get_username(), entry.object_id) == ("admin", str(quota.id))
        assert "Repaired" in entry.get_change_message()

    def test_another_target_is_left_alone(
        self, admin_client: Client, new_quota: NewQuota, admin_user: Any
    ) -> None:
        other = new_quota(5, of=ScrapingTarget.objects.create(name="other", owner=admin_user))
        quota = new_quota(5)
        OfferQuota.objects.update(used_offers_count=9)

        admin_client.post(page_of(quota, "repair"))

        assert OfferQuota.objects.get(pk=other.id).used_offers_count == 9

    def test_a_quota_that_is_none_is_sent_to_the_list(
        self, admin_client: Client, quota_db: None
    ) -> None:
        assert admin_client.post(f"{LIST}123456/repair/")["Location"] == LIST


class TestWhoMayOnlyView:
    def test_sees_everything_and_is_offered_no_edit(
        self,
        staff: Callable[[Sequence[str]], Client],
        new_quota: NewQuota,
        spend: Spend,
    ) -> None:
        quota = new_quota(10)
        spend(3)
        OfferQuota.objects.filter(pk=quota.id).update(used_offers_count=9)
        client = staff(["view_offerquota"])

        html = text_of(client, page_of(quota))

        assert "used 3 held 0 remaining 7 limit 10" in plain(html)
        assert "Who may change quotas can repair it" in html
        for offered in ('name="_preview"', 'name="_save"', 'name="why"', page_of(quota, "repair")):
            assert offered not in html
        assert client.get(page_of(quota, "repair")).status_code == 403
        assert client.post(page_of(quota, "repair")).status_code == 403
        assert OfferQuota.objects.get(pk=quota.id).used_offers_count == 9


class TestCost:
    @pytest.fixture
    def statements(self, monkeypatch: pytest.MonkeyPatch) -> list[object]:
        """Everything that is sent to PostgreSQL, by Django and past it."""
        sent: list[object] = []
        execute = psycopg.Cursor.execute

        def counted(self: Any, query: Any, *args: Any, **kwargs: Any) -> Any:
            sent.append(query)
            return execute(self, query, *args, **kwargs)

        monkeypatch.setattr(psycopg.Cursor, "execute", counted)
        return sent

    def test_does_not_grow_with_quotas_edits_and_holds(
        self,
        admin_client: Client,
        new_quota: NewQuota,
        spend: Spend,
        statements: list[object],
    ) -> None:
        quota = new_quota(1000, began=1)
        spend(5)
        text_of(admin_client, page_of(quota))
        statements.clear()
        text_of(admin_client, page_of(quota))
        few = len(statements)
        for number in range(2, 42):
            new_quota(number, began=number, ended=number - 0.5)
            with recorded("test", f"edit {number}"):
                OfferQuota.objects.filter(pk=quota.id).update(max_offers_per_period=1000 + number)
            spend(1)
        QuotaService().sync()
        statements.clear()
        html = text_of(admin_client, page_of(quota))

        assert len(statements) <= few + 1
        assert few <= 25
        assert len(re.findall(r">edit \d+<", html)) == MAX_EDITS
        assert html.count("<li") < 100
        assert "more quotas of this target" in html
        assert "more, earlier ones" in html
