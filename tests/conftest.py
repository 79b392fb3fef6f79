from collections.abc import Iterator
from types import SimpleNamespace

import pytest
from django.db import connection

from quota_redis.django.engine import counters


@pytest.fixture
def quota_db(transactional_db: None) -> Iterator[None]:
    """A database without a transaction around the test, for creation refuses one, and an empty quota Redis."""
    counters().flush()
    counters().connection.client.flushdb()
    yield
    counters().flush()
    connection.close_if_unusable_or_obsolete()


@pytest.fixture
def memory_without_age(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is remembered does not grow old, however long the machine makes the test wait."""
    monkeypatch.setattr("quota_redis.recent.time", SimpleNamespace(monotonic=lambda: 0.0))
