"""consume against what others offer for the same purpose; first what each of them gets wrong."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import redis

from quota_redis import Granted
from shargain.demo.bench import Bar, Bench, Case, Cell, Figure, Result, Table, paragraphs
from shargain.demo.bench.peers import BARE_SCRIPT, FLOOR, LIMITS, OURS, PEERS, Peer
from shargain.demo.bench.redis_tools import FAR, ServerMeter, counters, quota
from shargain.demo.bench.rounds import interleaved, middle, ratio, speed

CALLS = 2000
ASKED = "3+3+3+3+1"
TEN = 10
THREADS = 8
RACED = 100
RACES = 5

NOTES = paragraphs(
    f"""
Every peer gets the same work as far as it can: one subject, one unit a call, a limit that is never reached.
consume also looks up the period that rules by the server's clock, answers a repeated call from its
idempotency key, keeps a free list, and marks the subject as changed; no peer does any of that.

*Granted of {ASKED}* were asked of a quota of {TEN} in that order. {TEN} is right: three times 3, then 3 are
refused, then the last unit is free. Where it is 9, the refused call was charged.

*Granted in a race*: {THREADS} threads ask for units one by one until all are refused, of a quota of {RACED};
the most that was granted in {RACES} races.

*Server CPU* and *client CPU* are of the whole call, socket and all.
"""
)


def cases() -> tuple[Case, ...]:
    return (Case("consume", "consume against rate limiters and scripts", run, BARS),)


BARS = (
    Bar(
        "consume, sync, full semantics, one round trip, against `limits` FixedWindow",
        f"consume over {LIMITS.name}",
        at_least=1.8,
        aim=2.1,
    ),
    Bar(
        "consume against a redis-py call of a bare check-and-increment script",
        f"consume over {BARE_SCRIPT.name}",
        at_least=1.2,
    ),
)


class Turn:
    """A turn of one peer: so many calls, and what they cost."""

    def __init__(self, peer: Peer, url: str, meter: ServerMeter) -> None:
        self._ask = peer.make(url, f"speed:{peer.name}", FAR)
        self._meter = meter
        self.client_us: list[float] = []
        self.server_us: list[float] = []

    def __call__(self) -> float:
        ask, server = self._ask, self._meter.cpu_us()
        cpu, began = time.process_time(), time.perf_counter()
        for _ in range(CALLS):
            ask(1)
        took, used = time.perf_counter() - began, time.process_time() - cpu
        self.client_us.append(used / CALLS * 1e6)
        self.server_us.append((self._meter.cpu_us() - server) / CALLS)
        return CALLS / took


def run(bench: Bench, peers: tuple[Peer, ...] = PEERS) -> Result:
    valkey = bench.valkey()
    bench.say("what each gets wrong ...")
    client = redis.Redis.from_url(valkey.url)
    wrongs = {peer.name: _wrongs(peer, valkey.url, client) for peer in peers}
    meter = ServerMeter(client)
    turns = {peer.name: Turn(peer, valkey.url, meter) for peer in peers}
    with bench.on_one_core(valkey.pid):
        speeds = interleaved(turns, bench.rounds, bench.say)
    rows = [_row(peer, speeds, turns[peer.name], wrongs[peer.name]) for peer in peers]
    return Result(
        {**_ratios(speeds), "consume": speed(speeds[OURS.name])}, [_table(rows)], notes=NOTES
    )


def _ratios(speeds: dict[str, list[float]]) -> dict[str, Figure]:
    ours = speeds[OURS.name]
    return {
        f"consume over {name}": ratio(ours, theirs)
        for name, theirs in speeds.items()
        if name != OURS.name
    }


def _row(peer: Peer, speeds: dict[str, list[float]], turn: Turn, wrongs: list[Cell]) -> list[Cell]:
    ours = ratio(speeds[OURS.name], speeds[peer.name])
    return [
        peer.name,
        middle(speeds[peer.name]),
        f"{ours.median:.2f} ({ours.low:.2f}-{ours.high:.2f})",
        middle(turn.client_us),
        middle(turn.server_us),
        *wrongs,
        peer.note,
    ]


def _table(rows: list[list[Cell]]) -> Table:
    columns = [
        "", "calls/s", "consume is so many times it", "client CPU, us", "server CPU, us", "round trips",
        f"granted of {ASKED}", f"granted in a race for {RACED}", "retry counts once", "note",
    ]  # fmt: skip
    return Table("One thread, client and server on one core", columns, rows)


def _wrongs(peer: Peer, url: str, client: "redis.Redis") -> list[Cell]:
    ask = peer.make(url, f"ten:{peer.name}", TEN)
    granted = sum(amount for amount in map(int, ASKED.split("+")) if ask(amount))
    raced = max(_race(peer, url, number) for number in range(RACES))
    once = "yes" if peer is OURS and _counts_a_retry_once(url) else "no"
    return [_round_trips(peer, url, client), granted, raced, once]


def _round_trips(peer: Peer, url: str, client: "redis.Redis") -> float:
    """How often the server had to read for one call."""
    ask = peer.make(url, f"trips:{peer.name}", FAR)
    ask(1)

    def reads() -> int:
        found: Any = client.info("stats")
        return int(found["total_reads_processed"])

    calls, before = 100, reads()
    for _ in range(calls):
        ask(1)
    # The second look at the statistics is a read, too.
    return round((reads() - before - 1) / calls, 1)


def _race(peer: Peer, url: str, number: int) -> int:
    # A socket without a lock is for one thread: where it is nothing but the floor, each has its own.
    subject = f"race:{number}:{peer.name}"
    shared = peer.make(url, subject, RACED)
    asks = [peer.make(url, subject, RACED) if peer is FLOOR else shared for _ in range(THREADS)]
    ready = threading.Barrier(THREADS)
    with ThreadPoolExecutor(THREADS) as pool:
        return sum(pool.map(partial(_ask_until_refused, ready), asks))


def _ask_until_refused(ready: threading.Barrier, ask: Callable[[int], bool]) -> int:
    ready.wait()
    granted = 0
    while ask(1):
        granted += 1
    return granted


def _counts_a_retry_once(url: str) -> bool:
    mine, subject = counters(url), "retry"
    mine.define(subject, quota(TEN))
    answers = [mine.consume(subject, 3, key="a") for _ in range(2)]
    return (
        answers[0] == answers[1]
        and type(answers[0]) is Granted
        and mine.usage(subject)[1].used == 3
    )
