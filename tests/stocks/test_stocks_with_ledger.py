"""Exact spending from stock: the ledger decides, whatever is in stock."""

import asyncio
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from stock_workers import ROOT, counted_calls, until

from quota_redis import Counters
from quota_redis.aio import AsyncCounters
from quota_redis.postgres import (
    Course,
    DirectReason,
    ExactQuota,
    Spent,
    absorb,
    audit,
    install,
    sync,
)
from quota_redis.postgres.aio import AsyncExactQuota
from quota_redis.stocks import AsyncStocks, Stocks
from tests.ledger.bench import EMPTY_SQL, NAMESPACE, SUBJECT, TABLE, TABLES_SQL, Bench

SPENDER = Path(__file__).with_name("stock_spender.py")
LEASE = 0.4


@pytest.fixture(scope="module")
def dsn() -> Iterator[str]:
    """A database with the ledger and a table of quotas bound to it."""
    server, name = os.environ["DATABASE_URL"], f"quota_stocks_{uuid4().hex[:12]}"
    dsn = make_conninfo(server, dbname=name)
    with psycopg.connect(server, autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name}".encode())
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute(TABLES_SQL.encode())
            install(connection, TABLE)
        yield dsn
        admin.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


@pytest.fixture
def bench(dsn: str) -> Iterator[Bench]:
    counters = Counters.from_url(os.environ["REDIS_URL"], namespace=NAMESPACE, timeout=5.0)
    counters.connection.client.flushdb()
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(EMPTY_SQL.encode())
        yield Bench(connection, counters)
    counters.close()
    counters.connection.client.close()


class Spender:
    """Somebody who spends from a stock of its own, and remembers what its calls met."""

    def __init__(self, bench: Bench, *, lease: float = 60.0) -> None:
        self.stocks = Stocks(bench.counters, lease=timedelta(seconds=lease))
        self.courses: list[Course] = []
        self._bench = bench
        self.exact = ExactQuota(
            bench.counters, bench.ledger, slots=self.stocks, observe=self.courses.append
        )

    def spend(self, amount: int, used: int | None = None) -> Spent:
        def work(allowed: int) -> int:
            return self._bench.work(allowed if used is None else min(used, allowed))

        return self.exact.spend(self._bench.connection, SUBJECT, amount, work)

    @property
    def direct_reasons(self) -> list[DirectReason]:
        return [course.direct_reason for course in self.courses if course.direct_reason]


@pytest.fixture
def new_spender(bench: Bench) -> Iterator[Callable[..., Spender]]:
    made: list[Spender] = []

    def make(lease: float = 60.0) -> Spender:
        made.append(Spender(bench, lease=lease))
        return made[-1]

    yield make
    for spender in made:
        spender.stocks.close()


def absorbed(bench: Bench, limit: int | None) -> int:
    quota = bench.define(limit)
    absorb(bench.counters, bench.ledger, bench.connection, [SUBJECT])
    return quota


def test_spending_from_stock_asks_redis_seldom(
    bench: Bench, new_spender: Callable[..., Spender]
) -> None:
    quota, spender = absorbed(bench, 100_000), new_spender()
    with counted_calls(bench.counters) as calls:
        for _ in range(100):
            assert spender.spend(10).used == 10
    assert len(calls) < 20
    assert spender.direct_reasons == []
    spender.stocks.close()
    assert bench.items() == bench.used(quota) == 1000
    usage = bench.in_redis(quota)
    assert (usage.used, usage.held) == (1000, 0)


def test_the_last_units_go_to_whoever_asks(
    bench: Bench, new_spender: Callable[..., Spender]
) -> None:
    quota = absorbed(bench, 500)
    first, second = new_spender(), new_spender()
    for _ in range(20):
        first.spend(4)
    used = 80
    while done := second.spend(7).used:
        used += done
    assert used == bench.items() == bench.used(quota) == 500


