"""The Celery application of a run: the service's own, with a hurried beat and a journal in each worker."""

import os
from datetime import timedelta
from pathlib import Path
from unittest.mock import patch

from celery.signals import worker_process_init

from quota_redis.celery import beat_schedule
from shargain.celery import app
from shargain.demo.chaos.world import JOURNALS_VARIABLE

__all__ = ["app"]

# The audit keeps its ordinary pace: what it repairs, nobody would get to see.
app.conf.beat_schedule = beat_schedule(
    sync_every=timedelta(seconds=2), compact_every=timedelta(seconds=20)
)


@worker_process_init.connect
def _keep_a_journal(**_: object) -> None:
    from shargain.demo.chaos.journal import Journal
    from shargain.offers import tasks
    from shargain.offers.services.offer_creation import create_offers

    journal = Journal(Path(os.environ[JOURNALS_VARIABLE]), "worker")
    patch.object(tasks, "create_offers", journal.posted("worker", create_offers)).start()
