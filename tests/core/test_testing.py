"""The fixtures for users' own tests, in memory and on a server."""

import sys
from datetime import UTC, datetime, timedelta

import pytest
import redis

from quota_redis import (
    Counters,
    Denied,
    Granted,
    InvalidArgument,
    NoQuota,
    Reason,
    Reservation,
    StateLost,
    Usage,
)
from quota_redis.testing import URL_VARIABLE, define
from quota_redis.testing import quota_counters as quota_counters  # noqa: PLC0414  a fixture

HOUR = timedelta(hours=1)


@pytest.fixture(autouse=True, params=["memory", "server"])
def place(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, redis_url: str) -> str:
    if request.param == "memory":
        monkeypatch.delenv(URL_VARIABLE, raising=False)
    else:
        monkeypatch.setenv(URL_VARIABLE, redis_url)
    return request.param  # type: ignore[no-any-return]


def test_consuming(quota_counters: Counters) -> None:
    quota = define(quota_counters, "team:7", limit=3)
    assert quota_counters.consume("team:7", 2, key="job") == Granted(Usage(quota.id, 3, 2, 0))
    assert quota_counters.consume("team:7", 2, key="job") == Granted(Usage(quota.id, 3, 2, 0))
    denied = quota_counters.consume("team:7", 2)
    assert isinstance(denied, Denied)
    assert denied.reason is Reason.FULL


def test_reserving_and_settling(quota_counters: Counters) -> None:
    quota = define(quota_counters, "team:7", limit=10)
    holds = [quota_counters.reserve("team:7", 3) for _ in range(4)]
    assert [hold.ranges for hold in holds if isinstance(hold, Reservation)] == [
        ((1, 3),),
        ((4, 6),),
        ((7, 9),),
        ((10, 10),),
    ]
    for hold in holds:
        assert isinstance(hold, Reservation)
        quota_counters.settle(hold, 1, wait=hold.amount == 1)
    quota_counters.flush()
    assert quota_counters.usage("team:7") == {quota.id: Usage(quota.id, 10, used=4, held=0)}
    assert quota_counters.snapshots(["team:7"])[0].quotas[quota.id].free == ((2, 3), (5, 6), (8, 9))


def test_defining_again_begins_anew(quota_counters: Counters) -> None:
    first = define(quota_counters, "team:7", limit=3)
    quota_counters.consume("team:7", 3)
    second = define(quota_counters, "team:7", limit=None)
    assert first.id != second.id
    assert quota_counters.usage("team:7") == {second.id: Usage(second.id, None, 0, 0)}


def test_periods(quota_counters: Counters) -> None:
    define(quota_counters, "team:7", limit=3, start=datetime.now(UTC) + HOUR)
    assert quota_counters.consume("team:7") == NoQuota()
    with pytest.raises(InvalidArgument, match="not after start"):
        define(quota_counters, "team:7", limit=3, end=datetime(1990, 1, 1, tzinfo=UTC))


def test_an_undefined_subject_is_lost(quota_counters: Counters) -> None:
    with pytest.raises(StateLost):
        quota_counters.consume("team:7")


@pytest.mark.parametrize("place", ["server"], indirect=True)
@pytest.mark.parametrize("client", ["server"], indirect=True)
def test_a_server_is_left_as_it_was(client: "redis.Redis") -> None:
    before = set(client.scan_iter(count=1000))
    steps = quota_counters.__wrapped__()  # type: ignore[attr-defined]
    counters = next(steps)
    define(counters, "team:7", limit=3)
    counters.consume("team:7", key="job")
    counters.reserve("team:7", 1)
    assert set(client.scan_iter(count=1000)) - before
    next(steps, None)
    assert set(client.scan_iter(count=1000)) == before


@pytest.mark.parametrize("place", ["memory"], indirect=True)
def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lupa", None)
    with pytest.raises(RuntimeError, match=r"lupa is missing: install quota-redis\[testing\]"):
        next(quota_counters.__wrapped__())  # type: ignore[attr-defined]
