"""Counters for the tests of code that uses them. In conftest.py: `pytest_plugins = ["quota_redis.testing"]`.

def test_a_team_stops_at_its_limit(quota_counters):
    define(quota_counters, "team:7", limit=2)
    ...

They live in memory (fakeredis), or on the server at QUOTA_REDIS_TEST_URL where that is set. An imitation is good
enough for the logic around the counters; whether counts hold under load only a real server can show.
"""

import os
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.util import find_spec
from itertools import count
from uuid import uuid4

import pytest
import redis

from quota_redis.counters import Counters
from quota_redis.types import Quota

__all__ = ["URL_VARIABLE", "define", "quota_counters"]

URL_VARIABLE = "QUOTA_REDIS_TEST_URL"
LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)
TIMEOUT = 5.0
"""Seconds: a slow moment of the machine that tests is no outage."""

_quota_ids = count(1)


@pytest.fixture
def quota_counters() -> Iterator[Counters]:
    """Counters that no other test has, and that are gone after it."""
    namespace = f"test-{uuid4().hex[:20]}"
    url = os.environ.get(URL_VARIABLE)
    if url:
        counters = Counters.from_url(url, namespace=namespace, timeout=TIMEOUT)
    else:
        counters = Counters(_in_memory(), namespace=namespace)
    yield counters
    counters.close()
    client = counters.connection.client
    for key in client.scan_iter(match=f"q*:{{{namespace}:*", count=1000):
        client.delete(key)
    client.close()


def define(
    counters: Counters,
    subject: str,
    *,
    limit: int | None,
    start: datetime = LONG_AGO,
    end: datetime | None = None,
) -> Quota:
    """Make this the subject's only quota, with an id that no other has; by default it rules now, without end.

    limit: in units, None = unlimited. Raises InvalidArgument where the values make no quota.
    """
    quota = Quota(id=next(_quota_ids), limit=limit, start=start, end=end)
    counters.define(subject, quota)
    return quota


def _in_memory() -> "redis.Redis":
    # Without lupa fakeredis has no scripts, and says so only when one is run.
    for module in ("fakeredis", "lupa"):
        if find_spec(module) is None:
            raise RuntimeError(
                f"{module} is missing: install quota-redis[testing], or set {URL_VARIABLE} "
                "to the address of a Redis or Valkey for tests."
            )
    import fakeredis

    return fakeredis.FakeRedis(server=fakeredis.FakeServer())
