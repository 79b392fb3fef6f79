"""Spending exactly: every road that a call may take, and what is left behind on each."""

import time
from collections.abc import Callable
from datetime import timedelta

import psycopg
import pytest
from bench import HOUR, START, SUBJECT, Bench, Connect, Interposed

from quota_redis import (
    Counters,
    Denied,
    InsideTransaction,
    InvalidArgument,
    QuotaMoved,
    Reason,
    SlotConflict,
    Unavailable,
    Usage,
    WrongIsolation,
)
from quota_redis.postgres import ExactQuota, Spent, absorb, spending, sync
from quota_redis.postgres.spending import MAX_GRANTS

BLINK = timedelta(milliseconds=1)


@pytest.fixture(params=["autocommit", "transactions"])
def bench(request: pytest.FixtureRequest, bench: Bench, connect: Connect) -> Bench:
    """Each test on a connection with autocommit and on one without."""
    bench.connection = connect(autocommit=request.param == "autocommit")
    return bench


@pytest.fixture
def absorbed(bench: Bench) -> Callable[..., int]:
    def make(limit: int | None, **options: object) -> int:
        quota = bench.define(limit, **options)  # type: ignore[arg-type]
        absorb(bench.counters, bench.ledger, bench.connection, [SUBJECT])
        return quota

    return make


def check_at_rest(bench: Bench, quota: int, used: int) -> None:
    """Work, ledger and Redis agree; nothing is held."""
    assert bench.items() == bench.used(quota) == used
    usage = bench.in_redis(quota)
    assert (usage.used, usage.held) == (used, 0)


class TestSlots:
    def test_units_are_used_in_redis_and_ledger(
        self, bench: Bench, absorbed: Callable[..., int]
    ) -> None:
        quota = absorbed(10)
        assert bench.spend(4) == Spent(4, 0, Usage(quota, 10, used=4, held=0))
        assert bench.slots_used(quota) == ((1, 4),)
        check_at_rest(bench, quota, 4)

    def test_the_last_units_fit_and_the_rest_is_denied(
        self, bench: Bench, absorbed: Callable[..., int]
    ) -> None:
        quota = absorbed(10)
        assert [bench.spend(amount).used for amount in (3, 3, 3, 3, 1)] == [3, 3, 3, 1, 0]
        assert bench.spend(2) == Spent(0, 2, Usage(quota, 10, used=10, held=0))
        check_at_rest(bench, quota, 10)

    def test_work_that_does_less_gives_back_the_rest(
        self, bench: Bench, absorbed: Callable[..., int]
    ) -> None:
        quota = absorbed(10)
        spent = bench.exact.spend(bench.connection, SUBJECT, 8, lambda _: bench.work(3))
        assert (spent.used, spent.denied) == (3, 0)
        check_at_rest(bench, quota, 3)
        assert bench.spend(10).used == 7

    def test_work_that_does_nothing_uses_nothing(
        self, bench: Bench, absorbed: Callable[..., int]
    ) -> None:
        quota = absorbed(10)
        assert bench.exact.spend(bench.connection, SUBJECT, 8, lambda _: 0).used == 0
        check_at_rest(bench, quota, 0)

    def test_a_small_grant_is_no_refusal(self, bench: Bench, absorbed: Callable[..., int]) -> None:
        quota = absorbed(100)
        holds = [bench.reserve(1) for _ in range(40)]
        for number, hold in enumerate(holds):
            bench.counters.settle(hold, number % 2)
            if number % 2:
                bench.use(quota, hold.ranges)
        calls: list[int] = []

        def work(allowed: int) -> int:
            calls.append(allowed)
            return bench.work(allowed)

        assert bench.exact.spend(bench.connection, SUBJECT, 18, work).used == 18
        assert calls == [8, 8, 2]
        check_at_rest(bench, quota, 38)

    def test_after_some_small_grants_the_ledger_is_quicker(
        self, bench: Bench, absorbed: Callable[..., int]
    ) -> None:
        quota = absorbed(200)
        holds = [bench.reserve(1) for _ in range(100)]
        for number, hold in enumerate(holds):
            bench.counters.settle(hold, number % 2)
            if number % 2:
                bench.use(quota, hold.ranges)
        calls: list[int] = []

        def work(allowed: int) -> int:
            calls.append(allowed)
            return bench.work(allowed)

        assert bench.exact.spend(bench.connection, SUBJECT, 48, work).used == 48
        assert calls == [8] * MAX_GRANTS + [16]
        assert bench.items() == bench.used(quota) == 98


