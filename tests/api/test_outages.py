"""An outage is a 503, never a refusal by the quota, and never one for what does not need it."""

from typing import Any

import pytest

from shargain.offers.models import Offer
from shargain.offers.services.quota import QuotaService

from .conftest import LONG_AGO, Scraper, offer


def test_without_postgresql_requests_are_503_and_may_be_sent_again(
    scraper: Scraper, postgres_is_down: None
) -> None:
    for answer in (scraper.post(offer()), scraper.quota()):
        assert answer.status_code == 503
        assert int(answer["Retry-After"]) > 0


def test_without_postgresql_the_process_is_alive_but_not_ready(
    client: Any, postgres_is_down: None
) -> None:
    assert client.get("/livez").status_code == 200
    answer = client.get("/readyz")
    assert (answer.status_code, answer["Content-Type"]) == (503, "application/problem+json")
    assert int(answer["Retry-After"]) > 0


def test_without_redis_the_quota_holds_and_says_that_it_is_not_live(
    scraper: Scraper, redis_is_down: None
) -> None:
    QuotaService().set_new_quota(scraper.target, max_offers_per_period=2, period_start=LONG_AGO)
    first = scraper.post(*(offer(number) for number in range(3)))
    second = scraper.post(offer(3))

    assert (first.status_code, first.json()["discarded"]) == (201, 1)
    assert second.status_code == 429
    quota = scraper.quota().json()["quota"]
    assert (quota["used"], quota["remaining"], quota["is_live"]) == (2, 0, False)
    assert Offer.objects.count() == 2


def test_without_redis_the_process_is_ready_all_the_same(client: Any, redis_is_down: None) -> None:
    answer = client.get("/readyz")
    assert (answer.status_code, answer.json()["redis"]) == (200, "down")


def test_with_both_servers_the_process_is_ready(client: Any, quota_db: None) -> None:
    answer = client.get("/readyz")
    assert (answer.status_code, answer.json()) == (
        200,
        {"status": "ready", "postgresql": "up", "redis": "up"},
    )
    assert "no-store" in answer["Cache-Control"]


def test_livez_touches_nothing(client: Any) -> None:
    # No database fixture: pytest-django refuses whatever would reach for PostgreSQL.
    assert client.get("/livez").json() == {"status": "alive"}


def test_a_failure_of_ours_is_a_problem_that_tells_nothing(
    scraper: Scraper, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_args: object, **_options: object) -> None:
        raise RuntimeError("the secret")

    monkeypatch.setattr("shargain.api.routes.create_offers", fail)
    scraper.client.raise_request_exception = False
    answer = scraper.client.post(
        f"/api/v1/targets/{scraper.target.pk}/offers",
        {"offers": [offer()]},
        content_type="application/json",
        headers={"Authorization": f"Bearer {scraper.token}"},
    )
    assert (answer.status_code, answer["Content-Type"]) == (500, "application/problem+json")
    assert b"secret" not in answer.content
    assert not Offer.objects.exists()
