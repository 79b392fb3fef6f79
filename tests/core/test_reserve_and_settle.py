"""Holding slots and giving them back."""

import os
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
import redis
from define_quotas import DefineQuota

from quota_redis import (
    Counters,
    Denied,
    InvalidArgument,
    NoQuota,
    Quota,
    Reason,
    Reservation,
    StateLost,
    Usage,
)

START = datetime(2020, 1, 1, tzinfo=UTC)
BLINK = timedelta(milliseconds=1)
HOUR = timedelta(hours=1)


def reserve(counters: Counters, subject: str, amount: int) -> Reservation:
    answer = counters.reserve(subject, amount)
    assert isinstance(answer, Reservation)
    return answer


def refused(counters: Counters, subject: str, amount: int = 1) -> Denied:
    answer = counters.reserve(subject, amount)
    assert isinstance(answer, Denied)
    return answer


def scatter(counters: Counters, subject: str, ranges: int) -> None:
    """Leave a free list of so many ranges of one slot, from a quota of twice as many."""
    holds = [reserve(counters, subject, 1) for _ in range(2 * ranges)]
    for number, hold in enumerate(holds):
        counters.settle(hold, number % 2)


def test_the_lowest_free_slots_are_held(counters: Counters, define: DefineQuota) -> None:
    subject = define(10)
    first, second = reserve(counters, subject, 3), reserve(counters, subject, 4)
    assert first.ranges == ((1, 3),)
    assert second.ranges == ((4, 7),)
    assert second.usage == Usage(quota_id=1, limit=10, used=0, held=7)
    assert second.usage.remaining == 3


def test_never_more_is_held_than_is_free(counters: Counters, define: DefineQuota) -> None:
    subject = define(10)
    reserve(counters, subject, 8)
    rest = reserve(counters, subject, 1000)
    assert (rest.amount, rest.ranges) == (2, ((9, 10),))


def test_a_grant_has_at_most_eight_ranges(counters: Counters, define: DefineQuota) -> None:
    subject = define(20)
    scatter(counters, subject, 10)
    grant = reserve(counters, subject, 20)
    assert grant.ranges == tuple((n, n) for n in range(1, 16, 2))
    assert reserve(counters, subject, 20).ranges == ((17, 17), (19, 19))
    assert refused(counters, subject).reason is Reason.BUSY


def test_a_grant_takes_part_of_a_range_and_leaves_the_rest(
    counters: Counters, define: DefineQuota
) -> None:
    subject = define(12)
    scatter(counters, subject, 3)
    assert reserve(counters, subject, 5).ranges == ((1, 1), (3, 3), (5, 5), (7, 8))
    assert reserve(counters, subject, 9).ranges == ((9, 12),)


def test_the_same_hold_id_gives_the_same_answer(counters: Counters, define: DefineQuota) -> None:
    subject = define(10)
    first = counters.reserve(subject, 3, hold_id="attempt")
    again = counters.reserve(subject, 7, hold_id="attempt")
    assert again == first
    assert reserve(counters, subject, 1).ranges == ((4, 4),)


def test_the_same_hold_id_after_its_settlement_is_a_new_hold(
    counters: Counters, define: DefineQuota
) -> None:
    subject = define(10)
    first = counters.reserve(subject, 3, hold_id="attempt")
    assert isinstance(first, Reservation)
    counters.settle(first, 3)
    again = counters.reserve(subject, 3, hold_id="attempt")
    assert isinstance(again, Reservation)
    assert again.ranges == ((4, 6),)


def test_settling_counts_the_lowest_and_frees_the_rest(
    counters: Counters, define: DefineQuota
) -> None:
    subject = define(10)
    counters.settle(reserve(counters, subject, 5), 2)
    assert counters.usage(subject) == {1: Usage(1, 10, used=2, held=0)}
    assert reserve(counters, subject, 10).ranges == ((3, 10),)


def test_what_comes_back_joins_its_neighbours(counters: Counters, define: DefineQuota) -> None:
    subject = define(10)
    a, b, c = (reserve(counters, subject, 2) for _ in range(3))
    counters.settle(b, 0)
    assert counters.snapshot(subject).quotas[1].free == ((3, 4), (7, 10))
    counters.settle(c, 0)
    assert counters.snapshot(subject).quotas[1].free == ((3, 10),)
    counters.settle(a, 1)
    assert counters.snapshot(subject).quotas[1].free == ((2, 10),)


