"""Write-back and recovery of many targets: counts written, whole syncs, first load, audit, rebuild.

    python -m shargain.demo.bench.scale --targets 200000

Real PostgreSQL (durable) and Valkey, the tables and triggers of shargain; every target has a quota and used slots.
"""

import argparse
import json
import os
import random
import secrets
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quota_redis import Reservation
from shargain.demo.bench import Bar, Bench, Case, Cell, Figure, Result, Table
from shargain.demo.bench.rounds import (
    figure,
    interleaved,
    middle,
    ratio,
    rounded,
    speed,
    spread,
)
from shargain.demo.load import set_up
from shargain.demo.servers import Postgres, Valkey

if TYPE_CHECKING:
    from quota_redis.django.engine import Engine

TARGETS = {"full": 1_000_000, "quick": 50_000, "smoke": 2_000}
LIMIT = 1000
WRITTEN = 100_000
"""Most counts that are written in a turn."""
AT_ONCE = 1000
FIRST_LOAD = "first load, by rebuild"
FEW_OF_TENTH, FEW_OF_ALL = "few of a tenth", "few of all"
SERVER = {"shared_buffers": "512MB", "autovacuum": "off"}

FILL_SQL = (
    """INSERT INTO auth_user (username, password, first_name, last_name, email, is_superuser, is_staff, is_active,
                              date_joined)
    VALUES ('bench', '', '', '', '', false, false, true, now()) ON CONFLICT DO NOTHING""",
    """INSERT INTO offers_scrapingtarget (name, owner_id, is_active)
    SELECT 'Target ' || n, (SELECT min(id) FROM auth_user), true FROM generate_series(1, {count}) AS n""",
    # With the triggers: versions, void tails, marks, and the history of edits.
    """INSERT INTO offers_offerquota (target_id, max_offers_per_period, used_offers_count, period_start)
    SELECT id, {limit}, 1 + id % 50, now() - interval '1 day' FROM offers_scrapingtarget t
    WHERE NOT EXISTS (SELECT 1 FROM offers_offerquota q WHERE q.target_id = t.id) ORDER BY id""",
    """INSERT INTO quota_redis_ledger (namespace, quota_id, slots)
    SELECT '{namespace}', id, int8range(1, 1 + used_offers_count) FROM offers_offerquota q
    WHERE NOT EXISTS (
        SELECT 1 FROM quota_redis_ledger WHERE namespace = '{namespace}' AND quota_id = q.id AND NOT void
    ) ORDER BY id""",
    "VACUUM ANALYZE",
    "CHECKPOINT",
)


@dataclass(frozen=True, slots=True)
class Seen:
    """What something took: seconds, CPU in microseconds a target, and how far the process grew, in MB."""

    what: str
    count: int
    seconds: float
    postgres_us: float
    redis_us: float
    python_us: float
    grown_mb: float

    @property
    def per_second(self) -> float:
        return self.count / self.seconds

    @property
    def cpu_us(self) -> float:
        return self.postgres_us + self.redis_us + self.python_us


