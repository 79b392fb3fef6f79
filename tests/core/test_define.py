"""Definitions for counters without a ledger: what is passed is what stands, and usage is kept."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
import redis
from define_quotas import DefineQuota

from quota_redis import Counters, Denied, Granted, InvalidArgument, Quota, Reservation, Usage
from quota_redis.types import MAX_LIMIT, MAX_QUOTAS

START = datetime(2020, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)


def units_left(counters: Counters, subject: str) -> int:
    """How many single units are granted before a denial."""
    count = 0
    while isinstance(counters.consume(subject), Granted):
        count += 1
    return count


def held(counters: Counters, subject: str, amount: int) -> Reservation:
    hold = counters.reserve(subject, amount)
    assert isinstance(hold, Reservation)
    return hold


def test_every_definition_has_a_later_version(counters: Counters) -> None:
    quota = Quota(id=1, limit=5, start=START)
    assert [counters.define("team:7", quota) for _ in range(3)] == [1, 2, 3]


def test_the_same_again_changes_no_count(counters: Counters, define: DefineQuota) -> None:
    subject = define(10)
    counters.consume(subject, 4)
    hold = held(counters, subject, 2)
    define(10)
    assert counters.usage(subject)[1] == Usage(1, 10, used=4, held=2)
    counters.settle(hold, 0)
    assert units_left(counters, subject) == 6


@pytest.mark.parametrize(
    ("before", "after", "left"),
    [(10, 20, 16), (10, 6, 2), (10, 4, 0), (10, 1, 0), (10, 0, 0), (None, 10, 6), (4, 5, 1)],
)
def test_a_new_limit_keeps_usage(
    counters: Counters, define: DefineQuota, before: int | None, after: int, left: int
) -> None:
    subject = define(before)
    counters.consume(subject, 4)
    define(after)
    assert counters.usage(subject)[1] == Usage(1, after, used=4, held=0)
    assert units_left(counters, subject) == left


def test_limited_becomes_unlimited_and_back(counters: Counters, define: DefineQuota) -> None:
    subject = define(4)
    counters.consume(subject, 4)
    define(None)
    counters.consume(subject, 1000)
    assert counters.usage(subject)[1] == Usage(1, None, used=1004, held=0)
    define(1006)
    assert units_left(counters, subject) == 2


def test_a_raised_limit_never_hands_out_what_is_held(
    counters: Counters, define: DefineQuota
) -> None:
    subject = define(6)
    first = held(counters, subject, 3)
    counters.consume(subject, 3)
    define(10)
    second = held(counters, subject, 4)
    assert not set(_slots(first)) & set(_slots(second))
    counters.settle(first, 0)
    counters.settle(second, 4)
    assert counters.usage(subject)[1] == Usage(1, 10, used=7, held=0)
    assert units_left(counters, subject) == 3


def test_what_comes_back_after_a_lowered_limit_is_not_granted_beyond_it(
    counters: Counters, define: DefineQuota
) -> None:
    subject = define(10)
    hold = held(counters, subject, 8)
    define(3)
    assert isinstance(counters.reserve(subject, 1), Denied)
    counters.settle(hold, 1)
    assert units_left(counters, subject) == 2
    assert counters.usage(subject)[1] == Usage(1, 3, used=3, held=0)


def test_a_reservation_after_a_lowered_limit_is_bounded_by_it(
    counters: Counters, define: DefineQuota
) -> None:
    subject = define(10)
    hold = held(counters, subject, 8)
    define(3)
    counters.settle(hold, 1)
    assert held(counters, subject, 5).amount == 2


def test_a_lowered_limit_keeps_the_lowest_free_slots_across_gaps(
    counters: Counters, define: DefineQuota
) -> None:
    subject = define(10)
    holds = [held(counters, subject, 1) for _ in range(3)]
    for hold, used in zip(holds, (0, 1, 0), strict=True):
        counters.settle(hold, used)
    define(4)
    assert counters.snapshot(subject).quotas[1].free == ((1, 1), (3, 4))


def test_quotas_that_are_not_named_go_with_their_holds(
    counters: Counters, client: "redis.Redis"
) -> None:
    old, new = Quota(id=1, limit=5, start=START), Quota(id=2, limit=5, start=START + HOUR)
    counters.define("team:7", old)
    hold = held(counters, "team:7", 2)
    counters.define("team:7", new)
    assert set(counters.usage("team:7")) == {2}
    assert client.hkeys(counters.keys.subject("team:7")) == [b"d", b"q2"]
    counters.settle(hold, 2)
    assert counters.usage("team:7") == {2: Usage(2, 5, 0, 0)}


def test_another_period_keeps_usage(counters: Counters) -> None:
    counters.define("team:7", Quota(id=1, limit=5, start=START))
    counters.consume("team:7", 2)
    counters.define("team:7", Quota(id=1, limit=5, start=START + HOUR, end=START + 2 * HOUR))
    assert counters.usage("team:7")[1].used == 2


def test_moments_before_1970_and_of_other_zones(counters: Counters) -> None:
    start = datetime.fromisoformat("1955-11-05T06:00:00-08:00")
    counters.define("team:7", Quota(id=1, limit=5, start=start))
    assert counters.consume("team:7") == Granted(Usage(1, 5, 1, 0))
    assert counters.reserve("team:7", 1, hold_id="h") == counters.reserve("team:7", 1, hold_id="h")


def test_as_many_quotas_as_are_allowed(counters: Counters) -> None:
    quotas = [Quota(id=n, limit=n, start=START + n * HOUR / 100) for n in range(1, MAX_QUOTAS + 1)]
    counters.define("team:7", *quotas)
    assert len(counters.usage("team:7")) == MAX_QUOTAS
    assert held(counters, "team:7", 1).quota_id == MAX_QUOTAS


def test_more_quotas_than_are_allowed(counters: Counters) -> None:
    quotas = [Quota(id=n, limit=1, start=START + n * HOUR) for n in range(MAX_QUOTAS + 1)]
    with pytest.raises(InvalidArgument, match="1001 quotas"):
        counters.define("team:7", *quotas)


def test_two_quotas_must_differ(counters: Counters) -> None:
    with pytest.raises(InvalidArgument, match="same id"):
        counters.define(
            "team:7", Quota(id=1, limit=1, start=START), Quota(id=1, limit=1, start=START + HOUR)
        )
    with pytest.raises(InvalidArgument, match="same start"):
        counters.define(
            "team:7", Quota(id=1, limit=1, start=START), Quota(id=2, limit=1, start=START)
        )


def test_namespaces_never_meet(new_counters: Callable[..., Counters]) -> None:
    ours, theirs = new_counters(), new_counters()
    for counters in (ours, theirs):
        counters.define("team:7", Quota(id=1, limit=5, start=START))
    ours.consume("team:7", 3)
    assert theirs.usage("team:7")[1].used == 0


@pytest.mark.parametrize("limit", [-1, MAX_LIMIT + 1, 1.5, True, "10"])
def test_limits_are_bounded(limit: object) -> None:
    with pytest.raises(InvalidArgument, match="limit is "):
        Quota(id=1, limit=limit, start=START)  # type: ignore[arg-type]


@pytest.mark.parametrize("number", [-1, 2**63, 1.0, True, None])
def test_quota_ids_are_bounded(number: object) -> None:
    with pytest.raises(InvalidArgument, match="quota id is "):
        Quota(id=number, limit=1, start=START)  # type: ignore[arg-type]


@pytest.mark.parametrize("moment", [datetime(2020, 1, 1), "2020-01-01", 0, None])  # noqa: DTZ001
def test_moments_have_a_time_zone(moment: object) -> None:
    with pytest.raises(InvalidArgument, match="start is "):
        Quota(id=1, limit=1, start=moment)  # type: ignore[arg-type]
    if moment is not None:
        with pytest.raises(InvalidArgument, match="end is "):
            Quota(id=1, limit=1, start=START, end=moment)  # type: ignore[arg-type]


@pytest.mark.parametrize("end", [START, START - HOUR])
def test_a_period_has_at_least_a_moment(end: datetime) -> None:
    with pytest.raises(InvalidArgument, match="not after start"):
        Quota(id=1, limit=1, start=START, end=end)


def _slots(reservation: Reservation) -> list[int]:
    return [slot for lo, hi in reservation.ranges for slot in range(lo, hi + 1)]
