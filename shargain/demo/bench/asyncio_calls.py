"""Calls of many tasks of one event loop: AsyncCounters against redis.asyncio with the same scripts."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from functools import partial
from itertools import count
from typing import Any, TypeAlias

import redis.asyncio

from quota_redis import scripts
from quota_redis.aio import AsyncCounters
from shargain.demo.bench import Bar, Bench, Case, Cell, Figure, Result, Table, paragraphs
from shargain.demo.bench.redis_tools import (
    BARE,
    FAR,
    NAMESPACE,
    TIMEOUT_SECONDS,
    Load,
    counters,
    quota,
)
from shargain.demo.bench.rounds import interleaved, middle, ratio, speed, spread

TASKS = 50
CALLS = 40
"""Of each task in a turn."""
MORE = 5
"""As many times more calls of ours, for a turn not to be over in an instant."""
SUBJECT = "team:7"
REMEMBER_MS = 3_600_000

OURS = "AsyncCounters.consume"
OURS_WITH_KEY = "AsyncCounters.consume with a key"
BARE_SCRIPT = "redis.asyncio, bare script"
SAME_SCRIPT = "redis.asyncio, our consume script with a key"
SAME_NO_KEY = "redis.asyncio, our consume script"

COMPARED = (
    (OURS_WITH_KEY, SAME_SCRIPT),
    (OURS_WITH_KEY, BARE_SCRIPT),
    (OURS, SAME_NO_KEY),
    (OURS, BARE_SCRIPT),
)

Ask: TypeAlias = Callable[[], Awaitable[object]]

NOTES = paragraphs(
    f"""
{TASKS} tasks of one process, each of which waits for its answer before it asks again. redis.asyncio takes a
connection from its pool for each call; AsyncCounters sends what many tasks want in one turn of the loop
together, on one connection.
"""
)


def cases() -> tuple[Case, ...]:
    return (Case("asyncio", f"asyncio, {TASKS} calls in flight", run, BARS),)


BARS = (
    Bar(
        "asyncio, 50 in flight, against redis.asyncio with the same script",
        f"{OURS_WITH_KEY} over {SAME_SCRIPT}",
        at_least=5,
    ),
    Bar("the same without a key", f"{OURS} over {SAME_NO_KEY}", at_least=5),
)


def run(bench: Bench) -> Result:
    valkey = bench.valkey()
    figures: dict[str, Figure] = {}
    tables = []
    for title, suffix, place in (
        ("Client and server on one core", "", bench.on_one_core),
        ("Client and server on a core each", ", two cores", bench.on_two_cores),
    ):
        bench.say(title)
        with place(valkey.pid):
            speeds = _speeds(bench, valkey.url)
        figures |= {
            f"{ours} over {theirs}{suffix}": ratio(speeds[ours], speeds[theirs])
            for ours, theirs in COMPARED
        }
        figures[f"{OURS_WITH_KEY}{suffix}"] = speed(speeds[OURS_WITH_KEY])
        tables.append(_table(title, speeds))
    return Result(figures, tables, notes=NOTES)


def _speeds(bench: Bench, url: str) -> dict[str, list[float]]:
    with asyncio.Runner() as runner:
        tasks = Tasks(url)
        turns = {name: partial(_turn, runner, *ask) for name, ask in tasks.asks().items()}
        try:
            return interleaved(turns, bench.rounds, bench.say)
        finally:
            runner.run(tasks.close())


def _turn(runner: asyncio.Runner, ask: Ask, times: int) -> float:
    return runner.run(_together(ask, times))


def _table(title: str, speeds: dict[str, list[float]]) -> Table:
    rows: list[list[Cell]] = [
        [name, middle(values), spread(values), ratio(values, speeds[SAME_SCRIPT]).median]
        for name, values in speeds.items()
    ]
    return Table(title, ["", "calls/s", "from-to", f"so many times {SAME_SCRIPT}"], rows)


class Tasks:
    """What the tasks ask, each by a client of its own."""

    def __init__(self, url: str) -> None:
        self._ours = AsyncCounters.from_url(url, namespace=NAMESPACE, timeout=TIMEOUT_SECONDS)
        self._driver = redis.asyncio.Redis.from_url(url)
        self._ids = count()
        mine = counters(url)
        mine.define(SUBJECT, quota())
        self._keys = mine.keys
        load = Load(url)
        self._bare = load.load_script(BARE)
        self._consume = load.load_script(scripts.load("consume").text)

    def asks(self) -> dict[str, tuple[Ask, int]]:
        """What a task calls, and how many times more often than CALLS."""
        return {
            OURS_WITH_KEY: (self._ask_with_key, MORE),
            OURS: (self._ask, MORE),
            BARE_SCRIPT: (self._ask_bare, 1),
            SAME_SCRIPT: (self._ask_same_with_key, 1),
            SAME_NO_KEY: (self._ask_same, 1),
        }

    async def close(self) -> None:
        await self._ours.aclose()
        await self._driver.aclose()

    async def _ask_with_key(self) -> object:
        return await self._ours.consume(SUBJECT, 1, key=f"ours-{next(self._ids)}")

    async def _ask(self) -> object:
        return await self._ours.consume(SUBJECT, 1)

    async def _ask_bare(self) -> object:
        return await self._driver.evalsha(self._bare, 1, "bare", 1, FAR)

    async def _ask_same_with_key(self) -> object:
        answer_key = self._keys.answer(SUBJECT, f"theirs-{next(self._ids)}")
        return await self._ask_script(answer_key, REMEMBER_MS)

    async def _ask_same(self) -> object:
        return await self._ask_script(self._keys.subject(SUBJECT), 0)

    async def _ask_script(self, answer_key: str, remember_ms: int) -> object:
        words: list[Any] = [self._keys.subject(SUBJECT), self._keys.changed(SUBJECT), answer_key]
        words += [SUBJECT, 1, remember_ms]
        return await self._driver.evalsha(self._consume, 3, *words)


async def _together(ask: Ask, times: int) -> float:
    """Calls a second of all tasks."""

    async def task() -> None:
        for _ in range(CALLS * times):
            await ask()

    began = time.perf_counter()
    await asyncio.gather(*(task() for _ in range(TASKS)))
    return TASKS * CALLS * times / (time.perf_counter() - began)