class TestNoQuota:
    def test_nothing_limits_and_nothing_is_counted(self, bench: Bench) -> None:
        absorb(bench.counters, bench.ledger, bench.connection, [SUBJECT])
        assert bench.spend(700) == Spent(700, 0, None)
        assert bench.items() == 700
        assert bench.value("SELECT count(*) FROM quota_redis_ledger") == 0

    def test_a_subject_that_redis_does_not_know_is_asked_for_in_the_ledger(
        self, bench: Bench
    ) -> None:
        quota = bench.define(5)
        assert bench.spend(7) == Spent(5, 2, Usage(quota, 5, used=5, held=0))
        check_at_rest(bench, quota, 5)

    def test_a_quota_that_redis_has_not_heard_of_holds(self, bench: Bench) -> None:
        absorb(bench.counters, bench.ledger, bench.connection, [SUBJECT])
        quota = bench.define(5)
        assert (bench.spend(7).used, bench.items()) == (5, 5)
        assert bench.in_redis(quota).used == 5

    def test_a_quota_that_ended_while_redis_believes_in_it(
        self, bench: Bench, absorbed: Callable[..., int]
    ) -> None:
        quota = absorbed(5)
        bench.end_now(quota)
        assert bench.spend(7) == Spent(7, 0, None)
        assert (bench.items(), bench.used(quota)) == (7, 0)
        assert bench.in_redis(quota).held == 0


class TestDenial:
    def test_full_costs_no_absorb(self, bench: Bench, absorbed: Callable[..., int]) -> None:
        quota = absorbed(3)
        bench.spend(3)
        redis = bench.interpose()
        redis.before["absorb"] = [lambda: pytest.fail("absorbed")]
        assert bench.spend(1) == Spent(0, 1, Usage(quota, 3, used=3, held=0))

    def test_work_is_not_called(self, bench: Bench, absorbed: Callable[..., int]) -> None:
        absorbed(0)
        bench.exact.spend(bench.connection, SUBJECT, 1, lambda _: pytest.fail("worked"))

    def test_busy_is_waited_for(self, bench: Bench, absorbed: Callable[..., int]) -> None:
        quota = absorbed(3)
        hold = bench.reserve(3)
        redis = bench.interpose()
        redis.before["reserve"] = [
            lambda: None,
            lambda: None,
            lambda: bench.counters.settle(hold, 0),
        ]
        assert bench.spend(2) == Spent(2, 0, Usage(quota, 3, used=2, held=0))

    def test_busy_for_too_long_goes_to_the_ledger(
        self, bench: Bench, absorbed: Callable[..., int]
    ) -> None:
        quota = absorbed(3)
        hold = bench.reserve(3)
        assert (bench.spend(2).used, bench.slots_used(quota)) == (2, ((2, 3),))
        assert bench.marks() > 0
        bench.counters.settle(hold, 0)
        sync(bench.counters, bench.ledger, bench.connection)
        check_at_rest(bench, quota, 2)
        assert bench.column(quota) == 2

    def test_full_beside_an_expired_hold_is_none(
        self, bench: Bench, absorbed: Callable[..., int]
    ) -> None:
        quota = absorbed(3)
        hasty = Counters(bench.counters.connection.client, namespace="bench", lease=BLINK)
        hasty.reserve(SUBJECT, 3)
        time.sleep(0.005)
        assert bench.spend(5) == Spent(3, 2, Usage(quota, 3, used=3, held=0))
        check_at_rest(bench, quota, 3)

    def test_full_beside_holds_of_another_quota_is_one(
        self, bench: Bench, absorbed: Callable[..., int]
    ) -> None:
        absorbed(5)
        bench.reserve(5)
        new = absorbed(2, start=START + HOUR)
        bench.spend(2)
        redis = bench.interpose()
        redis.before["absorb"] = [lambda: pytest.fail("absorbed")]
        assert bench.spend(1) == Spent(0, 1, Usage(new, 2, used=2, held=0))

    def test_full_after_a_lost_push_is_none(
        self, bench: Bench, absorbed: Callable[..., int]
    ) -> None:
        """PostgreSQL has raised the limit and Redis has not heard of it."""
        quota = absorbed(3)
        bench.spend(3)
        bench.set_limit(quota, 5)
        assert bench.spend(4) == Spent(2, 2, Usage(quota, 5, used=5, held=0))
        check_at_rest(bench, quota, 5)

    def test_full_after_a_lost_push_of_a_newer_quota_is_none(
        self, bench: Bench, absorbed: Callable[..., int]
    ) -> None:
        absorbed(0)
        new = bench.define(5, start=START + HOUR)
        assert bench.spend(4).used == 4
        check_at_rest(bench, new, 4)

    def test_full_near_a_boundary_is_left_to_the_ledger(
        self, bench: Bench, absorbed: Callable[..., int]
    ) -> None:
        absorbed(5)
        bench.connection.execute(
            b"""INSERT INTO team_quota (team_id, quota_limit, period_start)
            VALUES (7, 0, clock_timestamp() + interval '30 seconds')"""
        )
        if not bench.connection.autocommit:
            bench.connection.commit()
        bench.counters = Counters(
            bench.counters.connection.client, namespace="bench", boundary_skew=HOUR
        )
        absorb(bench.counters, bench.ledger, bench.connection, [SUBJECT])
        bench.spend(5)
        answer = bench.counters.reserve(SUBJECT, 1)
        assert isinstance(answer, Denied)
        assert answer.reason is Reason.BOUNDARY
        assert bench.spend(2) == Spent(0, 2, None)
        assert bench.items() == 5