def test_threads_cut_their_reservations_from_one_stock(
    bench: Bench, new_spender: Callable[..., Spender], dsn: str
) -> None:
    quota, spender = absorbed(bench, 3000), new_spender()

    def spend_all(seed: int) -> int:
        dice, used = random.Random(seed), 0
        with psycopg.connect(dsn, autocommit=True) as connection:
            mine = Bench(connection, bench.counters)
            while not (
                spent := spender.exact.spend(
                    connection, SUBJECT, 9, lambda n: mine.work(dice.randint(1, n))
                )
            ).denied:
                used += spent.used
        return used + spent.used

    with ThreadPoolExecutor(6) as pool:
        used = list(pool.map(spend_all, range(6)))
    assert sum(used) == bench.items() == bench.used(quota) == 3000
    assert DirectReason.CONFLICT not in spender.direct_reasons


def test_tasks_cut_their_reservations_from_one_stock(bench: Bench, dsn: str) -> None:
    quota = absorbed(bench, 1000)

    async def spend_all(exact: AsyncExactQuota) -> int:
        async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:

            async def work(allowed: int) -> int:
                query = "INSERT INTO item (team_id) SELECT 7 FROM generate_series(1, %s)"
                await connection.execute(query, (allowed,))
                return allowed

            used = 0
            while not (spent := await exact.spend(connection, SUBJECT, 7, work)).denied:
                used += spent.used
            return used + spent.used

    async def run() -> int:
        counters = AsyncCounters.from_url(os.environ["REDIS_URL"], namespace=NAMESPACE, timeout=5.0)
        async with AsyncStocks(counters) as stocks:
            exact = AsyncExactQuota(counters, bench.ledger, slots=stocks)
            used = await asyncio.gather(*(spend_all(exact) for _ in range(5)))
        await counters.aclose()
        return sum(used)

    assert asyncio.run(run()) == bench.items() == bench.used(quota) == 1000
    usage = bench.in_redis(quota)
    assert (usage.used, usage.held) == (1000, 0)


def test_work_that_did_less_leaves_the_rest_in_stock(
    bench: Bench, new_spender: Callable[..., Spender]
) -> None:
    quota, spender = absorbed(bench, 10_000), new_spender()
    for _ in range(40):
        spender.spend(10, used=3)
    spender.stocks.close()
    assert bench.items() == bench.used(quota) == 120
    assert bench.in_redis(quota).used == 120
    assert spender.direct_reasons == []


def test_work_that_fails_gives_everything_back(
    bench: Bench, new_spender: Callable[..., Spender]
) -> None:
    quota, spender = absorbed(bench, 10_000), new_spender()
    for _ in range(6):
        spender.spend(5)

    def fail(_: int) -> int:
        raise RuntimeError("the work failed")

    with pytest.raises(RuntimeError, match="the work failed"):
        spender.exact.spend(bench.connection, SUBJECT, 5, fail)
    usage = bench.in_redis(quota)
    assert (usage.used, usage.held) == (30, 0)


def test_a_conflict_ends_the_stock_and_not_only_the_reservation(
    bench: Bench, new_spender: Callable[..., Spender]
) -> None:
    """Redis forgot the stock and gave its slots to others: one call finds out, the next ones do not meet it."""
    quota, spender = absorbed(bench, 10_000), new_spender()
    for _ in range(10):
        spender.spend(10)
    bench.counters.connection.client.flushdb()
    absorb(bench.counters, bench.ledger, bench.connection, [SUBJECT])
    for _ in range(10):
        bench.spend(100)
    bench.counters.connection.client.delete(bench.counters.keys.absorbing(SUBJECT))
    for _ in range(10):
        assert spender.spend(10).used == 10
    assert spender.direct_reasons == [DirectReason.CONFLICT]
    assert bench.items() == bench.used(quota) == 1200
    spender.stocks.close()
    assert bench.in_redis(quota).used == 1200


def test_a_quota_that_ended_ends_its_stock(
    bench: Bench, new_spender: Callable[..., Spender]
) -> None:
    quota, spender = absorbed(bench, 10_000), new_spender()
    for _ in range(10):
        spender.spend(10)
    bench.end_now(quota)
    successor = bench.value(
        """INSERT INTO team_quota (team_id, quota_limit, period_start)
        VALUES (7, 1000, clock_timestamp()) RETURNING id"""
    )
    for _ in range(10):
        assert spender.spend(10).used == 10
    assert spender.direct_reasons == [DirectReason.MOVED]
    assert (bench.used(quota), bench.used(successor)) == (100, 100)


