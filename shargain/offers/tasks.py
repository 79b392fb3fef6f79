"""The task that creates a batch. It may come twice and die at any point: the batch id makes both harmless."""

import logging
from typing import Any

from celery import Task, shared_task
from celery.exceptions import Reject
from django.db import DatabaseError

from shargain.logs import fields
from shargain.offers.services import failed_batches
from shargain.offers.services.errors import InvalidBatch, ServiceUnavailable, UnknownTarget
from shargain.offers.services.offer_creation import create_offers
from shargain.offers.services.payload import batch_from_json

logger = logging.getLogger(__name__)

MAX_ATTEMPTS = 5
MAX_PAUSE = 60
"""Seconds between two attempts at the most."""
MAX_NAME = 64
"""Characters of an id that the log repeats."""


@shared_task(
    bind=True,
    name="shargain.create_batch",
    acks_late=True,
    reject_on_worker_lost=True,
    acks_on_failure_or_timeout=False,
    max_retries=None,
    ignore_result=True,
    soft_time_limit=60,
    time_limit=90,
)
def create_batch(self: "Task[Any, None]", payload: dict[str, Any], attempts: int = 0) -> None:
    """Create a batch. What fails five times is kept as a failed batch; an outage of PostgreSQL is waited for."""
    with fields(task_id=self.request.id, **_names(payload)):
        _create(self, payload, attempts)


def _create(task: "Task[Any, None]", payload: dict[str, Any], attempts: int) -> None:
    try:
        target_id, batch_id, offers = batch_from_json(payload)
        create_offers(target_id, offers, batch_id=batch_id)
    except (InvalidBatch, UnknownTarget) as error:
        _keep(task, payload, attempts + 1, error)
    except Exception as error:
        is_outage = isinstance(error, ServiceUnavailable) and not failed_batches.is_database_up()
        attempts += not is_outage
        if attempts >= MAX_ATTEMPTS:
            _keep(task, payload, attempts, error)
            return
        raise _again(task, payload, attempts, error) from error


def _names(payload: Any) -> dict[str, str | None]:
    """What a payload says that it is, for the log: nothing in it is checked yet."""
    named = payload if isinstance(payload, dict) else {}
    texts = {name: named.get(name) for name in ("batch_id", "target_id")}
    return {name: None if x is None else str(x)[:MAX_NAME] for name, x in texts.items()}


def _keep(
    task: "Task[Any, None]", payload: dict[str, Any], attempts: int, error: Exception
) -> None:
    try:
        failed_batches.keep(payload, error, attempts)
    except DatabaseError as outage:
        raise _again(task, payload, attempts - 1, outage) from error
    logger.error("batch failed for good and is kept, after %d attempts: %s", attempts, error)


def _again(
    task: "Task[Any, None]", payload: dict[str, Any], attempts: int, error: Exception
) -> Exception:
    """What to raise so that the batch comes again after a pause, longer each time."""
    pause = min(2 ** min(task.request.retries, 6), MAX_PAUSE)
    logger.warning("batch is tried again in %d s: %s: %s", pause, type(error).__name__, error)
    try:
        return task.retry(args=(payload, attempts), countdown=pause, exc=error, throw=False)
    except Reject as rejected:
        # The broker did not take the next attempt: this one must not be acknowledged, or the batch is lost.
        return Reject(rejected, requeue=True)
