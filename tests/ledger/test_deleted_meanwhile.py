"""A quota that is deleted between a worker's look at it and its slots: the next one rules, or none."""

import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from bench import NAMESPACE, Bench, Connect

from quota_redis import Counters

LOCK_SQL = "SELECT pg_advisory_xact_lock(hashtextextended(%s, %s))"


@pytest.mark.parametrize("limit_of_next", [None, 2])
def test_the_direct_road_looks_again(
    bench: Bench, connect: Connect, dead_counters: Counters, limit_of_next: int | None
) -> None:
    if limit_of_next is not None:
        bench.define(limit_of_next)
    quota = bench.value(
        """INSERT INTO team_quota (team_id, quota_limit, period_start)
        VALUES (7, 10, clock_timestamp() - interval '1 hour') RETURNING id"""
    )
    worker, queue = Bench(connect(), dead_counters), connect()
    with ThreadPoolExecutor(1) as pool:
        with queue.transaction():
            # Direct users of a quota queue here, after they have seen which one rules.
            queue.execute(LOCK_SQL, (f"quota_redis:{NAMESPACE}", quota))
            spending = pool.submit(worker.spend, 3)
            _wait_for_a_waiter(bench)
            bench.connection.execute("DELETE FROM team_quota WHERE id = %s", (quota,))
        spent = spending.result(timeout=30)
    allowed = 3 if limit_of_next is None else limit_of_next
    assert (spent.used, spent.denied) == (allowed, 3 - allowed)
    assert bench.items() == allowed


def _wait_for_a_waiter(bench: Bench) -> None:
    for _ in range(2000):
        if bench.value("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"):
            return
        time.sleep(0.005)
    pytest.fail("nobody waits")
