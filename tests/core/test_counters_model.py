"""Any sequence of calls leaves the counters as a plain model of them says."""

import os
import time
from datetime import UTC, datetime, timedelta
from uuid import uuid4

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from quota_redis import Counters, Denied, Granted, Quota, Reason, Reservation, ranges
from quota_redis.types import Snapshot

START = datetime(2020, 1, 1, tzinfo=UTC)
BLINK = timedelta(milliseconds=1)
limits = st.one_of(st.none(), st.integers(0, 40))


class CountersMachine(RuleBasedStateMachine):
    """Reserves, settles, consumes, defines and forfeits for one subject, beside a model of counts alone."""

    def __init__(self) -> None:
        super().__init__()
        # Two of them: what one remembers as full the other may have defined anew.
        names = {
            "namespace": f"m{uuid4().hex[:20]}",
            "timeout": 5.0,
            "remember_full": timedelta(0),
        }
        url = os.environ["REDIS_URL"]
        self.counters = Counters.from_url(url, **names)  # type: ignore[arg-type]
        self.hasty = Counters.from_url(url, lease=BLINK, **names)  # type: ignore[arg-type]
        self.limit: int | None = 0
        self.used = 0
        self.live: dict[str, Reservation] = {}
        self.dead: dict[str, Reservation] = {}
        self.settled: list[Reservation] = []
        self.keys: dict[str, int] = {}
        self.highest_total = 0

    def teardown(self) -> None:
        client = self.counters.connection.client
        client.delete(self.counters.keys.subject("s"), self.counters.keys.changed("s"))
        for counters in (self.counters, self.hasty):
            counters.close()
            counters.connection.client.close()

    @property
    def holds(self) -> dict[str, Reservation]:
        return {**self.live, **self.dead}

    @property
    def held(self) -> int:
        return sum(hold.amount for hold in self.holds.values())

    @property
    def free(self) -> int:
        if self.limit is None:
            return 10**9
        return max(0, self.limit - self.used - self.held)

    @initialize(limit=limits)
    def first_definition(self, limit: int | None) -> None:
        self.define(limit)

    @rule(limit=limits)
    def define(self, limit: int | None) -> None:
        self.counters.define("s", Quota(id=1, limit=limit, start=START))
        self.limit = limit
        self.highest_total = max(limit or 0, self.used + self.held)

    @rule(amount=st.integers(1, 12), is_slow=st.booleans())
    def reserve(self, amount: int, is_slow: bool) -> None:
        free = self.free
        answer = (self.hasty if is_slow else self.counters).reserve("s", amount)
        if isinstance(answer, Denied):
            assert free == 0
            self.check_reason(answer)
            return
        assert isinstance(answer, Reservation)
        assert 1 <= answer.amount <= min(amount, free)
        assert answer.amount == min(amount, free) or len(answer.ranges) == 8
        if is_slow:
            time.sleep(0.003)
        (self.dead if is_slow else self.live)[answer.hold_id] = answer

    @precondition(lambda self: self.holds)
    @rule(data=st.data())
    def reserve_again(self, data: st.DataObject) -> None:
        hold = data.draw(st.sampled_from(list(self.holds.values())))
        again = self.counters.reserve("s", 5, hold_id=hold.hold_id)
        assert isinstance(again, Reservation)
        assert again.ranges == hold.ranges

    @precondition(lambda self: self.holds)
    @rule(data=st.data(), waits=st.booleans())
    def settle(self, data: st.DataObject, waits: bool) -> None:
        hold = data.draw(st.sampled_from(list(self.holds.values())))
        used = data.draw(st.integers(0, hold.amount))
        self.counters.settle(hold, used, wait=waits)
        self.counters.flush()
        self.used += used
        self.live.pop(hold.hold_id, None)
        self.dead.pop(hold.hold_id, None)
        self.settled.append(hold)

    @precondition(lambda self: self.settled)
    @rule(data=st.data())
    def settle_again(self, data: st.DataObject) -> None:
        hold = data.draw(st.sampled_from(self.settled))
        self.counters.settle(hold, data.draw(st.integers(0, hold.amount)))

    @precondition(lambda self: self.live)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        hold_id = data.draw(st.sampled_from(list(self.live)))
        self.counters.release("s", hold_id)
        self.settled.append(self.live.pop(hold_id))

    @rule(amount=st.integers(1, 12), key=st.one_of(st.none(), st.sampled_from("abc")))
    def consume(self, amount: int, key: str | None) -> None:
        if key in self.keys:
            amount = self.keys[key]
        free = self.free
        answer = self.counters.consume("s", amount, key=key)
        if key in self.keys:
            assert isinstance(answer, Granted)
        elif free >= amount:
            assert isinstance(answer, Granted)
            self.used += amount
            if key:
                self.keys[key] = amount
        else:
            assert isinstance(answer, Denied)
            self.check_reason(answer)

    @rule()
    def forfeit(self) -> None:
        assert self.counters.forfeit("s") == len(self.dead)
        self.used += sum(hold.amount for hold in self.dead.values())
        self.settled += self.dead.values()
        self.dead.clear()

    def check_reason(self, answer: Denied) -> None:
        assert (answer.usage.used, answer.usage.held) == (self.used, self.held)
        assert (answer.reason is Reason.FULL) == (not self.holds)
        if self.dead:
            assert answer.reason is Reason.EXPIRED

    @invariant()
    def counts_are_those_of_the_model(self) -> None:
        snapshot = self.counters.snapshot("s")
        if snapshot.document is None:
            return
        usage = snapshot.quotas[1].usage
        assert (usage.limit, usage.used, usage.held) == (self.limit, self.used, self.held)
        if self.limit is not None:
            assert usage.used + usage.held <= self.highest_total
        self.check_hash(snapshot)

    def check_hash(self, snapshot: Snapshot) -> None:
        state = snapshot.quotas[1]
        assert {hold.id: hold.ranges for hold in snapshot.holds} == {
            hold.hold_id: hold.ranges for hold in self.holds.values()
        }
        assert state.holds == len(self.holds)
        assert int(state.raw.split(":")[0]) == ranges.size(state.free)
        everyone = [state.free, *(hold.ranges for hold in snapshot.holds)]
        assert all(ranges.union(several) == several for several in everyone)
        assert ranges.size(ranges.union(*everyone)) == sum(map(ranges.size, everyone))


def test_counters_behave_as_their_model() -> None:
    run_state_machine_as_test(
        CountersMachine,
        settings=settings(max_examples=80, stateful_step_count=40, deadline=None),
    )
