"""The task that creates a batch. It may come twice and die at any point: the batch id makes both harmless."""

import logging
from typing import Any

from celery import Task, shared_task

from shargain.offers.services import failed_batches
from shargain.offers.services.errors import InvalidBatch, ServiceUnavailable, UnknownTarget
from shargain.offers.services.offer_creation import create_offers
from shargain.offers.services.payload import batch_from_json

logger = logging.getLogger(__name__)

MAX_ATTEMPTS = 5
MAX_PAUSE = 60
"""Seconds between two attempts at the most."""


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
    try:
        target_id, batch_id, offers = batch_from_json(payload)
        result = create_offers(target_id, offers, batch_id=batch_id)
    except (InvalidBatch, UnknownTarget) as error:
        failed_batches.keep(payload, error, attempts + 1)
        logger.warning("batch cannot be created: %s", error)
        return
    except Exception as error:  # noqa: BLE001  whatever it is, the batch must not be lost
        _try_again(self, payload, attempts, error)
        return
    logger.info(
        "batch %s of target %d: %d created, %d duplicates, %d discarded",
        batch_id,
        target_id,
        result.created,
        result.duplicates,
        result.discarded,
    )


def _try_again(
    task: "Task[Any, None]", payload: dict[str, Any], attempts: int, error: Exception
) -> None:
    is_outage = isinstance(error, ServiceUnavailable) and not failed_batches.is_database_up()
    attempts += not is_outage
    if attempts >= MAX_ATTEMPTS:
        failed_batches.keep(payload, error, attempts)
        logger.error("batch failed %d times and is kept: %s", attempts, error)
        return
    pause = min(2 ** min(task.request.retries, 6), MAX_PAUSE)
    logger.warning("batch is tried again in %d s: %s: %s", pause, type(error).__name__, error)
    raise task.retry(args=(payload, attempts), countdown=pause, exc=error)
