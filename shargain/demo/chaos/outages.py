"""What outages cost: throughput and waiting without Redis, PostgreSQL away for a while, Redis empty."""

import json
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.db import connection
from django.utils import timezone

from shargain.demo import figures
from shargain.demo.broker import queued
from shargain.demo.chaos import journal
from shargain.demo.chaos.client import ROADS, Plan
from shargain.demo.chaos.proxy import Mode
from shargain.demo.chaos.world import WORKERS, Servers, World, client
from shargain.demo.judge import judge
from shargain.demo.load_process import Plan as LoadPlan
from shargain.demo.load_process import Seen
from shargain.demo.measuring import make_targets, posting
from shargain.offers.models import FailedBatch
from shargain.offers.services.quota import QuotaService

PROCESSES = 3
BATCH = 20
TARGETS = 20
LIMIT = 1_000_000
SECONDS = 10
LOSS_SECONDS = 40
LOST_AFTER_SECONDS = 8.0
POSTGRES_DOWN_SECONDS = 5.0
END_SECONDS = 60.0
LOOK_SECONDS = 0.1
NORMAL = 0.9
_QUEUE = "queue"

_MAKE_MANY = """
WITH made AS (
    INSERT INTO offers_scrapingtarget (name, owner_id, is_active)
    SELECT 'Subject ' || n, %s, true FROM generate_series(1, %s) AS n RETURNING id
), defined AS (
    INSERT INTO offers_offerquota (target_id, max_offers_per_period, used_offers_count, period_start)
    SELECT id, %s, 0, %s FROM made
) SELECT id FROM made
"""
_TRIED = "SELECT last_value FROM offers_offer_id_seq"
_ROLLED_BACK = "SELECT xact_rollback FROM pg_stat_database WHERE datname = current_database()"


@dataclass(frozen=True, slots=True)
class Sample:
    """How many offers had been tried at a moment, in seconds."""

    at: float
    tried: int


