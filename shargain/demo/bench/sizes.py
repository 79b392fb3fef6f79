"""What a call costs as things grow: targets, quotas of a target, ranges of its free list, live holds."""

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import cast

from quota_redis import Counters, Quota, Reservation
from shargain.demo.bench import Bench, Case, Curve, Figure, Result, Table, paragraphs
from shargain.demo.bench.commands import Commands
from shargain.demo.bench.redis_tools import FAR, START, Load, counters, quota
from shargain.demo.bench.rounds import figure, interleaved, middle, ratio
from shargain.demo.bench.subjects import define_all, names

CALLS = 2000
WALL_CALLS = 500
SIZES = (1, 10, 100, 1000)
QUICK_SIZES = (1, 100)
TARGETS = (1000, 10_000, 100_000, 1_000_000)
QUICK_TARGETS = (1000, 100_000)
SAMPLE = 20_000
"""Targets that are called, of those that are there."""
FRAGMENT = 1000
"""Slots of a range of a fragmented free list: calls use up few of them."""

CONSUME = "consume"
PAIR = "reserve + settle"
BACK = "reserve + settle, all back"
WALL = "wall of a consume"
BARE = "bare check-and-increment"
Turn = Callable[[], float]

NOTES = paragraphs(
    f"""
CPU of the server's main thread for a call, by `INFO cpu`, with the calls sent a hundred at a time; all sizes
of a curve take turns in every round. *Wall* is a consume by Counters, client and server on one core. Targets
are called in random order (the bare script on counters of their own beside them, to tell what the size costs
anybody), at most {SAMPLE:,} of them.

A quota of 10 has nine others ahead of it, of periods to come. A range of a fragmented free list is
{FRAGMENT:,} slots, with a used one between it and the next.
"""
)


def cases() -> tuple[Case, ...]:
    return (Case("sizes", "Cost over size", run),)


@dataclass(slots=True)
class Growth:
    """One curve: turns for each operation and size."""

    name: str
    what: str
    sizes: Sequence[int]
    turns: dict[tuple[str, int], Turn] = field(default_factory=dict)
    pids: list[int] = field(default_factory=list)

    def add(self, size: int, commands: Commands, pair: str) -> None:
        self.turns[CONSUME, size] = partial(commands.consume, CALLS)
        turn = commands.pair_back if pair == BACK else commands.pair
        self.turns[pair, size] = partial(turn, CALLS)


def run(bench: Bench) -> Result:
    figures: dict[str, Figure] = {}
    tables, curves = [], []
    for make in (_targets, _quotas, _ranges, _holds):
        growth = make(bench)
        bench.say(f"{growth.what}: {', '.join(map(str, growth.sizes))}")
        keyed = {f"{name} {size}": turn for (name, size), turn in growth.turns.items()}
        with bench.on_one_core(*growth.pids):
            found = interleaved(keyed, bench.rounds)
        figures |= _figures(growth, found)
        tables.append(_table(growth, found))
        curves.append(_curve(growth, found))
    return Result(figures, tables, curves, NOTES)


def _targets(bench: Bench) -> Growth:
    sizes = TARGETS if bench.is_full else QUICK_TARGETS
    growth = Growth("targets", "targets", sizes)
    for size in sizes:
        valkey = bench.valkey()
        mine, subjects = counters(valkey.url), names(size)
        bench.say(f"defining {size:,} targets ...")
        define_all(mine, subjects, [quota()])
        random.Random(size).shuffle(subjects)  # noqa: S311  no secret, only the same again
        called = subjects[:SAMPLE]
        commands = Commands(mine, Load(valkey.url), called)
        commands.bare(len(called))
        growth.add(size, commands, PAIR)
        growth.turns[BARE, size] = partial(commands.bare, CALLS)
        growth.turns[WALL, size] = partial(_wall, mine, called)
        growth.pids.append(valkey.pid)
    return growth


