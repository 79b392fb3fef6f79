"""A sync of many subjects: bounded in what it takes at once, complete in the end, and nothing lost on the way."""

import random
from collections.abc import Callable, Mapping
from datetime import timedelta
from functools import partial
from importlib import import_module
from typing import Any

import pytest
from bench import NAMESPACE, START, Bench, Connect, together

from quota_redis import Counters
from quota_redis.connection import Connection
from quota_redis.postgres import Ledger, absorb, audit, rebuild, sync
from quota_redis.postgres.queries import PgConnection
from quota_redis.scripts import Reply, Value

SYNC = import_module("quota_redis.postgres.sync")
SHARDS = import_module("quota_redis.postgres.shards")
LIMIT = 50


def define_many(bench: Bench, count: int) -> dict[str, int]:
    """A quota for each of so many teams, by one statement; ids by subject."""
    rows = bench.connection.execute(
        """INSERT INTO team_quota (team_id, quota_limit, period_start)
        SELECT team, %s, %s FROM generate_series(1, %s) AS team RETURNING team_id, id""",
        (LIMIT, START, count),
    ).fetchall()
    return {f"team:{team}": quota for team, quota in rows}


def columns(bench: Bench) -> dict[int, int]:
    return dict(bench.connection.execute("SELECT id, used FROM team_quota").fetchall())


def ledger_counts(bench: Bench) -> dict[int, int]:
    rows = bench.connection.execute(
        """SELECT q.id, coalesce(sum(upper(slots) - lower(slots)) FILTER (WHERE NOT void), 0)::bigint
        FROM team_quota q LEFT JOIN quota_redis_ledger ON quota_id = q.id GROUP BY q.id"""
    ).fetchall()
    return dict(rows)


def run_sync(bench: Bench, **options: Any) -> Any:
    bench.counters.flush()
    return sync(bench.counters, bench.ledger, bench.connection, **options)


class Recorded(Connection):
    """A connection that notes how many keys each call of a script had, and may answer SSCAN in its own way."""

    def __init__(self, counters: Counters) -> None:
        super().__init__(counters.connection.client)
        self.keys: list[int] = []
        self.together: list[int] = []
        self.scanned: Callable[[Reply], Reply] = lambda answer: answer
        self.scans = 0

    def send_many(self, calls: Any) -> Any:
        self.keys += [len(call.keys) for call in calls]
        self.together.append(sum(len(call.keys) for call in calls))
        return super().send_many(calls)

    def command(self, *args: Value) -> Reply:
        answer = super().command(*args)
        if args[0] != "SSCAN":
            return answer
        self.scans += 1
        return self.scanned(answer)


