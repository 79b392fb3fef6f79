"""Many workers at once: counts and invariants at the end, whatever the order was."""

import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import partial

import psycopg
import pytest
from bench import NAMESPACE, SUBJECT, Bench, Connect, together

from quota_redis import Counters, QuotaMoved, ranges
from quota_redis.postgres import absorb, audit, compact, sync

WORKERS = 6


@pytest.fixture
def crew(bench: Bench, connect: Connect) -> list[Bench]:
    """Workers with connections of their own."""
    return [Bench(connect(), bench.counters) for _ in range(WORKERS)]


def deadlocks(bench: Bench) -> int:
    return bench.value("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")


def use_random_slots(bench: Bench, quota: int, times: int, highest: int, seed: int) -> int:
    """A worker whose Redis hands out anything; returns how many units it used."""
    dice = random.Random(seed)
    used = 0
    for _ in range(times):
        starts = sorted(dice.sample(range(1, highest), 2))
        slots = ranges.union((at, at + dice.randint(0, 3)) for at in starts)
        if bench.try_to_use(quota, slots):
            used += ranges.size(slots)
    return used


def test_a_redis_that_lies_makes_nothing_over(bench: Bench, crew: list[Bench]) -> None:
    quota = bench.define(120)
    before = deadlocks(bench)
    used = together(
        *(partial(use_random_slots, b, quota, 60, 140, seed) for seed, b in enumerate(crew))
    )
    assert sum(used) == bench.items() == bench.used(quota) <= 120
    assert bench.used(quota) > 60
    assert ranges.size(bench.free(quota)) == 120 - bench.used(quota)
    for worker in crew:
        worker.connection.close()
    assert deadlocks(bench) == before


def test_a_limit_that_is_lowered_under_load_holds_from_its_commit(
    bench: Bench, crew: list[Bench]
) -> None:
    """What may be used in the end is bounded by what the editing transaction saw."""
    quota = bench.define(400)
    editor = crew.pop()
    bounds: list[int] = []

    def edit() -> None:
        for limit in (300, 150, 350, 40, 200, 90):
            with editor.connection.transaction():
                editor.set_limit(quota, limit)
                used = editor.ledger.used(editor.connection, [quota])[quota]
                bounds.append(max(limit, used))

    together(
        edit,
        *(partial(use_random_slots, b, quota, 50, 420, seed) for seed, b in enumerate(crew)),
    )
    used = bench.used(quota)
    assert used == bench.items() <= bounds[-1]
    assert ranges.size(bench.free(quota)) == max(0, 90 - used)


def test_six_of_ten_used_then_five(bench: Bench, crew: list[Bench]) -> None:
    """However the edit and the last uses meet, no slot above what is left goes out."""
    for _ in range(15):
        bench.connection.execute("TRUNCATE team_quota, item, quota_redis_ledger")
        quota = bench.define(10)
        bench.use(quota, ((6, 8),))
        together(
            partial(crew[0].set_limit, quota, 5),
            *(
                partial(b.try_to_use, quota, ((slot, slot),))
                for b, slot in zip(crew[1:], (1, 2, 3, 4, 10), strict=True)
            ),
        )
        used = bench.used(quota)
        assert used == bench.items()
        assert ranges.size(bench.free(quota)) == max(0, 5 - used)
        for slot in range(1, 12):
            bench.try_to_use(quota, ((slot, slot),))
        assert bench.used(quota) == bench.items() == max(5, used)


def test_a_deletion_meets_uses(bench: Bench, crew: list[Bench]) -> None:
    """Either nothing was used and nothing can be any more, or the quota stays."""
    outcomes = set()

    def use(worker: Bench, quota: int, slot: int) -> bool:
        try:
            return worker.try_to_use(quota, ((slot, slot),))
        except QuotaMoved:
            return False

    def delete(quota: int) -> bool:
        try:
            crew[0].connection.execute("DELETE FROM team_quota WHERE id = %s", (quota,))
        except psycopg.Error as error:
            if error.sqlstate != "QS004":
                raise
            return False
        return True

    for _ in range(40):
        bench.connection.execute("TRUNCATE team_quota, item")
        quota = bench.define(10)
        deleted, *used = together(
            partial(delete, quota),
            *(partial(use, b, quota, slot) for slot, b in enumerate(crew[1:3], start=1)),
        )
        outcomes.add(deleted)
        assert bench.items() == bench.used(quota) == sum(used)
        assert deleted == (sum(used) == 0)
    assert outcomes


def test_the_same_slots_wanted_by_all_go_to_one_and_nobody_deadlocks(
    bench: Bench, crew: list[Bench]
) -> None:
    quota = bench.define(1000)
    before = deadlocks(bench)
    for at in range(1, 400, 20):
        slots = ((at, at + 4), (at + 8, at + 9), (at + 12, at + 15))
        won = together(*(partial(b.try_to_use, quota, slots) for b in crew))
        assert won.count(True) == 1
    assert bench.used(quota) == bench.items() == 20 * 11
    for worker in crew:
        worker.connection.close()
    assert deadlocks(bench) == before


def test_without_redis_many_share_the_ledger(
    bench: Bench, crew: list[Bench], dead_counters: Counters
) -> None:
    quota = bench.define(100)

    def spend(worker: Bench) -> int:
        worker.counters = dead_counters
        return sum(worker.spend(3).used for _ in range(8))

    used = together(*(partial(spend, b) for b in crew))
    assert sum(used) == bench.items() == bench.used(quota) == 100


