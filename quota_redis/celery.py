"""The periodic tasks, for a Django project with Celery.

app.conf.beat_schedule = beat_schedule()
"""

import logging
from collections.abc import Iterator
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from celery import shared_task
from celery.signals import worker_process_shutdown

if TYPE_CHECKING:
    from quota_redis.django.engine import Engine

logger = logging.getLogger(__name__)


def _engines() -> "Iterator[Engine]":
    """Looked up when a task runs: this module is imported before Django's models are."""
    from quota_redis.django.engine import engines

    return engines()


@shared_task(name="quota_redis.sync", ignore_result=True, expires=30)
def quota_sync() -> None:
    """Absorb what was marked and what has expired, then write the counts of changed subjects."""
    for engine in _engines():
        report = engine.sync()
        if report.subjects or report.absorbed or not report.is_complete:
            logger.info("sync of %s: %s", engine.ledger.table.table, report)


@shared_task(name="quota_redis.compact", ignore_result=True, expires=600)
def quota_compact() -> None:
    """Merge the ledger rows of quotas that have many."""
    for engine in _engines():
        gone = engine.compact()
        logger.info("compaction of %s: %d rows went", engine.ledger.table.table, gone)


@shared_task(name="quota_redis.audit", ignore_result=True, expires=600)
def quota_audit() -> None:
    """Compare Redis, counts and ledger; repair towards the ledger, and say loudly what was wrong."""
    for engine in _engines():
        report = engine.audit()
        for drift in report.drifts:
            logger.warning("drift: %s", drift)
        if report.more:
            logger.warning("and %d differences more", report.more)
        for code, sentence in report.problems.items():
            logger.critical("%s: %s", code, sentence)


@worker_process_shutdown.connect(dispatch_uid="quota_redis.stocks")
def _give_stocks_back(**_: Any) -> None:
    """A process of the prefork pool leaves without the interpreter's own end."""
    from quota_redis.django.engine import stocks

    if stocks.cache_info().currsize and (left := stocks()):
        left.close()


def beat_schedule(
    *,
    sync_every: timedelta = timedelta(seconds=5),
    compact_every: timedelta = timedelta(hours=1),
    audit_every: timedelta = timedelta(minutes=10),
) -> dict[str, dict[str, Any]]:
    """Entries for Celery's beat_schedule."""
    return {
        "quota_redis.sync": {"task": "quota_redis.sync", "schedule": sync_every},
        "quota_redis.compact": {"task": "quota_redis.compact", "schedule": compact_every},
        "quota_redis.audit": {"task": "quota_redis.audit", "schedule": audit_every},
    }