class Ground:
    """Servers, with targets to come."""

    def __init__(self, postgres: Postgres, redis: Valkey) -> None:
        os.environ.update(
            DATABASE_URL=postgres.url,
            REDIS_URL=redis.url,
            DJANGO_SETTINGS_MODULE="shargain.settings",
            DJANGO_SECRET_KEY=secrets.token_urlsafe(50),
            QUOTA_TIMEOUT_SECONDS="5",
            LOG_LEVEL="ERROR",
        )
        set_up()
        from quota_redis.django.engine import engine_for
        from shargain.offers.models import OfferQuota

        self._postgres, self._redis = postgres, redis
        self.engine: Engine = engine_for(OfferQuota)
        self.counters, self.ledger = self.engine.counters, self.engine.ledger
        self.dice = random.Random(1)  # noqa: S311  no secret, only the same again

    @property
    def connection(self) -> Any:
        return self.engine.connection()

    def execute(self, query: str) -> list[tuple[Any, ...]]:
        cursor = self.connection.execute(query.encode())
        return cursor.fetchall() if cursor.description else []

    def fill(self, count: int) -> None:
        """Make so many targets more, each with a quota and used slots, by the statements a database does best."""
        for query in FILL_SQL:
            self.execute(query.format(count=count, limit=LIMIT, namespace=self.ledger.namespace))

    def ids(self) -> list[int]:
        """Of all quotas."""
        return [row[0] for row in self.execute("SELECT id FROM offers_offerquota ORDER BY id")]

    def forget(self) -> None:
        """Redis loses everything, and PostgreSQL has no marks for it."""
        self.counters.connection.client.flushdb()
        self.execute("TRUNCATE quota_redis_mark")

    def mark_all(self) -> None:
        """As if each subject were new."""
        self.execute(
            "INSERT INTO quota_redis_mark (namespace, subject) SELECT namespace, subject FROM quota_redis_subject"
        )

    def use_one_of(self, count: int) -> None:
        """Use a unit of so many targets, as workers do: a slot is reserved, recorded and settled."""
        rows = self.execute("SELECT target_id FROM offers_offerquota")
        subjects = [f"target:{row[0]}" for row in self.dice.sample(rows, count)]
        for at in range(0, count, AT_ONCE):
            wanted = [(subject, 1) for subject in subjects[at : at + AT_ONCE]]
            held = [r for r in self.counters.reserve_many(wanted) if isinstance(r, Reservation)]
            assert len(held) == len(wanted)
            self._record(held)
            self.counters.settle_many((reservation, 1) for reservation in held)

    def _record(self, held: Sequence[Reservation]) -> None:
        connection = self.connection
        columns = "quota_redis_ledger (namespace, quota_id, slots)"
        with (
            connection.transaction(),
            connection.cursor() as cursor,
            cursor.copy(f"COPY {columns} FROM STDIN") as copy,
        ):
            for reservation in held:
                lo, hi = reservation.ranges[0]
                row = (self.ledger.namespace, reservation.quota_id, f"[{lo},{hi + 1})")
                copy.write_row(row)

    def measure(self, what: str, count: int, do: Callable[[], object]) -> Seen:
        """Do something to so many targets."""
        # So the kernel forgets how large the process ever was.
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        size = _megabytes("VmRSS")
        before = (*self._cpu(), time.process_time(), time.perf_counter())
        do()
        after = (*self._cpu(), time.process_time(), time.perf_counter())
        postgres, redis, python, seconds = (b - a for a, b in zip(before, after, strict=True))
        each = 1e6 / count
        grown = max(0.0, _megabytes("VmHWM") - size)
        return Seen(what, count, seconds, postgres * each, redis * each, python * each, grown)

    def _cpu(self) -> tuple[float, float]:
        """Seconds that PostgreSQL and Redis have used."""
        return sum(map(_seconds, _family(self._postgres.pid))), _seconds(self._redis.pid)


def _family(pid: int) -> Iterator[int]:
    yield pid
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split():
        yield from _family(int(child))


def _seconds(pid: int) -> float:
    return int(Path(f"/proc/{pid}/schedstat").read_text(encoding="ascii").split()[0]) / 1e9


def _megabytes(name: str) -> float:
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.split(f"{name}:")[1].split()[0]) / 1024


class Measured:
    """Everything that grows with targets or with changes."""

    def __init__(self, ground: Ground, targets: int, say: Callable[[str], None]) -> None:
        from quota_redis.postgres import audit, rebuild, sync

        parts = (ground.counters, ground.ledger, ground.connection)
        self._sync, self._rebuild = partial(sync, *parts), partial(rebuild, *parts)
        self._audit = partial(audit, *parts)
        self._ground, self._targets, self._say = ground, targets, say
        self.seen: dict[str, Seen] = {}
        self.costs: dict[str, list[float]] = {FEW_OF_TENTH: [], FEW_OF_ALL: []}
        """CPU of all three together, in microseconds a changed target, in each round."""

    def run(self) -> None:
        """First with a tenth of the targets, then with all."""
        ground, targets = self._ground, self._targets
        few, tenth = targets // 100, targets // 10
        self._fill(tenth)
        self._rebuild()
        self._sync()
        self._changes(FEW_OF_TENTH, few, tenth)
        self._fill(targets - tenth)
        self._measure(FIRST_LOAD, targets, self._rebuild)
        self._measure("sync: all are marked as changed", targets, self._sync)
        self._changes(FEW_OF_ALL, few, targets)
        ground.use_one_of(tenth)
        self._measure(f"sync: {tenth:,} of {targets:,} changed", tenth, self._sync)
        ground.use_one_of(few)
        self._measure("the last but one, with history and alerts", few, ground.engine.sync)
        self._measure("audit, nothing wrong", targets, self._audit)
        self._measure("rebuild of what Redis has", targets, self._rebuild)
        ground.forget()
        ground.mark_all()
        self._measure("first load by sync: all are marked as new", targets, self._sync)

    def _fill(self, count: int) -> None:
        self._say(f"  making {count:,} targets")
        self._ground.fill(count)
        self._ground.forget()

    def _changes(self, name: str, few: int, targets: int) -> None:
        for _ in range(3):
            self._ground.use_one_of(few)
            seen = self._measure(f"sync: {few:,} of {targets:,} changed", few, self._sync)
            self.costs[name].append(seen.cpu_us)

    def _measure(self, what: str, count: int, do: Callable[[], object]) -> Seen:
        seen = self._ground.measure(what, count, do)
        self.seen[what] = seen
        self._say(f"  {what}: {seen.seconds:.1f} s")
        return seen