@pytest.fixture
def recorded(bench: Bench) -> Recorded:
    bench.counters.connection = Recorded(bench.counters)
    return bench.counters.connection


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bounds that a few hundred subjects are more than."""
    for name, value in {"ROUND": 100, "BATCH": 30, "READ": 10}.items():
        monkeypatch.setattr(SYNC, name, value)
    monkeypatch.setattr(SHARDS, "CHUNK", 4)


@pytest.mark.usefixtures("small")
class TestBounds:
    def test_no_call_and_no_transaction_takes_more_than_its_bound(
        self, bench: Bench, recorded: Recorded, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        quotas = define_many(bench, 300)
        sizes = []

        def write(ledger: Ledger, connection: PgConnection, counts: Mapping[int, int]) -> set[int]:
            sizes.append(len(counts))
            return write_counts(ledger, connection, counts)

        write_counts = SYNC.write_counts
        monkeypatch.setattr(SYNC, "write_counts", write)
        report = run_sync(bench)
        assert (report.subjects, report.absorbed) == (300, 300)
        # The set of changed subjects and the hashes of four; a pipeline for at most 30 subjects and their sets.
        assert max(recorded.keys) == 5
        assert max(recorded.together) <= 2 * 30
        assert max(sizes) == 30
        assert len(quotas) == 300
        assert run_sync(bench).subjects == 0

    def test_progress_counts_marked_and_changed_subjects(self, bench: Bench) -> None:
        define_many(bench, 35)
        seen: list[int] = []
        run_sync(bench, progress=seen.append)
        assert seen == [10, 20, 30, 35, 65, 70]

    def test_neighbours_are_written_together(
        self, bench: Bench, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        quotas = define_many(bench, 95)
        run_sync(bench)
        heard: list[list[int]] = []
        for subject in random.sample(list(quotas), 95):
            bench.spend(1, subject=subject)
        run_sync(bench, on_counts=lambda counts: heard.append(sorted(counts)))
        assert [len(counts) for counts in heard] == [30, 30, 30, 5]
        assert [quota for counts in heard for quota in counts] == sorted(quotas.values())

    def test_members_that_a_scan_names_twice_count_once(
        self, bench: Bench, recorded: Recorded
    ) -> None:
        define_many(bench, 60)
        recorded.scanned = lambda answer: (answer[0], [*answer[1], *answer[1]])
        assert run_sync(bench).counts == 60

    def test_a_scan_without_an_end_is_given_up(
        self, bench: Bench, recorded: Recorded, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(SYNC, "MAX_SCANS", 3)
        recorded.scanned = lambda answer: (7, answer[1])
        define_many(bench, 20)
        assert run_sync(bench).subjects == 20
        assert recorded.scans == 3 * bench.counters.keys.shards

    def test_without_redis_all_marked_subjects_are_counted_from_the_ledger(
        self, bench: Bench, dead_counters: Counters
    ) -> None:
        quotas = define_many(bench, 35)
        bench.counters = dead_counters
        for subject in quotas:
            bench.spend(2, subject=subject)
        marks = bench.value("SELECT count(*) FROM quota_redis_mark")
        assert not run_sync(bench).is_complete
        assert set(columns(bench).values()) == {2}
        assert bench.value("SELECT count(*) FROM quota_redis_mark") == marks


@pytest.mark.usefixtures("small")
class TestAmongWorkers:
    def test_counts_converge_and_none_is_lost(self, bench: Bench, connect: Connect) -> None:
        quotas = define_many(bench, 400)
        run_sync(bench)

        def work(seed: int) -> None:
            dice, worker = random.Random(seed), Bench(connect(), bench.counters)
            for _ in range(150):
                worker.spend(dice.randint(1, 3), subject=f"team:{dice.randint(1, 400)}")

        def keep_in_step() -> None:
            beside = Bench(connect(), bench.counters)
            for _ in range(8):
                run_sync(beside)

        together(partial(work, 1), partial(work, 2), partial(work, 3), keep_in_step)
        for _ in range(2):
            assert run_sync(bench).is_complete
        assert columns(bench) == ledger_counts(bench)
        assert sum(columns(bench).values()) == bench.value("SELECT count(*) FROM item") > 0
        assert run_sync(bench).subjects == 0
        assert audit(bench.counters, bench.ledger, bench.connection).drifts == ()
        assert len(quotas) == 400

    def test_a_last_count_that_came_between_stays(
        self, bench: Bench, connect: Connect, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The quota ends and leaves Redis after sync read its count there, and before sync writes it."""
        quotas = define_many(bench, 3)
        run_sync(bench)
        bench.spend(4, subject="team:1")
        quota, beside = quotas["team:1"], Bench(connect(), bench.counters)
        write_counts = SYNC.write_counts

        def write(*args: Any) -> Any:
            monkeypatch.setattr(SYNC, "write_counts", write_counts)
            beside.use(quota, ((40, 42),), subject="team:1")
            beside.end_now(quota, ago=timedelta(minutes=2))
            absorb(beside.counters, beside.ledger, beside.connection, ["team:1"])
            assert beside.column(quota) == 7
            return write_counts(*args)

        bench.connection.execute("DELETE FROM quota_redis_mark")
        monkeypatch.setattr(SYNC, "write_counts", write)
        run_sync(bench)
        assert bench.column(quota) == 7
        for _ in range(2):
            run_sync(bench)
        assert bench.column(quota) == 7
        assert not bench.is_changed(subject="team:1")


