"""Bringing Redis in line with the ledger, at any time and in any order."""

import time
from collections.abc import Callable, Sequence
from datetime import timedelta

import pytest
from bench import HOUR, START, SUBJECT, TABLE, Bench, Connect

from quota_redis import Counters, Denied, NoQuota, Reason, Reservation, Unavailable, Usage, ranges
from quota_redis.postgres import Ledger, absorb, sync
from quota_redis.postgres.ledger import LedgerSubject, PgConnection

BLINK = timedelta(milliseconds=1)


def put_right(bench: Bench) -> int:
    return absorb(bench.counters, bench.ledger, bench.connection, [SUBJECT])


def free_in_redis(bench: Bench, quota: int) -> ranges.Ranges:
    return bench.counters.snapshot(SUBJECT).quotas[quota].free


@pytest.fixture
def hasty(bench: Bench) -> Counters:
    """Counters whose holds expire at once."""
    return Counters(bench.counters.connection.client, namespace="bench", lease=BLINK)


class TestLoading:
    def test_an_unknown_subject_is_loaded_from_the_ledger(self, bench: Bench) -> None:
        quota = bench.define(10)
        bench.use(quota, ((3, 4),))
        assert put_right(bench) == 1
        assert bench.in_redis(quota) == Usage(quota, 10, used=2, held=0)
        assert free_in_redis(bench, quota) == ((1, 2), (5, 10))
        assert bench.counters.snapshot(SUBJECT).version == bench.version() == 1

    def test_one_without_any_quota_has_none_from_then_on(self, bench: Bench) -> None:
        put_right(bench)
        assert bench.counters.reserve(SUBJECT, 1) == NoQuota(version=0)

    def test_quotas_of_the_future_are_armed_ahead(self, bench: Bench) -> None:
        now = bench.define(10)
        later = bench.define(20, start=START + 1_000_000 * HOUR)
        put_right(bench)
        assert set(bench.counters.usage(SUBJECT)) == {now, later}
        assert bench.reserve(1).quota_id == now

    def test_unlimited_and_limits_below_used(self, bench: Bench) -> None:
        unlimited, lowered = bench.define(None), bench.define(10, start=START + HOUR)
        bench.use(lowered, ((1, 8),))
        bench.set_limit(lowered, 5)
        put_right(bench)
        assert bench.in_redis(unlimited) == Usage(unlimited, None, used=0, held=0)
        assert bench.in_redis(lowered) == Usage(lowered, 5, used=8, held=0)
        assert bench.in_redis(lowered).remaining == 0

    def test_many_subjects_in_one_call_each_named_once(self, bench: Bench) -> None:
        quotas = {f"team:{n}": bench.define(n, team=n) for n in range(1, 30)}
        names = [*quotas, *quotas]
        assert absorb(bench.counters, bench.ledger, bench.connection, names) == 29
        assert bench.counters.usage("team:12")[quotas["team:12"]].limit == 12

    def test_nothing_to_do(self, bench: Bench) -> None:
        assert absorb(bench.counters, bench.ledger, bench.connection, []) == 0

    def test_redis_out_of_reach(self, bench: Bench, dead_counters: Counters) -> None:
        with pytest.raises(Unavailable):
            absorb(dead_counters, bench.ledger, bench.connection, [SUBJECT])

    def test_sync_has_to_look_at_it(self, bench: Bench) -> None:
        bench.define(10)
        put_right(bench)
        assert bench.is_changed()


