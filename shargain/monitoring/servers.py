"""What the servers say when Prometheus asks: each within a bound of its own, for one may hang."""

import logging
from collections.abc import Iterator

import redis
from django.conf import settings
from django.db import Error, connection, transaction
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from redis.backoff import NoBackoff
from redis.retry import Retry

from shargain.monitoring.metrics import do_quotas_answer
from shargain.offers.models import FailedBatch

logger = logging.getLogger(__name__)

BROKER_SECONDS = 1.0
MAX_COUNTED = 10_000
_QUERY_SECONDS = 2


class ServerCollector(Collector):
    """Asks PostgreSQL, the quota Redis and the broker; what does not answer is down, and has no numbers."""

    def collect(self) -> Iterator[Metric]:
        failed, lengths = _failed_batches(), _queue_lengths()
        up = GaugeMetricFamily(
            "shargain_server_up", "Whether a server answers this process.", labels=["server"]
        )
        up.add_metric(["quotas"], do_quotas_answer())
        up.add_metric(["postgresql"], failed is not None)
        up.add_metric(["broker"], lengths is not None)
        yield up
        queues = GaugeMetricFamily(
            "shargain_queue_length", "Tasks that wait for a worker.", labels=["queue"]
        )
        for queue, length in (lengths or {}).items():
            queues.add_metric([queue], length)
        yield queues
        kept = GaugeMetricFamily(
            "shargain_failed_batches",
            f"Batches that failed for good and are kept, counted up to {MAX_COUNTED}.",
        )
        if failed is not None:
            kept.add_metric([], failed)
        yield kept


def answers() -> bytes:
    """The text about the servers."""
    registry = CollectorRegistry()
    registry.register(ServerCollector())
    return generate_latest(registry)


def _failed_batches() -> int | None:
    try:
        with transaction.atomic():
            with connection.cursor() as cursor:
                cursor.execute(f"SET LOCAL statement_timeout = '{_QUERY_SECONDS}s'")
            return FailedBatch.objects.all()[:MAX_COUNTED].count()
    except Error as error:
        logger.warning("PostgreSQL gave no metrics: %s", error)
        return None


def _queue_lengths() -> dict[str, int] | None:
    """Lengths of the queues; None where the broker does not answer."""
    names = [queue.name for queue in settings.CELERY_TASK_QUEUES]
    client = redis.Redis.from_url(
        settings.CELERY_BROKER_URL,
        socket_timeout=BROKER_SECONDS,
        socket_connect_timeout=BROKER_SECONDS,
        retry=Retry(NoBackoff(), 0),
    )
    try:
        with client, client.pipeline(transaction=False) as pipeline:
            for name in names:
                pipeline.llen(name)
            return dict(zip(names, map(int, pipeline.execute()), strict=True))
    except (redis.RedisError, OSError) as error:
        logger.warning("the broker gave no metrics: %s", error)
        return None
