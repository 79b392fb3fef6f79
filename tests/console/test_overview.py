"""The overview: what it shows, what it costs, and what it says when something is missing."""

import re
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.db import OperationalError, connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from quota_redis.connection import Connection
from shargain.console.health import AUDIT_STALE_AFTER, SYNC_STALE_AFTER, health
from shargain.offers.models import OfferQuota, ScrapingTarget
from shargain.offers.services.offer_creation import NewOffer, create_offers
from shargain.offers.services.quota import QuotaService
from shargain.usage.models import LastRun, OfferCount, Resolution
from shargain.usage.upkeep import write_audit, write_sync
from tests.console.reading import NewQuota, plain

INDEX = "/admin/"
MOST_QUERIES = 15


def use(quota: Any, count: int) -> None:
    """Spend that many units as a worker does, and write the count as sync does."""
    batch = uuid4()
    offers = [NewOffer(url=f"https://example.org/{batch}/{n}", title="ring") for n in range(count)]
    if offers:
        create_offers(quota.target_id, offers, batch_id=batch)
    QuotaService().flush()
    QuotaService().sync()


def named(owner: Any, count: int, prefix: str = "ring") -> list[ScrapingTarget]:
    return ScrapingTarget.objects.bulk_create(
        ScrapingTarget(owner=owner, name=f"{prefix} {number:03}") for number in range(count)
    )


def near_limit(client: Client, **params: Any) -> list[str]:
    """Names of the quotas' targets in the order of the page."""
    html = client.get(INDEX, params).content.decode()
    table = html.partition('aria-labelledby="cq-near"')[2].partition("</section>")[0]
    return re.findall(r'<th scope="row"><a [^>]*>([^<]*)</a>', table)


