"""The published document, and everything near it, thrown at the API under every kind of token.

FUZZ_EXAMPLES sets how many cases each kind of bad token, operation and kind of data gets (the valid
token gets four times as many), FUZZ_SEED which ones:

    FUZZ_EXAMPLES=2000 FUZZ_SEED=1 scripts/test tests/security/test_fuzz.py -s -n 0
"""

import json
import os
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest
import schemathesis
from django.core.wsgi import get_wsgi_application
from django.db import connection
from django.test import Client
from django.utils import timezone
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import ignored_auth, positive_data_acceptance

from shargain.api.models import ScraperToken
from shargain.offers.models import Offer, ScrapingTarget

from .conftest import Party

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "12"))
SEED = os.environ.get("FUZZ_SEED")
OPERATIONS = (
    ("/api/v1/targets/{target_id}/offers", "POST"),
    ("/api/v1/targets/{target_id}/quota", "GET"),
    ("/api/v1/targets/{target_id}/usage", "GET"),
)

requests: Counter[str] = Counter()


@pytest.fixture(scope="module", autouse=True)
def _count() -> Iterator[None]:
    yield
    print(f"\nrequests: {sum(requests.values()):,}; {dict(sorted(requests.items()))}")


def valid(party: Party) -> str:
    return f"Bearer {party.token}"


def expired(party: Party) -> str:
    token, plain = ScraperToken.issue(party.owner, "expired")
    past = timezone.now() - timedelta(seconds=1)
    ScraperToken.objects.filter(pk=token.pk).update(expires_at=past)
    return f"Bearer {plain}"


def revoked(party: Party) -> str:
    token, plain = ScraperToken.issue(party.owner, "revoked")
    token.revoke()
    return f"Bearer {plain}"


def of_a_deactivated_owner(party: Party) -> str:
    type(party.owner).objects.filter(pk=party.owner.pk).update(is_active=False)
    return valid(party)


def unknown(_: Party) -> str:
    return "Bearer shg_" + "a" * 43


def missing(_: Party) -> None:
    return None


def state_of(owner: Any) -> list[Any]:
    """Every row that belongs to an owner, by a way of its own and not by the models."""
    mine = "target_id IN (SELECT id FROM offers_scrapingtarget WHERE owner_id = %s)"
    queries = {
        "offers_scrapingtarget": "owner_id = %s",
        "offers_offer": mine,
        "offers_offerquota": mine,
        "quota_redis_ledger": f"quota_id IN (SELECT id FROM offers_offerquota WHERE {mine})",
    }
    found = []
    with connection.cursor() as cursor:
        for table, condition in queries.items():
            cursor.execute(
                f"SELECT row_to_json(t)::text FROM {table} t WHERE {condition} ORDER BY 1",
                [owner.pk],
            )
            found.append(cursor.fetchall())
    return found


def cases(operation: Any, mode: GenerationMode, headers: dict[str, str], ids: list[int]) -> Any:
    """Cases for one operation whose target is one of `ids`, or whatever is generated."""
    places = [{"path_parameters": {"target_id": pk}} for pk in ids]
    fixed: list[dict[str, Any]] = [*places, {}]
    return st.one_of(
        operation.as_strategy(generation_mode=mode, headers=headers, **place) for place in fixed
    )


def run(strategy: Any, examples: int, check: Callable[[Any], None]) -> None:
    @given(case=strategy)
    @settings(
        max_examples=examples,
        deadline=None,
        derandomize=SEED is None,
        database=None,
        phases=[Phase.explicit, Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    def fuzz(case: Any) -> None:
        check(case)

    (seed(int(SEED))(fuzz) if SEED else fuzz)()


@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
@pytest.mark.parametrize(("path", "method"), OPERATIONS, ids=["offers", "quota", "usage"])
@pytest.mark.parametrize(
    "kind", [valid, expired, revoked, of_a_deactivated_owner, unknown, missing]
)
def test_no_request_fails_or_crosses_owners(
    party: Party,
    stranger: Party,
    kind: Callable[[Party], str | None],
    path: str,
    method: str,
    mode: GenerationMode,
) -> None:
    schema = schemathesis.openapi.from_wsgi(
        "/api/v1/openapi.json", get_wsgi_application(), config=schemathesis_config()
    )
    switched_off = ScrapingTarget.objects.create(name="Off", owner=party.owner, is_active=False)
    authorization = kind(party)
    headers = {"Authorization": authorization} if authorization else {}
    own, foreign = state_of(party.owner), state_of(stranger.owner)

    def check(case: Any) -> None:
        response = case.call()
        requests[str(response.status_code)] += 1
        assert response.status_code < 500, response.text
        assert str(stranger.limit) not in response.text
        assert "stranger" not in response.text
        target = str(case.path_parameters["target_id"])
        if kind is not valid:
            # What is no number has no page, and needs no token to be told so.
            assert response.status_code == 401 or not target.isdecimal(), response.text
        if target != str(party.target.pk):
            assert response.status_code >= 400, response.text
        # What the document lets through may still be no address or no price: its detail says so.
        case.validate_response(response, excluded_checks=[positive_data_acceptance, ignored_auth])

    often = [party.target.pk, stranger.target.pk] * (3 if kind is valid else 1)
    ids = [*often, switched_off.pk, 2**63]
    examples = 4 * EXAMPLES if kind is valid else EXAMPLES
    run(cases(schema[path][method], mode, headers, ids), examples, check)

    assert state_of(stranger.owner) == foreign
    if kind is not valid:
        assert state_of(party.owner) == own
    assert not Offer.objects.exclude(target__in=[party.target, stranger.target]).exists()


def schemathesis_config() -> schemathesis.Config:
    """The tokens are ours alone."""
    return schemathesis.Config.from_dict({"generation": {"with-security-parameters": False}})


@pytest.mark.parametrize(
    "moment",
    ["0720-12-01T11:02:19+20:14", "2026-01-01T00:00:00-23:59", "2026-01-01T00:00:00+16:00"],
)
def test_what_fuzzing_found(moment: str, party: Party, client: Client) -> None:
    """Offsets that Python knows and PostgreSQL does not."""
    offer = {"url": "https://market.test/1", "title": "Ad", "published_at": moment}
    response = client.post(
        f"/api/v1/targets/{party.target.pk}/offers",
        json.dumps({"offers": [offer]}),
        content_type="application/json",
        headers=party.headers,
    )
    assert response.status_code == 201
    assert Offer.objects.get(url=offer["url"]).published_at == datetime.fromisoformat(moment)


@pytest.mark.parametrize("price", ["0." + "1" * 100_000, "9" * 100_000, "1e999999"])
def test_no_answer_repeats_a_huge_value(price: str, party: Party, client: Client) -> None:
    offer = {"url": "https://market.test/1", "title": "Ad", "price": price}
    response = client.post(
        f"/api/v1/targets/{party.target.pk}/offers",
        json.dumps({"offers": [offer]}),
        content_type="application/json",
        headers=party.headers,
    )
    assert response.status_code == 422
    assert len(response.content) < 2_000
