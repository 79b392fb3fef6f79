"""What a call costs the server: CPU, without the sockets that all calls cost alike."""

from collections.abc import Callable
from functools import partial

from shargain.demo.bench import Bar, Bench, Case, Cell, Figure, Result, Table, paragraphs
from shargain.demo.bench.commands import AMOUNT, Commands
from shargain.demo.bench.redis_tools import Load, counters, quota
from shargain.demo.bench.rounds import figure, interleaved, ratio

CALLS = 5000
FEWER = 1500
SUBJECTS = 1000
BARE = "bare check-and-increment"
PAIR = "reserve + settle"

ALONE = ", alone"

NOTES = paragraphs(
    f"""
The main thread's CPU by `INFO cpu` over the number of calls. They are sent a hundred at a time, so that
reading from the socket and writing to it, which every call costs alike, weighs little; *alone* is one at a
time, as a single client sends them. The calls are of {SUBJECTS:,} subjects in turn.

The bare script reads a counter, compares and increments it; consume does what it always does, periods, free
list and change mark. A reserve is of {AMOUNT} slots, which the settle counts as used, or half of them.
"""
)


def cases() -> tuple[Case, ...]:
    return (Case("server-cpu", "CPU of the server per call", run, BARS),)


BARS = (
    Bar(
        "server CPU of reserve + settle against one bare check-and-increment",
        f"{PAIR}{ALONE} over {BARE}",
        at_most=4,
        aim=3,
    ),
    Bar("the same in pipelines of 100, the scripts alone", f"{PAIR} over {BARE}", at_most=4, aim=3),
)


def run(bench: Bench) -> Result:
    valkey = bench.valkey()
    mine = counters(valkey.url)
    names = [f"target:{number}" for number in range(SUBJECTS)]
    for name in names:
        mine.define(name, quota(10**12))
    turns = _turns(Commands(mine, Load(valkey.url), names), CALLS, "")
    turns |= _turns(Commands(mine, Load(valkey.url, chunk=1), names), FEWER, ALONE)
    with bench.on_one_core(valkey.pid):
        found = interleaved(turns, bench.rounds, bench.say)
    figures = {
        f"{name} over {BARE}": ratio(values, found[_bare_of(name)], better="lower")
        for name, values in found.items()
        if name != _bare_of(name)
    }
    return Result(figures, [_table(found, figures)], notes=NOTES)


def _turns(commands: Commands, calls: int, suffix: str) -> dict[str, Callable[[], float]]:
    turns = {
        "INCR": commands.incr,
        "EVALSHA of `return 1`": commands.nothing,
        BARE: commands.bare,
        "consume": commands.consume,
        "consume with a key": commands.consume_with_key,
        "reserve": commands.reserve,
        "settle": commands.settle,
        "settle, half comes back": commands.settle_half,
        PAIR: commands.pair,
    }
    return {f"{name}{suffix}": partial(turn, calls) for name, turn in turns.items()}


def _bare_of(name: str) -> str:
    """The bare script as it was called where this was."""
    return f"{BARE}{ALONE}" if name.endswith(ALONE) else BARE


def _table(found: dict[str, list[float]], figures: dict[str, Figure]) -> Table:
    rows = []
    for name in found:
        if name.endswith(ALONE):
            continue
        row: list[Cell] = [name]
        for called in (name, f"{name}{ALONE}"):
            cpu, times = figure(found[called]), figures.get(f"{called} over {BARE}")
            shown = f"{times.median:.2f} ({times.low:.2f}-{times.high:.2f})" if times else "1"
            row += [cpu.median, shown]
        rows.append(row)
    columns = ["call", "CPU, us", "so many times the bare script", "alone, us", "so many times it"]
    return Table("", columns, rows)
