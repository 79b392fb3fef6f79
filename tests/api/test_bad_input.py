"""No input is answered with a 5xx, and every refusal is a problem that names the place."""

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shargain.offers.models import Offer

from .conftest import Scraper, offer

BATCH = '{"offers": [{"url": "https://market.test/1", "title": "Ad", "metadata": %s}]}'


def in_short(value: object) -> str:
    return repr(value)[:40]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("url", None),
        ("url", 5),
        ("url", ""),
        ("url", "not an address"),
        ("url", "ftp://market.test/1"),
        ("url", "javascript:alert(1)"),
        ("url", "https://market.test/" + "x" * 2048),
        ("url", "https://market.test/" + "ż" * 1020),
        ("url", "https://market.test/\0"),
        ("title", None),
        ("title", "a\0b"),
        ("title", "x" * 501),
        ("title", ["Ad"]),
        ("price", "twelve"),
        ("price", True),
        ("price", "NaN"),
        ("price", "Infinity"),
        ("price", "-1"),
        ("price", "1E+999999"),
        ("price", "1E-999999"),
        ("price", 10**10),
        ("price", 10**400),
        ("price", 1e308),
        ("main_image_url", "https://market.test/" + "x" * 2048),
        ("main_image_url", "javascript:alert(1)"),
        ("list_url", "https://market.test/\0"),
        ("metadata", []),
        ("metadata", {"a": "b\0c"}),
        ("metadata", {"a": [{"b\0c": 1}]}),
        ("published_at", "2026-01-02T03:04:05"),
        ("published_at", "yesterday"),
        ("published_at", 1767225600),
        ("published_at", "0001-01-01T00:00:00+14:00"),
        ("published_at", "9999-12-31T23:59:59-14:00"),
        ("colour", "white"),
    ],
    ids=in_short,
)
def test_a_bad_value_is_named_with_its_place(scraper: Scraper, field: str, value: object) -> None:
    answer = scraper.post(offer(1), offer(2, **{field: value}))
    assert answer.status_code == 422
    errors = answer.json()["errors"]
    assert [error["pointer"] for error in errors] == [f"/offers/1/{field}"]
    assert errors[0]["detail"] in answer.json()["detail"]
    assert not Offer.objects.exists()


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ("", ""),
        ("{}", "/offers"),
        ("[]", ""),
        ("null", ""),
        ('{"offers": []}', "/offers"),
        ('{"offers": {}}', "/offers"),
        ('{"offers": [7]}', "/offers/0"),
        ('{"offers": [{"url": "https://market.test/1"}]}', "/offers/0/title"),
        (BATCH[:-1] % "{}" + ', "batch_id": "7"}', "/batch_id"),
        (BATCH[:-1] % "{}" + ', "target": 7}', "/target"),
        (json.dumps({"offers": [offer(number) for number in range(1001)]}), "/offers"),
    ],
    ids=in_short,
)
def test_a_bad_batch_is_named_with_its_place(scraper: Scraper, body: str, pointer: str) -> None:
    answer = scraper.send(body)
    assert answer.status_code == 422
    assert [error["pointer"] for error in answer.json()["errors"]] == [pointer]
    assert not Offer.objects.exists()


@pytest.mark.parametrize(
    "body",
    [
        "{",
        b"\xff\xfe{}",
        BATCH % '{"a": NaN}',
        BATCH % r'{"a": "\ud800"}',
        BATCH % ("[" * 100_000),
        BATCH % ("1" * 5_000),
        "{} {}",
    ],
    ids=in_short,
)
def test_what_is_no_json_is_400(scraper: Scraper, body: str | bytes) -> None:
    answer = scraper.send(body)
    assert answer.status_code == 400
    assert "line 1" in answer.json()["detail"]


def test_a_number_beyond_floating_point_is_refused(scraper: Scraper) -> None:
    assert scraper.send(BATCH % '{"a": 1e400}').status_code in {400, 422}


