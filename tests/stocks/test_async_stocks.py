"""Stocks for asyncio: the same decisions, awaited."""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import wraps
from typing import Any, TypeAlias
from uuid import uuid4

import pytest
from stock_workers import PATIENCE_SECONDS

from quota_redis import Granted, InvalidArgument, Quota, Reason, Reservation, StateLost, Unavailable
from quota_redis.aio import AsyncCounters
from quota_redis.stocks import AsyncStocks
from quota_redis.testing import LONG_AGO

SUBJECT = "team:7"
Test: TypeAlias = Callable[[AsyncCounters], Coroutine[Any, Any, None]]


@asynccontextmanager
async def new_counters() -> AsyncIterator[AsyncCounters]:
    counters = AsyncCounters.from_url(
        os.environ["REDIS_URL"], namespace=f"t{uuid4().hex[:20]}", timeout=5.0
    )
    yield counters
    await counters.aclose()


def with_counters(test: Test) -> Callable[[], None]:
    """Run a test in an event loop of its own, with counters that no other has."""

    async def run() -> None:
        async with new_counters() as counters:
            await test(counters)

    @wraps(test)
    def in_loop() -> None:
        asyncio.run(run())

    del in_loop.__wrapped__  # type: ignore[attr-defined]  # else pytest looks for its argument
    return in_loop


async def define(counters: AsyncCounters, limit: int | None) -> None:
    await counters.define(SUBJECT, Quota(id=1, limit=limit, start=LONG_AGO))


async def consume(stocks: AsyncStocks, times: int) -> None:
    for _ in range(times):
        assert isinstance(await stocks.consume(SUBJECT), Granted)


async def use_up(stocks: AsyncStocks) -> int:
    granted = 0
    while isinstance(await stocks.consume(SUBJECT), Granted):
        granted += 1
    return granted


async def numbers(counters: AsyncCounters) -> tuple[int, int]:
    await counters.flush()
    usage = (await counters.usage(SUBJECT))[1]
    return usage.used, usage.held


async def until(is_so: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not await is_so():  # noqa: ASYNC110  Redis tells nobody
            await asyncio.sleep(0.005)


@with_counters
async def test_every_unit_is_granted_and_not_one_more(counters: AsyncCounters) -> None:
    await define(counters, 5000)
    async with AsyncStocks(counters) as stocks:
        assert await use_up(stocks) == 5000
        answer = await stocks.consume(SUBJECT)
        assert not isinstance(answer, Granted)
        assert answer.reason is Reason.FULL  # type: ignore[union-attr]
    assert await numbers(counters) == (5000, 0)


@with_counters
async def test_tasks_share_a_stock(counters: AsyncCounters) -> None:
    limit = 20_000
    await define(counters, limit)
    async with AsyncStocks(counters) as stocks:
        assert sum(await asyncio.gather(*(use_up(stocks) for _ in range(50)))) == limit
    assert await numbers(counters) == (limit, 0)


@with_counters
async def test_two_stocks_share_a_limit(counters: AsyncCounters) -> None:
    """Who is refused as BUSY asks again, and gets what the other gives back."""
    limit = 3000
    await define(counters, limit)

    async def use_up_patiently(stocks: AsyncStocks) -> int:
        granted = 0
        while True:
            answer = await stocks.consume(SUBJECT)
            if isinstance(answer, Granted):
                granted += 1
                continue
            if answer.reason is Reason.FULL:  # type: ignore[union-attr]
                return granted
            await asyncio.sleep(0.005)

    short = timedelta(milliseconds=200)
    async with AsyncStocks(counters, lease=short) as one, AsyncStocks(counters) as two:
        await consume(one, 50)
        assert 50 + await use_up_patiently(two) == limit
    assert await numbers(counters) == (limit, 0)


@with_counters
async def test_what_is_in_stock_goes_back_on_close_and_by_itself(counters: AsyncCounters) -> None:
    await define(counters, 10_000)
    async with AsyncStocks(counters) as stocks:
        await consume(stocks, 40)
        assert (await numbers(counters))[1] > 0
    assert await numbers(counters) == (40, 0)
    stocks = AsyncStocks(counters, lease=timedelta(milliseconds=200))
    await consume(stocks, 40)

    async def is_back() -> bool:
        return await numbers(counters) == (80, 0)

    await until(is_back)
    await stocks.aclose()


@with_counters
async def test_reservations_come_from_stock(counters: AsyncCounters) -> None:
    await define(counters, 10_000)
    async with AsyncStocks(counters) as stocks:
        for _ in range(20):
            reservation = await stocks.reserve(SUBJECT, 10)
            assert isinstance(reservation, Reservation)
            await stocks.settle(reservation, 4, wait=False)
        released = await stocks.reserve(SUBJECT, 10)
        assert isinstance(released, Reservation)
        await stocks.release(SUBJECT, released.hold_id)
        assert await numbers(counters) == (80, 0)


@with_counters
async def test_whoever_gives_up_waiting_leaves_no_hold(counters: AsyncCounters) -> None:
    """A task is cancelled while its stock is on the way: what may have been held goes back."""
    await define(counters, 10_000)
    async with AsyncStocks(counters, lease=timedelta(milliseconds=400)) as stocks:
        await consume(stocks, 3)
        for _ in range(20):
            task = asyncio.create_task(stocks.consume(SUBJECT))
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        granted = 3 + await use_up(stocks)
        assert granted <= 10_000

        async def is_back() -> bool:
            return (await numbers(counters))[1] == 0

        await until(is_back)
        used, _ = await numbers(counters)
        assert used + await use_up(stocks) == 10_000


@with_counters
async def test_an_outage_is_no_denial(counters: AsyncCounters) -> None:
    async with AsyncStocks(counters) as stocks:
        with pytest.raises(StateLost):
            await stocks.consume(SUBJECT)
        with pytest.raises(InvalidArgument):
            await stocks.consume(SUBJECT, 0)
    nobody = AsyncCounters.from_url("redis://127.0.0.1:1/0", namespace="nobody")
    async with AsyncStocks(nobody) as stocks:
        for _ in range(5):
            with pytest.raises(Unavailable):
                await stocks.consume(SUBJECT)
    await nobody.aclose()