def test_several_ranges_come_back_to_their_places(counters: Counters, define: DefineQuota) -> None:
    subject = define(10)
    scatter(counters, subject, 4)
    grant = reserve(counters, subject, 10)
    assert grant.ranges == ((1, 1), (3, 3), (5, 5), (7, 7), (9, 10))
    counters.settle(grant, 2)
    assert counters.snapshot(subject).quotas[1].free == ((5, 5), (7, 7), (9, 10))


def test_settling_twice_counts_once(counters: Counters, define: DefineQuota) -> None:
    subject = define(10)
    hold = reserve(counters, subject, 4)
    counters.settle(hold, 1)
    counters.settle(hold, 0)
    assert counters.usage(subject)[1] == Usage(1, 10, used=1, held=0)


def test_settling_what_is_not_there_changes_nothing(
    counters: Counters, define: DefineQuota, client: "redis.Redis"
) -> None:
    subject = define(10)
    reserve(counters, subject, 4)
    before = client.hgetall(counters.keys.subject(subject))
    counters.release(subject, "never made")
    assert client.hgetall(counters.keys.subject(subject)) == before


def test_settle_returns_only_what_the_hold_has(
    counters: Counters, define: DefineQuota, client: "redis.Redis"
) -> None:
    subject = define(10)
    reserve(counters, subject, 2)
    mine = reserve(counters, subject, 2)
    key = counters.keys.subject(subject)
    counters.connection.run("settle", [key], [mine.hold_id, "1-10"])
    assert counters.snapshot(subject).quotas[1].free == ((3, 10),)
    assert counters.usage(subject)[1].held == 2


def test_release_gives_back_a_hold_whole(counters: Counters, define: DefineQuota) -> None:
    subject = define(10)
    hold = reserve(counters, subject, 4)
    counters.release(subject, hold.hold_id)
    assert counters.snapshot(subject).quotas[1].free == ((1, 10),)


def test_settling_without_waiting_arrives(counters: Counters, define: DefineQuota) -> None:
    subject = define(10)
    counters.settle(reserve(counters, subject, 4), 3, wait=False)
    counters.flush()
    assert counters.usage(subject)[1] == Usage(1, 10, used=3, held=0)


def test_a_hold_tells_who_has_it(counters: Counters, define: DefineQuota) -> None:
    subject = define(10)
    first, second = counters.reserve(subject, 1), counters.reserve(subject, 1)
    assert isinstance(first, Reservation)
    assert isinstance(second, Reservation)
    assert first.hold_id != second.hold_id
    _, process, _ = first.hold_id.split(".")
    assert int(process) == os.getpid()
    assert {hold.id for hold in counters.snapshot(subject).holds} == {
        first.hold_id,
        second.hold_id,
    }


