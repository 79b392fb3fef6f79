"""Comparing the three accounts of a quota, naming the drift, and repairing towards the ledger."""

import time
from collections.abc import Callable
from datetime import timedelta
from importlib import import_module

import pytest
from bench import HOUR, NAMESPACE, START, SUBJECT, Bench, Connect

from quota_redis import Counters, InsideTransaction, StateLost, Unavailable, Usage, ranges
from quota_redis.postgres import (
    AuditReport,
    Drift,
    DriftReason,
    absorb,
    adopt,
    audit,
    compact,
    rebuild,
    sync,
)


def run(bench: Bench, *, repair: bool = True) -> AuditReport:
    bench.counters.flush()
    return audit(bench.counters, bench.ledger, bench.connection, repair=repair)


@pytest.fixture
def spent(bench: Bench, absorbed: Callable[..., int]) -> int:
    """A quota of 10 with 4 used, on which all three accounts agree."""
    quota = absorbed(10)
    bench.spend(4)
    bench.counters.flush()
    sync(bench.counters, bench.ledger, bench.connection)
    return quota


def leak(bench: Bench, quota: int) -> None:
    bench.counters.settle(bench.reserve(2), 2)


def use_past_redis(bench: Bench, quota: int) -> None:
    bench.use(quota, ((10, 10),))
    bench.connection.execute("UPDATE team_quota SET used = 5")


def invent_free_slots(bench: Bench, quota: int) -> None:
    key = bench.counters.keys.subject(SUBJECT)
    bench.counters.connection.client.hset(key, f"q{quota}", "6:0:0:0:1-6")


def lose(bench: Bench, quota: int) -> None:
    bench.counters.connection.client.flushdb()


def miss_an_edit(bench: Bench, quota: int) -> None:
    bench.set_limit(quota, 9)


def write_the_count(bench: Bench, quota: int) -> None:
    bench.connection.execute("UPDATE team_quota SET used = 7")


def outlive_a_lease(bench: Bench, quota: int) -> None:
    client = bench.counters.connection.client
    Counters(client, namespace=NAMESPACE, lease=timedelta(milliseconds=1)).reserve(SUBJECT, 2)
    time.sleep(0.005)


DAMAGES = [
    (write_the_count, Drift(SUBJECT, 1, DriftReason.COUNT, ledger=4, column=7, redis=4)),
    (lose, Drift(SUBJECT, 1, DriftReason.UNKNOWN, ledger=4, column=4, redis=None)),
    (miss_an_edit, Drift(SUBJECT, 1, DriftReason.VERSION, ledger=4, column=4, redis=4)),
    (use_past_redis, Drift(SUBJECT, 1, DriftReason.BEHIND, ledger=5, column=5, redis=4)),
    (leak, Drift(SUBJECT, 1, DriftReason.AHEAD, ledger=4, column=4, redis=6)),
    (invent_free_slots, Drift(SUBJECT, 1, DriftReason.FREE, ledger=4, column=4, redis=4)),
    (outlive_a_lease, Drift(SUBJECT, 1, DriftReason.EXPIRED, ledger=4, column=4, redis=4)),
]


def test_every_reason_is_tried() -> None:
    assert {drift.reason for _, drift in DAMAGES} == set(DriftReason)


@pytest.mark.parametrize(
    ("damage", "drift"), DAMAGES, ids=lambda value: getattr(value, "reason", "")
)
class TestDrift:
    def test_it_is_named_and_left_where_only_looked_at(
        self, bench: Bench, spent: int, damage: Callable[[Bench, int], None], drift: Drift
    ) -> None:
        damage(bench, spent)
        for _ in range(2):
            assert run(bench, repair=False) == AuditReport(1, (drift,), {}, False, True)

    def test_it_is_repaired_towards_the_ledger(
        self, bench: Bench, spent: int, damage: Callable[[Bench, int], None], drift: Drift
    ) -> None:
        damage(bench, spent)
        assert run(bench) == AuditReport(1, (drift,), {}, True, True)
        assert run(bench) == AuditReport(1, (), {}, True, True)
        assert bench.column(spent) == bench.in_redis(spent).used == drift.ledger
        assert bench.counters.snapshot(SUBJECT).quotas[spent].free == bench.free(spent)


def test_no_drift_where_all_agree(bench: Bench, spent: int) -> None:
    assert run(bench) == AuditReport(1, (), {}, True, True)


def test_a_settlement_under_way_is_no_drift(bench: Bench, spent: int) -> None:
    hold = bench.reserve(3)
    bench.use(spent, hold.ranges)
    bench.connection.execute("UPDATE team_quota SET used = 7")
    assert run(bench).drifts == ()


def test_a_lost_settlement_is_behind_once_its_lease_has_ended(bench: Bench, spent: int) -> None:
    client = bench.counters.connection.client
    hasty = Counters(client, namespace=NAMESPACE, lease=timedelta(milliseconds=1))
    hasty.reserve(SUBJECT, 3)
    bench.use(spent, ((5, 7),))
    time.sleep(0.005)
    run(bench)
    sync(bench.counters, bench.ledger, bench.connection)
    assert bench.column(spent) == bench.in_redis(spent).used == 7


def test_gaps_of_the_schema_are_reported(bench: Bench, spent: int) -> None:
    bench.connection.execute(b"ALTER TABLE team_quota DISABLE TRIGGER team_quota_quota_v1")
    try:
        assert set(run(bench).problems) == {"trigger"}
    finally:
        bench.connection.execute(b"ALTER TABLE team_quota ENABLE TRIGGER team_quota_quota_v1")
    assert run(bench).problems == {}


