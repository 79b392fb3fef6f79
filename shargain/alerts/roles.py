"""What beat has to send, and which thresholds the settings may name. Needs no settings: they ask it."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from django.core.exceptions import ImproperlyConfigured

MAX_PERCENTS = 10


def beat_schedule(
    *,
    evaluate_every: timedelta = timedelta(minutes=5),
    deliver_every: timedelta = timedelta(seconds=30),
) -> dict[str, dict[str, Any]]:
    """Entries for Celery's beat_schedule."""
    return {
        "shargain.alerts.evaluate": {
            "task": "shargain.alerts.evaluate",
            "schedule": evaluate_every,
        },
        "shargain.alerts.deliver": {"task": "shargain.alerts.deliver", "schedule": deliver_every},
    }


def percents(given: Sequence[int]) -> tuple[int, ...]:
    """In order, each once. Raises ImproperlyConfigured for more than 10 and others than 1 to 100."""
    found = tuple(sorted(set(given)))
    if len(found) > MAX_PERCENTS or any(not 1 <= percent <= 100 for percent in found):
        raise ImproperlyConfigured(
            f"ALERT_PERCENTS is {','.join(map(str, given))}: give up to {MAX_PERCENTS} percents from 1 to 100."
        )
    return found
