"""What owners see of their own targets, in pages and by the API, and that they see nothing else."""

import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest
from django.db import OperationalError, connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from shargain.api.models import ScraperToken
from shargain.offers.models import ScrapingTarget
from shargain.offers.services.offer_creation import NewOffer, create_offers
from shargain.offers.services.quota import QuotaService

LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


@pytest.fixture
def owner(quota_db: None, django_user_model: Any) -> Any:
    return django_user_model.objects.create_user("owner", password="correct horse")


@pytest.fixture
def stranger(quota_db: None, django_user_model: Any) -> Any:
    return django_user_model.objects.create_user("stranger", password="x")


@pytest.fixture
def target(owner: Any) -> ScrapingTarget:
    return ScrapingTarget.objects.create(name="diamond <rings>", owner=owner)


@pytest.fixture
def browser(owner: Any) -> Client:
    client = Client()
    client.force_login(owner)
    return client


@pytest.fixture
def ask(owner: Any) -> Callable[..., Any]:
    _, plain = ScraperToken.issue(owner, "reader")

    def get(path: str, **query: object) -> Any:
        return Client().get(path, query, headers={"Authorization": f"Bearer {plain}"})

    return get


def limit(target: ScrapingTarget, offers: int | None) -> None:
    QuotaService().set_new_quota(target, max_offers_per_period=offers, period_start=LONG_AGO)


def post(target: ScrapingTarget, count: int) -> None:
    batch = uuid4()
    offers = [NewOffer(url=f"https://example.org/{batch}/{n}", title="x") for n in range(count)]
    create_offers(target.pk, offers, batch_id=batch)
    QuotaService().flush()


def text_of(response: Any) -> str:
    assert response.status_code == 200
    return " ".join(re.sub(r"<[^>]*>", " ", response.content.decode()).split())


class TestPages:
    def test_a_target_with_its_numbers(self, browser: Client, target: ScrapingTarget) -> None:
        limit(target, 10)
        post(target, 9)
        text = text_of(browser.get("/quotas/"))
        assert "diamond &lt;rings&gt;" in text
        assert "9 / 10" in text
        assert "nearly used up" in text
        text = text_of(browser.get(f"/quotas/{target.pk}/"))
        assert "used 9 remaining 1 limit 10" in text

    @pytest.mark.parametrize(
        ("offers", "used", "word"),
        [(10, 0, "available"), (10, 10, "used up"), (0, 0, "used up"), (None, 3, "unlimited")],
    )
    def test_states(
        self, browser: Client, target: ScrapingTarget, offers: int | None, used: int, word: str
    ) -> None:
        limit(target, offers)
        if used:
            post(target, used)
        assert f" {word} " in text_of(browser.get("/quotas/"))
        assert browser.get(f"/quotas/{target.pk}/").status_code == 200

    def test_a_target_without_a_quota(self, browser: Client, target: ScrapingTarget) -> None:
        assert "no limit" in text_of(browser.get("/quotas/"))
        assert "nothing limits" in text_of(browser.get(f"/quotas/{target.pk}/"))

    def test_an_owner_without_targets(self, stranger: Any, target: ScrapingTarget) -> None:
        client = Client()
        client.force_login(stranger)
        assert "no active targets yet" in text_of(client.get("/quotas/"))

    def test_nothing_of_others(self, stranger: Any, target: ScrapingTarget) -> None:
        client = Client()
        client.force_login(stranger)
        assert "rings" not in text_of(client.get("/quotas/"))
        assert client.get(f"/quotas/{target.pk}/").status_code == 404
        stranger.is_staff = stranger.is_superuser = True
        stranger.save()
        assert client.get(f"/quotas/{target.pk}/").status_code == 404

    def test_search(self, browser: Client, owner: Any, target: ScrapingTarget) -> None:
        ScrapingTarget.objects.create(name="pearls", owner=owner)
        found = text_of(browser.get("/quotas/", {"q": "PEARL"}))
        assert "pearls" in found
        assert "rings" not in found
        nothing = text_of(browser.get("/quotas/", {"q": "<b>\0" + "x" * 500}))
        assert "No target of yours has" in nothing

    @pytest.mark.parametrize("page", ["0", "-1", "99999999999999999999", "x", ""])
    def test_a_page_that_is_none_is_one_that_is(
        self, browser: Client, target: ScrapingTarget, page: str
    ) -> None:
        assert "rings" in text_of(browser.get("/quotas/", {"page": page}))

    def test_many_targets_cost_no_more_queries(
        self, browser: Client, owner: Any, target: ScrapingTarget
    ) -> None:
        limit(target, 10)
        with CaptureQueriesContext(connection) as one:
            browser.get("/quotas/")
        for number in range(30):
            limit(ScrapingTarget.objects.create(name=f"t{number}", owner=owner), 5)
        with CaptureQueriesContext(connection) as many:
            text = text_of(browser.get("/quotas/"))
        assert "31 targets, page 1 of 2" in text
        assert len(many) <= len(one) + 1 <= 8

    def test_without_redis_the_ledger_speaks(
        self, browser: Client, target: ScrapingTarget, settings: Any
    ) -> None:
        limit(target, 10)
        post(target, 4)
        dead = {**settings.CACHES["quotas"], "LOCATION": "redis://127.0.0.1:1/0"}
        settings.CACHES = {**settings.CACHES, "quotas": dead}
        text = text_of(browser.get(f"/quotas/{target.pk}/"))
        assert "Live numbers cannot be read" in text
        assert "used 4 remaining at most 6" in text

    def test_without_postgresql_it_says_so(
        self, browser: Client, target: ScrapingTarget, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*_: object) -> None:
            raise OperationalError("the server is gone")

        monkeypatch.setattr(QuotaService, "active_quotas", fail)
        response = browser.get("/quotas/")
        assert response.status_code == 503
        assert "PostgreSQL does not answer" in response.content.decode()

    def test_only_after_a_login(self, target: ScrapingTarget) -> None:
        client = Client()
        response = client.get(f"/quotas/{target.pk}/")
        assert response["Location"] == f"/login/?next=/quotas/{target.pk}/"
        wrong = client.post("/login/", {"username": "owner", "password": "wrong"})
        assert "correct username and password" in wrong.content.decode()
        right = {"username": "owner", "password": "correct horse", "next": "//evil.example/"}
        assert client.post("/login/", right)["Location"] == "/quotas/"
        assert client.get("/quotas/").status_code == 200
        assert client.get("/logout/").status_code == 405
        client.post("/logout/")
        assert client.get("/quotas/").status_code == 302

    @pytest.mark.parametrize("path", ["/quotas/", "/login/"])
    def test_they_are_read_only_and_strict(self, browser: Client, path: str) -> None:
        response = browser.get(path)
        assert "unsafe" not in response["Content-Security-Policy"]
        page = response.content.decode()
        assert "<script" not in page
        assert not re.search(r"\sstyle=|\son[a-z]+=", page)
        assert browser.post("/quotas/").status_code == 405


