import os
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import pytest
from stock_workers import DefineQuota, Workers

from quota_redis import Counters, Quota
from quota_redis.stocks import Stocks
from quota_redis.testing import LONG_AGO


@pytest.fixture
def counters() -> Iterator[Counters]:
    """Counters in a namespace that no other test has."""
    counters = Counters.from_url(
        os.environ["REDIS_URL"], namespace=f"t{uuid4().hex[:20]}", timeout=5.0
    )
    yield counters
    counters.close()
    counters.connection.client.close()


@pytest.fixture
def define(counters: Counters) -> DefineQuota:
    """Give a subject one quota that rules now; again for the same subject, it edits it."""

    def make(limit: int | None, subject: str = "team:7") -> str:
        counters.define(subject, Quota(id=1, limit=limit, start=LONG_AGO))
        return subject

    return make


@pytest.fixture
def new_stocks(counters: Counters) -> Iterator[Callable[..., Stocks]]:
    """Stocks as one more process would have them; what is passed goes to Stocks. Leases are long enough that only
    tests of their end see one."""
    made: list[Stocks] = []

    def make(lease_seconds: float = 60.0, **options: int) -> Stocks:
        made.append(Stocks(counters, lease=timedelta(seconds=lease_seconds), **options))
        return made[-1]

    yield make
    for stocks in made:
        stocks.close()


@pytest.fixture
def stocks(new_stocks: Callable[..., Stocks]) -> Stocks:
    return new_stocks()


@pytest.fixture
def workers(tmp_path: Path) -> Iterator[Workers]:
    with Workers(tmp_path) as workers:
        yield workers
