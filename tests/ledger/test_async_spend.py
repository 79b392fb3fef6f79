"""AsyncExactQuota: as exact as ExactQuota, by the same logic, with many calls under way in one event loop."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import psycopg
import pytest
from bench import NAMESPACE, NOBODY, SUBJECT, Bench, Connect

from quota_redis import Contention, InsideTransaction, InvalidArgument, Unavailable
from quota_redis.aio import AsyncCounters
from quota_redis.postgres import Course, DirectReason, Spent, audit, spending, sync
from quota_redis.postgres.absorb import absorb_soon
from quota_redis.postgres.aio import AsyncExactQuota

WORKERS = 8

Task = Callable[[AsyncExactQuota, "psycopg.AsyncConnection[Any]"], Awaitable[Any]]


async def work(connection: "psycopg.AsyncConnection[Any]", allowed: int) -> int:
    await connection.execute(
        "INSERT INTO item (team_id) SELECT 7 FROM generate_series(1, %s)", (allowed,)
    )
    return allowed


async def spend(exact: AsyncExactQuota, connection: Any, amount: int) -> Spent:
    async def do(allowed: int) -> int:
        return await work(connection, allowed)

    return await exact.spend(connection, SUBJECT, amount, do)


class Runner:
    """Runs tasks together in one event loop, each with a connection of its own to PostgreSQL."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn

    def __call__(
        self, *tasks: Task, url: str = os.environ.get("REDIS_URL", ""), **options: Any
    ) -> list[Any]:
        return asyncio.run(self._run(tasks, url, options))

    async def _run(self, tasks: tuple[Task, ...], url: str, options: dict[str, Any]) -> list[Any]:
        from bench import TABLE

        from quota_redis.postgres import Ledger

        counters = AsyncCounters.from_url(url, namespace=NAMESPACE, timeout=5.0)
        exact = AsyncExactQuota(counters, Ledger(TABLE), **options)
        async with AsyncExitStack() as stack:
            stack.push_async_callback(counters.aclose)
            connections = [
                await stack.enter_async_context(
                    await psycopg.AsyncConnection.connect(self._dsn, autocommit=True)
                )
                for _ in tasks
            ]
            return await asyncio.gather(
                *(task(exact, each) for task, each in zip(tasks, connections, strict=True))
            )


@pytest.fixture
def run(ledger_dsn: str) -> Runner:
    return Runner(ledger_dsn)


def check_at_rest(bench: Bench, quota: int, used: int) -> None:
    sync(bench.counters, bench.ledger, bench.connection)
    assert bench.used(quota) == bench.items() == bench.column(quota) == used
    assert audit(bench.counters, bench.ledger, bench.connection).drifts == ()


@pytest.mark.parametrize("limit", [0, 1, 37, 160, 1000])
def test_the_limit_holds_for_many_tasks(
    bench: Bench, absorbed: Callable[..., int], run: Runner, limit: int
) -> None:
    quota = absorbed(limit)

    async def many(exact: AsyncExactQuota, connection: Any) -> int:
        return sum([(await spend(exact, connection, 5)).used for _ in range(4)])

    assert sum(run(*[many] * WORKERS)) == min(limit, 20 * WORKERS)
    check_at_rest(bench, quota, min(limit, 20 * WORKERS))


def test_without_redis_it_takes_the_direct_road(
    bench: Bench, absorbed: Callable[..., int], run: Runner
) -> None:
    quota, seen = absorbed(33), []

    async def one(exact: AsyncExactQuota, connection: Any) -> int:
        return (await spend(exact, connection, 10)).used

    used = run(*[one] * 5, url=NOBODY, observe=seen.append)
    assert sum(used) == 33
    assert {course.direct_reason for course in seen} == {DirectReason.UNAVAILABLE}
    check_at_rest(bench, quota, 33)


def test_its_owner_may_refuse_without_redis(run: Runner, bench: Bench) -> None:
    bench.define(5)

    async def one(exact: AsyncExactQuota, connection: Any) -> None:
        with pytest.raises(Unavailable):
            await spend(exact, connection, 1)

    run(one, url=NOBODY, refuse_without_redis=True)
    assert bench.items() == 0


def test_what_redis_has_not_heard_of_is_absorbed_where_that_can_be_done(
    bench: Bench, connect: Connect, run: Runner
) -> None:
    quota = bench.define(5)
    courses: list[Course] = []

    async def absorb(subject: str) -> bool:
        return await asyncio.to_thread(
            absorb_soon, bench.counters, bench.ledger, connect(), subject
        )

    async def one(exact: AsyncExactQuota, connection: Any) -> Spent:
        return await spend(exact, connection, 3)

    [spent] = run(one, absorb=absorb, observe=courses.append)
    assert (spent.used, courses[0].absorbs, courses[0].went_direct) == (3, 1, False)
    check_at_rest(bench, quota, 3)


def test_what_redis_has_not_heard_of_goes_direct_otherwise(bench: Bench, run: Runner) -> None:
    quota = bench.define(5)
    courses: list[Course] = []

    async def one(exact: AsyncExactQuota, connection: Any) -> Spent:
        return await spend(exact, connection, 7)

    assert run(one, observe=courses.append) == [Spent(5, 2, None)]
    assert courses[0].direct_reason is DirectReason.STATE_LOST
    check_at_rest(bench, quota, 5)


def test_no_quota_limits_nothing(bench: Bench, run: Runner) -> None:
    async def one(exact: AsyncExactQuota, connection: Any) -> Spent:
        return await spend(exact, connection, 9)

    assert [spent.used for spent in run(one, one)] == [9, 9]
    assert bench.items() == 18


def test_work_that_fails_uses_nothing(
    bench: Bench, absorbed: Callable[..., int], run: Runner
) -> None:
    quota = absorbed(5)

    async def one(exact: AsyncExactQuota, connection: Any) -> None:
        async def fail(allowed: int) -> int:
            await work(connection, allowed)
            raise RuntimeError("no")

        with pytest.raises(RuntimeError):
            await exact.spend(connection, SUBJECT, 3, fail)
        await exact.counters.flush()

    run(one)
    assert bench.in_redis(quota).remaining == 5
    check_at_rest(bench, quota, 0)


def test_work_that_lies_about_what_it_did_is_refused(
    bench: Bench, absorbed: Callable[..., int], run: Runner
) -> None:
    quota = absorbed(5)

    async def one(exact: AsyncExactQuota, connection: Any) -> None:
        async def lie(allowed: int) -> int:
            return allowed + 1

        with pytest.raises(InvalidArgument, match="return how many it did"):
            await exact.spend(connection, SUBJECT, 3, lie)

    run(one)
    check_at_rest(bench, quota, 0)


def test_a_transaction_of_the_callers_is_refused(bench: Bench, run: Runner) -> None:
    async def one(exact: AsyncExactQuota, connection: Any) -> None:
        async with connection.transaction():
            await connection.execute("SELECT 1")
            with pytest.raises(InsideTransaction):
                await spend(exact, connection, 1)

    run(one)


def test_endless_conflicts_end(
    bench: Bench, absorbed: Callable[..., int], run: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spending, "MAX_DIRECT", 0)

    async def one(exact: AsyncExactQuota, connection: Any) -> None:
        with pytest.raises(Contention):
            await spend(exact, connection, 1)

    bench.define(5)
    run(one)