def test_a_lowered_limit_holds_from_its_commit(
    bench: Bench, new_spender: Callable[..., Spender]
) -> None:
    """Whatever is in stock: the ledger has the limit."""
    quota, spender = absorbed(bench, 10_000), new_spender()
    for _ in range(10):
        spender.spend(10)
    bench.set_limit(quota, 130)
    used = sum(spender.spend(10).used for _ in range(10))
    assert 100 + used == bench.items() == bench.used(quota) == 130


def test_a_reservation_that_outlives_its_lease_is_looked_up_in_the_ledger(
    bench: Bench, new_spender: Callable[..., Spender], dsn: str
) -> None:
    """Others may have used its slots by then: the ledger refuses them, and nothing is used twice."""
    quota, slow = absorbed(bench, 400), new_spender(lease=0.1)
    for _ in range(6):
        slow.spend(2)
    by_others: list[int] = []

    def work_too_long(allowed: int) -> int:
        if not by_others:
            time.sleep(0.15)
            with psycopg.connect(dsn, autocommit=True) as connection:
                other = Bench(connection, bench.counters)
                by_others.extend(iter(lambda: other.spend(20).used, 0))
        return bench.work(allowed)

    spent = slow.exact.spend(bench.connection, SUBJECT, 2, work_too_long)
    assert slow.direct_reasons == [DirectReason.CONFLICT]
    assert 12 + sum(by_others) + spent.used == bench.items() == bench.used(quota) == 400


class Crew:
    """Processes that spend from stocks, and are killed and replaced."""

    def __init__(self, dsn: str, size: int) -> None:
        self._dsn = dsn
        self._seed = 0
        self._processes = [self._start() for _ in range(size)]

    def replace(self, at: int) -> None:
        self._processes[at].kill()
        self._processes[at].wait()
        self._processes[at] = self._start()

    def kill(self) -> None:
        for process in self._processes:
            process.kill()
            process.wait()

    @property
    def are_alive(self) -> bool:
        return all(process.poll() is None for process in self._processes)

    def _start(self) -> "subprocess.Popen[bytes]":
        self._seed += 1
        program = [sys.executable, SPENDER, os.environ["REDIS_URL"], self._dsn]
        return subprocess.Popen(
            [*program, str(LEASE), str(self._seed)], env={**os.environ, "PYTHONPATH": str(ROOT)}
        )


def set_limit(bench: Bench, quota: int, limit: int) -> int:
    """Returns what may be used from the edit's commit on: the limit, or what was used by then."""
    with bench.connection.transaction():
        bench.set_limit(quota, limit)
        return max(limit, bench.ledger.used(bench.connection, [quota])[quota])


@pytest.fixture
def crew(dsn: str, bench: Bench) -> Iterator[Crew]:
    crew = Crew(dsn, 3)
    yield crew
    crew.kill()


def test_exact_in_spite_of_kills_losses_and_edits(bench: Bench, crew: Crew) -> None:
    """Processes with stocks die, Redis forgets, limits change, tasks run: not one unit over, and not one lost."""
    quota, dice = bench.define(800), random.Random(5)
    absorb(bench.counters, bench.ledger, bench.connection, [SUBJECT])
    upkeep = (bench.counters, bench.ledger, bench.connection)
    happenings: list[Callable[[], Any]] = [
        bench.counters.connection.client.flushdb,
        partial(sync, *upkeep),
        partial(audit, *upkeep),
        partial(absorb, *upkeep, [SUBJECT]),
    ]
    allowed = 800

    def is_nearly_spent() -> bool:
        assert crew.are_alive
        assert bench.used(quota) <= allowed
        return bench.used(quota) >= allowed - 200

    for _ in range(24):
        until(is_nearly_spent)
        limit = bench.used(quota) + dice.randint(-100, 400)
        allowed = set_limit(bench, quota, limit)
        crew.replace(dice.randrange(3))
        dice.choice(happenings)()
    limit = set_limit(bench, quota, allowed + 300)
    until(lambda: bench.used(quota) == limit)
    crew.kill()
    assert bench.items() == bench.used(quota) == limit
    time.sleep(LEASE)
    audit(*upkeep)
    assert audit(*upkeep).drifts == ()
    assert bench.column(quota) == bench.in_redis(quota).used == limit