class TestLoading:
    @pytest.fixture
    def loaded(self, bench: Bench) -> dict[str, int]:
        quotas = define_many(bench, 250)
        run_sync(bench)
        for subject in list(quotas)[:50]:
            bench.spend(3, subject=subject)
        run_sync(bench)
        return quotas

    @pytest.mark.parametrize("road", ["rebuild", "sync", "audit"])
    def test_what_was_lost_comes_back_as_absorb_would_have_made_it(
        self, bench: Bench, loaded: dict[str, int], road: str
    ) -> None:
        before = bench.counters.snapshots(loaded)
        client = bench.counters.connection.client
        if road == "sync":
            client.delete(*(bench.counters.keys.subject(subject) for subject in loaded))
            for subject in loaded:
                client.sadd(bench.counters.keys.changed(subject), subject)
        elif road == "audit":
            client.flushdb()
        {"rebuild": rebuild, "sync": sync, "audit": audit}[road](
            bench.counters, bench.ledger, bench.connection
        )
        after = bench.counters.snapshots(loaded)
        assert [(s.document, s.quotas) for s in after] == [(s.document, s.quotas) for s in before]
        assert len({s.token for s in after} & {s.token for s in before}) == 0

    def test_one_that_came_meanwhile_stays_with_its_holds(
        self, bench: Bench, loaded: dict[str, int], connect: Connect
    ) -> None:
        """A worker meets the lost subject first, loads it itself and holds slots."""
        beside = Bench(connect(), Counters(bench.counters.connection.client, namespace=NAMESPACE))

        def come_first() -> None:
            absorb(beside.counters, beside.ledger, beside.connection, ["team:60"])
            beside.reserve(5, subject="team:60")

        bench.interpose().before["load"] = [come_first]
        assert rebuild(bench.counters, bench.ledger, bench.connection) == 250
        usage = bench.in_redis(loaded["team:60"], subject="team:60")
        assert (usage.used, usage.held) == (0, 5)

    def test_a_hash_that_says_nothing_is_absorbed(
        self, bench: Bench, loaded: dict[str, int]
    ) -> None:
        """It is there, so that it cannot be loaded, and has none of our fields."""
        client, key = bench.counters.connection.client, bench.counters.keys.subject("team:9")
        client.delete(key)
        client.hset(key, "x", "1")
        assert absorb(bench.counters, bench.ledger, bench.connection, ["team:9", "team:8"]) == 2
        assert bench.in_redis(loaded["team:9"], subject="team:9").used == 3

    def test_several_quotas_and_unlimited_ones(self, bench: Bench) -> None:
        quotas = [bench.define(10)]
        bench.use(quotas[0], ((2, 3), (5, 5), (10, 10)))
        for hours, limit in enumerate([None, 0, 7], start=1):
            quotas.append(bench.define(limit, start=START + timedelta(hours=hours)))
        rebuild(bench.counters, bench.ledger, bench.connection)
        snapshot = bench.counters.snapshot("team:7")
        assert {q: s.free for q, s in snapshot.quotas.items()} == {
            quota: bench.free(quota) for quota in quotas
        }
        assert snapshot.quotas[quotas[0]].usage.used == 4
        assert list(snapshot.quotas) == quotas[::-1]
        assert bench.reserve(2).quota_id == quotas[3]

    def test_a_marked_subject_without_any_quota(self, bench: Bench) -> None:
        bench.define(5)
        bench.connection.execute("DELETE FROM team_quota")
        assert rebuild(bench.counters, bench.ledger, bench.connection) == 1
        assert bench.counters.usage("team:7") == {}


def test_a_count_that_is_right_already_is_not_written(bench: Bench) -> None:
    quotas = define_many(bench, 5)
    run_sync(bench)
    places = "SELECT array_agg(ctid::text ORDER BY id) FROM team_quota"
    before = bench.value(places)
    bench.spend(2, subject="team:3")
    for subject in quotas:
        bench.counters.connection.client.sadd(bench.counters.keys.changed(subject), subject)
    assert run_sync(bench).counts == 5
    after = bench.value(places)
    assert [i for i in range(5) if before[i] != after[i]] == [2]


def test_an_audit_lists_so_many_differences_and_counts_the_rest(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(import_module("quota_redis.postgres.audit"), "MAX_DRIFTS", 12)
    define_many(bench, 40)
    report = audit(bench.counters, bench.ledger, bench.connection)
    assert (len(report.drifts), report.more) == (12, 28)
    report = audit(bench.counters, bench.ledger, bench.connection)
    assert (report.drifts, report.more) == ((), 0)
