"""Posts from many processes at once, and sums up what came of it."""

import argparse
import json
import os
import random
import shutil
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

from django.contrib.auth import get_user_model
from django.utils import timezone

from shargain.demo import figures
from shargain.demo.judge import judge, judge_counts
from shargain.demo.load_process import Plan, Seen
from shargain.demo.supervisor import ProcessError, Supervisor
from shargain.offers.models import ScrapingTarget
from shargain.offers.services.offer_creation import Outcome
from shargain.offers.services.quota import QuotaService

ROOT = Path(__file__).resolve().parent.parent.parent
START_SECONDS = 100.0
END_SECONDS = 60.0
LOOK_SECONDS = 0.1


def measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Make targets, post to them from so many processes, and judge what came of it."""
    targets = make_targets(options.targets, options.limit)
    watch = figures.LimitWatch()
    watch.look()
    plan = Plan(targets, options.batch, options.overlap, options.seconds, options.naive)
    report = _summary(_post_all(options.processes, plan, folder))
    before = figures.take(watch)
    report["offers"] = sum(account.offers for account in before.accounts)
    report["over_admitted"] = sum(
        max(0, account.offers - account.limit)
        for account in before.accounts
        if account.limit is not None
    )
    if options.naive:
        report["count_drift"] = sum(abs(a.used_offers_count - a.offers) for a in before.accounts)
        return report
    wrong = judge(before)
    QuotaService().sync()
    wrong += judge_counts(figures.take(watch))
    report["disagreements"] = [str(each) for each in wrong]
    return report


def make_targets(count: int, limits: tuple[int, int]) -> list[int]:
    """Targets with a quota each, its limit drawn from the range; the same in every measurement."""
    owner, _ = get_user_model().objects.get_or_create(username="load")
    drawn = random.Random(1)  # noqa: S311  no secret, only the same again
    start = timezone.now() - timedelta(minutes=1)
    made = ScrapingTarget.objects.bulk_create(
        ScrapingTarget(owner=owner, name=f"Load {number}") for number in range(count)
    )
    for done, target in enumerate(made):
        limit = drawn.randint(*limits)
        QuotaService().set_new_quota(target, max_offers_per_period=limit, period_start=start)
        if done % 500 == 499:
            _say(f"{done + 1:,} targets made ...")
    return [target.pk for target in made]


def _post_all(count: int, plan: Plan, folder: Path) -> list[Seen]:
    with posting(count, plan, folder) as finish:
        _say(f"Posting for {plan.seconds} s ...")
        return finish()


@contextmanager
def posting(count: int, plan: Plan, folder: Path) -> Iterator[Callable[[], list[Seen]]]:
    """So many processes that post as planned; yields when they begin what waits for them to finish."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700)
    (folder / "plan").write_text(json.dumps(asdict(plan)), encoding="utf-8")
    env = {**os.environ, "LOG_LEVEL": "ERROR", "PYTHONUTF8": "1"}
    with Supervisor(folder, cwd=ROOT, env=env) as supervisor:
        _say(f"Starting {count} processes ...")
        for number in range(count):
            command = [sys.executable, "-m", "shargain.demo.load_process", str(folder), str(number)]
            supervisor.start(f"process-{number}", command)
        _wait_for(folder, [f"ready-{n}" for n in range(count)], supervisor, START_SECONDS)
        (folder / "go").touch()
        yield partial(_finish, count, plan, folder, supervisor)


def _finish(count: int, plan: Plan, folder: Path, supervisor: Supervisor) -> list[Seen]:
    names = [f"seen-{number}" for number in range(count)]
    _wait_for(folder, names, supervisor, plan.seconds + END_SECONDS)
    texts = [(folder / name).read_text(encoding="utf-8") for name in names]
    return [Seen(**json.loads(text)) for text in texts]


def _wait_for(folder: Path, names: Sequence[str], processes: Supervisor, seconds: float) -> None:
    """Return when all these files are there."""
    deadline = time.monotonic() + seconds
    while not all((folder / name).exists() for name in names):
        if any(process.status for process in processes.processes.values()):
            processes.check()
        if time.monotonic() > deadline:
            raise ProcessError(f"Not all processes had answered after {seconds:.0f} s.")
        time.sleep(LOOK_SECONDS)


def _summary(seen: Sequence[Seen]) -> dict[str, Any]:
    offers: Counter[str] = Counter()
    for each in seen:
        offers.update(each.offers)
    spans = {
        "creating": [span for each in seen for span in each.creating_ms],
        "knowing": [span for each in seen for span in each.knowing_ms],
        "refused": [span for each in seen for span in each.refused_ms],
    }
    rate = sum(
        (len(each.creating_ms) + len(each.knowing_ms) + len(each.refused_ms)) / each.seconds
        for each in seen
    )
    return {
        "batches": sum(map(len, spans.values())),
        "batches_per_second": round(rate, 1),
        **{str(outcome): offers[outcome] for outcome in Outcome},
        "failed_batches": sum(each.failed for each in seen),
        "milliseconds": {kind: _spread(found) for kind, found in spans.items() if found},
    }


def _spread(spans_ms: Sequence[float]) -> dict[str, float]:
    ordered = sorted(spans_ms)
    return {
        "batches": len(ordered),
        "median": round(statistics.median(ordered), 2),
        "99th": round(ordered[(len(ordered) - 1) * 99 // 100], 2),
    }


def _say(text: str) -> None:
    # The report alone goes to standard output.
    print(text, file=sys.stderr, flush=True)