def test_ended_quotas_are_compared_by_their_counts(bench: Bench, spent: int) -> None:
    bench.end_now(spent, ago=timedelta(minutes=2))
    absorb(bench.counters, bench.ledger, bench.connection, [SUBJECT])
    assert run(bench).drifts == ()
    bench.connection.execute("UPDATE team_quota SET used = 1")
    assert [drift.reason for drift in run(bench).drifts] == [DriftReason.COUNT]
    assert bench.column(spent) == 4


def test_without_redis_counts_are_repaired_from_the_ledger(
    bench: Bench, spent: int, dead_counters: Counters
) -> None:
    bench.counters = dead_counters
    bench.connection.execute("UPDATE team_quota SET used = 7")
    report = run(bench)
    assert not report.is_complete
    assert [drift.reason for drift in report.drifts] == [DriftReason.COUNT]
    assert bench.column(spent) == 4


def test_redis_that_fails_in_the_middle(bench: Bench, spent: int) -> None:
    leak(bench, spent)

    def fail() -> None:
        raise Unavailable("gone")

    bench.interpose().before["absorb"] = [fail]
    report = run(bench)
    assert [drift.reason for drift in report.drifts] == [DriftReason.AHEAD]
    assert not report.is_complete
    assert run(bench).is_complete


def test_many_subjects_in_batches(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(import_module("quota_redis.postgres.audit"), "BATCH", 3)
    quotas = [bench.define(10, team=team) for team in range(10)]
    progress: list[int] = []
    report = audit(bench.counters, bench.ledger, bench.connection, progress=progress.append)
    assert progress == [3, 6, 9, 10]
    assert (report.subjects, len(report.drifts)) == (10, 10)
    assert run(bench).drifts == ()
    assert [bench.in_redis(q, subject=f"team:{n}").limit for n, q in enumerate(quotas)] == [10] * 10


def test_the_audit_waits_for_sync_and_no_longer(bench: Bench, spent: int, connect: Connect) -> None:
    write_the_count(bench, spent)
    run(bench)
    assert sync(bench.counters, bench.ledger, connect()).was_running is False


def test_inside_a_transaction_it_is_refused(bench: Bench) -> None:
    for call in (
        lambda: audit(bench.counters, bench.ledger, bench.connection),
        lambda: rebuild(bench.counters, bench.ledger, bench.connection),
        lambda: compact(bench.ledger, bench.connection),
        lambda: adopt(bench.ledger, bench.connection),
    ):
        with bench.connection.transaction(), pytest.raises(InsideTransaction):
            call()


def test_another_namespace_is_left_alone(bench: Bench, spent: int) -> None:
    bench.connection.execute(
        "INSERT INTO quota_redis_subject (namespace, subject, version) VALUES ('other', 'x', 1)"
    )
    assert run(bench).subjects == 1


class TestRebuild:
    def test_redis_is_loaded_from_the_ledger(self, bench: Bench, spent: int) -> None:
        other = bench.define(20, team=8)
        leak(bench, spent)
        progress: list[int] = []
        done = rebuild(bench.counters, bench.ledger, bench.connection, progress=progress.append)
        assert (done, progress) == (2, [2])
        assert bench.in_redis(spent) == Usage(spent, 10, used=4, held=0)
        assert bench.in_redis(other, subject="team:8").limit == 20

    def test_holds_go_too(self, bench: Bench, spent: int) -> None:
        hold = bench.reserve(3)
        rebuild(bench.counters, bench.ledger, bench.connection, [SUBJECT])
        assert bench.in_redis(spent) == Usage(spent, 10, used=4, held=0)
        bench.counters.settle(hold, 0)
        assert bench.in_redis(spent).used == 4

    def test_only_those_that_are_named(self, bench: Bench, spent: int) -> None:
        bench.define(20, team=8)
        assert rebuild(bench.counters, bench.ledger, bench.connection, [SUBJECT]) == 1
        with pytest.raises(StateLost):
            bench.counters.usage("team:8")

    def test_a_subject_that_postgresql_does_not_know_is_forgotten(self, bench: Bench) -> None:
        key = bench.counters.keys.subject("team:99")
        bench.counters.connection.client.hset(key, "d", "3|9:0::5:5")
        rebuild(bench.counters, bench.ledger, bench.connection, ["team:99"])
        assert bench.counters.usage("team:99") == {}


def test_a_compacted_ledger_is_the_same_account(bench: Bench, absorbed: Callable[..., int]) -> None:
    quota = absorbed(100)
    for _ in range(12):
        bench.spend(3)
    before = bench.free(quota)
    rows = "SELECT count(*) FROM quota_redis_ledger WHERE NOT void"
    assert bench.value(rows) == 12
    compact(bench.ledger, bench.connection, above=1)
    assert (bench.value(rows), bench.free(quota)) == (1, before)
    run(bench)
    assert run(bench).drifts == ()
    assert bench.spend(100).used == 64


def test_a_shadowed_quota_is_compared_too(bench: Bench, spent: int) -> None:
    new = bench.define(10, start=START + HOUR)
    run(bench)
    bench.connection.execute("UPDATE team_quota SET used = 9")
    assert {drift.quota_id for drift in run(bench).drifts} == {spent, new}
    assert (bench.column(spent), bench.column(new)) == (4, 0)
    assert ranges.size(bench.free(spent)) == 6