def _quotas(bench: Bench) -> Growth:
    def prepare(mine: Counters, subject: str, size: int) -> None:
        ahead = [START + timedelta(days=365 * (50 + n)) for n in range(size)]
        quotas = [Quota(0, FAR, START, ahead[0])]
        quotas += [Quota(n, FAR, ahead[n - 1], ahead[n]) for n in range(1, size)]
        mine.define(subject, *quotas)

    growth = Growth("quotas", "quotas of a target", (1, 2, 5, 10) if bench.is_full else (1, 10))
    return _grown(bench, growth, 200, prepare, PAIR)


def _ranges(bench: Bench) -> Growth:
    def prepare(mine: Counters, subject: str, size: int) -> None:
        mine.define(subject, quota())
        held = _held(mine, [(subject, FRAGMENT), (subject, 1)] * (size - 1))
        mine.settle_many((each, 0 if each.amount == FRAGMENT else 1) for each in held)

    growth = Growth("ranges", "ranges of a free list", SIZES if bench.is_full else QUICK_SIZES)
    return _grown(bench, growth, 10, prepare, BACK)


def _holds(bench: Bench) -> Growth:
    def prepare(mine: Counters, subject: str, size: int) -> None:
        mine.define(subject, quota())
        _held(mine, [(subject, 1)] * size)

    growth = Growth("holds", "live holds of a target", SIZES if bench.is_full else QUICK_SIZES)
    return _grown(bench, growth, 10, prepare, PAIR)


def _grown(
    bench: Bench,
    growth: Growth,
    subjects: int,
    prepare: Callable[[Counters, str, int], None],
    pair: str,
) -> Growth:
    """So many subjects of each size, on one server."""
    valkey = bench.valkey()
    mine = counters(valkey.url, lease=timedelta(hours=1))
    for size in growth.sizes:
        called = [f"size-{size}:{number}" for number in range(subjects)]
        for subject in called:
            prepare(mine, subject, size)
        growth.add(size, Commands(mine, Load(valkey.url), called), pair)
    growth.pids.append(valkey.pid)
    return growth


def _held(mine: Counters, wanted: list[tuple[str, int]]) -> list[Reservation]:
    held = mine.reserve_many(wanted)
    assert all(isinstance(each, Reservation) for each in held), held
    return cast("list[Reservation]", held)


def _wall(mine: Counters, subjects: Sequence[str]) -> float:
    """Microseconds of a consume."""
    began = time.perf_counter()
    for subject in random.sample(subjects, WALL_CALLS):
        mine.consume(subject)
    return (time.perf_counter() - began) / WALL_CALLS * 1e6


def _operations(growth: Growth) -> list[str]:
    return list(dict.fromkeys(name for name, _ in growth.turns))


def _figures(growth: Growth, found: dict[str, list[float]]) -> dict[str, Figure]:
    low, *higher = growth.sizes
    return {
        f"{name}, {high:,} over {low:,} {growth.what}": ratio(
            found[f"{name} {high}"], found[f"{name} {low}"], better="lower", slack=0.25
        )
        for name in _operations(growth)
        for high in higher
    }


def _table(growth: Growth, found: dict[str, list[float]]) -> Table:
    operations = _operations(growth)
    rows = [
        [f"{size:,}", *(_shown(found[f"{name} {size}"]) for name in operations)]
        for size in growth.sizes
    ]
    columns = [growth.what, *(f"{name}, us" for name in operations)]
    return Table(f"Over {growth.what}", columns, rows)


def _shown(values: Sequence[float]) -> str:
    found = figure(values)
    return f"{found.median} ({found.low}-{found.high})"


def _curve(growth: Growth, found: dict[str, list[float]]) -> Curve:
    series: dict[str, Sequence[float | None]] = {
        name: [middle(found[f"{name} {size}"]) for size in growth.sizes]
        for name in _operations(growth)
    }
    title = f"Cost of a call over {growth.what}"
    return Curve(growth.name, title, growth.what, "microseconds", growth.sizes, series)