class TestDisagreement:
    def test_a_slot_that_redis_hands_out_twice(
        self, bench: Bench, absorbed: Callable[..., int]
    ) -> None:
        quota = absorbed(10)
        bench.use(quota, ((1, 4),))
        assert bench.spend(5).used == 5
        assert bench.items() == bench.used(quota) == 9
        assert bench.spend(5) == Spent(1, 4, Usage(quota, 10, used=10, held=0))

    def test_work_of_a_conflict_is_rolled_back(
        self, bench: Bench, absorbed: Callable[..., int]
    ) -> None:
        absorbed(1)
        bench.use(1, ((1, 1),))
        assert bench.spend(1) == Spent(0, 1, None)
        assert bench.items() == 1

    def test_the_hold_of_a_conflict_does_not_block_others(
        self, bench: Bench, absorbed: Callable[..., int]
    ) -> None:
        quota = absorbed(10)
        bench.use(quota, ((4, 4),))
        bench.spend(5)
        check_at_rest(bench, quota, 6)

    def test_a_quota_that_moved_gives_its_hold_back(
        self, bench: Bench, absorbed: Callable[..., int]
    ) -> None:
        old = absorbed(10)
        new = bench.define(3, start=START + HOUR)
        assert (bench.spend(5).used, bench.used(old), bench.used(new)) == (3, 0, 3)
        assert bench.in_redis(old).held == 0
        assert bench.in_redis(new).used == 3

    def test_a_quota_that_moves_while_work_is_done(
        self, bench: Bench, absorbed: Callable[..., int], connect: Connect
    ) -> None:
        old = absorbed(10)
        other = Bench(connect(), bench.counters)
        moves = [lambda: other.define(3, start=START + HOUR)]

        def work(allowed: int) -> int:
            if moves:
                moves.pop()()
            return bench.work(allowed)

        assert bench.exact.spend(bench.connection, SUBJECT, 5, work).used == 3
        assert (bench.items(), bench.used(old)) == (3, 0)

    def test_endless_conflicts_end(
        self, bench: Bench, absorbed: Callable[..., int], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(spending, "MAX_DIRECT", 9)
        absorbed(10)
        calls: list[int] = []

        def work(allowed: int) -> int:
            calls.append(allowed)
            raise QuotaMoved if len(calls) % 2 else SlotConflict

        with pytest.raises(Unavailable, match="try again"):
            bench.exact.spend(bench.connection, SUBJECT, 5, work)
        assert len(calls) == 9 + 1
        assert bench.items() == 0


class TestRedisGone:
    def test_the_ledger_alone_is_exact(self, bench: Bench, dead_counters: Counters) -> None:
        bench.counters = dead_counters
        quota = bench.define(10)
        assert [bench.spend(4) for _ in range(4)] == [
            Spent(4, 0, None),
            Spent(4, 0, None),
            Spent(2, 2, None),
            Spent(0, 4, None),
        ]
        assert bench.items() == bench.used(quota) == 10

    def test_without_a_quota_nothing_limits(self, bench: Bench, dead_counters: Counters) -> None:
        bench.counters = dead_counters
        assert bench.spend(5) == Spent(5, 0, None)
        assert bench.items() == 5

    def test_it_can_be_refused_instead(self, bench: Bench, dead_counters: Counters) -> None:
        bench.define(10)
        strict = ExactQuota(dead_counters, bench.ledger, refuse_without_redis=True)
        with pytest.raises(Unavailable, match="Redis failed"):
            strict.spend(bench.connection, SUBJECT, 4, bench.work)
        assert bench.items() == 0

    def test_who_refuses_still_asks_the_ledger_where_redis_answers(self, bench: Bench) -> None:
        bench.define(10)
        strict = ExactQuota(bench.counters, bench.ledger, refuse_without_redis=True)
        assert strict.spend(bench.connection, SUBJECT, 4, bench.work).used == 4

    def test_it_leaves_a_mark(self, bench: Bench, dead_counters: Counters) -> None:
        bench.counters = dead_counters
        bench.define(10)
        bench.spend(4)
        assert bench.marks() == 2

    def test_a_lost_hash_is_loaded_again(self, bench: Bench, absorbed: Callable[..., int]) -> None:
        quota = absorbed(10)
        bench.spend(4)
        bench.counters.flush()
        bench.counters.connection.client.flushdb()
        assert bench.spend(7) == Spent(6, 1, Usage(quota, 10, used=10, held=0))
        check_at_rest(bench, quota, 10)

    def test_everything_is_lost_while_work_is_done(
        self, bench: Bench, absorbed: Callable[..., int]
    ) -> None:
        quota = absorbed(10)

        def work(allowed: int) -> int:
            bench.counters.connection.client.flushdb()
            return bench.work(allowed)

        assert bench.exact.spend(bench.connection, SUBJECT, 4, work).used == 4
        assert bench.spend(10).used == 6
        check_at_rest(bench, quota, 10)

    def test_an_old_state_comes_back(self, bench: Bench, absorbed: Callable[..., int]) -> None:
        """A Redis that is restored from a backup hands out again what has long been used."""
        quota = absorbed(10)
        key = bench.counters.keys.subject(SUBJECT)
        backup = bench.counters.connection.client.dump(key)
        bench.spend(8)
        bench.counters.flush()
        bench.counters.connection.client.restore(key, 0, backup, replace=True)
        assert bench.spend(5).used == 2
        assert bench.items() == bench.used(quota) == 10

    def test_a_settlement_that_is_lost_counts_in_the_ledger(
        self, bench: Bench, absorbed: Callable[..., int]
    ) -> None:
        quota = absorbed(10)
        hasty = Counters(bench.counters.connection.client, namespace="bench", lease=BLINK)
        hold = hasty.reserve(SUBJECT, 6)
        bench.use(quota, hold.ranges[:1])  # type: ignore[union-attr]
        time.sleep(0.005)
        assert bench.spend(9).used == 4
        check_at_rest(bench, quota, 10)


class TestWork:
    def test_an_error_rolls_back_and_gives_the_hold_back(
        self, bench: Bench, absorbed: Callable[..., int]
    ) -> None:
        quota = absorbed(10)

        def work(allowed: int) -> int:
            bench.work(allowed)
            raise LookupError("no such thing")

        with pytest.raises(LookupError, match="no such thing"):
            bench.exact.spend(bench.connection, SUBJECT, 4, work)
        check_at_rest(bench, quota, 0)
        assert bench.spend(4).used == 4

    @pytest.mark.parametrize("returned", [5, -1, 1.5, None, True, "4"])
    def test_nonsense_is_refused_and_rolled_back(
        self, bench: Bench, absorbed: Callable[..., int], returned: object
    ) -> None:
        quota = absorbed(10)

        def work(allowed: int) -> int:
            bench.work(allowed)
            return returned  # type: ignore[return-value]

        with pytest.raises(InvalidArgument, match="work returned"):
            bench.exact.spend(bench.connection, SUBJECT, 4, work)
        check_at_rest(bench, quota, 0)

    def test_nonsense_on_the_direct_road(self, bench: Bench, dead_counters: Counters) -> None:
        bench.counters = dead_counters
        bench.define(10)
        with pytest.raises(InvalidArgument, match="work returned"):
            bench.exact.spend(bench.connection, SUBJECT, 4, lambda n: bench.work(n) + 1)
        assert bench.items() == 0

    def test_a_lost_connection_is_unavailable(
        self, bench: Bench, absorbed: Callable[..., int], connect: Connect
    ) -> None:
        quota = absorbed(10)
        backend = bench.connection.info.backend_pid
        admin = connect()

        def work(allowed: int) -> int:
            admin.execute("SELECT pg_terminate_backend(%s, 5000)", (backend,))
            return bench.work(allowed)

        with pytest.raises(Unavailable) as raised:
            bench.exact.spend(bench.connection, SUBJECT, 4, work)
        assert isinstance(raised.value.__cause__, psycopg.Error)
        bench.connection = admin
        check_at_rest(bench, quota, 0)


class TestRefusal:
    def test_inside_a_transaction(self, bench: Bench, absorbed: Callable[..., int]) -> None:
        quota = absorbed(10)
        with bench.connection.transaction(), pytest.raises(InsideTransaction, match="outside"):
            bench.spend(1)
        check_at_rest(bench, quota, 0)

    def test_after_a_statement_without_autocommit(self, bench: Bench, connect: Connect) -> None:
        bench.connection = connect(autocommit=False)
        bench.connection.execute("SELECT 1")
        with pytest.raises(InsideTransaction):
            bench.spend(1)

    @pytest.mark.parametrize("level", list(psycopg.IsolationLevel)[2:])
    def test_another_isolation_level(
        self, bench: Bench, absorbed: Callable[..., int], level: psycopg.IsolationLevel
    ) -> None:
        absorbed(10)
        bench.connection.isolation_level = level
        with pytest.raises(WrongIsolation, match=level.name):
            bench.spend(1)

    @pytest.mark.parametrize("amount", [0, -1, 1001, 1.0, True, None])
    def test_amounts_are_bounded(self, bench: Bench, amount: int) -> None:
        with pytest.raises(InvalidArgument, match="amount is "):
            bench.spend(amount)

    def test_a_subject_of_another_table(self, bench: Bench) -> None:
        with pytest.raises(InvalidArgument, match="does not begin with"):
            bench.exact.spend(bench.connection, "user:7", 1, bench.work)


def test_a_subject_beside_others_is_left_alone(bench: Bench, absorbed: Callable[..., int]) -> None:
    quota = absorbed(3)
    other = bench.define(3, team=8)
    bench.spend(3)
    assert bench.spend(2, subject="team:8").used == 2
    assert (bench.used(quota), bench.used(other)) == (3, 2)
    assert bench.items(team=8) == 2


class TestRememberedFull:
    """A quota that is used up is refused without asking Redis, as long as PostgreSQL has the same version."""

    @pytest.fixture
    def spent(
        self, bench: Bench, absorbed: Callable[..., int], memory_without_age: None
    ) -> Interposed:
        self.quota = absorbed(2)
        bench.spend(2)
        # Its settle travels unanswered: until it has arrived, what is left is held and not used.
        bench.counters.flush()
        bench.counters = Counters(
            bench.counters.connection.client,
            namespace=bench.counters.keys.namespace,
            remember_full=timedelta(seconds=1),
        )
        redis = bench.interpose()
        assert bench.spend(1).denied == 1
        redis.before["reserve"] = [lambda: pytest.fail("Redis was asked")]
        assert bench.spend(1).denied == 1
        return redis

    def test_a_raised_limit_is_seen_at_once(self, bench: Bench, spent: Interposed) -> None:
        spent.before.clear()
        bench.set_limit(self.quota, 3)
        assert bench.spend(2).used == 1

    def test_what_a_repair_frees_is_seen_at_once(self, bench: Bench, spent: Interposed) -> None:
        """Redis had lost slots that the ledger has free, at the same version."""
        spent.before.clear()
        with bench.connection.transaction():
            bench.connection.execute("DELETE FROM quota_redis_ledger WHERE NOT void")
        absorb(bench.counters, bench.ledger, bench.connection, [SUBJECT])
        assert bench.spend(2).used == 2

    def test_another_quota_is_seen_at_once(self, bench: Bench, spent: Interposed) -> None:
        spent.before.clear()
        bench.define(5, start=START + timedelta(days=1))
        assert bench.spend(2).used == 2


class TestRememberedWithoutQuota:
    """Where no quota was active a moment ago Redis is not asked: PostgreSQL says in each transaction if one is."""

    @pytest.fixture
    def unlimited(self, bench: Bench, memory_without_age: None) -> Interposed:
        bench.counters = Counters(
            bench.counters.connection.client,
            namespace=bench.counters.keys.namespace,
            remember_full=timedelta(seconds=1),
        )
        absorb(bench.counters, bench.ledger, bench.connection, [SUBJECT])
        redis = bench.interpose()
        assert bench.spend(2).used == 2
        redis.before["reserve"] = [lambda: pytest.fail("Redis was asked")]
        assert bench.spend(3).used == 3
        redis.before.clear()
        return redis

    def test_a_quota_that_is_created_holds_at_once(
        self, bench: Bench, unlimited: Interposed
    ) -> None:
        quota = bench.define(4)
        assert bench.spend(6).used == bench.used(quota) == 4
        assert bench.items() == 9

    def test_it_is_forgotten_where_postgresql_says_otherwise(
        self, bench: Bench, unlimited: Interposed, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("quota_redis.postgres.exact.absorb_soon", lambda *_: False)
        bench.define(4)
        assert bench.spend(1).used == 1
        asked: list[bool] = []
        unlimited.before["reserve"] = [lambda: asked.append(True)]
        assert bench.spend(9).used == 3
        assert asked
