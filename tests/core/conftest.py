import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from uuid import uuid4

import pytest
import redis
from define_quotas import DefineQuota

from quota_redis import Counters, Quota

START = datetime(2020, 1, 1, tzinfo=UTC)


@pytest.fixture(scope="session")
def redis_url() -> str:
    """The Redis database of this test process, started by tests/plugin.py."""
    return os.environ["REDIS_URL"]


@pytest.fixture
def client(redis_url: str) -> Iterator["redis.Redis"]:
    with redis.Redis.from_url(redis_url) as client:
        yield client


@pytest.fixture
def new_counters(redis_url: str) -> Iterator[Callable[..., Counters]]:
    """Counters in a namespace that no other test has; what is passed goes to Counters.from_url."""
    made: list[Counters] = []

    def make(**options: object) -> Counters:
        options = {"namespace": f"t{uuid4().hex[:20]}", "timeout": 5.0, **options}
        made.append(Counters.from_url(redis_url, **options))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for counters in made:
        counters.close()
        counters.connection.client.close()


@pytest.fixture
def counters(new_counters: Callable[..., Counters]) -> Counters:
    return new_counters()


@pytest.fixture
def define(counters: Counters) -> DefineQuota:
    """Give a subject one quota that rules now."""

    def make(limit: int | None, *, subject: str = "team:7", id: int = 1) -> str:  # noqa: A002
        counters.define(subject, Quota(id=id, limit=limit, start=START))
        return subject

    return make
