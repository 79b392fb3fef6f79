"""POST /batches: offers of many targets in one request."""

import json
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest
from django.http import HttpResponse

from shargain.api.problems import no_target
from shargain.offers.models import Offer, ScrapingTarget
from shargain.offers.services.quota import QuotaService

from .conftest import LONG_AGO, Scraper, offer

PATH = "/api/v1/batches"
Post = Callable[..., HttpResponse]


@pytest.fixture
def post(scraper: Scraper) -> Post:
    def send(*batches: object, token: str = scraper.token) -> HttpResponse:
        response = scraper.client.post(
            PATH,
            json.dumps({"batches": batches}),
            content_type="application/json",
            headers={"Authorization": f"Bearer {token}"},
        )
        scraper._check(PATH, "post", response)
        return response

    return send


@pytest.fixture
def others(owner: Any, target: ScrapingTarget) -> list[ScrapingTarget]:
    return [ScrapingTarget.objects.create(name=str(n), owner=owner) for n in range(3)]


def batch(target: ScrapingTarget, *numbers: int, **fields: object) -> dict[str, object]:
    return {"target_id": target.pk, "offers": [offer(n) for n in numbers], **fields}


def limit(target: ScrapingTarget, most: int) -> None:
    QuotaService().set_new_quota(target, max_offers_per_period=most, period_start=LONG_AGO)


def test_each_result_is_that_of_its_batch_alone(
    post: Post, target: ScrapingTarget, others: list[ScrapingTarget]
) -> None:
    spent, known, free = others
    limit(target, 1)
    limit(spent, 0)
    post(batch(known, 1))
    batch_id = str(uuid4())
    answer = post(
        batch(target, 1, 2), batch(spent, 1), batch(known, 1), batch(free, 1, batch_id=batch_id)
    )
    assert answer.status_code == 200
    results = answer.json()["results"]
    assert [result["target_id"] for result in results] == [target.pk, spent.pk, known.pk, free.pk]
    assert [result["status"] for result in results] == [201, 429, 200, 201]
    assert [result["batch"]["outcomes"] for result in results] == [
        ["created", "discarded"],
        ["discarded"],
        ["duplicate"],
        ["created"],
    ]
    assert results[0]["batch"]["quota"]["remaining"] == 0
    assert results[3]["batch"]["batch_id"] == batch_id
    assert {result["problem"] for result in results} == {None}


def test_foreign_and_unknown_targets_are_told_alike_and_hinder_nobody(
    post: Post, target: ScrapingTarget, foreign_target: ScrapingTarget
) -> None:
    unknown = ScrapingTarget(pk=987_654)
    results = post(batch(foreign_target, 1), batch(unknown, 1), batch(target, 1)).json()["results"]
    assert [result["status"] for result in results] == [404, 404, 201]
    assert results[0]["problem"] == results[1]["problem"] == no_target().document()
    assert results[0]["batch"] is None
    assert [made.target_id for made in Offer.objects.all()] == [target.pk]


def test_a_bad_value_is_named_by_its_place_and_hinders_nobody(
    post: Post, target: ScrapingTarget, others: list[ScrapingTarget]
) -> None:
    bad = batch(others[0], 1)
    bad["offers"] = [offer(1), offer(2, url="ftp://market.test")]
    results = post(batch(target, 1), bad).json()["results"]
    assert [result["status"] for result in results] == [201, 422]
    [error] = results[1]["problem"]["errors"]
    assert (error["in"], error["pointer"]) == ("body", "/batches/1/offers/1/url")
    assert [made.target_id for made in Offer.objects.all()] == [target.pk]


def test_sent_again_under_its_ids_it_answers_created_again(
    post: Post, target: ScrapingTarget, others: list[ScrapingTarget]
) -> None:
    batches = [batch(each, 1, 2, batch_id=str(uuid4())) for each in (target, *others)]
    assert post(*batches).json()["results"] == post(*batches).json()["results"]
    assert Offer.objects.count() == 2 * len(batches)


@pytest.mark.parametrize("count", [0, 101])
def test_how_many(post: Post, target: ScrapingTarget, count: int) -> None:
    answer = post(*(batch(target, n) for n in range(count)))
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == "/batches"
    assert Offer.objects.count() == 0


@pytest.mark.parametrize("target_id", [None, "x", 0, 2**63])
def test_a_target_that_is_none(post: Post, target: ScrapingTarget, target_id: object) -> None:
    answer = post(batch(target, 1), {"target_id": target_id, "offers": [offer(1)]})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == "/batches/1/target_id"


def test_without_redis_it_is_decided_all_the_same(
    post: Post, target: ScrapingTarget, redis_is_down: None
) -> None:
    limit(target, 1)
    [result] = post(batch(target, 1, 2)).json()["results"]
    assert (result["status"], result["batch"]["created"], result["batch"]["discarded"]) == (
        201,
        1,
        1,
    )


def test_without_postgres_it_is_to_be_sent_again(post: Post, postgres_is_down: None) -> None:
    answer = post({"target_id": 1, "offers": [offer(1)]})
    assert answer.status_code == 503
    assert answer["Retry-After"]


def test_a_token_is_needed(post: Post, target: ScrapingTarget) -> None:
    assert post(batch(target, 1), token="wrong").status_code == 401
    assert Offer.objects.count() == 0