class TestNearLimit:
    def test_shows_the_fullest_first_and_leaves_out_the_others(
        self, admin_client: Client, admin_user: Any, new_quota: NewQuota
    ) -> None:
        targets = named(admin_user, 5)
        for target, used in zip(targets, (8, 10, 7, 9, 0), strict=True):
            use(new_quota(10, of=target), used)

        assert near_limit(admin_client) == ["ring 001", "ring 003", "ring 000"]

    @pytest.mark.parametrize(
        ("limit", "used", "is_near"),
        [(11, 8, False), (11, 9, True), (3, 2, False), (0, 0, True), (None, 5, False)],
    )
    def test_eighty_percent_is_exact(
        self,
        admin_client: Client,
        new_quota: NewQuota,
        limit: int | None,
        used: int,
        is_near: bool,
    ) -> None:
        use(new_quota(limit), used)

        assert near_limit(admin_client) == (["diamonds"] if is_near else [])

    def test_rows_have_live_numbers_although_counts_choose_them(
        self, admin_client: Client, new_quota: NewQuota
    ) -> None:
        quota = new_quota(10)
        use(quota, 8)
        OfferQuota.objects.update(used_offers_count=9)

        text = plain(admin_client.get(INDEX))

        assert "8 / 10" in text
        assert "chosen and ordered by the count that sync wrote" in text

    def test_filters_by_state_share_owner_and_name(
        self,
        admin_client: Client,
        admin_user: Any,
        django_user_model: Any,
        new_quota: NewQuota,
        now: datetime,
    ) -> None:
        other = django_user_model.objects.create_user("somebody")
        mine, its = named(admin_user, 1, "gold")[0], named(other, 1, "silver")[0]
        use(new_quota(10, of=mine), 10)
        use(new_quota(10, of=its), 5)
        new_quota(10, of=its, start=now + timedelta(days=1))

        assert near_limit(admin_client, share="50") == ["gold 000", "silver 000"]
        assert near_limit(admin_client, share="any", owner="body") == ["silver 000"]
        assert near_limit(admin_client, share="any", q="GOLD") == ["gold 000"]
        assert near_limit(admin_client, share="any", state="scheduled") == ["silver 000"]
        assert len(near_limit(admin_client, share="any", state="any")) == 3

    def test_pages_keep_the_filters(
        self,
        admin_client: Client,
        admin_user: Any,
        new_quota: NewQuota,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr("shargain.console.overview.PAGE_SIZE", 2)
        for target in named(admin_user, 3):
            new_quota(0, of=target)

        html = admin_client.get(INDEX, {"q": "ring", "share": "any"}).content.decode()

        assert "q=ring&amp;share=any&amp;p=2" in html
        assert near_limit(admin_client, q="ring", share="any", p=2) == ["ring 002"]
        assert near_limit(admin_client, q="ring", p="no number") == ["ring 000", "ring 001"]

    def test_a_filter_that_is_none_says_so(self, admin_client: Client, new_quota: NewQuota) -> None:
        new_quota(0)

        text = plain(admin_client.get(INDEX, {"share": "81", "state": "x"}))

        assert "Select a valid choice. 81 is not one of the available choices." in text
        assert "Select a valid choice. x is not" in text

    def test_names_from_outside_are_escaped(
        self, admin_client: Client, target: ScrapingTarget, new_quota: NewQuota
    ) -> None:
        ScrapingTarget.objects.update(name="<script>alert(1)</script>")
        new_quota(0)

        html = admin_client.get(INDEX, {"q": '"><script>'}).content.decode()
        assert "<script>" not in html.partition('id="content"')[2].replace("<script src", "")
        assert "&lt;script&gt;alert(1)" in admin_client.get(INDEX).content.decode()


class TestLately:
    def count(self, target_id: int, *outcomes: int, ago: timedelta = timedelta(minutes=5)) -> None:
        at = (timezone.now() - ago).replace(second=0, microsecond=0)
        names = dict(zip(("created", "duplicates", "discarded"), outcomes, strict=True))
        OfferCount.objects.create(
            quota_id=1, resolution=Resolution.MINUTE, at=at, target_id=target_id, **names
        )

    def test_shows_refused_and_hottest_targets_of_the_last_hour(
        self, admin_client: Client, target: ScrapingTarget
    ) -> None:
        self.count(target.pk, 30, 20, 10)
        self.count(999_999, 1, 0, 2)
        self.count(888_888, 70, 0, 70, ago=timedelta(hours=3))

        text = plain(admin_client.get(INDEX))

        refused = text.partition("Refused in the last hour")[2].partition("Hottest")[0]
        assert "diamonds 10 5 min ago" in refused
        assert "target 999999 (gone) 2" in refused
        hottest = text.partition("Hottest targets of the last hour")[2]
        assert "diamonds 30 20 10" in hottest
        assert "888888" not in text

    def test_says_where_there_was_nothing(self, admin_client: Client, quota_db: None) -> None:
        text = plain(admin_client.get(INDEX))

        assert "No offer was refused." in text
        assert "No offer came." in text
        assert "There is no quota yet, so nothing limits any target." in text


class TestHealth:
    def state(self, name: str) -> str:
        return next(sign.state for sign in health().signs if sign.name == name)

    def test_is_well_after_a_sync_and_an_audit(self, admin_client: Client, quota_db: None) -> None:
        write_sync(is_complete=True, seconds=0.1)
        write_audit(is_complete=True, seconds=0.1, drifts=[], problems={})

        assert {sign.state for sign in health().signs} == {"ok"}
        assert "all is well" in plain(admin_client.get(INDEX))

    @pytest.mark.parametrize(
        ("kind", "name", "patience"),
        [("sync", "Sync", SYNC_STALE_AFTER), ("audit", "Audit", AUDIT_STALE_AFTER)],
    )
    def test_is_stale_after_a_while(
        self, quota_db: None, kind: str, name: str, patience: timedelta
    ) -> None:
        assert self.state(name) == "stale"
        write_sync(is_complete=True, seconds=0.1)
        write_audit(is_complete=True, seconds=0.1, drifts=[], problems={})
        edge = timezone.now() - patience
        LastRun.objects.filter(kind=kind).update(ended_at=edge + timedelta(seconds=30))
        assert self.state(name) == "ok"
        LastRun.objects.filter(kind=kind).update(ended_at=edge - timedelta(seconds=1))
        assert self.state(name) == "stale"

    def test_an_incomplete_run_is_not_well(self, quota_db: None) -> None:
        write_sync(is_complete=False, seconds=0.1)
        assert self.state("Sync") == "stale"

    def test_shows_drift_with_its_reason_and_a_link(
        self, admin_client: Client, new_quota: NewQuota
    ) -> None:
        quota = new_quota(10)
        OfferQuota.objects.update(used_offers_count=3)
        QuotaService().audit()

        response = admin_client.get(INDEX)

        assert f"quota {quota.id} count : the count is not the ledger's" in plain(response)
        assert f"/admin/offers/offerquota/{quota.id}/change/" in response.content.decode()

    def test_without_redis_it_says_so_and_shows_the_ledger(
        self, admin_client: Client, new_quota: NewQuota, no_redis: Callable[[], None]
    ) -> None:
        use(new_quota(10), 9)
        no_redis()

        text = plain(admin_client.get(INDEX))

        assert "Redis down does not answer" in text
        assert "9 / 10 ledger unknown" in text
        assert "look here" in text

    def test_without_postgresql_a_page_of_its_own_answers(
        self, admin_client: Client, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*_: object) -> None:
            raise OperationalError("the connection is lost")

        monkeypatch.setattr("shargain.console.overview.health", fail)

        response = admin_client.get(INDEX)

        assert response.status_code == 503
        assert "PostgreSQL does not answer" in response.content.decode()


class TestCost:
    @pytest.mark.parametrize("count", [1, 60])
    def test_queries_do_not_grow_and_redis_is_asked_once(
        self,
        admin_client: Client,
        admin_user: Any,
        new_quota: NewQuota,
        monkeypatch: pytest.MonkeyPatch,
        count: int,
    ) -> None:
        for target in named(admin_user, count):
            new_quota(0, of=target)
        calls: list[str] = []
        send_many = Connection.send_many

        def counted(self: Connection, sent: Any) -> Any:
            calls.append(sent[0].script.name)
            return send_many(self, sent)

        monkeypatch.setattr(Connection, "send_many", counted)
        with CaptureQueriesContext(connection) as queries:
            assert len(near_limit(admin_client)) == min(count, 50)

        assert len(queries) <= MOST_QUERIES, [q["sql"][:90] for q in queries]
        assert calls == ["snapshot"]


class TestPermissions:
    def test_who_may_not_view_quotas_sees_none(
        self, staff: Callable[[Sequence[str]], Client], new_quota: NewQuota
    ) -> None:
        new_quota(0)

        text = plain(staff(["view_scrapingtarget"]).get(INDEX))

        assert "Your account may not view quotas" in text
        assert "diamonds" not in text
        assert "Health" not in text

    def test_who_may_view_them_does(
        self, staff: Callable[[Sequence[str]], Client], new_quota: NewQuota
    ) -> None:
        new_quota(0)
        assert near_limit(staff(["view_offerquota"])) == ["diamonds"]
