"""Processes that use units from stock, as one would kill and stop them."""

import mmap
import os
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Protocol, Self

from quota_redis import Counters, Denied, Granted, Reservation
from quota_redis.scripts import Call
from quota_redis.stocks import Stocks

PATIENCE_SECONDS = 30.0
ROOT = Path(__file__).parents[2]
PROGRAM = Path(__file__).with_name("stock_worker.py")


class DefineQuota(Protocol):
    def __call__(self, limit: int | None, subject: str = "team:7") -> str: ...


def until(is_so: Callable[[], bool]) -> None:
    """Wait until something is so; a wait without end fails."""
    end = time.monotonic() + PATIENCE_SECONDS
    while not is_so():
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.005)


def consume(stocks: Stocks, subject: str, times: int, amount: int = 1) -> None:
    """So many grants."""
    for _ in range(times):
        assert isinstance(stocks.consume(subject, amount), Granted)


def use_up(stocks: Stocks, subject: str) -> int:
    """Units until one is refused."""
    granted = 0
    while isinstance(stocks.consume(subject), Granted):
        granted += 1
    return granted


def drain(stocks: Stocks, subject: str) -> int:
    """Units until something else than a grant comes, which is to be an error."""
    granted = 0
    while True:
        assert isinstance(stocks.consume(subject), Granted)
        granted += 1


@contextmanager
def counted_calls(counters: Counters) -> Iterator[list[str]]:
    """The scripts that the counters send meanwhile, by name."""
    sent: list[str] = []
    connection = counters.connection
    ways = {"send": connection.send, "send_unanswered": connection.send_unanswered}

    def counting(way: Callable[[Call[object]], object], call: Call[object]) -> object:
        sent.append(call.script.name)
        return way(call)

    for name, way in ways.items():
        setattr(connection, name, partial(counting, way))
    yield sent
    for name in ways:
        delattr(connection, name)


def refused(answer: object) -> Denied:
    assert isinstance(answer, Denied)
    return answer


def reserved(answer: object) -> Reservation:
    assert isinstance(answer, Reservation)
    return answer


def numbers(counters: Counters, subject: str) -> tuple[int, int]:
    """Units used and held, as Redis has them."""
    counters.flush()
    usage = counters.usage(subject)[1]
    return usage.used, usage.held


class Worker:
    """A process whose count of grants survives it. `seconds` between two grants."""

    def __init__(
        self, folder: Path, counters: Counters, subject: str, *, lease: float, pause: float
    ) -> None:
        self._count = folder / f"{len(list(folder.iterdir()))}.count"
        self._count.write_bytes(bytes(16))
        namespace = counters.keys.namespace
        # Started as a program of its own: a fork of the test would share its sockets.
        self._process = subprocess.Popen(
            [
                sys.executable,
                PROGRAM,
                os.environ["REDIS_URL"],
                namespace,
                subject,
                str(lease),
                str(pause),
                self._count,
            ],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )

    @property
    def granted(self) -> int:
        """Units that it has been granted until now."""
        return self._read()[0]

    @property
    def refused(self) -> int:
        """How often it was told that the quota is full."""
        return self._read()[1]

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def end(self) -> None:
        """Let it close what it has, and wait until it has."""
        self._process.terminate()
        self._process.wait(PATIENCE_SECONDS)

    def _read(self) -> tuple[int, int]:
        granted, refused = struct.unpack("qq", self._count.read_bytes())
        return granted, refused


class Tally:
    """Counts in a file that is memory: what was written before a kill -9 is there."""

    def __init__(self, path: Path) -> None:
        with path.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), 16)
        self._numbers = [0, 0]

    def add(self, at: int) -> None:
        self._numbers[at] += 1
        self._memory[at * 8 : at * 8 + 8] = struct.pack("q", self._numbers[at])


class Workers:
    """Starts processes, and leaves none behind."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._started: list[Worker] = []

    def start(
        self, counters: Counters, subject: str, *, lease: float = 60.0, pause: float = 0.0
    ) -> Worker:
        """A process that consumes from a stock as long as it lives: lease and pause between grants in seconds."""
        self._started.append(Worker(self._folder, counters, subject, lease=lease, pause=pause))
        return self._started[-1]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        for worker in self._started:
            worker.kill()
