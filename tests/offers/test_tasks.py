from typing import Any
from uuid import uuid4

import pytest
from celery.exceptions import Reject
from django.db import OperationalError
from offer_batches import LONG_AGO, all_of, offers, used

from shargain.offers import tasks
from shargain.offers.models import FailedBatch, Offer, ScrapingTarget
from shargain.offers.services import failed_batches
from shargain.offers.services.errors import ServiceUnavailable
from shargain.offers.services.payload import batch_from_json, batch_to_json, offer_to_json
from shargain.offers.services.quota import QuotaService
from shargain.offers.tasks import MAX_ATTEMPTS, create_batch


@pytest.fixture
def payload(target: ScrapingTarget) -> dict[str, Any]:
    return batch_to_json(target.pk, uuid4(), offers(1, 2, 3))


def test_a_payload_survives_the_queue(payload: dict[str, Any], target: ScrapingTarget) -> None:
    target_id, batch_id, read = batch_from_json(payload)
    assert (target_id, str(batch_id), read) == (target.pk, payload["batch_id"], offers(1, 2, 3))
    assert [offer_to_json(offer) for offer in read] == payload["offers"]


def test_a_batch_that_is_delivered_twice_counts_once(
    payload: dict[str, Any], target: ScrapingTarget
) -> None:
    quota = QuotaService().set_new_quota(target, max_offers_per_period=2, period_start=LONG_AGO)
    create_batch.apply(args=[payload]).get()
    create_batch.apply(args=[payload]).get()
    assert used(quota.id) == all_of(2)
    assert not FailedBatch.objects.exists()


@pytest.mark.parametrize(
    "change",
    [
        {"target_id": 10**30},
        {"target_id": "1"},
        {"target_id": 999_999},
        {"batch_id": "no uuid"},
        {"offers": []},
        {"offers": None},
        {"offers": [{"url": "https://example.org"}]},
        {"offers": [{"url": "ftp://example.org", "title": "x"}]},
        {"offers": [{"url": "https://example.org", "title": "x", "price": "many"}]},
        {"offers": [{"url": "https://example.org", "title": "x", "published_at": 7}]},
        {"offers": [{"url": "https://example.org", "title": "nul \0", "metadata": {"\0": "\0"}}]},
        {"offers": [{"url": "https://example.org", "title": "x", "surprise": 1}]},
        {"offers": [7]},
        {"target_id": "half a pair \udc9b", "\udc9b": "\udc9b"},
        {"target_id": float("nan"), "offers": [float("-inf")]},
    ],
)
def test_what_can_never_be_created_is_kept_at_once(
    payload: dict[str, Any], change: dict[str, Any]
) -> None:
    create_batch.apply(args=[{**payload, **change}]).get()
    kept = FailedBatch.objects.get()
    assert kept.attempts == 1
    assert kept.error
    assert not Offer.objects.exists()


def test_what_fails_five_times_is_kept_and_can_be_tried_again(
    payload: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def fail(*args: object, **kwargs: object) -> None:
        calls.append(args)
        raise RuntimeError("broken")

    monkeypatch.setattr(tasks, "create_offers", fail)
    create_batch.apply(args=[payload]).get()
    kept = FailedBatch.objects.get()
    assert len(calls) == kept.attempts == MAX_ATTEMPTS
    assert kept.payload == payload
    assert "RuntimeError: broken" in kept.error

    monkeypatch.undo()
    queued: list[Any] = []
    monkeypatch.setattr(create_batch, "delay", queued.append)
    assert failed_batches.retry([kept.batch_id]) == 1
    assert queued == [payload]
    assert not FailedBatch.objects.exists()


def test_an_outage_is_waited_for_and_is_no_attempt(
    payload: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = iter([False] * 7 + [True])
    monkeypatch.setattr(failed_batches, "is_database_up", lambda: next(answers))
    real, calls = tasks.create_offers, []

    def fail_eight_times(*args: Any, **kwargs: Any) -> Any:
        calls.append(args)
        if len(calls) <= 8:
            raise ServiceUnavailable("PostgreSQL failed")
        return real(*args, **kwargs)

    monkeypatch.setattr(tasks, "create_offers", fail_eight_times)
    create_batch.apply(args=[payload]).get()
    assert len(calls) == 9
    assert Offer.objects.count() == 3
    assert not FailedBatch.objects.exists()


def test_a_failed_batch_that_cannot_be_kept_comes_again(
    payload: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A task that ends with an error would be dropped by the broker, so none does."""
    real, calls = failed_batches.keep, []

    def down_twice(*args: Any) -> None:
        calls.append(args)
        if len(calls) <= 2:
            raise OperationalError("PostgreSQL is down")
        real(*args)

    monkeypatch.setattr(failed_batches, "keep", down_twice)
    create_batch.apply(args=[{**payload, "offers": []}]).get()
    assert FailedBatch.objects.get().attempts == 1


def test_without_a_broker_the_delivery_is_not_acknowledged(
    payload: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise Reject(OSError("no broker"), requeue=False)

    monkeypatch.setattr(tasks, "create_offers", lambda *_, **__: 1 / 0)
    monkeypatch.setattr(create_batch, "retry", refuse)
    with pytest.raises(Reject) as caught:
        create_batch.run(payload)
    assert caught.value.requeue
    assert create_batch.acks_late
    assert create_batch.reject_on_worker_lost
    assert create_batch.acks_on_failure_or_timeout is False