class TestApi:
    def test_the_owners_targets(
        self, ask: Callable[..., Any], target: ScrapingTarget, stranger: Any
    ) -> None:
        limit(target, 10)
        ScrapingTarget.objects.create(name="not mine", owner=stranger)
        answer = ask("/api/v1/targets").json()
        [mine] = answer["targets"]
        assert (mine["id"], mine["quota"]["limit"], answer["next"]) == (target.pk, 10, None)

    def test_a_hundred_at_a_time(self, ask: Callable[..., Any], owner: Any) -> None:
        ScrapingTarget.objects.bulk_create(
            ScrapingTarget(name=str(number), owner=owner) for number in range(150)
        )
        first = ask("/api/v1/targets").json()
        rest = ask("/api/v1/targets", after=first["next"]).json()
        names = {target["name"] for target in first["targets"] + rest["targets"]}
        assert (len(first["targets"]), len(names), rest["next"]) == (100, 150, None)

    def test_usage_over_time(self, ask: Callable[..., Any], target: ScrapingTarget) -> None:
        limit(target, 10)
        post(target, 4)
        QuotaService().sync()
        answer = ask(f"/api/v1/targets/{target.pk}/usage", hours=3).json()
        assert answer["quota"]["used"] == 4
        assert answer["usage"][-1]["used"] == 4
        assert {"at", "created", "duplicates", "discarded"} == set(answer["activity"][0])

    def test_no_quota_has_no_usage(self, ask: Callable[..., Any], target: ScrapingTarget) -> None:
        answer = ask(f"/api/v1/targets/{target.pk}/usage").json()
        assert answer == {"quota": None, "runs_out_at": None, "usage": [], "activity": []}

    def test_not_of_others(self, ask: Callable[..., Any], stranger: Any) -> None:
        theirs = ScrapingTarget.objects.create(name="not mine", owner=stranger)
        assert ask(f"/api/v1/targets/{theirs.pk}/usage").status_code == 404

    @pytest.mark.parametrize("hours", ["0", "745", "-1", "x", "1e9", ""])
    def test_bad_spans(self, ask: Callable[..., Any], target: ScrapingTarget, hours: str) -> None:
        assert ask(f"/api/v1/targets/{target.pk}/usage", hours=hours).status_code == 422

    @pytest.mark.parametrize("after", ["-1", "x", str(2**63)])
    def test_bad_pages(self, ask: Callable[..., Any], after: str) -> None:
        assert ask("/api/v1/targets", after=after).status_code == 422