class Writers:
    """Ways to write the same counts, each in a transaction of its own kind."""

    def __init__(self, ground: Ground) -> None:
        from quota_redis.postgres.sync import BATCH

        self._ground = ground
        self._batch = BATCH
        self._ids = ground.ids()
        self._value = 10**6
        self._most = min(WRITTEN, len(self._ids) // 10)

    def turns(self) -> dict[str, Callable[[], float]]:
        """Counts a second; the slow ones write fewer."""
        ways: dict[str, tuple[Callable[[Mapping[int, int]], object], int]] = {
            "ours": (self._ours, self._most),
            "ours, in the order of change": (self._ours, self._most),
            "UPDATE FROM unnest": (self._unnest, self._most),
            "COPY, then UPDATE": (self._copy, self._most),
            "executemany": (self._executemany, self._most // 4),
            "bulk_update": (self._bulk_update, self._most // 20),
        }
        return {name: partial(self._turn, name, *way) for name, way in ways.items()}

    def _turn(self, name: str, write: Callable[[Mapping[int, int]], object], count: int) -> float:
        """So many counts that differ, of quotas picked at random."""
        self._value += 1
        ids = self._ground.dice.sample(self._ids, count)
        if name != "ours, in the order of change":
            ids.sort()
        began = time.perf_counter()
        for at in range(0, count, self._batch):
            write(dict.fromkeys(ids[at : at + self._batch], self._value))
        return count / (time.perf_counter() - began)

    def _ours(self, counts: Mapping[int, int]) -> None:
        from quota_redis.postgres.absorb import write_counts

        with self._ground.connection.transaction():
            written = write_counts(self._ground.ledger, self._ground.connection, counts)
        assert len(written) == len(counts)

    def _unnest(self, counts: Mapping[int, int]) -> None:
        self._ground.connection.execute(
            """UPDATE offers_offerquota q SET used_offers_count = c.used
            FROM unnest(%s::bigint[], %s::bigint[]) AS c (id, used)
            WHERE q.id = c.id AND q.used_offers_count <> c.used""",
            (list(counts), list(counts.values())),
        )

    def _copy(self, counts: Mapping[int, int]) -> None:
        connection = self._ground.connection
        with connection.transaction(), connection.cursor() as cursor:
            cursor.execute(
                "CREATE TEMP TABLE IF NOT EXISTS counts (id bigint, used bigint) ON COMMIT DELETE ROWS"
            )
            with cursor.copy("COPY counts FROM STDIN") as copy:
                copy.write("".join([f"{quota}\t{used}\n" for quota, used in counts.items()]))
            cursor.execute(
                """UPDATE offers_offerquota q SET used_offers_count = c.used FROM counts c
                WHERE q.id = c.id AND q.used_offers_count <> c.used"""
            )

    def _executemany(self, counts: Mapping[int, int]) -> None:
        connection = self._ground.connection
        with connection.transaction(), connection.cursor() as cursor:
            cursor.executemany(
                "UPDATE offers_offerquota SET used_offers_count = %s WHERE id = %s",
                [(used, quota) for quota, used in counts.items()],
            )

    @staticmethod
    def _bulk_update(counts: Mapping[int, int]) -> None:
        from shargain.offers.models import OfferQuota

        changed = [OfferQuota(pk=pk, used_offers_count=used) for pk, used in counts.items()]
        OfferQuota.objects.bulk_update(changed, ["used_offers_count"], batch_size=500)


def run(bench: Bench) -> Result:
    """What scripts/bench asks for."""
    mode = "full" if bench.is_full else "smoke" if bench.rounds == 1 else "quick"
    return measure(bench, TARGETS[mode])


def measure(bench: Bench, targets: int) -> Result:
    """With so many targets, 1,000 or more."""
    ground = Ground(bench.postgres(**SERVER), bench.valkey())
    measured = Measured(ground, targets, bench.say)
    measured.run()
    bench.say("  writing counts")
    ground.execute("VACUUM ANALYZE")
    ground.execute("CHECKPOINT")
    written = interleaved(Writers(ground).turns(), bench.rounds)
    tables = [_written_table(written), _table(measured.seen.values(), targets)]
    return Result(_figures(measured, written), tables, notes=NOTES)


def _figures(measured: Measured, written: Mapping[str, list[float]]) -> dict[str, Figure]:
    load = measured.seen[FIRST_LOAD]
    found = {
        f"ours over {peer}": ratio(written["ours"], rates)
        for peer, rates in written.items()
        if peer in ("executemany", "bulk_update", "COPY, then UPDATE")
    }
    return found | {
        "counts written": speed(written["ours"]),
        "seconds to load a million": figure(
            [1e6 / load.per_second], unit="s", better="lower", slack=None
        ),
        "memory for a first load": figure([load.grown_mb], unit="MB", better="lower", slack=None),
        "CPU of a sync among ten times the targets": ratio(
            measured.costs[FEW_OF_ALL], measured.costs[FEW_OF_TENTH], better="lower", slack=0.5
        ),
    }


def _written_table(written: Mapping[str, list[float]]) -> Table:
    rows: list[list[Cell]] = [
        [name, middle(rates), spread(rates), ratio(written["ours"], rates).median]
        for name, rates in written.items()
    ]
    return Table("Counts written", ["", "counts/s", "spread", "ours over it"], rows)


def _table(seen: Iterable[Seen], targets: int) -> Table:
    columns = ["", "seconds", "a second", "PostgreSQL us", "Redis us", "Python us", "grown MB"]
    rows: list[list[Cell]] = [
        [
            each.what,
            *map(
                rounded,
                (
                    each.seconds,
                    each.per_second,
                    each.postgres_us,
                    each.redis_us,
                    each.python_us,
                    each.grown_mb,
                ),
            ),
        ]
        for each in seen
    ]
    return Table(f"{targets:,} targets", columns, rows)


NOTES = (
    "Counts are written of a tenth of the quotas, picked at random, in batches of 5,000 in the order of ids.",
    "In the order of change: the same batches of ids as they come, as they would without the sorting.",
    "Ours skips rows that somebody has locked, and says which it wrote; the others wait.",
    "bulk_update: Django's, with a batch_size of 500.",
    "CPU is divided by the targets that a row of the table tells; grown: highest resident size less that before.",
)
BARS = (
    Bar("sync of changed counts, a second", "counts written", at_least=150_000),
    Bar("sync of changed counts, against bulk_update", "ours over bulk_update", at_least=15),
    Bar("first load of a million targets, seconds", "seconds to load a million", at_most=60),
    Bar("memory that it takes, MB", "memory for a first load", at_most=100),
    Bar(
        "a sync costs what changed, not what there is",
        "CPU of a sync among ten times the targets",
        at_most=1.5,
    ),
)


def cases() -> tuple[Case, ...]:
    return (Case("scale", "Many targets: counts written, first load, audit", run, BARS),)


def main() -> None:
    """By itself, as JSON."""
    from shargain.demo.bench.process import OwnBench

    parser = argparse.ArgumentParser(description="Measure upkeep of many targets.")
    parser.add_argument("--targets", type=int, default=TARGETS["quick"], metavar="N")
    options = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="shargain-bench-")))
        folder.chmod(0o711)
        bench = stack.enter_context(OwnBench("quick", folder))
        result = measure(bench, max(1000, options.targets))
    for table in result.tables:
        print(json.dumps([table.columns, *table.rows]).replace("], [", "],\n ["))
    print(json.dumps({name: each.median for name, each in result.figures.items()}, indent=1))


if __name__ == "__main__":
    main()