class TestDenial:
    def test_full_where_all_is_used(self, counters: Counters, define: DefineQuota) -> None:
        subject = define(3)
        counters.settle(reserve(counters, subject, 3), 3)
        denial = refused(counters, subject)
        assert denial == Denied(Reason.FULL, Usage(1, 3, used=3, held=0), version=1)

    def test_full_for_a_limit_of_nothing(self, counters: Counters, define: DefineQuota) -> None:
        assert refused(counters, define(0)).reason is Reason.FULL

    def test_busy_where_the_rest_is_held(self, counters: Counters, define: DefineQuota) -> None:
        subject = define(3)
        reserve(counters, subject, 3)
        assert refused(counters, subject).reason is Reason.BUSY

    def test_expired_where_a_lease_has_ended(self, new_counters: Callable[..., Counters]) -> None:
        counters = new_counters(lease=BLINK)
        counters.define("team:7", Quota(id=1, limit=3, start=START))
        reserve(counters, "team:7", 3)
        time.sleep(0.005)
        assert refused(counters, "team:7").reason is Reason.EXPIRED

    def test_holds_of_another_quota_count_nothing(
        self, counters: Counters, client: "redis.Redis"
    ) -> None:
        old, new = Quota(id=1, limit=5, start=START), Quota(id=2, limit=2, start=START + HOUR)
        counters.define("team:7", old)
        reserve(counters, "team:7", 3)
        counters.define("team:7", old, new)
        counters.settle(reserve(counters, "team:7", 2), 2)
        assert refused(counters, "team:7").reason is Reason.FULL
        assert counters.usage("team:7") == {1: Usage(1, 5, 0, held=3), 2: Usage(2, 2, 2, held=0)}

    def test_expired_holds_of_another_quota_count_nothing(
        self, new_counters: Callable[..., Counters]
    ) -> None:
        counters = new_counters(lease=BLINK)
        old, new = Quota(id=1, limit=5, start=START), Quota(id=2, limit=1, start=START + HOUR)
        counters.define("team:7", old)
        reserve(counters, "team:7", 3)
        time.sleep(0.005)
        counters.define("team:7", old, new)
        counters.consume("team:7")
        assert refused(counters, "team:7").reason is Reason.FULL

    @pytest.mark.parametrize("edge", ["start", "end"])
    def test_boundary_where_a_period_is_near_its_edge(
        self, new_counters: Callable[..., Counters], edge: str
    ) -> None:
        counters = new_counters(boundary_skew=HOUR)
        now = datetime.now(UTC)
        start, end = {
            "start": (now - timedelta(minutes=5), None),
            "end": (START, now + timedelta(minutes=5)),
        }[edge]
        counters.define("team:7", Quota(id=1, limit=1, start=start, end=end))
        counters.consume("team:7")
        assert refused(counters, "team:7").reason is Reason.BOUNDARY

    def test_boundary_of_a_quota_that_does_not_rule_yet(
        self, new_counters: Callable[..., Counters]
    ) -> None:
        counters = new_counters(boundary_skew=HOUR)
        soon = Quota(id=2, limit=9, start=datetime.now(UTC) + timedelta(minutes=5))
        counters.define("team:7", Quota(id=1, limit=0, start=START), soon)
        assert refused(counters, "team:7").reason is Reason.BOUNDARY

    def test_far_from_a_boundary_it_is_full(self, new_counters: Callable[..., Counters]) -> None:
        counters = new_counters(boundary_skew=timedelta(minutes=1))
        start = datetime.now(UTC) - timedelta(minutes=5)
        counters.define("team:7", Quota(id=1, limit=0, start=start))
        assert refused(counters, "team:7").reason is Reason.FULL


class TestWhichQuotaRules:
    def test_the_latest_start_among_the_active(self, counters: Counters) -> None:
        counters.define(
            "team:7",
            Quota(id=1, limit=10, start=START),
            Quota(id=3, limit=30, start=START + 2 * HOUR),
            Quota(id=2, limit=20, start=START + HOUR),
        )
        assert reserve(counters, "team:7", 1).quota_id == 3

    def test_not_one_that_has_ended_or_not_begun(self, counters: Counters) -> None:
        counters.define(
            "team:7",
            Quota(id=1, limit=10, start=START),
            Quota(id=2, limit=20, start=START + HOUR, end=START + 2 * HOUR),
            Quota(id=3, limit=30, start=datetime.now(UTC) + HOUR),
        )
        assert reserve(counters, "team:7", 1).quota_id == 1

    def test_it_switches_by_the_time_of_redis(self, counters: Counters) -> None:
        switch = datetime.now(UTC) + timedelta(milliseconds=300)
        counters.define(
            "team:7",
            Quota(id=1, limit=None, start=START, end=switch),
            Quota(id=2, limit=None, start=switch),
        )
        before = reserve(counters, "team:7", 1).quota_id
        was_early = datetime.now(UTC) < switch
        time.sleep(0.32)
        assert reserve(counters, "team:7", 1).quota_id == 2
        assert before == 1 or not was_early

    def test_no_quota_where_none_is_active(self, counters: Counters) -> None:
        counters.define("team:7", Quota(id=1, limit=1, start=datetime.now(UTC) + HOUR))
        assert counters.reserve("team:7", 1) == NoQuota(version=1)

    def test_no_quota_where_there_is_none_at_all(self, counters: Counters) -> None:
        counters.define("team:7")
        assert counters.reserve("team:7", 1) == NoQuota(version=1)
        assert counters.usage("team:7") == {}


class TestLostState:
    def test_an_unknown_subject_is_never_no_quota(self, counters: Counters) -> None:
        with pytest.raises(StateLost, match="nobody"):
            counters.reserve("nobody", 1)

    def test_a_deleted_hash(
        self, counters: Counters, define: DefineQuota, client: "redis.Redis"
    ) -> None:
        subject = define(10)
        hold = reserve(counters, subject, 3)
        client.delete(counters.keys.subject(subject))
        with pytest.raises(StateLost):
            counters.reserve(subject, 1)
        with pytest.raises(StateLost):
            counters.usage(subject)
        counters.settle(hold, 1)
        assert client.exists(counters.keys.subject(subject)) == 0

    def test_a_lost_free_list(
        self, counters: Counters, define: DefineQuota, client: "redis.Redis"
    ) -> None:
        subject = define(10)
        client.hdel(counters.keys.subject(subject), "q1")
        with pytest.raises(StateLost):
            counters.reserve(subject, 1)


