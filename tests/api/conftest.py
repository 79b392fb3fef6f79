"""A scraper that talks to the API, and holds every answer against the published contract."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from django.db import connection
from django.http import HttpResponse
from django.test import Client
from jsonschema import Draft202012Validator

from shargain.api.models import ScraperToken
from shargain.offers.models import ScrapingTarget

LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


class Scraper:
    """Posts to the API with one token; fails where an answer is not as the document says."""

    def __init__(self, client: Client, token: str, target: ScrapingTarget) -> None:
        self.client = client
        self.token = token
        self.target = target
        self.document = client.get("/api/v1/openapi.json").json()

    def post(self, *offers: object, **fields: object) -> HttpResponse:
        return self.send(json.dumps({"offers": offers, **fields}))

    def send(
        self, body: str | bytes, *, target: object = None, headers: Any = None, **environ: Any
    ) -> HttpResponse:
        """Post this body; `environ` replaces what a WSGI server would say of the request."""
        raw = body.encode() if isinstance(body, str) else body
        described = {"CONTENT_TYPE": "application/json", "CONTENT_LENGTH": str(len(raw))}
        response = self.client.post(
            f"/api/v1/targets/{target or self.target.pk}/offers",
            raw,
            content_type="application/json",
            headers={"Authorization": f"Bearer {self.token}", **(headers or {})},
            **{**described, **environ},
        )
        self._check("/api/v1/targets/{target_id}/offers", "post", response)
        return response

    def quota(self, *, target: object = None) -> HttpResponse:
        response = self.client.get(
            f"/api/v1/targets/{target or self.target.pk}/quota",
            headers={"Authorization": f"Bearer {self.token}"},
        )
        self._check("/api/v1/targets/{target_id}/quota", "get", response)
        return response

    def _check(self, path: str, method: str, response: HttpResponse) -> None:
        answers = self.document["paths"][path][method]["responses"]
        assert str(response.status_code) in answers, response.content
        [(media_type, content)] = answers[str(response.status_code)]["content"].items()
        assert response["Content-Type"].split(";")[0] == media_type
        schema = {**content["schema"], "components": self.document["components"]}
        Draft202012Validator(schema).validate(response.json())


def offer(number: int = 1, **fields: object) -> dict[str, object]:
    return {"url": f"https://market.test/ad/{number}", "title": f"Ad {number}", **fields}


@pytest.fixture
def owner(quota_db: None, django_user_model: Any) -> Any:
    return django_user_model.objects.create_user("owner")


@pytest.fixture
def target(owner: Any) -> ScrapingTarget:
    return ScrapingTarget.objects.create(name="Diamonds", owner=owner)


@pytest.fixture
def foreign_target(quota_db: None, django_user_model: Any) -> ScrapingTarget:
    stranger = django_user_model.objects.create_user("stranger")
    return ScrapingTarget.objects.create(name="Not ours", owner=stranger)


@pytest.fixture
def scraper(client: Client, owner: Any, target: ScrapingTarget) -> Scraper:
    return Scraper(client, ScraperToken.issue(owner, "scraper")[1], target)


@pytest.fixture
def postgres_is_down(quota_db: None) -> Iterator[None]:
    """Let this process find nobody where PostgreSQL was."""
    settings = dict(connection.settings_dict)
    connection.close()
    connection.settings_dict.update(HOST="127.0.0.1", PORT="1")
    yield
    connection.close()
    connection.settings_dict.update(settings)


@pytest.fixture
def redis_is_down(quota_db: None, settings: Any) -> None:
    """Let this process find nobody where the Redis of the quotas was."""
    gone = {**settings.CACHES["quotas"], "LOCATION": "redis://127.0.0.1:1/0"}
    settings.CACHES = {**settings.CACHES, "quotas": gone}
