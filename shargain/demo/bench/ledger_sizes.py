"""What the ledger of one quota costs as it grows: recording slots, taking them directly, absorbing the subject."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Any

import psycopg

from quota_redis import Counters
from quota_redis.postgres import Ledger, absorb, compact
from shargain.demo.bench import Bench, Case, Cell, Curve, Figure, Result, Table, paragraphs
from shargain.demo.bench.redis_tools import counters
from shargain.demo.bench.rounds import figure, interleaved, middle, ratio, rounded
from shargain.demo.bench.subjects import insert_quotas, ledger

SIZES = (1, 100, 10_000, 1_000_000)
QUICK_SIZES = (1, 10_000)
BATCH = 20
"""Slots that one transaction used, and so one row of a ledger that was not compacted."""
LIMIT = 4_000_000
CALLS = 20
ABSORBS = 3
MOST_ROUNDS = 7
RECORD, TAKE, ABSORB = f"record {BATCH} slots", "take a slot directly", "absorb the subject"

NOTES = paragraphs(
    f"""
One quota whose ledger has so many used slots, in rows of {BATCH} as batches leave them; then compacted, which
happens by itself above some hundred rows. Milliseconds of a call from one client over the loopback, in a
transaction of its own, without `synchronous_commit`, for the disk is not what is asked about; absorb is what
brings Redis in line with the ledger, after an edit or a loss of Redis.
"""
)


def cases() -> tuple[Case, ...]:
    return (Case("ledger", "Cost over the ledger's size", run),)


@dataclass(slots=True)
class World:
    """The servers, and each size's quota: target:0 has the first, and so on."""

    connection: "psycopg.Connection[Any]"
    ledger: Ledger
    counters: Counters
    sizes: Sequence[int]
    quota_ids: list[int]

    def turns(self) -> dict[str, Callable[[], float]]:
        """For each operation and size what measures it, in milliseconds a call."""
        found: dict[str, Callable[[], float]] = {}
        for at, size in enumerate(self.sizes):
            # Above what was filled, and below what the direct road takes from the top.
            slots = count(size + 1 + BATCH * 1000, BATCH)
            found[f"{RECORD} {size}"] = partial(_timed, CALLS, partial(self._record, at, slots))
            found[f"{TAKE} {size}"] = partial(_timed, CALLS, partial(self._take, at))
            found[f"{ABSORB} {size}"] = partial(_timed, ABSORBS, partial(self._absorb, at))
        return found

    def _record(self, at: int, slots: "count[int]") -> None:
        first = next(slots)
        with self.connection.transaction():
            self.ledger.record_slots(
                self.connection,
                f"target:{at}",
                self.quota_ids[at],
                ((first, first + BATCH - 1),),
                BATCH,
            )

    def _take(self, at: int) -> None:
        with self.connection.transaction():
            taken = self.ledger.take(self.connection, f"target:{at}", self.quota_ids[at], 1)
        assert taken

    def _absorb(self, at: int) -> None:
        assert absorb(self.counters, self.ledger, self.connection, [f"target:{at}"]) == 1


def run(bench: Bench) -> Result:
    # Neither a disk that is slow for a moment nor autovacuum has to do with the size.
    postgres = bench.postgres(autovacuum="off", synchronous_commit="off")
    valkey = bench.valkey()
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        world = _filled(connection, counters(valkey.url), bench)
        turns, rounds = world.turns(), min(bench.rounds, MOST_ROUNDS)
        tables, curves = [], []
        figures: dict[str, Figure] = {}
        for state in ("rows of batches", "compacted"):
            bench.say(f"measuring {state} ...")
            rows = [_rows(connection, quota) for quota in world.quota_ids]
            found = interleaved(turns, rounds)
            figures |= _figures(world.sizes, state, found)
            tables.append(_table(world.sizes, state, rows, found))
            curves.append(_curve(world.sizes, state, found))
            if state == "rows of batches":
                seconds = _compact(world, bench)
    notes = (*NOTES, f"Compacting all of them took {rounded(seconds)} s.")
    return Result(figures, tables, curves, notes)


def _filled(connection: "psycopg.Connection[Any]", mine: Counters, bench: Bench) -> World:
    exact = ledger(connection)
    sizes = SIZES if bench.is_full else QUICK_SIZES
    insert_quotas(connection, len(sizes), LIMIT)
    ids = connection.execute("SELECT id FROM bench_target_quota ORDER BY target_id").fetchall()
    world = World(connection, exact, mine, sizes, [row[0] for row in ids])
    for quota, size in zip(world.quota_ids, sizes, strict=True):
        bench.say(f"a ledger of {size:,} slots ...")
        connection.execute(
            """INSERT INTO quota_redis_ledger (namespace, quota_id, slots)
            SELECT %(namespace)s, %(quota)s, int8range(n, least(n + %(batch)s, %(size)s + 1))
            FROM generate_series(1, %(size)s, %(batch)s) n""",
            {"namespace": exact.namespace, "quota": quota, "batch": BATCH, "size": size},
        )
    connection.execute("VACUUM ANALYZE")
    return world


def _compact(world: World, bench: Bench) -> float:
    bench.say("compacting ...")
    began = time.perf_counter()
    compact(world.ledger, world.connection, above=1)
    took = time.perf_counter() - began
    world.connection.execute("VACUUM ANALYZE")
    return took


def _timed(calls: int, work: Callable[[], None]) -> float:
    began = time.perf_counter()
    for _ in range(calls):
        work()
    return (time.perf_counter() - began) / calls * 1000


def _rows(connection: "psycopg.Connection[Any]", quota: int) -> int:
    row = connection.execute(
        "SELECT count(*) FROM quota_redis_ledger WHERE quota_id = %s", (quota,)
    ).fetchone()
    return int(row[0]) if row else 0


def _figures(sizes: Sequence[int], state: str, found: dict[str, list[float]]) -> dict[str, Figure]:
    low, *higher = sizes
    return {
        f"{name}, {state}, {high:,} over {low} slots": ratio(
            found[f"{name} {high}"], found[f"{name} {low}"], better="lower", slack=1
        )
        for name in (RECORD, TAKE, ABSORB)
        for high in higher
    }


def _table(
    sizes: Sequence[int], state: str, rows: Sequence[int], found: dict[str, list[float]]
) -> Table:
    lines: list[list[Cell]] = [
        [f"{size:,}", number, *(_shown(found[f"{name} {size}"]) for name in (RECORD, TAKE, ABSORB))]
        for size, number in zip(sizes, rows, strict=True)
    ]
    columns = ["slots used", "rows", *(f"{name}, ms" for name in (RECORD, TAKE, ABSORB))]
    return Table(state.capitalize(), columns, lines)


def _shown(values: Sequence[float]) -> str:
    found = figure(values)
    return f"{found.median} ({found.low}-{found.high})"


def _curve(sizes: Sequence[int], state: str, found: dict[str, list[float]]) -> Curve:
    series: dict[str, Sequence[float | None]] = {
        name: [middle(found[f"{name} {size}"]) for size in sizes] for name in (RECORD, TAKE, ABSORB)
    }
    return Curve(
        f"ledger-{state.replace(' ', '-')}", f"Ledger, {state}", "slots used", "milliseconds",
        sizes, series, log_y=True,
    )  # fmt: skip
