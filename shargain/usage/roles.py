"""Has the processes that decide batches count them: web and workers. No other does, tests least of all."""

import atexit
from datetime import timedelta
from typing import Any

from celery.signals import worker_init, worker_process_shutdown


def start() -> None:
    """In a web process, or in a worker before its children are forked. Again is as once."""
    from shargain.offers.services.offer_creation import batch_decided
    from shargain.usage import activity

    batch_decided.connect(activity.count_batch, dispatch_uid="shargain.usage")
    atexit.unregister(activity.flush)
    atexit.register(activity.flush)


def connect() -> None:
    """Have workers start it, and flush when a child ends: those leave without Python's own ceremony."""
    worker_init.connect(_start_worker, dispatch_uid="shargain.usage")
    worker_process_shutdown.connect(_end_child, dispatch_uid="shargain.usage")


def _start_worker(**_: object) -> None:
    start()


def _end_child(**_: object) -> None:
    from shargain.usage import activity

    activity.flush()


def beat_schedule(*, roll_up_every: timedelta = timedelta(hours=1)) -> dict[str, dict[str, Any]]:
    """Entries for Celery's beat_schedule."""
    return {"shargain.usage.roll_up": {"task": "shargain.usage.roll_up", "schedule": roll_up_every}}
