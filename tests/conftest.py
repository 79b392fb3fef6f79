from collections.abc import Iterator
from types import SimpleNamespace

import pytest
from django.db import connection

from quota_redis.django.engine import counters
from shargain.offers.services.offer_creation import batch_decided
from shargain.usage import activity


@pytest.fixture
def quota_db(transactional_db: None) -> Iterator[None]:
    """A database without a transaction around the test, for creation refuses one, and an empty quota Redis."""
    counters().flush()
    counters().connection.client.flushdb()
    yield
    counters().flush()
    connection.close_if_unusable_or_obsolete()


@pytest.fixture
def usage_buffer(monkeypatch: pytest.MonkeyPatch) -> activity.Buffer:
    """Where this process counts what becomes of offers; no timer writes that down, nor one of another test."""
    buffer = activity.Buffer(flush_seconds=3600)
    monkeypatch.setattr(activity, "buffer", buffer)
    return buffer


@pytest.fixture
def counting_offers(usage_buffer: activity.Buffer) -> Iterator[None]:
    """As in a web process or a worker, which count what becomes of offers."""
    batch_decided.connect(activity.count_batch, dispatch_uid="shargain.usage")
    yield
    batch_decided.disconnect(dispatch_uid="shargain.usage")


@pytest.fixture
def memory_without_age(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is remembered does not grow old, however long the machine makes the test wait."""
    monkeypatch.setattr("quota_redis.recent.time", SimpleNamespace(monotonic=lambda: 0.0))
