"""Units from a local stock against a round trip each, and processes that use up one limit under kill -9."""

import struct
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import count
from pathlib import Path

from quota_redis import Counters, Quota
from quota_redis.stocks import Stocks
from shargain.demo.bench import Bar, Bench, Case, Figure, Result, Table
from shargain.demo.bench.rounds import interleaved, ratio, speed
from shargain.demo.bench.stocks_process import NAMESPACE, TIMEOUT_SECONDS

HIGH_LIMIT = 10**12
LIMIT = 1_000_000
TURN_SECONDS = 0.3
LEASE_SECONDS = 0.5
PROCESSES = 2
KILLS = 4
MAX_SECONDS = 60.0
START = datetime(2020, 1, 1, tzinfo=UTC)

_subjects = count(1)


def cases() -> tuple[Case, ...]:
    bars = (
        Bar("consume from a local stock, one thread", "from stock", at_least=500_000),
        Bar("units above the limit, with processes killed", "over the limit", at_most=0),
    )
    return (Case("stocks", "Units from a local stock", run, bars),)


def run(bench: Bench) -> Result:
    valkey = bench.valkey()
    counters = Counters.from_url(valkey.url, namespace=NAMESPACE, timeout=TIMEOUT_SECONDS)
    with bench.on_one_core(valkey.pid):
        speeds = one_thread(counters, bench)
    crews = [exhaust(counters, valkey.url, bench.folder, kills) for kills in (0, KILLS)]
    counters.close()
    over = max(crew[2] for crew in crews)
    return Result(
        figures={
            "from stock": speed(speeds["stock"]),
            "stock over round trip": ratio(speeds["stock"], speeds["round trip"], slack=0.4),
            "over the limit": Figure(over, over, over, unit="units", better="lower", slack=0),
        },
        tables=[
            Table(
                f"{PROCESSES} processes use up a limit of {LIMIT:,}",
                ["killed on the way", "granted", "over the limit", "forfeited", "s"],
                crews,
            )
        ],
        notes=[
            "What died with a process is forfeited: it counts as used, and nobody was granted it."
        ],
    )


def one_thread(counters: Counters, bench: Bench) -> dict[str, list[float]]:
    """Units a second of a limit that is far away."""
    subject = _define(counters, HIGH_LIMIT)
    with Stocks(counters) as stocks:
        turns = {
            "stock": lambda: _rate(stocks.consume, subject, 1000),
            "round trip": lambda: _rate(counters.consume, subject, 20),
        }
        return interleaved(turns, bench.rounds, bench.say)


def _rate(consume: Callable[[str], object], subject: str, chunk: int) -> float:
    """Calls a second; the clock is read once in so many calls."""
    calls, began = 0, time.perf_counter()
    end = began + TURN_SECONDS
    while (now := time.perf_counter()) < end:
        for _ in range(chunk):
            consume(subject)
        calls += chunk
    return calls / (now - began)


def exhaust(
    counters: Counters, url: str, folder: Path, kills: int
) -> tuple[str, int, int, int, float]:
    """Processes use up one limit; some are killed on the way, and others go on for them.

    Returns how many were killed, units granted, those above the limit, those that died with a process, seconds.
    """
    subject = _define(counters, LIMIT)
    began = time.perf_counter()
    crew = _Crew(url, subject, folder)
    try:
        for number in range(kills):
            crew.wait_for(LIMIT * (number + 1) // (kills + 2))
            crew.replace(number % PROCESSES)
        while crew.is_running:
            counters.forfeit(subject)
            _check_time(began)
            time.sleep(LEASE_SECONDS / 10)
    finally:
        crew.kill()
    seconds = round(time.perf_counter() - began, 2)
    used, granted = counters.usage(subject)[1].used, crew.granted
    return str(kills), granted, max(0, granted - LIMIT), used - granted, seconds


class _Crew:
    def __init__(self, url: str, subject: str, folder: Path) -> None:
        self._command = [sys.executable, "-m", "shargain.demo.bench.stocks_process", url, subject]
        self._folder = folder
        self._tallies: list[Path] = []
        self._running = [self._start() for _ in range(PROCESSES)]

    @property
    def granted(self) -> int:
        return sum(struct.unpack("q", tally.read_bytes())[0] for tally in self._tallies)

    @property
    def is_running(self) -> bool:
        return any(process.poll() is None for process in self._running)

    def wait_for(self, units: int) -> None:
        began = time.perf_counter()
        while self.granted < units:
            _check_time(began)
            time.sleep(0.001)

    def replace(self, at: int) -> None:
        self._running[at].kill()
        self._running[at].wait()
        self._running[at] = self._start()

    def kill(self) -> None:
        for process in self._running:
            process.kill()
            process.wait()

    def _start(self) -> "subprocess.Popen[bytes]":
        tally = self._folder / f"{time.monotonic_ns()}.tally"
        tally.write_bytes(bytes(8))
        self._tallies.append(tally)
        return subprocess.Popen([*self._command, str(LEASE_SECONDS), str(tally)])


def _check_time(began: float) -> None:
    if time.perf_counter() - began > MAX_SECONDS:
        raise RuntimeError(f"the limit was not used up within {MAX_SECONDS:.0f} seconds.")


def _define(counters: Counters, limit: int) -> str:
    subject = f"stocks:{next(_subjects)}"
    counters.define(subject, Quota(id=1, limit=limit, start=START))
    return subject