def test_many_spend_the_last_units(
    bench: Bench, crew: list[Bench], absorbed: Callable[..., int]
) -> None:
    quota = absorbed(150)

    def spend(worker: Bench) -> int:
        return sum(worker.spend(7).used for _ in range(5))

    used = together(*(partial(spend, b) for b in crew))
    assert sum(used) == bench.items() == bench.used(quota) == 150
    bench.counters.flush()
    sync(bench.counters, bench.ledger, bench.connection)
    assert bench.column(quota) == 150


class Chaos:
    """What happens beside the workers until they are done."""

    def __init__(self, bench: Bench, *happenings: Callable[[], object]) -> None:
        self._done = threading.Event()
        self._happenings = happenings
        self._dice = random.Random(11)
        self.count = 0

    def run(self) -> None:
        while not self._done.is_set() or self.count < 10:
            self._dice.choice(self._happenings)()
            self.count += 1

    def end(self) -> None:
        self._done.set()


@pytest.fixture
def hasty_crew(bench: Bench, crew: list[Bench]) -> Iterator[list[Bench]]:
    """Workers whose leases are short enough to end under them now and then."""
    client = bench.counters.connection.client
    for worker in crew:
        worker.counters = Counters(client, namespace=NAMESPACE, lease=timedelta(milliseconds=4))
    yield crew
    for worker in crew:
        worker.counters.close()


def test_exact_in_spite_of_everything(
    bench: Bench, hasty_crew: list[Bench], connect: Connect
) -> None:
    """Redis forgets everything again and again, leases end early, limits change, tasks run: not one unit over,
    and not one lost."""
    quota, final = bench.define(100), 260
    beside = Bench(connect(), bench.counters)
    client = bench.counters.connection.client
    chaos = Chaos(
        beside,
        client.flushdb,
        client.script_flush,
        partial(absorb, beside.counters, beside.ledger, beside.connection, [SUBJECT]),
        partial(sync, beside.counters, beside.ledger, beside.connection),
        partial(audit, beside.counters, beside.ledger, beside.connection),
        partial(compact, beside.ledger, beside.connection, 1),
        partial(beside.set_limit, quota, 150),
        partial(beside.set_limit, quota, 200),
    )
    left = threading.Semaphore(len(hasty_crew) - 1)

    def spend(worker: Bench) -> int:
        used = sum(worker.spend(5).used for _ in range(12))
        if not left.acquire(blocking=False):
            chaos.end()
        return used

    used = together(chaos.run, *(partial(spend, b) for b in hasty_crew))[1:]
    assert sum(used) == bench.items() == bench.used(quota) <= 200
    bench.set_limit(quota, final)
    used_later = sum(bench.spend(100).used for _ in range(3))
    assert bench.items() == bench.used(quota) == sum(used) + used_later == final
    bench.counters.flush()
    audit(bench.counters, bench.ledger, bench.connection)
    assert audit(bench.counters, bench.ledger, bench.connection).drifts == ()
    assert bench.column(quota) == bench.in_redis(quota).used == final


def test_periods_that_switch_under_load(bench: Bench, crew: list[Bench], connect: Connect) -> None:
    """Every unit is counted by the quota that ruled when it was used."""
    first = bench.define(60)
    absorb(bench.counters, bench.ledger, bench.connection, [SUBJECT])
    second = bench.value(
        """INSERT INTO team_quota (team_id, quota_limit, period_start)
        VALUES (7, 50, clock_timestamp() + interval '100 milliseconds') RETURNING id"""
    )

    def spend(worker: Bench) -> int:
        return sum(worker.spend(2).used for _ in range(40))

    used = together(*(partial(spend, b) for b in crew))
    assert sum(used) == bench.items() == bench.used(first) + bench.used(second)
    assert bench.used(first) <= 60
    while bench.ledger.active_quota(bench.connection, SUBJECT) != second:
        time.sleep(0.01)
    bench.spend(100)
    assert bench.used(second) == 50


def test_a_conflict_of_two_transactions_is_seen_by_the_second(
    bench: Bench, crew: list[Bench]
) -> None:
    """The second waits for the first, and is refused only where that one commits."""
    quota = bench.define(10)
    for rolls_back in (True, False):
        started = threading.Event()

        def hold(rolls_back: bool = rolls_back, started: threading.Event = started) -> None:
            with crew[0].connection.transaction(force_rollback=rolls_back):
                crew[0].use(quota, ((1, 3),))
                started.set()
                for _ in range(1000):
                    if bench.value("SELECT count(*) FROM pg_locks WHERE NOT granted"):
                        break
                    time.sleep(0.005)

        def follow(started: threading.Event = started) -> bool:
            started.wait(10)
            return crew[1].try_to_use(quota, ((2, 2),))

        _, won = together(hold, follow)
        assert won is rolls_back
        bench.connection.execute("DELETE FROM quota_redis_ledger WHERE NOT void")


@pytest.mark.parametrize("version", [1, 3])
def test_direct_users_of_any_version_queue_and_take_what_the_one_before_left(
    bench: Bench, crew: list[Bench], version: int
) -> None:
    quota = bench.define(100)
    first, second = crew[:2]
    query = f"SELECT quota_redis_take_v{version}('{NAMESPACE}', %s, %s, 3)::text"
    with ThreadPoolExecutor(1) as pool:
        with first.connection.transaction():
            taken = first.ledger.take(first.connection, SUBJECT, quota, 3)
            assert taken == ((98, 100),)
            first.use(quota, taken)
            waiting = pool.submit(second.value, query, (SUBJECT, quota))
            for _ in range(1000):
                if bench.value("SELECT count(*) FROM pg_locks WHERE NOT granted"):
                    break
                time.sleep(0.005)
            else:
                pytest.fail("nobody waits")
        assert ranges.parse_multirange(waiting.result(timeout=30)) == ((95, 97),)
