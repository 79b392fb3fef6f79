"""Counts: from Redis or the ledger into the definitions' rows, of changed subjects alone."""

import time
from collections.abc import Callable
from datetime import timedelta
from importlib import import_module

import pytest
from bench import HOUR, NAMESPACE, START, SUBJECT, Bench, Connect, together

from quota_redis import Counters, InsideTransaction, Reservation
from quota_redis.postgres import SyncReport, absorb, sync
from quota_redis.postgres.sync import writing_counts

BLINK = timedelta(milliseconds=1)


def run(bench: Bench) -> SyncReport:
    bench.counters.flush()
    return sync(bench.counters, bench.ledger, bench.connection)


@pytest.fixture
def settled(bench: Bench, absorbed: Callable[..., int]) -> Callable[..., int]:
    """A quota that Redis knows and that sync has nothing to do for."""

    def make(limit: int | None, **options: object) -> int:
        quota = absorbed(limit, **options)
        run(bench)
        assert run(bench).subjects == 0
        return quota

    return make


class TestCounts:
    def test_what_was_spent_is_written(self, bench: Bench, settled: Callable[..., int]) -> None:
        quota = settled(10)
        bench.spend(4)
        assert run(bench) == SyncReport(subjects=1, counts=1, absorbed=0, is_complete=True)
        assert bench.column(quota) == 4

    def test_only_changed_subjects_are_looked_at(
        self, bench: Bench, settled: Callable[..., int]
    ) -> None:
        settled(10)
        other = settled(10, team=8)
        bench.connection.execute("UPDATE team_quota SET used = 7 WHERE id = %s", (other,))
        bench.spend(4)
        assert run(bench).subjects == 1
        assert bench.column(other) == 7

    def test_the_mark_goes_once_nothing_is_under_way(
        self, bench: Bench, settled: Callable[..., int]
    ) -> None:
        settled(10)
        bench.spend(4)
        assert bench.is_changed()
        run(bench)
        assert not bench.is_changed()

    def test_the_mark_stays_while_something_is_held(
        self, bench: Bench, settled: Callable[..., int]
    ) -> None:
        quota = settled(10)
        hold = bench.reserve(4)
        run(bench)
        assert bench.is_changed()
        bench.use(quota, hold.ranges)
        bench.counters.settle(hold, 4)
        run(bench)
        assert bench.column(quota) == 4
        assert not bench.is_changed()

    def test_the_mark_stays_where_something_changed_meanwhile(
        self, bench: Bench, settled: Callable[..., int]
    ) -> None:
        quota = settled(10)
        bench.spend(2)
        other = Bench(
            bench.connection, Counters(bench.counters.connection.client, namespace=NAMESPACE)
        )

        def go_on() -> None:
            other.spend(3)
            other.counters.flush()

        bench.interpose().before["unmark"] = [go_on]
        run(bench)
        assert bench.column(quota) == 2
        assert bench.is_changed()
        run(bench)
        assert bench.column(quota) == 5

    def test_counts_are_set_and_never_added(
        self, bench: Bench, settled: Callable[..., int]
    ) -> None:
        quota = settled(10)
        bench.connection.execute("UPDATE team_quota SET used = 9")
        bench.spend(4)
        run(bench)
        assert bench.column(quota) == 4
        bench.counters.connection.client.sadd(bench.counters.keys.changed(SUBJECT), SUBJECT)
        run(bench)
        assert bench.column(quota) == 4

    def test_a_locked_row_is_skipped_and_written_by_the_next_run(
        self, bench: Bench, settled: Callable[..., int], connect: Connect
    ) -> None:
        locked, other = settled(10), settled(10, team=8)
        bench.spend(4)
        bench.spend(3, subject="team:8")
        with connect().transaction() as transaction:
            transaction.connection.execute(
                "SELECT 1 FROM team_quota WHERE id = %s FOR NO KEY UPDATE", (locked,)
            )
            assert run(bench).counts == 1
        assert (bench.column(locked), bench.column(other)) == (0, 3)
        assert bench.is_changed()
        run(bench)
        assert bench.column(locked) == 4

    def test_counting_is_no_edit(self, bench: Bench, settled: Callable[..., int]) -> None:
        settled(10)
        before = bench.version()
        bench.spend(4)
        run(bench)
        assert (bench.version(), bench.marks()) == (before, 0)

    def test_all_quotas_of_a_subject(self, bench: Bench, settled: Callable[..., int]) -> None:
        old = settled(10)
        bench.spend(2)
        new = settled(10, start=START + HOUR)
        bench.spend(3)
        run(bench)
        assert (bench.column(old), bench.column(new)) == (2, 3)

    def test_more_subjects_than_fit_one_batch(
        self, bench: Bench, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(import_module("quota_redis.postgres.sync"), "BATCH", 2)
        teams = range(60)
        quotas = [bench.define(100, team=team) for team in teams]
        for team in teams:
            bench.spend(team % 7 + 1, subject=f"team:{team}")
        run(bench)
        assert [bench.column(quota) for quota in quotas] == [team % 7 + 1 for team in teams]
        assert run(bench).subjects == 0
        assert bench.value("SELECT count(*) FROM quota_redis_mark") == 0


class TestMarksOfPostgresql:
    def test_an_edit_by_plain_sql_reaches_redis(
        self, bench: Bench, settled: Callable[..., int]
    ) -> None:
        quota = settled(10)
        bench.set_limit(quota, 5)
        assert run(bench).absorbed == 1
        assert bench.in_redis(quota).limit == 5
        assert bench.marks() == 0

    def test_what_went_direct_reaches_redis(
        self, bench: Bench, settled: Callable[..., int], dead_counters: Counters
    ) -> None:
        quota = settled(10)
        Bench(bench.connection, dead_counters).spend(4)
        assert bench.in_redis(quota).used == 0
        run(bench)
        assert bench.in_redis(quota).used == bench.column(quota) == 4

    def test_one_made_meanwhile_is_not_lost(
        self, bench: Bench, settled: Callable[..., int]
    ) -> None:
        quota = settled(10)
        bench.set_limit(quota, 5)
        bench.interpose().before["absorb"] = [lambda: bench.set_limit(quota, 6)]
        run(bench)
        assert bench.in_redis(quota).limit == 6
        assert bench.marks() == 0

    def test_expired_holds_are_reclaimed(self, bench: Bench, settled: Callable[..., int]) -> None:
        quota = settled(10)
        hasty = Counters(bench.counters.connection.client, namespace=NAMESPACE, lease=BLINK)
        hold = hasty.reserve(SUBJECT, 6)
        assert isinstance(hold, Reservation)
        bench.use(quota, ((1, 2),))
        time.sleep(0.005)
        assert run(bench).absorbed == 1
        assert bench.in_redis(quota).remaining == 8
        assert bench.column(quota) == 2
        run(bench)
        assert not bench.is_changed()

    def test_an_ended_quota_is_counted_a_last_time(
        self, bench: Bench, settled: Callable[..., int]
    ) -> None:
        quota = settled(10)
        bench.spend(4)
        bench.counters.flush()
        bench.end_now(quota, ago=timedelta(minutes=2))
        run(bench)
        assert bench.column(quota) == 4
        assert quota not in bench.counters.usage(SUBJECT)
        run(bench)
        assert not bench.is_changed()

    def test_a_deleted_quota_leaves_nothing_behind(
        self, bench: Bench, settled: Callable[..., int]
    ) -> None:
        settled(10)
        bench.connection.execute("DELETE FROM team_quota")
        for _ in range(2):
            assert run(bench).is_complete
        assert bench.counters.usage(SUBJECT) == {}
        assert (bench.marks(), bench.is_changed()) == (0, False)


class TestRedisGone:
    def test_counts_come_from_the_ledger_and_marks_stay(
        self, bench: Bench, dead_counters: Counters
    ) -> None:
        bench.counters = dead_counters
        quota = bench.define(10)
        bench.spend(4)
        marks = bench.marks()
        report = run(bench)
        assert not report.is_complete
        assert bench.column(quota) == 4
        assert bench.marks() == marks > 0

    def test_a_lost_hash_is_loaded_before_it_is_counted(
        self, bench: Bench, settled: Callable[..., int]
    ) -> None:
        quota = settled(10)
        bench.spend(4)
        bench.counters.flush()
        client = bench.counters.connection.client
        client.delete(bench.counters.keys.subject(SUBJECT))
        run(bench)
        assert bench.column(quota) == bench.in_redis(quota).used == 4


class TestOneAtATime:
    def test_two_runs_at_once_count_once(
        self, bench: Bench, settled: Callable[..., int], connect: Connect
    ) -> None:
        quota = settled(1000)
        for _ in range(5):
            bench.spend(4)
        bench.counters.flush()
        benches = [Bench(connect(), bench.counters) for _ in range(3)]
        reports = together(*(lambda b=b: run(b) for b in benches))
        assert any(not report.was_running for report in reports)
        run(bench)
        assert bench.column(quota) == 20

    def test_a_second_one_says_so_and_does_nothing(
        self, bench: Bench, settled: Callable[..., int], connect: Connect
    ) -> None:
        quota = settled(10)
        bench.spend(4)
        with writing_counts(connect(), NAMESPACE, wait=False) as is_ours:
            assert is_ours
            report = run(bench)
        assert report == SyncReport(0, 0, 0, is_complete=False, was_running=True)
        assert bench.column(quota) == 0
        run(bench)
        assert bench.column(quota) == 4

    def test_the_lock_is_given_back_after_an_error(
        self, bench: Bench, settled: Callable[..., int], connect: Connect
    ) -> None:
        settled(10)

        def fail() -> None:
            raise LookupError

        bench.spend(4)
        bench.interpose().before["unmark"] = [fail]
        with pytest.raises(LookupError):
            run(bench)
        assert not sync(bench.counters, bench.ledger, connect()).was_running

    def test_inside_a_transaction_it_is_refused(self, bench: Bench) -> None:
        with bench.connection.transaction(), pytest.raises(InsideTransaction):
            run(bench)

    def test_without_autocommit(
        self, bench: Bench, absorbed: Callable[..., int], connect: Connect
    ) -> None:
        quota = absorbed(10)
        bench.connection = connect(autocommit=False)
        bench.spend(4)
        run(bench)
        assert bench.column(quota) == 4


def test_a_stranger_among_the_changed_does_not_stop_sync(
    bench: Bench, settled: Callable[..., int]
) -> None:
    """Somebody else wrote a subject that is not of this table into the set."""
    quota = settled(10)
    bench.spend(4)
    client = bench.counters.connection.client
    for shard in range(bench.counters.keys.shards):
        client.sadd(
            bench.counters.keys.changed_of(shard),
            "user:7",
            "team:x",
            "",
            "team:" + "1" * 300,
            b"\xff",
        )
    run(bench)
    assert bench.column(quota) == 4


def test_absorb_is_used_by_nobody_who_holds_a_lock(bench: Bench, connect: Connect) -> None:
    """absorb waits for no row: an edit under way holds nobody up."""
    quota = bench.define(10)
    editor = connect()
    with editor.transaction():
        editor.execute("UPDATE team_quota SET quota_limit = 5 WHERE id = %s", (quota,))
        bench.connection.execute("SET lock_timeout = '2s'")
        absorb(bench.counters, bench.ledger, bench.connection, [SUBJECT])
        assert bench.in_redis(quota).limit == 10
