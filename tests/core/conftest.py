import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import pytest
import redis
from define_quotas import DefineQuota

from quota_redis import Counters, Quota
from shargain.demo.valkey_cluster import cluster_client, valkey_cluster

START = datetime(2020, 1, 1, tzinfo=UTC)


@pytest.fixture(scope="session")
def redis_url() -> str:
    """The Redis database of this test process, started by tests/plugin.py."""
    return os.environ["REDIS_URL"]


@pytest.fixture(scope="session")
def cluster_url() -> Iterator[str]:
    """Three nodes that share all slots."""
    folder = Path(tempfile.mkdtemp(prefix="shargain-test-"))
    with valkey_cluster(folder / "cluster") as url:
        yield url
    shutil.rmtree(folder)


@pytest.fixture(params=["server", "cluster"])
def client(request: pytest.FixtureRequest) -> Iterator["redis.Redis | redis.RedisCluster"]:
    """A client of one server, then of a cluster: what uses it is true of both."""
    if request.param == "cluster":
        client = cluster_client(request.getfixturevalue("cluster_url"))
    else:
        client = redis.Redis.from_url(request.getfixturevalue("redis_url"), socket_timeout=5.0)
    yield client
    client.close()


@pytest.fixture
def new_counters(client: "redis.Redis") -> Iterator[Callable[..., Counters]]:
    """Counters in a namespace that no other test has; what is passed goes to Counters."""
    made: list[Counters] = []

    def make(**options: object) -> Counters:
        options = {"namespace": f"t{uuid4().hex[:20]}", **options}
        made.append(Counters(client, **options))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for counters in made:
        counters.close()


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
