"""Using slots in one step, all or nothing, and once for each key."""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
import redis
from define_quotas import DefineQuota

from quota_redis import (
    Counters,
    Denied,
    Granted,
    InvalidArgument,
    KeyReused,
    NoQuota,
    Quota,
    Reason,
    Reservation,
    StateLost,
    Usage,
)
from quota_redis.types import MAX_LIMIT

START = datetime(2020, 1, 1, tzinfo=UTC)


def test_what_is_granted_is_used(counters: Counters, define: DefineQuota) -> None:
    subject = define(10)
    assert counters.consume(subject, 4) == Granted(Usage(1, 10, used=4, held=0))
    assert counters.consume(subject) == Granted(Usage(1, 10, used=5, held=0))


def test_a_denial_uses_nothing_and_is_not_charged(counters: Counters, define: DefineQuota) -> None:
    subject = define(10)
    answers = [counters.consume(subject, amount) for amount in (3, 3, 3, 3, 1)]
    assert [isinstance(answer, Granted) for answer in answers] == [True, True, True, False, True]
    assert answers[3] == Denied(Reason.FULL, Usage(1, 10, used=9, held=0))
    assert counters.usage(subject)[1].remaining == 0


def test_busy_where_held_slots_may_come_back(counters: Counters, define: DefineQuota) -> None:
    subject = define(10)
    hold = counters.reserve(subject, 6)
    answer = counters.consume(subject, 5)
    assert isinstance(answer, Denied)
    assert answer.reason is Reason.BUSY
    assert isinstance(hold, Reservation)
    counters.settle(hold, 0)
    assert isinstance(counters.consume(subject, 5), Granted)


def test_expired_where_a_dead_worker_holds_them(new_counters: Callable[..., Counters]) -> None:
    counters = new_counters(lease=timedelta(milliseconds=1))
    counters.define("team:7", Quota(id=1, limit=5, start=START))
    counters.reserve("team:7", 5)
    time.sleep(0.005)
    answer = counters.consume("team:7")
    assert isinstance(answer, Denied)
    assert answer.reason is Reason.EXPIRED


def test_slots_are_used_across_ranges(counters: Counters, define: DefineQuota) -> None:
    subject = define(10)
    holds = [counters.reserve(subject, 2) for _ in range(5)]
    for number in (0, 2, 4):
        held = holds[number]
        assert isinstance(held, Reservation)
        counters.settle(held, 0)
    counters.consume(subject, 3)
    assert counters.snapshot(subject).quotas[1].free == ((6, 6), (9, 10))
    counters.consume(subject, 3)
    assert counters.snapshot(subject).quotas[1].free == ()


def test_no_quota_counts_nothing(counters: Counters) -> None:
    counters.define("team:7")
    assert counters.consume("team:7", 3) == NoQuota()


def test_lost_state_raises(counters: Counters, define: DefineQuota, client: "redis.Redis") -> None:
    subject = define(10)
    client.delete(counters.keys.subject(subject))
    with pytest.raises(StateLost):
        counters.consume(subject)
    assert client.exists(counters.keys.subject(subject)) == 0


def test_a_lost_free_list_raises(
    counters: Counters, define: DefineQuota, client: "redis.Redis"
) -> None:
    subject = define(10)
    client.hdel(counters.keys.subject(subject), "q1")
    with pytest.raises(StateLost):
        counters.consume(subject)