class TestForfeit:
    def test_expired_holds_count_as_used(self, new_counters: Callable[..., Counters]) -> None:
        counters = new_counters(lease=BLINK)
        counters.define("team:7", Quota(id=1, limit=5, start=START))
        reserve(counters, "team:7", 3)
        time.sleep(0.005)
        assert counters.forfeit("team:7") == 1
        assert counters.usage("team:7")[1] == Usage(1, 5, used=3, held=0)

    def test_live_holds_stay(self, counters: Counters, define: DefineQuota) -> None:
        subject = define(5)
        reserve(counters, subject, 3)
        assert counters.forfeit(subject) == 0
        assert counters.usage(subject)[1].held == 3

    def test_settling_too_late_changes_nothing(self, new_counters: Callable[..., Counters]) -> None:
        counters = new_counters(lease=BLINK)
        counters.define("team:7", Quota(id=1, limit=5, start=START))
        hold = reserve(counters, "team:7", 3)
        time.sleep(0.005)
        counters.forfeit("team:7")
        counters.settle(hold, 0)
        assert counters.usage("team:7")[1] == Usage(1, 5, used=3, held=0)


def test_a_change_marks_the_subject(
    counters: Counters, define: DefineQuota, client: "redis.Redis"
) -> None:
    subject = define(5)
    client.delete(counters.keys.changed(subject))
    reserve(counters, subject, 1)
    assert client.smembers(counters.keys.changed(subject)) == {subject.encode()}


@pytest.mark.parametrize("amount", [0, -1, 1001, 1.0, True, "3", None])
def test_amounts_are_bounded(counters: Counters, define: DefineQuota, amount: object) -> None:
    subject = define(5)
    with pytest.raises(InvalidArgument, match="amount is "):
        counters.reserve(subject, amount)  # type: ignore[arg-type]


@pytest.mark.parametrize("used", [-1, 4, 1.0, True])
def test_no_more_can_be_settled_than_was_held(
    counters: Counters, define: DefineQuota, used: object
) -> None:
    hold = reserve(counters, define(5), 3)
    with pytest.raises(InvalidArgument, match="used is "):
        counters.settle(hold, used)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("args", "named"),
    [
        ([0, "h", 1000, 0], "amount"),
        ([1001, "h", 1000, 0], "amount"),
        (["x", "h", 1000, 0], "amount"),
        (["1.5", "h", 1000, 0], "amount"),
        ([1, "", 1000, 0], "hold_id"),
        ([1, "h" * 65, 1000, 0], "hold_id"),
        ([1, "h", 0, 0], "lease_ms"),
        ([1, "h", 86_400_001, 0], "lease_ms"),
        ([1, "h", 1000, -1], "skew_us"),
        ([1, "h", 1000, 3_600_000_001], "skew_us"),
        ([1, "h", 1000, "x"], "skew_us"),
    ],
)
def test_the_script_bounds_its_arguments_itself(
    counters: Counters, define: DefineQuota, args: list[str | int], named: str
) -> None:
    subject = define(5)
    keys = [counters.keys.subject(subject), counters.keys.changed(subject)]
    with pytest.raises(InvalidArgument, match=named):
        counters.connection.run("reserve", keys, [subject, *args])
    assert counters.usage(subject)[1].held == 0


def test_what_is_returned_is_bounded(counters: Counters, define: DefineQuota) -> None:
    subject = define(5)
    hold = reserve(counters, subject, 3)
    with pytest.raises(InvalidArgument, match="returned"):
        counters.connection.run(
            "settle", [counters.keys.subject(subject)], [hold.hold_id, "1-1," * 5000]
        )


@pytest.mark.parametrize("hold_id", ["x" * 65, "a\0b" * 30, "\ud800", 7])
def test_hold_ids_are_bounded(counters: Counters, define: DefineQuota, hold_id: str) -> None:
    with pytest.raises(InvalidArgument, match="hold"):
        counters.reserve(define(5), 1, hold_id=hold_id)