class Outages:
    """Measures on servers that answer already.

    Args:
        subjects: how many Redis is to lose.
        say: where to report.
    """

    def __init__(self, servers: Servers, *, subjects: int, say: Callable[[str], None]) -> None:
        self._servers = servers
        self._subjects = subjects
        self._say = say
        self._folder = servers.folder / "processes"
        self._timeout_ms = float(os.environ["QUOTA_TIMEOUT_SECONDS"]) * 1000

    def measure(self) -> dict[str, Any]:
        """Measure everything, and return the report; `violations` in it is empty where all was exact."""
        call_command("migrate", verbosity=0, interactive=False)
        report: dict[str, Any] = {"timeout_of_redis_ms": self._timeout_ms}
        targets = make_targets(TARGETS, (LIMIT, LIMIT))
        report["throughput"] = self._throughput(targets)
        report["redis_comes_back"] = self._come_back(targets)
        report["postgresql_away"], lost = self._postgres_away()
        report["redis_lost"] = self._lose_redis()
        self._say("Judging ...")
        violations = [str(each) for each in judge(figures.take(figures.LimitWatch()))]
        report["violations"] = violations + [f"batch {each} was queued and lost" for each in lost]
        return report

    def _throughput(self, targets: Sequence[int]) -> dict[str, Any]:
        """The same load with Redis, without it, and with one that never answers."""
        found = {"normal": self._loaded("normal", targets)}
        self._servers.quotas.kill()
        found["redis_dead"] = self._loaded("with Redis dead", targets)
        self._servers.quotas.start()
        self._servers.to_quotas.mode = Mode.HOLD
        found["redis_silent"] = self._loaded("with a silent Redis", targets)
        self._servers.to_quotas.mode = Mode.PASS
        normal = found["normal"]["batches_per_second"]
        for each in found.values():
            each["share_of_normal"] = round(each["batches_per_second"] / normal, 2)
        return found

    def _loaded(self, name: str, targets: Sequence[int]) -> dict[str, Any]:
        self._say(f"Posting for {SECONDS} s {name} ...")
        with self._posting(targets, SECONDS) as results:
            return self._summary(results())

    def _summary(self, seen: Sequence[Seen]) -> dict[str, Any]:
        spans = sorted(
            span
            for each in seen
            for span in (*each.creating_ms, *each.knowing_ms, *each.refused_ms)
        )
        rate = sum(
            (len(each.creating_ms) + len(each.knowing_ms) + len(each.refused_ms)) / each.seconds
            for each in seen
        )
        return {
            "batches_per_second": round(rate, 1),
            "median_ms": round(spans[len(spans) // 2], 1),
            "99th_ms": round(spans[len(spans) * 99 // 100], 1),
            "longest_ms": round(spans[-1], 1),
            "calls_beyond_the_timeout": sum(span > self._timeout_ms for span in spans),
            "calls_beyond_twice_the_timeout": sum(span > 2 * self._timeout_ms for span in spans),
            "calls": len(spans),
        }

    def _come_back(self, targets: Sequence[int]) -> dict[str, Any]:
        """How long after a silence of Redis it is used again as before."""
        self._say("Waiting for Redis to be used again ...")
        with self._posting(targets, SECONDS) as results, client(self._servers.quotas) as quotas:

            def calls_per_second(seconds: float) -> float:
                before = _calls(quotas)
                time.sleep(seconds)
                return (_calls(quotas) - before) / seconds

            normal = calls_per_second(2.0)
            self._servers.to_quotas.mode = Mode.HOLD
            time.sleep(3.0)
            self._servers.to_quotas.mode = Mode.PASS
            began = time.monotonic()
            while calls_per_second(0.25) < normal / 2 and time.monotonic() < began + SECONDS:
                pass
            took = time.monotonic() - began
            results()
        return {"seconds_until_used_again": round(took, 2)}

    def _postgres_away(self) -> tuple[dict[str, Any], list[str]]:
        """Batches are queued all the time; returns the figures, and the batches that came to nothing."""
        self._say("Taking PostgreSQL away from the workers ...")
        journals = self._servers.folder / "journals"
        journals.mkdir(mode=0o700)
        with World(self._servers, journals) as world:
            world.start_service()
            self._start_queue(world, journals)
            time.sleep(3.0)
            self._servers.postgres.kill()
            connection.close()
            time.sleep(POSTGRES_DOWN_SECONDS)
            self._servers.postgres.start()
            began = time.monotonic()
            time.sleep(3.0)
            world.supervisor.stop(_QUEUE)
            while self._under_way() and time.monotonic() < began + END_SECONDS:
                time.sleep(LOOK_SECONDS)
            took = time.monotonic() - began
            world.supervisor.stop(*WORKERS)
        answers = journal.read(journals)
        decided = {a.batch_id for a in answers.attempts if a.outcomes is not None}
        kept = {str(each) for each in FailedBatch.objects.values_list("batch_id", flat=True)}
        lost = sorted(answers.queued.keys() - decided - kept)
        return {
            "seconds_down": POSTGRES_DOWN_SECONDS,
            "batches_acknowledged": len(answers.queued),
            "decided": len(answers.queued.keys() & decided),
            "kept_as_failed": len(kept),
            "lost": len(lost),
            "seconds_until_the_queue_was_empty": round(took, 1),
        }, lost

    def _start_queue(self, world: World, journals: Path) -> None:
        targets = [(target, 1.0) for target in make_targets(TARGETS, (LIMIT, LIMIT))]
        plan = Plan(targets, time.time(), 1, "", "", str(journals))
        file = self._servers.folder / "plan.json"
        file.write_text(json.dumps(asdict(plan)), encoding="utf-8")
        number = ROADS.index("queue")
        command = [sys.executable, "-m", "shargain.demo.chaos.client", str(file), str(number)]
        world.supervisor.start(_QUEUE, command)

    def _under_way(self) -> int:
        with client(self._servers.broker) as broker:
            return (queued() or 0) + int(broker.hlen("unacked"))

    def _lose_redis(self) -> dict[str, Any]:
        """Everything in the quota server is gone at once, under load; the audit brings it back."""
        subjects = self._make_subjects()
        samples: list[Sample] = []
        report: dict[str, Any] = {"subjects": len(subjects)}
        self._say(f"Posting for {LOSS_SECONDS} s, and emptying Redis ...")
        with self._posting(subjects, LOSS_SECONDS) as results:
            watch = threading.Thread(target=_watch, args=[samples, LOSS_SECONDS - 1.0])
            watch.start()
            time.sleep(LOST_AFTER_SECONDS)
            rolled_back = _one(_ROLLED_BACK)
            with client(self._servers.quotas) as quotas:
                quotas.flushall()
            lost_at = time.monotonic()
            audit = QuotaService().audit()
            report["seconds_until_audited"] = round(time.monotonic() - lost_at, 1)
            report["brought_back_by_the_audit"] = len(audit.drifts) + audit.more
            watch.join()
            report["load"] = self._summary(results())
        time.sleep(1.0)
        report["transactions_rolled_back_after_the_loss"] = _one(_ROLLED_BACK) - rolled_back
        return {**report, **_recovery(samples, lost_at)}

    def _make_subjects(self) -> list[int]:
        self._say(f"Making {self._subjects:,} subjects ...")
        owner = get_user_model().objects.get(username="load")
        start = timezone.now() - timedelta(minutes=1)
        with connection.cursor() as cursor:
            cursor.execute(_MAKE_MANY, [owner.pk, self._subjects, LIMIT, start])
            made = [row[0] for row in cursor.fetchall()]
            cursor.execute("ANALYZE")
        QuotaService().rebuild()
        QuotaService().sync()
        return made

    def _posting(
        self, targets: Sequence[int], seconds: int
    ) -> AbstractContextManager[Callable[[], list[Seen]]]:
        plan = LoadPlan(list(targets), BATCH, 0.5, seconds, is_naive=False)
        return posting(PROCESSES, plan, self._folder)


def _watch(samples: list[Sample], seconds: float) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        samples.append(Sample(time.monotonic(), _one(_TRIED)))
        time.sleep(LOOK_SECONDS)
    connection.close()


def _recovery(samples: Sequence[Sample], lost_at: float) -> dict[str, float]:
    """How the rate of offers was before the loss, at its lowest, and when it was as before again."""
    before = [s for s in samples if lost_at - 5 <= s.at < lost_at]
    normal = _rate(before[0], before[-1])
    rates = [(b.at, _rate(a, b)) for a, b in zip(samples, samples[10:], strict=False)]
    after = [(at, rate) for at, rate in rates if at > lost_at + 1]
    slow = [at for at, rate in after if rate < NORMAL * normal]
    lasting = next((at for at, rate in after if rate >= NORMAL * normal), after[-1][0])
    return {
        "offers_per_second_before": round(normal),
        "lowest_offers_per_second_after": round(min(rate for _, rate in after)),
        "seconds_until_first_as_before": round(lasting - lost_at, 1),
        "seconds_until_last_below": round((max(slow) if slow else lost_at) - lost_at, 1),
    }


def _rate(first: Sample, last: Sample) -> float:
    return (last.tried - first.tried) / (last.at - first.at)


def _calls(quotas: Any) -> int:
    return sum(
        int(each["calls"])
        for name, each in quotas.info("commandstats").items()
        if name.startswith("cmdstat_evalsha")
    )


def _one(query: str) -> int:
    with connection.cursor() as cursor:
        cursor.execute(query)
        row = cursor.fetchone()
    assert row is not None
    return int(row[0])