class TestHolds:
    def test_live_ones_stay(self, bench: Bench, absorbed: Callable[..., int]) -> None:
        quota = absorbed(10)
        hold = bench.reserve(4)
        put_right(bench)
        assert bench.in_redis(quota) == Usage(quota, 10, used=0, held=4)
        bench.use(quota, ((1, 3),))
        bench.counters.settle(hold, 3)
        assert bench.in_redis(quota) == Usage(quota, 10, used=3, held=0)
        assert free_in_redis(bench, quota) == ((4, 10),)

    def test_expired_ones_go_and_what_was_not_used_is_free(
        self, bench: Bench, absorbed: Callable[..., int], hasty: Counters
    ) -> None:
        quota = absorbed(10)
        hasty.reserve(SUBJECT, 6)
        bench.use(quota, ((1, 2),))
        time.sleep(0.005)
        put_right(bench)
        assert bench.in_redis(quota) == Usage(quota, 10, used=2, held=0)
        assert free_in_redis(bench, quota) == ((3, 10),)

    def test_one_that_committed_keeps_what_the_ledger_leaves_it(
        self, bench: Bench, absorbed: Callable[..., int]
    ) -> None:
        quota = absorbed(10)
        hold = bench.reserve(6)
        bench.use(quota, ((1, 2),))
        put_right(bench)
        assert bench.in_redis(quota) == Usage(quota, 10, used=2, held=4)
        bench.counters.settle(hold, 2)
        assert bench.in_redis(quota) == Usage(quota, 10, used=2, held=0)
        assert free_in_redis(bench, quota) == ((3, 10),)

    def test_one_that_used_everything_is_gone(
        self, bench: Bench, absorbed: Callable[..., int]
    ) -> None:
        quota = absorbed(3)
        bench.reserve(3)
        bench.use(quota, ((1, 3),))
        put_right(bench)
        answer = bench.counters.reserve(SUBJECT, 1)
        assert isinstance(answer, Denied)
        assert answer.reason is Reason.FULL

    def test_one_over_a_lowered_limit_gives_back_what_is_not_void(
        self, bench: Bench, absorbed: Callable[..., int]
    ) -> None:
        quota = absorbed(10)
        hold = bench.reserve(8)
        bench.set_limit(quota, 3)
        put_right(bench)
        assert bench.in_redis(quota) == Usage(quota, 3, used=0, held=3)
        bench.counters.settle(hold, 0)
        assert free_in_redis(bench, quota) == ((1, 3),)

    def test_those_of_a_deleted_quota_go(self, bench: Bench, absorbed: Callable[..., int]) -> None:
        quota = absorbed(10)
        bench.reserve(4)
        bench.connection.execute("DELETE FROM team_quota")
        put_right(bench)
        snapshot = bench.counters.snapshot(SUBJECT)
        assert quota not in snapshot.quotas
        assert not snapshot.holds

    def test_the_earliest_end_of_those_that_stay_is_known_anew(
        self, bench: Bench, absorbed: Callable[..., int], hasty: Counters
    ) -> None:
        absorbed(10)
        hasty.reserve(SUBJECT, 2)
        bench.reserve(8)
        time.sleep(0.005)
        put_right(bench)
        bench.reserve(2)
        answer = bench.counters.reserve(SUBJECT, 1)
        assert isinstance(answer, Denied)
        assert answer.reason is Reason.BUSY


class TestRepair:
    @pytest.mark.parametrize(
        "lie",
        [
            "10:0:0:0:1-10",
            "0:0:0:0:",
            "3:0:0:0:1-1,7-7,9-9",
            "7:3:1:1:1-7",
            "100:0:0:0:1-100",
        ],
    )
    def test_a_wrong_free_list_becomes_the_ledgers(
        self, bench: Bench, absorbed: Callable[..., int], lie: str
    ) -> None:
        quota = absorbed(10)
        bench.use(quota, ((5, 6),))
        key = bench.counters.keys.subject(SUBJECT)
        bench.counters.connection.client.hset(key, f"q{quota}", lie)
        put_right(bench)
        assert free_in_redis(bench, quota) == ((1, 4), (7, 10))
        assert bench.in_redis(quota) == Usage(quota, 10, used=2, held=0)

    def test_slots_that_leaked_come_back(self, bench: Bench, absorbed: Callable[..., int]) -> None:
        quota = absorbed(10)
        bench.counters.settle(bench.reserve(4), 4)
        assert bench.in_redis(quota).used == 4
        put_right(bench)
        assert bench.in_redis(quota) == Usage(quota, 10, used=0, held=0)

    def test_a_version_that_postgresql_does_not_have_is_forgotten(
        self, bench: Bench, absorbed: Callable[..., int]
    ) -> None:
        quota = absorbed(10)
        key = bench.counters.keys.subject(SUBJECT)
        document = bench.counters.snapshot(SUBJECT).document
        assert document is not None
        bench.counters.connection.client.hset(key, "d", f"99|{document.partition('|')[2]}")
        assert put_right(bench) == 1
        assert bench.counters.snapshot(SUBJECT).version == bench.version()
        assert bench.in_redis(quota).remaining == 10


