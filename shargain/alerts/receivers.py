"""What alerts hear of syncs, in whatever process they run."""

import logging
from collections.abc import Mapping
from typing import Any

from kombu.exceptions import OperationalError

from quota_redis.django.events import counts_written

logger = logging.getLogger(__name__)


def connect() -> None:
    counts_written.connect(_on_counts, dispatch_uid="shargain.alerts")


def _on_counts(counts: Mapping[int, int], **_: Any) -> None:
    from shargain.alerts.thresholds import raise_alerts

    if raise_alerts(counts):
        _hurry()


def _hurry() -> None:
    """Have it delivered now. Without the broker beat's next task does it."""
    from shargain.alerts.tasks import alerts_deliver

    try:
        alerts_deliver.apply_async(retry=False)
    except OperationalError as error:
        logger.warning("alerts wait for the next delivery: %s", error)
