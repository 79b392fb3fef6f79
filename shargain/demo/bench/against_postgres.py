"""consume against a conditional UPDATE of a counter row in PostgreSQL, from two processes."""

import multiprocessing
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from multiprocessing.connection import Connection

import psycopg

from shargain.demo.bench import Bar, Bench, Case, Cell, Figure, Result, Table, paragraphs
from shargain.demo.bench.against_postgres_process import (
    IN_MEMORY,
    NO_KEY,
    OURS,
    UPDATES,
    Places,
    obey,
)
from shargain.demo.bench.redis_tools import FAR, counters, quota
from shargain.demo.bench.rounds import interleaved, middle, ratio, spread

PROCESSES = 2
ROWS = {"one hot row": 1, "1,000 rows": 1000}
QUICK_SECONDS, FULL_SECONDS = 0.4, 1.0
ANSWER_SECONDS = 30.0
# As good as such a table gets: room on its pages for the new versions of a row, and no index on the count.
TABLE_SQL = """
CREATE TABLE bench_quota (id bigint PRIMARY KEY, used bigint NOT NULL, quota_limit bigint NOT NULL)
WITH (fillfactor = 50);
INSERT INTO bench_quota SELECT n, 0, {limit} FROM generate_series(0, {last}) n;
"""

NOTES = paragraphs(
    f"""
{PROCESSES} processes, a unit a call, which is a transaction of its own in PostgreSQL; `synchronous_commit`
and `fsync` are on. The row is updated where its count is below its limit, by psycopg in autocommit (which
prepares the statement) and by Django's `filter(...).update(used=F("used") + 1)`.

Consume has an idempotency key, but for the row without: that does what the UPDATE does. Valkey writes an
append-only file, synced every second, but for the row that says *in memory*: a plain counter is as durable as
its Redis, and the row of PostgreSQL is durable once it is committed. What is exact and durable, with a ledger,
is measured with batches of offers.
"""
)


def cases() -> tuple[Case, ...]:
    return (Case("postgres", "consume against a conditional UPDATE in PostgreSQL", run, BARS),)


BARS = (
    Bar(
        "against PostgreSQL conditional UPDATE, 2 processes, synchronous commit, one hot row",
        f"{NO_KEY} over {UPDATES[0]}, one hot row",
        at_least=5,
    ),
    Bar(
        "the same, of consume with an idempotency key, which an UPDATE has not",
        f"consume over {UPDATES[0]}, one hot row",
        at_least=5,
    ),
)


def run(bench: Bench) -> Result:
    postgres, valkey, in_memory = bench.postgres(), bench.valkey(persistent=True), bench.valkey()
    _prepare_postgres(postgres.url)
    for url in (valkey.url, in_memory.url):
        _prepare_valkey(url)
    seconds = FULL_SECONDS if bench.is_full else QUICK_SECONDS
    figures: dict[str, Figure] = {}
    tables = []
    with _crew(Places(valkey.url, in_memory.url, postgres.url)) as crew:
        for name, rows in ROWS.items():
            bench.say(name)
            turns = {
                peer: partial(_turn, crew, (peer, rows, seconds))
                for peer in (OURS, NO_KEY, IN_MEMORY, *UPDATES)
            }
            speeds = interleaved(turns, bench.rounds, bench.say)
            for peer in (IN_MEMORY, *UPDATES):
                # Four processes on two cores.
                found = ratio(speeds[OURS], speeds[peer], slack=0.3)
                figures[f"consume over {peer}, {name}"] = found
            for peer in UPDATES:
                found = ratio(speeds[NO_KEY], speeds[peer], slack=0.3)
                figures[f"{NO_KEY} over {peer}, {name}"] = found
            tables.append(_table(name, speeds))
    return Result(figures, tables, notes=NOTES)


def _table(title: str, speeds: dict[str, list[float]]) -> Table:
    rows: list[list[Cell]] = [
        [name, middle(values), spread(values), ratio(speeds[OURS], values).median]
        for name, values in speeds.items()
    ]
    return Table(title, ["", "calls/s", "from-to", "consume is so many times it"], rows)


def _prepare_postgres(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(TABLE_SQL.format(limit=FAR, last=max(ROWS.values()) - 1).encode())
        connection.execute("VACUUM ANALYZE bench_quota")


def _prepare_valkey(url: str) -> None:
    mine = counters(url)
    for number in range(max(ROWS.values())):
        mine.define(f"target:{number}", quota())
    mine.close()


@contextmanager
def _crew(places: Places) -> Iterator[list[Connection]]:
    """Processes that do as they are told through their pipes, and end with them."""
    spawn = multiprocessing.get_context("spawn")
    pipes, processes = [], []
    try:
        for number in range(PROCESSES):
            here, there = spawn.Pipe()
            process = spawn.Process(target=obey, args=(there, places, number), daemon=True)
            process.start()
            there.close()
            pipes.append(here)
            processes.append(process)
        yield pipes
    finally:
        for pipe in pipes:
            pipe.close()
        for process in processes:
            process.join()


def _turn(crew: Sequence[Connection], order: tuple[str, int, float]) -> float:
    """Calls a second of all processes."""
    for pipe in crew:
        pipe.send(order)
    return sum(_answer(pipe) for pipe in crew)


def _answer(pipe: Connection) -> float:
    if not pipe.poll(ANSWER_SECONDS):
        raise TimeoutError(f"a process did not answer within {ANSWER_SECONDS:.0f} s.")
    return float(pipe.recv())