class TestEnded:
    def test_a_quota_leaves_redis_after_its_last_count(
        self, bench: Bench, absorbed: Callable[..., int]
    ) -> None:
        quota = absorbed(10)
        bench.spend(4)
        bench.end_now(quota, ago=timedelta(minutes=2))
        put_right(bench)
        assert quota not in bench.counters.usage(SUBJECT)
        assert bench.column(quota) == 4

    def test_not_while_something_may_be_under_way(
        self, bench: Bench, absorbed: Callable[..., int]
    ) -> None:
        quota = absorbed(10)
        bench.spend(4)
        bench.end_now(quota, ago=timedelta(seconds=10))
        put_right(bench)
        assert bench.in_redis(quota).used == 4


class TestInterleavings:
    def test_an_old_absorb_applied_last_changes_nothing(
        self, bench: Bench, absorbed: Callable[..., int]
    ) -> None:
        """It read a limit of 3, and comes after a push of the limit of 5."""
        quota = absorbed(3)
        bench.spend(3)
        newer = Bench(bench.connection, bench.counters)
        newer.counters = Counters(bench.counters.connection.client, namespace="bench")

        def raise_and_push() -> None:
            bench.set_limit(quota, 5)
            put_right(newer)

        bench.interpose().before["absorb"] = [raise_and_push]
        put_right(bench)
        assert bench.in_redis(quota) == Usage(quota, 5, used=3, held=0)
        assert bench.spend(4).used == 2

    def test_an_overtaken_absorb_of_the_same_version_is_done_again(
        self, bench: Bench, absorbed: Callable[..., int]
    ) -> None:
        """It saw leaked slots that have come back and been used meanwhile: they must not be free once more."""
        quota = absorbed(10)
        bench.counters.settle(bench.reserve(4), 4)
        newer = Bench(bench.connection, bench.counters)
        newer.counters = Counters(bench.counters.connection.client, namespace="bench")

        def use_what_leaked() -> None:
            put_right(newer)
            assert newer.spend(4).used == 4
            newer.counters.flush()

        bench.interpose().before["absorb"] = [use_what_leaked]
        put_right(bench)
        assert free_in_redis(bench, quota) == bench.free(quota)
        assert bench.spend(10).used == 6
        assert bench.items() == bench.used(quota) == 10

    @pytest.mark.parametrize("moment", ["snapshots", "absorb"])
    @pytest.mark.parametrize("used", [0, 2, 4])
    def test_a_worker_commits_and_settles_meanwhile(
        self, bench: Bench, absorbed: Callable[..., int], moment: str, used: int
    ) -> None:
        quota = absorbed(10)
        hold = bench.reserve(4)

        def finish() -> None:
            bench.use(quota, ranges.split(hold.ranges, used)[0])
            bench.counters.settle(hold, used)

        bench.interpose().before[moment] = [finish]
        put_right(bench)
        assert bench.in_redis(quota) == Usage(quota, 10, used=used, held=0)
        assert free_in_redis(bench, quota) == bench.free(quota)

    def test_a_worker_whose_lease_has_ended_commits_and_settles_meanwhile(
        self, bench: Bench, absorbed: Callable[..., int], hasty: Counters
    ) -> None:
        """Its hold was seen expired, and ended by itself: it is not given back a second time."""
        quota = absorbed(10)
        hold = hasty.reserve(SUBJECT, 4)
        assert isinstance(hold, Reservation)
        time.sleep(0.005)

        def finish() -> None:
            bench.use(quota, ((1, 3),))
            bench.counters.settle(hold, 3)

        bench.interpose().before["absorb"] = [finish]
        put_right(bench)
        assert bench.in_redis(quota) == Usage(quota, 10, used=3, held=0)
        assert free_in_redis(bench, quota) == ((4, 10),)

    def test_a_worker_reserves_meanwhile(self, bench: Bench, absorbed: Callable[..., int]) -> None:
        quota = absorbed(10)
        bench.interpose().before["absorb"] = [lambda: bench.reserve(4)]
        put_right(bench)
        assert bench.in_redis(quota) == Usage(quota, 10, used=0, held=4)
        assert free_in_redis(bench, quota) == ((5, 10),)

    def test_everything_is_lost_meanwhile(self, bench: Bench, absorbed: Callable[..., int]) -> None:
        quota = absorbed(10)
        bench.use(quota, ((1, 4),))
        bench.interpose().before["absorb"] = [bench.counters.connection.client.flushdb]
        put_right(bench)
        assert free_in_redis(bench, quota) == bench.free(quota)

    def test_a_worker_outlives_its_lease(
        self, bench: Bench, absorbed: Callable[..., int], hasty: Counters
    ) -> None:
        """Its slots went to somebody else: whoever commits second is refused, and nothing is over."""
        quota = absorbed(5)
        slow = hasty.reserve(SUBJECT, 5)
        assert isinstance(slow, Reservation)
        time.sleep(0.005)
        assert bench.spend(3).used == 3
        assert not bench.try_to_use(quota, slow.ranges)
        hasty.settle(slow, 5)
        assert bench.spend(5).used == 2
        assert bench.items() == bench.used(quota) == bench.in_redis(quota).used == 5

    def test_full_beside_expired_and_foreign_holds(
        self, bench: Bench, absorbed: Callable[..., int], hasty: Counters
    ) -> None:
        absorbed(5)
        bench.reserve(5)
        new = absorbed(4, start=START + HOUR)
        hasty.reserve(SUBJECT, 4)
        time.sleep(0.005)
        spent = bench.spend(6)
        assert (spent.used, spent.denied) == (4, 2)
        assert bench.in_redis(new) == Usage(new, 4, used=4, held=0)

    def test_one_absorb_at_a_time_is_enough_for_the_hot_path(
        self, bench: Bench, absorbed: Callable[..., int]
    ) -> None:
        """Somebody absorbed a moment ago: a second caller goes direct instead, and is as exact."""
        quota = absorbed(10)
        bench.counters.connection.client.set(bench.counters.keys.absorbing(SUBJECT), 1, px=60_000)
        bench.counters.connection.client.delete(bench.counters.keys.subject(SUBJECT))
        bench.interpose().before["absorb"] = [lambda: pytest.fail("absorbed")]
        assert bench.spend(4).used == 4
        assert bench.slots_used(quota) == ((7, 10),)


