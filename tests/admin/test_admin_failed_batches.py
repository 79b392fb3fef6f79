"""Failed batches: looked at, tried again, never edited."""

from collections.abc import Callable, Sequence
from typing import Any
from uuid import UUID, uuid4

import pytest
from admin_pages import text_of
from django.test import Client

from shargain.offers.models import FailedBatch
from shargain.offers.services import failed_batches
from shargain.offers.services.errors import ServiceUnavailable

LIST = "/admin/offers/failedbatch/"


@pytest.fixture
def batch(quota_db: None) -> FailedBatch:
    return FailedBatch.objects.create(
        batch_id=uuid4(),
        target_id=42,
        payload={"offers": [{"title": "<b>ring</b>"}]},
        error="<i>no such target</i>",
        attempts=5,
    )


@pytest.fixture
def retried(monkeypatch: pytest.MonkeyPatch) -> list[Sequence[UUID]]:
    """What is handed to the retry service, without a broker behind it."""
    calls: list[Sequence[UUID]] = []

    def retry(batch_ids: Sequence[UUID]) -> int:
        calls.append(list(batch_ids))
        return len(batch_ids)

    monkeypatch.setattr(failed_batches, "retry", retry)
    return calls


def try_again(client: Client, *batches: FailedBatch) -> str:
    chosen = [batch.pk for batch in batches]
    data = {"action": "try_again", "_selected_action": chosen}
    return client.post(LIST, data, follow=True).content.decode()


def test_payload_and_error_are_shown_escaped(admin_client: Client, batch: FailedBatch) -> None:
    html = text_of(admin_client, f"{LIST}{batch.pk}/change/")

    assert "&quot;title&quot;: &quot;&lt;b&gt;ring&lt;/b&gt;&quot;" in html
    assert "&lt;i&gt;no such target&lt;/i&gt;" in html


def test_a_large_payload_is_cut(admin_client: Client, batch: FailedBatch) -> None:
    FailedBatch.objects.update(payload={"offers": ["x" * 1000] * 1000})

    html = text_of(admin_client, f"{LIST}{batch.pk}/change/")

    assert "more characters" in html
    assert len(html) < 60_000


@pytest.mark.parametrize("query", ["42", "no such", "\0", "%"])
def test_search_takes_anything(admin_client: Client, batch: FailedBatch, query: str) -> None:
    assert admin_client.get(LIST, {"q": query}).status_code == 200


def test_a_batch_is_found_by_target_and_by_id(admin_client: Client, batch: FailedBatch) -> None:
    link = f"{LIST}{batch.pk}/change/"

    assert link in text_of(admin_client, LIST, q="42")
    assert link in text_of(admin_client, LIST, q=str(batch.batch_id))
    assert link not in text_of(admin_client, LIST, q="4242424242")


def test_nothing_is_added_or_edited(admin_client: Client, batch: FailedBatch) -> None:
    page = f"{LIST}{batch.pk}/change/"

    assert admin_client.post(page, {"error": ""}).status_code == 403
    assert admin_client.get(f"{LIST}add/").status_code == 403


def test_the_selected_are_tried_again(
    admin_client: Client, batch: FailedBatch, retried: list[Any]
) -> None:
    html = try_again(admin_client, batch)

    assert retried == [[batch.batch_id]]
    assert "Sent to the workers again: 1." in html


def test_too_many_are_refused(
    admin_client: Client,
    batch: FailedBatch,
    retried: list[Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("shargain.offers.admin.failed_batches.MAX_RETRIED", 0)

    html = try_again(admin_client, batch)

    assert retried == []
    assert "try at most 0 batches" in html


def test_an_outage_of_the_broker_is_said(
    admin_client: Client, batch: FailedBatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: object) -> int:
        raise ServiceUnavailable("No answer from the broker")

    monkeypatch.setattr(failed_batches, "retry", fail)

    assert "No answer from the broker" in try_again(admin_client, batch)


def test_who_may_only_view_cannot_try_again(
    staff: Callable[[Sequence[str]], Client], batch: FailedBatch, retried: list[Any]
) -> None:
    client = staff(["view_failedbatch"])

    assert str(batch.batch_id) in text_of(client, LIST)
    assert "try_again" not in text_of(client, LIST)
    try_again(client, batch)
    assert retried == []


def test_who_may_change_can_try_again(
    staff: Callable[[Sequence[str]], Client], batch: FailedBatch, retried: list[Any]
) -> None:
    try_again(staff(["change_failedbatch"]), batch)

    assert retried == [[batch.batch_id]]
