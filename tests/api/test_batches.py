import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.utils import timezone

from shargain.offers.models import Offer
from shargain.offers.services.quota import QuotaService

from .conftest import LONG_AGO, Scraper, offer

FIELD = re.compile(r'"offers";(?P<parameters>.+);pk=:[A-Za-z0-9+/=]+:')


def limit(scraper: Scraper, most: int | None, **period: Any) -> None:
    period.setdefault("period_start", LONG_AGO)
    QuotaService().set_new_quota(scraper.target, max_offers_per_period=most, **period)


def parameters(field: str) -> dict[str, int]:
    match = FIELD.fullmatch(field)
    assert match, field
    return {name: int(value) for name, value in re.findall(r"(\w)=(\d+)", match["parameters"])}


def test_offers_are_created_with_all_their_fields(scraper: Scraper) -> None:
    full = offer(
        price="12.50",
        main_image_url="https://market.test/1.jpg",
        list_url="https://market.test/list",
        metadata={"carat": 0.23, "tags": ["a", None, True]},
        published_at="2026-01-02T03:04:05+01:00",
    )
    answer = scraper.post(full, offer(2, price=7.1))

    assert answer.status_code == 201
    assert answer.json()["outcomes"] == ["created", "created"]
    first, second = Offer.objects.order_by("url")
    assert (first.title, first.price, first.metadata) == (
        "Ad 1",
        Decimal("12.50"),
        full["metadata"],
    )
    assert (first.main_image_url, first.list_url) == (full["main_image_url"], full["list_url"])
    assert first.published_at == datetime(2026, 1, 2, 2, 4, 5, tzinfo=UTC)
    assert (second.price, second.published_at) == (Decimal("7.10"), None)
    assert first.batch_id == UUID(answer.json()["batch_id"])


def test_outcomes_keep_the_order_of_the_batch(scraper: Scraper) -> None:
    limit(scraper, 3)
    scraper.post(offer(2))
    answer = scraper.post(*(offer(number) for number in (1, 2, 3, 4, 1)))

    assert answer.status_code == 201
    body = answer.json()
    assert body["outcomes"] == ["created", "duplicate", "created", "discarded", "duplicate"]
    assert (body["created"], body["duplicates"], body["discarded"]) == (2, 2, 1)
    assert (body["quota"]["used"], body["quota"]["remaining"]) == (3, 0)
    assert Offer.objects.count() == 3


def test_a_batch_of_known_offers_is_no_refusal_when_the_quota_is_spent(scraper: Scraper) -> None:
    limit(scraper, 1)
    scraper.post(offer(1))
    answer = scraper.post(offer(1))
    assert answer.status_code == 200
    assert answer.json()["outcomes"] == ["duplicate"]
    assert parameters(answer["RateLimit"])["r"] == 0


def test_a_batch_whose_every_new_offer_is_refused_is_429(scraper: Scraper) -> None:
    limit(scraper, 1, period_end=timezone.now() + timedelta(hours=2))
    scraper.post(offer(1))
    answer = scraper.post(offer(2), offer(1), offer(3))

    assert answer.status_code == 429
    body = answer.json()
    assert body["type"] == "https://iana.org/assignments/http-problem-types#quota-exceeded"
    assert body["violated-policies"] == ["offers"]
    assert body["outcomes"] == ["discarded", "duplicate", "discarded"]
    assert parameters(answer["RateLimit-Policy"])["q"] == 1
    left = parameters(answer["RateLimit"])
    assert left["r"] == 0
    assert int(answer["Retry-After"]) == left["t"]
    assert 7100 < left["t"] <= 7200
    assert Offer.objects.count() == 1


def test_the_fields_tell_limit_period_and_what_remains(scraper: Scraper) -> None:
    start = timezone.now() - timedelta(hours=1)
    limit(scraper, 400, period_start=start, period_end=start + timedelta(days=1))
    for answer in (scraper.post(offer(1), offer(2)), scraper.quota()):
        assert parameters(answer["RateLimit-Policy"]) == {"q": 400, "w": 86400}
        left = parameters(answer["RateLimit"])
        assert left["r"] == 398
        assert 82000 < left["t"] <= 82800
        assert "Retry-After" not in answer


def test_a_period_without_end_has_no_seconds_to_tell(scraper: Scraper) -> None:
    limit(scraper, 0)
    answer = scraper.post(offer())
    assert answer.status_code == 429
    assert parameters(answer["RateLimit-Policy"]) == {"q": 0}
    assert parameters(answer["RateLimit"]) == {"r": 0}
    assert "Retry-After" not in answer


@pytest.mark.parametrize("has_quota", [True, False])
def test_what_is_not_limited_has_no_fields(scraper: Scraper, has_quota: bool) -> None:
    if has_quota:
        limit(scraper, None)
    for answer in (scraper.post(offer()), scraper.quota()):
        assert "RateLimit" not in answer
        assert "RateLimit-Policy" not in answer
        quota = answer.json()["quota"]
        assert (quota is not None) == has_quota
        if quota:
            assert (quota["limit"], quota["remaining"], quota["used"]) == (None, None, 1)


def test_a_batch_that_is_sent_again_answers_for_what_it_made(scraper: Scraper) -> None:
    limit(scraper, 2)
    batch_id = str(uuid4())
    first = scraper.post(offer(1), offer(2), batch_id=batch_id)
    again = scraper.post(offer(1), offer(2), batch_id=batch_id)

    assert (again.status_code, again.json()) == (201, first.json())
    assert first.json()["batch_id"] == batch_id
    assert Offer.objects.count() == 2


@pytest.mark.parametrize("form", ["{}", '"{}"'])
def test_the_batch_id_may_come_as_idempotency_key(scraper: Scraper, form: str) -> None:
    key = uuid4()
    body = '{"offers": [{"url": "https://market.test/1", "title": "Ad"}]}'
    answer = scraper.send(body, headers={"Idempotency-Key": form.format(key)})
    assert answer.json()["batch_id"] == str(key)
    assert Offer.objects.get().batch_id == key


def test_two_different_batch_ids_are_refused(scraper: Scraper) -> None:
    body = '{"offers": [{"url": "https://market.test/1", "title": "Ad"}], "batch_id": "%s"}'
    answer = scraper.send(body % uuid4(), headers={"Idempotency-Key": str(uuid4())})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == "/Idempotency-Key"
    assert not Offer.objects.exists()


def test_the_active_quota_is_shown(scraper: Scraper) -> None:
    assert scraper.quota().json() == {"quota": None}
    end = timezone.now() + timedelta(days=1)
    limit(scraper, 10, period_end=end)
    scraper.post(offer(1), offer(2), offer(3))
    quota = scraper.quota().json()["quota"]
    assert (quota["limit"], quota["used"], quota["held"], quota["remaining"]) == (10, 3, 0, 7)
    assert quota["is_live"] is True
    assert datetime.fromisoformat(quota["period_start"]) == LONG_AGO
    assert abs(datetime.fromisoformat(quota["period_end"]) - end) < timedelta(milliseconds=1)
