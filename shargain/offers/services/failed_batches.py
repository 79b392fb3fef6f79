"""Batches that failed for good: kept with their payload until somebody tries them again."""

import math
from collections.abc import Sequence
from typing import Any
from uuid import UUID, uuid4

from django.db import DatabaseError, connection
from kombu.exceptions import OperationalError as BrokerError

from shargain.offers.models import FailedBatch
from shargain.offers.services.errors import ServiceUnavailable

MAX_ERROR = 2_000


def keep(payload: Any, error: Exception, attempts: int) -> None:
    """Store a batch and why it failed; the same batch again replaces what was stored."""
    target_id = payload.get("target_id") if isinstance(payload, dict) else None
    FailedBatch.objects.update_or_create(
        batch_id=_batch_id(payload),
        defaults={
            "target_id": target_id if isinstance(target_id, int) and abs(target_id) < 2**63 else 0,
            "payload": _storable(payload),
            "error": _text(f"{type(error).__name__}: {error}")[:MAX_ERROR],
            "attempts": attempts,
        },
    )


def retry(batch_ids: Sequence[UUID]) -> int:
    """Hand failed batches to the workers again; returns how many. A batch leaves the table once it is queued.

    Raises ServiceUnavailable where the broker takes none; those that it did not take stay.
    """
    from shargain.offers.tasks import create_batch

    queued = 0
    for batch in FailedBatch.objects.filter(batch_id__in=batch_ids).order_by("pk"):
        try:
            create_batch.delay(batch.payload)
        except BrokerError as error:
            raise ServiceUnavailable(f"the broker did not take batch {batch}: {error}") from error
        batch.delete()
        queued += 1
    return queued


def is_database_up() -> bool:
    """Whether PostgreSQL answers now, on a connection that is known to work."""
    try:
        connection.close_if_unusable_or_obsolete()
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    except DatabaseError:
        return False
    return True


def _batch_id(payload: Any) -> UUID:
    try:
        return UUID(str(payload["batch_id"]))
    except (TypeError, KeyError, ValueError):
        return uuid4()


def _storable(value: Any) -> Any:
    """The payload without what JSON has in Python and jsonb cannot hold."""
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, list):
        return [_storable(item) for item in value]
    if isinstance(value, dict):
        return {_storable(key): _storable(item) for key, item in value.items()}
    return value


def _text(value: str) -> str:
    """The text with NUL characters and halves of surrogate pairs escaped."""
    return value.encode(errors="backslashreplace").decode().replace("\0", "\\0")