class Meanwhile(Ledger):
    """A ledger before whose next read something else happens: after Redis was read, before PostgreSQL is."""

    def __init__(self, *doings: Callable[[], object]) -> None:
        super().__init__(TABLE)
        self._doings = list(doings)

    def read(self, connection: PgConnection, subjects: Sequence[str]) -> list[LedgerSubject]:
        while self._doings:
            self._doings.pop(0)()
        return super().read(connection, subjects)


@pytest.fixture
def beside(connect: Connect, bench: Bench) -> Bench:
    """The same quotas, by a connection of its own: the first one is in an absorb's transaction meanwhile."""
    return Bench(connect(), bench.counters)


class TestOvertaken:
    """Another absorb is applied between an absorb's look at Redis and its own application."""

    def test_a_raise_after_redis_lost_everything_is_not_lost(
        self, bench: Bench, beside: Bench
    ) -> None:
        quota = bench.define(2)
        ledger = Meanwhile(
            lambda: put_right(beside),
            lambda: beside.spend(2),
            lambda: beside.set_limit(quota, 3),
        )
        assert absorb(bench.counters, ledger, bench.connection, [SUBJECT]) == 1
        bench.counters.flush()
        assert free_in_redis(bench, quota) == ((3, 3),)
        assert bench.spend(2).used == 1

    def test_a_slot_that_was_held_void_and_free_again_is_not_lost(
        self, bench: Bench, beside: Bench, absorbed: Callable[..., int]
    ) -> None:
        quota = absorbed(2)
        bench.reserve(2)
        ledger = Meanwhile(
            lambda: beside.set_limit(quota, 1),
            lambda: beside.use(quota, ((1, 1),)),
            lambda: put_right(beside),
            lambda: beside.set_limit(quota, 2),
        )
        absorb(bench.counters, ledger, bench.connection, [SUBJECT])
        assert free_in_redis(bench, quota) == ((2, 2),)

    def test_marks_stay_where_others_always_come_between(
        self, bench: Bench, beside: Bench, absorbed: Callable[..., int]
    ) -> None:
        absorbed(2)
        marks = bench.marks()

        class Unlucky(Ledger):
            def read(
                self, connection: PgConnection, subjects: Sequence[str]
            ) -> list[LedgerSubject]:
                put_right(beside)
                return super().read(connection, subjects)

        report = sync(bench.counters, Unlucky(TABLE), bench.connection)
        assert report.absorbed == 0
        assert bench.marks() == marks > 0
        sync(bench.counters, bench.ledger, bench.connection)
        assert bench.marks() == 0
