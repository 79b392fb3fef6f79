"""Any sequence of calls, losses and lies leaves the ledger exact, and one absorb leaves Redis like the ledger."""

import os
from contextlib import suppress
from datetime import timedelta

import psycopg
from bench import EMPTY_SQL, NAMESPACE, SUBJECT, Bench
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from quota_redis import Counters, QuotaMoved, Reservation, SlotConflict, ranges
from quota_redis.postgres import absorb, compact, sync

limits = st.one_of(st.none(), st.integers(0, 20))


class ExactMachine(RuleBasedStateMachine):
    """Workers that hold, commit and settle in any order, beside a Redis that may forget or invent anything."""

    dsn: str

    def __init__(self) -> None:
        super().__init__()
        connection = psycopg.connect(self.dsn, autocommit=True)
        connection.execute(EMPTY_SQL.encode())
        self.counters = Counters.from_url(
            os.environ["REDIS_URL"],
            namespace=NAMESPACE,
            timeout=5.0,
            lease=timedelta(hours=1),
            # Its Redis is rewritten behind its back; what was full a moment ago need not be so.
            remember_full=timedelta(0),
        )
        self.redis = self.counters.connection.client
        self.redis.flushdb()
        self.bench = Bench(connection, self.counters)
        self.holds: list[Reservation] = []
        self.committed: list[tuple[Reservation, int]] = []
        self.bound = 0

    def teardown(self) -> None:
        self.bench.connection.close()
        self.counters.close()
        self.redis.close()

    @initialize(limit=limits)
    def first_definition(self, limit: int | None) -> None:
        self.quota = self.bench.define(limit)
        self.limit = limit
        self.absorb()

    @rule(limit=limits)
    def edit(self, limit: int | None) -> None:
        self.bound = self.bench.used(self.quota)
        self.bench.set_limit(self.quota, limit)
        self.limit = limit

    @rule(amount=st.integers(1, 6))
    def reserve(self, amount: int) -> None:
        with suppress(Exception):
            answer = self.counters.reserve(SUBJECT, amount)
            if isinstance(answer, Reservation):
                self.holds.append(answer)

    @precondition(lambda self: self.holds)
    @rule(data=st.data())
    def commit(self, data: st.DataObject) -> None:
        hold = self.holds.pop(data.draw(st.integers(0, len(self.holds) - 1)))
        used = data.draw(st.integers(0, hold.amount))
        with suppress(SlotConflict, QuotaMoved), self.bench.connection.transaction():
            self.bench.work(used)
            self.bench.ledger.record(self.bench.connection, hold, used)
            self.committed.append((hold, used))

    @precondition(lambda self: self.committed)
    @rule(data=st.data())
    def settle(self, data: st.DataObject) -> None:
        """Late, twice, or never."""
        hold, used = data.draw(st.sampled_from(self.committed))
        self.counters.settle(hold, used)

    @rule(amount=st.integers(1, 9))
    def spend(self, amount: int) -> None:
        self.bench.spend(amount)
        self.counters.flush()

    @rule(lo=st.integers(1, 20), more=st.integers(0, 5))
    def lie(self, lo: int, more: int) -> None:
        text = f"{more + 1}:0:0:0:{lo}-{lo + more}"
        self.redis.hset(self.counters.keys.subject(SUBJECT), f"q{self.quota}", text)

    @rule()
    def forget(self) -> None:
        self.redis.flushdb()

    @rule()
    def compact(self) -> None:
        compact(self.bench.ledger, self.bench.connection, above=1)

    @rule()
    def sync(self) -> None:
        sync(self.counters, self.bench.ledger, self.bench.connection)

    @rule()
    def absorb(self) -> None:
        """Redis has every slot that the ledger still takes, as free or as held, and no other."""
        absorb(self.counters, self.bench.ledger, self.bench.connection, [SUBJECT])
        snapshot = self.counters.snapshot(SUBJECT)
        held = [hold.ranges for hold in snapshot.holds]
        state = snapshot.quotas[self.quota]
        assert ranges.union(state.free, *held) == self.bench.free(self.quota)
        assert ranges.subtract(state.free, ranges.union(*held)) == state.free
        assert state.usage.used == self.bench.used(self.quota)
        assert state.usage.held == ranges.size(ranges.union(*held))
        assert state.holds == len(held)
        assert snapshot.version == self.bench.version()

    @invariant()
    def nothing_is_over_and_every_unit_is_in_the_ledger(self) -> None:
        if not hasattr(self, "quota"):
            return
        used = self.bench.used(self.quota)
        assert used == self.bench.items()
        if self.limit is not None:
            assert used <= max(self.limit, self.bound)
            assert ranges.size(self.bench.free(self.quota)) == max(0, self.limit - used)


def test_nothing_makes_it_inexact(ledger_dsn: str) -> None:
    ExactMachine.dsn = ledger_dsn
    run_state_machine_as_test(
        ExactMachine,
        settings=settings(
            max_examples=40,
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