def test_the_last_of_two_equal_names_counts(scraper: Scraper) -> None:
    scraper.send('{"offers": [{"url": "https://market.test/1", "title": "A", "title": "B"}]}')
    assert Offer.objects.get().title == "B"


def test_thousands_of_errors_are_counted_but_not_all_listed(scraper: Scraper) -> None:
    answer = scraper.post(*([{}] * 1000))
    assert len(answer.json()["errors"]) == 20
    assert "2000 values" in answer.json()["detail"]


def test_a_body_above_the_bound_is_413_before_it_is_read(scraper: Scraper, settings: Any) -> None:
    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = 1000
    at_the_bound = (BATCH % "{}").ljust(1000)
    assert scraper.send(at_the_bound).status_code == 201
    answer = scraper.send(at_the_bound + " ")
    assert answer.status_code == 413
    assert "1000 bytes" in answer.json()["detail"]
    assert scraper.send("{}", CONTENT_LENGTH=str(10**30)).status_code == 413


@pytest.mark.parametrize("length", ["", "many", "-5", "1.5"])
def test_a_body_of_unknown_length_is_411(scraper: Scraper, length: str) -> None:
    assert scraper.send(BATCH % "{}", CONTENT_LENGTH=length).status_code == 411


@pytest.mark.parametrize("kind", ["", "text/plain", "application/x-www-form-urlencoded", "é"])
def test_what_does_not_claim_to_be_json_is_415(scraper: Scraper, kind: str) -> None:
    answer = scraper.send(BATCH % "{}", CONTENT_TYPE=kind)
    assert answer.status_code == 415
    assert answer["Accept"] == "application/json"


@pytest.mark.parametrize("key", ["7", "a\0b", "x" * 10_000, "é"], ids=in_short)
def test_a_bad_idempotency_key_is_named(scraper: Scraper, key: str) -> None:
    answer = scraper.send(BATCH % "{}", headers={"Idempotency-Key": key})
    assert answer.status_code == 422
    [error] = answer.json()["errors"]
    assert (error["in"], error["pointer"]) == ("header", "/Idempotency-Key")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("get", "/api/", 404),
        ("get", "/api/v1/", 404),
        ("get", "/api/v2/targets/1/quota", 404),
        ("get", "/api/v1/targets/one/quota", 404),
        ("get", "/api/v1/targets/-1/quota", 404),
        ("get", "/api/v1/targets/" + "9" * 5000 + "/quota", 404),
        ("post", "/api/v1/targets/1/quota", 405),
        ("put", "/api/v1/targets/1/offers", 405),
        ("post", "/livez", 405),
        ("delete", "/readyz", 405),
    ],
    ids=in_short,
)
def test_errors_before_any_operation_are_problems_too(
    client: Any, method: str, path: str, status: int
) -> None:
    answer = getattr(client, method)(path)
    assert (answer.status_code, answer["Content-Type"]) == (status, "application/problem+json")
    assert answer.json()["status"] == status
    assert (status == 405) == ("Allow" in answer)
    assert answer["X-Content-Type-Options"] == "nosniff"


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)
almost_an_offer = st.fixed_dictionaries(
    {"url": st.just("https://market.test/") | st.text().map("https://market.test/".__add__)},
    optional={
        "title": st.text() | anything,
        "price": st.decimals(allow_nan=True).map(str) | st.floats() | st.integers(),
        "main_image_url": st.text().map("https://market.test/".__add__),
        "metadata": st.dictionaries(st.text(), anything, max_size=3),
        "published_at": st.datetimes(timezones=st.timezones()).map(str) | anything,
    },
)


@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(st.lists(almost_an_offer | anything, min_size=1, max_size=3) | anything)
def test_no_batch_is_answered_with_a_failure(scraper: Scraper, offers: object) -> None:
    answer = scraper.send(json.dumps({"offers": offers}))
    assert answer.status_code in {200, 201, 400, 422}


@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.binary() | st.text().map(str.encode))
def test_no_body_is_answered_with_a_failure(scraper: Scraper, body: bytes) -> None:
    assert scraper.send(body).status_code in {400, 422}