class TestKey:
    def test_a_retry_counts_once_and_gets_the_same_answer(
        self, counters: Counters, define: DefineQuota
    ) -> None:
        subject = define(10)
        first = counters.consume(subject, 4, key="job 1")
        counters.consume(subject, 1, key="job 2")
        assert counters.consume(subject, 4, key="job 1") == first
        assert counters.usage(subject)[1].used == 5

    def test_it_is_the_subjects_own(self, counters: Counters, define: DefineQuota) -> None:
        for subject in (define(10, subject="a"), define(10, subject="b")):
            counters.consume(subject, 2, key="job")
            assert counters.usage(subject)[1].used == 2

    def test_another_amount_is_another_call(self, counters: Counters, define: DefineQuota) -> None:
        subject = define(10)
        counters.consume(subject, 4, key="job")
        with pytest.raises(KeyReused, match=r"'job' was used for 4 units and now for 5"):
            counters.consume(subject, 5, key="job")
        assert counters.usage(subject)[1].used == 4

    def test_a_denial_is_decided_anew(self, counters: Counters, define: DefineQuota) -> None:
        subject = define(3)
        assert isinstance(counters.consume(subject, 4, key="job"), Denied)
        define(10)
        assert isinstance(counters.consume(subject, 4, key="job"), Granted)

    def test_no_quota_is_remembered(self, counters: Counters, define: DefineQuota) -> None:
        counters.define("team:7")
        assert counters.consume("team:7", 4, key="job") == NoQuota()
        define(10)
        assert counters.consume("team:7", 4, key="job") == NoQuota()
        assert counters.usage("team:7")[1].used == 0

    def test_an_unlimited_quota_answers_the_same_again(
        self, counters: Counters, define: DefineQuota
    ) -> None:
        subject = define(None)
        first = counters.consume(subject, 4, key="job")
        assert first == Granted(Usage(1, None, used=4, held=0))
        assert counters.consume(subject, 4, key="job") == first

    def test_it_is_forgotten_after_its_time(
        self, counters: Counters, define: DefineQuota, client: "redis.Redis"
    ) -> None:
        subject = define(10)
        counters.consume(subject, 1, key="job", remember=timedelta(seconds=90))
        left = client.pttl(counters.keys.answer(subject, "job"))
        assert 60_000 < left <= 90_000  # type: ignore[operator]
        client.delete(counters.keys.answer(subject, "job"))
        counters.consume(subject, 1, key="job")
        assert counters.usage(subject)[1].used == 2

    def test_without_one_nothing_is_kept(
        self, counters: Counters, define: DefineQuota, client: "redis.Redis"
    ) -> None:
        subject = define(10)
        counters.consume(subject)
        assert client.exists(counters.keys.answer(subject, "-")) == 0

    @pytest.mark.parametrize("key", ["", "x" * 201, "a\0b", "\ud800", 7, b"k"])
    def test_bad_ones_are_named(self, counters: Counters, define: DefineQuota, key: str) -> None:
        with pytest.raises(InvalidArgument, match="key is "):
            counters.consume(define(10), key=key)

    @pytest.mark.parametrize(
        "remember", [timedelta(0), timedelta(days=8), timedelta(seconds=-1), 60]
    )
    def test_its_time_is_bounded(
        self, counters: Counters, define: DefineQuota, remember: timedelta
    ) -> None:
        with pytest.raises(InvalidArgument, match="remember is "):
            counters.consume(define(10), key="job", remember=remember)


@pytest.mark.parametrize("key", [None, "job"])
@pytest.mark.parametrize("amount", [0, -3, MAX_LIMIT + 1, 2.0, True, "1"])
def test_amounts_are_bounded(
    counters: Counters, define: DefineQuota, amount: object, key: str | None
) -> None:
    subject = define(10)
    # Equal to some of the wrong ones, and known by now.
    for good in (1, 2):
        counters.consume(subject, good, key=key and f"{key}-{good}")
    with pytest.raises(InvalidArgument, match="amount is "):
        counters.consume(subject, amount, key=key)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("args", "named"),
    [
        ([0, 0], "amount"),
        ([10**12 + 1, 0], "amount"),
        (["", 0], "amount"),
        ([1, "x"], "remember_ms"),
        ([1, "1.5"], "remember_ms"),
        ([1, -1], "remember_ms"),
        ([1, 604_800_001], "remember_ms"),
    ],
)
def test_the_script_bounds_its_arguments_itself(
    counters: Counters, define: DefineQuota, args: list[str | int], named: str
) -> None:
    subject = define(10)
    keys = [counters.keys.subject(subject), counters.keys.changed(subject)]
    keys.append(counters.keys.answer(subject, "none"))
    with pytest.raises(InvalidArgument, match=named):
        counters.connection.run("consume", keys, [subject, *args])
    assert counters.usage(subject)[1].used == 0


def test_large_numbers_stay_exact(counters: Counters, define: DefineQuota) -> None:
    """Numbers of 15 digits and more lose their end where Lua turns them into text by itself."""
    subject = define(None)
    for _ in range(4):
        counters.consume(subject, MAX_LIMIT, key=None)
    counters.consume(subject, 7)
    granted = counters.consume(subject, 1, key="job")
    assert granted == Granted(Usage(1, None, used=4 * MAX_LIMIT + 8, held=0))
    assert counters.consume(subject, 1, key="job") == granted
    assert counters.snapshot(subject).quotas[1].free == ((4 * MAX_LIMIT + 9, 2**52 - 1),)
    hold = counters.reserve(subject, 3)
    assert isinstance(hold, Reservation)
    assert hold.ranges == ((4 * MAX_LIMIT + 9, 4 * MAX_LIMIT + 11),)


def test_slots_near_the_end_of_all_slots_stay_exact(
    counters: Counters, client: "redis.Redis", define: DefineQuota
) -> None:
    subject, last = define(None), 2**52 - 1
    key = counters.keys.subject(subject)
    client.hset(key, "q1", f"5:0:0:0:{last - 4}-{last}")
    hold = counters.reserve(subject, 3)
    assert isinstance(hold, Reservation)
    assert hold.ranges == ((last - 4, last - 2),)
    assert hold.usage.used == last - 5
    counters.settle(hold, 1)
    assert client.hget(key, "q1") == f"4:0:0:0:{last - 3}-{last}".encode()
    assert counters.usage(subject)[1].used == last - 4
    granted = counters.consume(subject, 2, key="job")
    assert granted == Granted(Usage(1, None, used=last - 2, held=0))
    assert counters.consume(subject, 2, key="job") == granted
