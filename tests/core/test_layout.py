"""How a subject's hash is written: in short, and read in long as well."""

from datetime import UTC, datetime, timedelta

import pytest
import redis

from quota_redis import Counters, Granted, Quota, Reservation, Usage
from quota_redis.calls import microseconds
from quota_redis.errors import Garbled
from quota_redis.ranges import SLOT_END

START, END = datetime(2020, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC)
ALL = SLOT_END - 1


@pytest.mark.parametrize(
    ("moment", "expected"),
    [
        (None, ""),
        (datetime(1970, 1, 1, tzinfo=UTC), "0"),
        (datetime(1970, 1, 1, microsecond=100, tzinfo=UTC), "100"),
        (datetime(1970, 1, 1, microsecond=1000, tzinfo=UTC), "1e3"),
        (datetime(1969, 12, 31, 23, 59, 59, tzinfo=UTC), "-1e6"),
        (datetime(2020, 1, 1, tzinfo=UTC), "15778368e8"),
        (datetime(2020, 1, 1, microsecond=1, tzinfo=UTC), "1577836800000001"),
    ],
)
def test_moments_are_exact_to_the_microsecond(moment: datetime | None, expected: str) -> None:
    assert microseconds(moment) == expected
    if moment:
        assert datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=float(expected)) == moment


def test_a_usual_subject_takes_the_small_encoding(
    counters: Counters, client: "redis.Redis"
) -> None:
    quota = Quota(id=123_456_789, limit=1_000_000, start=START, end=END)
    key = counters.keys.subject("target:123456")
    for _ in range(12):
        counters.define("target:123456", quota)
    assert client.object("encoding", key) == b"listpack"
    assert client.hget(key, "d") == b"12|123456789:15778368e8:41024448e8:1000000:="


@pytest.mark.parametrize(
    ("limit", "usable", "free"),
    [(10, 10, "1-10"), (10, ALL, f"1-{ALL}"), (10, ALL - 3, f"4-{ALL}"), (None, ALL, f"1-{ALL}")],
)
@pytest.mark.parametrize("is_short", [True, False])
def test_long_and_short_say_the_same(
    counters: Counters,
    client: "redis.Redis",
    limit: int | None,
    usable: int,
    free: str,
    is_short: bool,
) -> None:
    counters.define("team:7")
    shown = {limit: "=", ALL: ""}.get(usable, str(usable)) if is_short else str(usable)
    start, end = ("15778368e8", "41024448e8") if is_short else (15778368 * 10**8, 41024448 * 10**8)
    client.hset(
        counters.keys.subject("team:7"),
        mapping={
            "d": f"7|1:{start}:{end}:{'' if limit is None else limit}:{shown}",
            "q1": f"{usable}:0:0:0:{free}",
        },
    )
    assert counters.usage("team:7") == {1: Usage(1, limit, 0, 0)}
    assert counters.consume("team:7", 2) == Granted(Usage(1, limit, 2, 0))
    hold = counters.reserve("team:7", 3, hold_id="mine")
    assert isinstance(hold, Reservation)
    assert (hold.amount, hold.usage, hold.version) == (3, Usage(1, limit, 2, 3), 7)
    assert counters.reserve("team:7", 3, hold_id="mine") == hold
    counters.settle(hold, 3)
    counters.define("team:7", Quota(id=1, limit=10, start=START))
    assert counters.usage("team:7") == {1: Usage(1, 10, 5, 0)}
    assert isinstance(counters.consume("team:7", 5), Granted)
    assert not isinstance(counters.consume("team:7"), Granted)


def test_free_slots_without_a_range_are_garbled_and_no_outage(
    counters: Counters, client: "redis.Redis"
) -> None:
    counters.define("team:7", Quota(id=1, limit=10, start=START))
    client.hset(counters.keys.subject("team:7"), "q1", "10:0:0:0:")
    for _ in range(5):
        with pytest.raises(Garbled):
            counters.reserve("team:7", 2)
