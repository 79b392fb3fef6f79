"""The creation of batches end to end, against the same insert without a quota and with a guard row.

    python -m shargain.demo.bench.ingestion --processes 2 --rounds 5 --scenario "20 targets" spent

Real PostgreSQL (durable) and Valkey; processes post batches of 20 real listings by what an application calls. In
each round every peer posts as many batches as the others, in an order that changes; each has targets of its own,
all in the same tables. Client, PostgreSQL and Redis share the cores of the machine, so the CPU of a batch is told
beside its time: of a busy machine it says more.
"""

import argparse
import os
import random
import secrets
import statistics
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path

from shargain.demo.bench import Bar, Bench, Case, Cell, Figure, Result, Table
from shargain.demo.bench.ingestion_processes import Order, Processes
from shargain.demo.bench.rounds import figure, middle, ratio
from shargain.demo.load import set_up
from shargain.demo.servers import Postgres, Valkey

FAR = 10**9
SIZE = 20
MANY = 8
"""Processes where more post than there are cores."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """Targets that a peer has, how many offers of each batch it knows already, and the limit.

    batches: of each process in a round; of 20 targets so many that stocks are seen grown, too.
    """

    name: str
    targets: int
    duplicates: int = 0
    limit: int = FAR
    batches: int = 200
    is_quick: bool = False


SCENARIOS = (
    Scenario("one target", 1, is_quick=True),
    Scenario("one target, 50 % known", 1, 10),
    Scenario("one target, 95 % known", 1, 19),
    Scenario("20 targets", 20, batches=800, is_quick=True),
    Scenario("20 targets, 50 % known", 20, 10, batches=800),
    Scenario("20 targets, 95 % known", 20, 19, batches=800),
    Scenario("2,000 targets", 2000),
    Scenario("spent", 20, 0, 0, is_quick=True),
)
PEERS = {
    "ours": "exact",
    "ours, no stocks": "exact_without_stocks",
    "ours, no quota active": "exact",
    "no quota": "plain",
    "bare INSERT": "bare",
    "guard row": "guard",
    "guard row, no look": "guard_without_look",
    "check, then insert": "check_then_insert",
}
WITHOUT_QUOTA = ("ours, no quota active", "no quota", "bare INSERT")
QUICK = ("ours", "ours, no stocks", "no quota", "guard row", "guard row, no look")
NOTES = (
    "Ours: as it comes, with stocks of slots in each process; no stocks: each batch asks Redis for its own.",
    "No quota: the same validation and the same statement, with the same report of duplicates, in one call.",
    "Bare INSERT: of offers that nobody validated, with ON CONFLICT DO NOTHING; it tells nothing.",
    "Guard row: the same, with a conditional UPDATE of the quota's row at the end, where the lock is shortest.",
    "It looks at the row before, so that a spent quota is refused by reading alone. It is exact.",
    "Guard row, no look: without that look; what does not fit is rolled back, and done again under a lock.",
    "Check, then insert: by Django's models. Over-admits.",
)


@dataclass(slots=True)
class Seen:
    """What a peer did in one round; CPU in microseconds a batch."""

    per_second: float
    median_ms: float
    p99_ms: float
    client_us: float
    postgres_us: float
    redis_us: float

    @property
    def cpu_us(self) -> float:
        return self.client_us + self.postgres_us + self.redis_us


class Ground:
    """Servers with the tables, and processes that post to them."""

    def __init__(self, postgres: Postgres, redis: Valkey, processes: int, stack: ExitStack) -> None:
        os.environ.update(
            DATABASE_URL=postgres.url,
            REDIS_URL=redis.url,
            DJANGO_SETTINGS_MODULE="shargain.settings",
            DJANGO_SECRET_KEY=secrets.token_urlsafe(50),
            QUOTA_TIMEOUT_SECONDS="2",
            LOG_LEVEL="ERROR",
        )
        set_up()
        from shargain.demo.bench.ingestion_peers import sql

        self._execute(sql())
        self._postgres, self._redis, self._count = postgres, redis, processes
        self._processes = stack.enter_context(Processes(processes))

    def measure(
        self, scenario: Scenario, peers: Sequence[str], rounds: int, batches: int
    ) -> dict[str, list[Seen]]:
        """So many rounds, in each of which every peer posts so many batches by each process."""
        orders = {peer: self._prepare(scenario, peer, batches) for peer in peers}
        # As autovacuum would have done; a checkpoint would fall on one peer, and not on the next.
        self._execute("VACUUM ANALYZE")
        self._execute("CHECKPOINT")
        for order in orders.values():
            self._post(order.with_batches(30))
        seen: dict[str, list[Seen]] = {peer: [] for peer in peers}
        for _ in range(rounds):
            for peer in random.sample(list(peers), len(peers)):
                seen[peer].append(self._post(orders[peer]))
        return seen

    def _prepare(self, scenario: Scenario, peer: str, batches: int) -> Order:
        targets = self._targets(scenario, has_quota=peer not in WITHOUT_QUOTA)
        order = Order(PEERS[peer], targets, batches, SIZE, scenario.duplicates)
        fresh = Order(order.peer, targets, min(max(20, 2 * len(targets)), 2000), SIZE, 0)
        self._post(fresh)
        return order

    def _targets(self, scenario: Scenario, *, has_quota: bool) -> list[int]:
        from django.contrib.auth import get_user_model
        from django.utils import timezone

        from shargain.offers.models import ScrapingTarget
        from shargain.offers.services.quota import QuotaService

        owner, _ = get_user_model().objects.get_or_create(username="bench")
        made = ScrapingTarget.objects.bulk_create(
            ScrapingTarget(owner=owner, name="Bench") for _ in range(scenario.targets)
        )
        start, service = timezone.now() - timedelta(minutes=1), QuotaService()
        for target in made if has_quota else ():
            service.set_new_quota(target, max_offers_per_period=scenario.limit, period_start=start)
        return [target.pk for target in made]

    def _post(self, order: Order) -> Seen:
        self._processes.prepare(order)
        before = self._server_seconds()
        seen = self._processes.post()
        after = self._server_seconds()
        batches = order.batches * self._count
        spans = sorted(span * 1000 for each in seen for span in each.spans)
        return Seen(
            sum(order.batches / each.seconds for each in seen),
            statistics.median(spans),
            spans[(len(spans) - 1) * 99 // 100],
            sum(each.cpu_seconds for each in seen) / batches * 1e6,
            (after[0] - before[0]) / batches * 1e6,
            (after[1] - before[1]) / batches * 1e6,
        )

    def _server_seconds(self) -> tuple[float, float]:
        """CPU that PostgreSQL and Redis have used."""
        return sum(map(_seconds, _family(self._postgres.pid))), _seconds(self._redis.pid)

    @staticmethod
    def _execute(query: str) -> None:
        from django.db import connection

        with connection.cursor() as cursor:
            cursor.execute(query, None)


def _family(pid: int) -> list[int]:
    listed = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii")
    return [pid, *(found for child in listed.split() for found in _family(int(child)))]


def _seconds(pid: int) -> float:
    return int(Path(f"/proc/{pid}/schedstat").read_text(encoding="ascii").split()[0]) / 1e9


def run(bench: Bench, *, processes: int) -> Result:
    """What scripts/bench asks for."""
    postgres = bench.postgres(shared_buffers="512MB", autovacuum="off")
    redis = bench.valkey(persistent=True)
    chosen = [
        scenario
        for scenario in SCENARIOS
        if (bench.is_full or scenario.is_quick) and (processes < MANY or scenario.targets == 1)
    ]
    # Each peer of each scenario makes its batches first, which takes longer than to post them. Rounds of
    # a quick run are as long as those that it is compared with: they end with stocks of the same size.
    rounds = min(bench.rounds, 7 if bench.is_full else 5)
    figures: dict[str, Figure] = {}
    tables = []
    with ExitStack() as stack:
        ground = Ground(postgres, redis, processes, stack)
        for scenario in chosen:
            bench.say(f"  {scenario.name}")
            seen = ground.measure(
                scenario,
                list(PEERS) if bench.is_full else QUICK,
                rounds,
                scenario.batches // 2 if processes == MANY else scenario.batches,
            )
            figures |= figures_of(scenario, seen)
            tables.append(table_of(f"{scenario.name}, {processes} processes", seen))
    return Result(figures, tables, notes=NOTES)


def figures_of(scenario: Scenario, seen: dict[str, list[Seen]]) -> dict[str, Figure]:
    """How ours compares, within each round: speed, the 99th percentile of the time, CPU of all together."""
    ours = seen["ours"]
    found = {}
    for peer in ("no quota", "guard row", "guard row, no look"):
        theirs = seen.get(peer)
        # Where everything is refused, an insert without a quota does other work.
        if theirs is None or (peer == "no quota" and not scenario.limit):
            continue
        name = f"{scenario.name}: {{}} over {peer}"
        found[name.format("ours")] = ratio(_all(ours, "per_second"), _all(theirs, "per_second"))
        found[name.format("p99 of ours")] = ratio(
            _all(ours, "p99_ms"), _all(theirs, "p99_ms"), better="lower", slack=None
        )
        found[name.format("CPU of ours")] = ratio(
            _all(ours, "cpu_us"), _all(theirs, "cpu_us"), better="lower", slack=0.1
        )
    found[f"{scenario.name}: batches"] = figure(_all(ours, "per_second"), unit="/s", slack=None)
    return found


def table_of(title: str, seen: dict[str, list[Seen]]) -> Table:
    columns = {
        "batches/s": "per_second",
        "median ms": "median_ms",
        "99th ms": "p99_ms",
        "client us": "client_us",
        "PostgreSQL us": "postgres_us",
        "Redis us": "redis_us",
    }
    rows: list[list[Cell]] = []
    for peer, rounds in seen.items():
        speeds = ratio(_all(seen["ours"], "per_second"), _all(rounds, "per_second"))
        cpu = ratio(_all(rounds, "cpu_us"), _all(seen["ours"], "cpu_us"))
        medians = [middle(_all(rounds, name)) for name in columns.values()]
        spread = f"{speeds.median} ({speeds.low}-{speeds.high})"
        rows.append([peer, *medians, spread, cpu.median])
    return Table(title, ["", *columns, "ours over it", "its CPU over ours"], rows)


def _all(rounds: Sequence[Seen], name: str) -> list[float]:
    return [getattr(each, name) for each in rounds]


def _bars(processes: int) -> tuple[Bar, ...]:
    if processes == MANY:
        hot = "one target: {} over guard row"
        return (
            Bar("one hot target, against a guard row", hot.format("ours"), at_least=1.25),
            Bar("its 99th percentile", hot.format("p99 of ours"), at_most=0.5),
        )
    guarded = tuple(
        Bar(
            f"a batch for {scenario.name}, against a guard row",
            f"{scenario.name}: ours over guard row",
            at_least=1.0,
        )
        for scenario in SCENARIOS
        if scenario.limit
    )
    return (
        Bar("quota added to one target", "one target: ours over no quota", 0.75, aim=0.85),
        Bar("quota added to 20 targets", "20 targets: ours over no quota", 0.85, aim=0.95),
        *guarded,
        Bar(
            "a spent quota, against a guard row",
            "spent: ours over guard row, no look",
            2.0,
            aim=3.0,
        ),
        Bar(
            "the same, against a guard row that is looked at first",
            "spent: ours over guard row",
            2.0,
            aim=3.0,
        ),
    )


def cases() -> tuple[Case, ...]:
    return tuple(
        Case(name, title, partial(run, processes=processes), _bars(processes), processes < MANY)
        for name, title, processes in (
            ("ingestion", "Batches of 20 offers, posted by 2 processes", 2),
            ("ingestion-hot", "Batches of 20 offers, posted by 8 processes", MANY),
        )
    )


def main() -> None:
    """Some scenarios by themselves, as text."""
    from shargain.demo.bench.process import OwnBench

    parser = argparse.ArgumentParser(description="Measure the creation of batches end to end.")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batches", type=int, help="of each process in a round")
    parser.add_argument("--scenario", nargs="*", default=[each.name for each in SCENARIOS])
    parser.add_argument("--peers", nargs="*", default=["ours", *PEERS])
    options = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="shargain-bench-")))
        folder.chmod(0o711)
        bench = stack.enter_context(OwnBench("full", folder))
        postgres = bench.postgres(shared_buffers="512MB", autovacuum="off")
        ground = Ground(postgres, bench.valkey(persistent=True), options.processes, stack)
        peers = list(dict.fromkeys(["ours", *options.peers]))
        for scenario in SCENARIOS:
            if scenario.name in options.scenario:
                batches = options.batches or scenario.batches
                _show(scenario, ground.measure(scenario, peers, options.rounds, batches))


def _show(scenario: Scenario, seen: dict[str, list[Seen]]) -> None:
    table = table_of(scenario.name, seen)
    print(table.title)
    for row in [table.columns, *table.rows]:
        print(f"  {row[0]:24}" + "".join(f"{cell!s:>19}" for cell in row[1:]))
    print(flush=True)


if __name__ == "__main__":
    main()
