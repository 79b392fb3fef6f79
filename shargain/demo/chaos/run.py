"""One run of chaos: starts everything, lets the lanes of faults go on, heals, drains, and judges."""

import json
import random
import secrets
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any
from uuid import UUID

from django.core.management import call_command
from django.db import connection, connections

from shargain.api.models import ScraperToken
from shargain.demo import figures
from shargain.demo.broker import queued
from shargain.demo.chaos import journal, witness
from shargain.demo.chaos.client import Plan
from shargain.demo.chaos.customers import Customers, Targets
from shargain.demo.chaos.faults import HARMLESS, LANES, LOSSES, schedule
from shargain.demo.chaos.journal import Journal
from shargain.demo.chaos.rules import FINAL, Evidence, Row, count_outcomes, judge
from shargain.demo.chaos.world import BEATS, CLIENTS, WEB, WORKERS, Servers, World, client
from shargain.demo.folders import write_private
from shargain.demo.judge import Figures, judge_counts
from shargain.demo.judge import judge as judge_figures
from shargain.demo.supervisor import ProcessError
from shargain.offers.models import FailedBatch
from shargain.offers.services.offer_creation import NewOffer, create_offers
from shargain.offers.services.quota import QuotaService
from shargain.stopping import PatientStop

EDIT_SECONDS = 0.15
SAY_SECONDS = 10.0
DRAIN_SECONDS = 150.0
REST_SECONDS = 30.0
LOOK_SECONDS = 0.5
RESTART_SECONDS = 16.0
MOST_SHOWN = 50


@dataclass(slots=True)
class Counts:
    """What was done, by kind."""

    faults: Counter[str] = field(default_factory=Counter)
    not_possible: Counter[str] = field(default_factory=Counter)
    edits: Counter[str] = field(default_factory=Counter)
    losses: list[int] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)


class Chaos:
    """A run on servers that answer already.

    Args:
        seconds: how long the faults go on.
        seed: what faults and clients draw their numbers from.
        say: where to report.
    """

    def __init__(
        self,
        servers: Servers,
        *,
        seconds: float,
        seed: int,
        stop: PatientStop,
        say: Callable[[str], None],
    ) -> None:
        self._servers = servers
        self._seconds = seconds
        self._seed = seed
        self._stop = stop
        self._say = say
        self._counts = Counts()
        self._over = threading.Event()
        self._broken: list[BaseException] = []
        self._journals = servers.folder / "journals"
        self._quotas = QuotaService()

    def run(self) -> dict[str, Any]:
        """Run, and return the report; `violations` in it is empty where everything was exact.

        Raises:
            ServerError, ProcessError: something could not be started, or ended by itself.
        """
        targets = self._prepare()
        with World(self._servers, self._journals) as world:
            self._say("Starting web, workers, beats and clients ...")
            web = world.start_service()
            world.start_clients(self._write_plan(targets, web))
            self._stop.is_patient = True
            began = time.monotonic()
            self._let_loose(world, targets)
            elapsed = time.monotonic() - began
            self._settle_down(world)
        return self._verdict(elapsed)

    def _prepare(self) -> Targets:
        self._journals.mkdir(mode=0o700)
        call_command("migrate", verbosity=0, interactive=False)
        witness.install()
        return Targets(random.Random(self._seed))  # noqa: S311

    def _write_plan(self, targets: Targets, web: str) -> Path:
        _, token = ScraperToken.issue(targets.owner, "chaos")
        plan = Plan(targets.weighted, time.time(), self._seed, web, token, str(self._journals))
        file = self._servers.folder / "plan.json"
        write_private(file, json.dumps(asdict(plan)))
        return file

    def _let_loose(self, world: World, targets: Targets) -> None:
        """Faults and edits, each lane in a thread of its own, until the time is up."""
        customers = Customers(targets, random.Random(f"{self._seed}-edits"))  # noqa: S311
        lanes: list[Callable[[], None]] = [lambda: self._edit(customers)]
        lanes += [lambda lane=lane: self._fail(lane, world) for lane in LANES]  # type: ignore[misc]
        threads = [threading.Thread(target=self._guarded, args=[lane]) for lane in lanes]
        for thread in threads:
            thread.start()
        try:
            self._look_on(world)
        finally:
            self._over.set()
            for thread in threads:
                thread.join()
        if self._broken:
            raise self._broken[0]

    def _look_on(self, world: World) -> None:
        began = said = time.monotonic()
        while not self._broken and not self._stop.wait(LOOK_SECONDS):
            now = time.monotonic()
            if now >= began + self._seconds:
                return
            for name in CLIENTS:
                process = world.supervisor.processes[name]
                if process.died:
                    raise ProcessError(f"{name} ended by itself:\n{process.tail()}")
            if now >= said + SAY_SECONDS:
                said = now
                done = sum(self._counts.faults.values())
                self._say(
                    f"  {now - began:.0f} of {self._seconds:.0f} s: {done} faults,"
                    f" {sum(self._counts.edits.values())} edits"
                )

    def _guarded(self, lane: Callable[[], None]) -> None:
        try:
            lane()
        except BaseException as error:  # noqa: BLE001  it is raised again where somebody listens
            self._broken.append(error)
        finally:
            connections.close_all()

    def _fail(self, lane: str, world: World) -> None:
        for pause, fault, drawn in schedule(lane, self._seed):
            if self._over.wait(pause):
                return
            name = fault.__name__.replace("_", " ")
            if fault in LOSSES:
                self._counts.losses.append(journal.now())
            try:
                fault(world, drawn)
            except HARMLESS as error:
                self._counts.not_possible[f"{name}: {type(error).__name__}"] += 1
            else:
                self._counts.faults[name] += 1
            if fault in LOSSES:
                self._counts.losses.append(journal.now())

    def _edit(self, customers: Customers) -> None:
        while not self._over.wait(EDIT_SECONDS):
            try:
                self._counts.edits[customers.edit()] += 1
            except Exception as error:  # noqa: BLE001  whatever it is, it is to be told at the end
                self._counts.wrong.append(f"EDIT: it failed with {type(error).__name__}: {error}")
                connection.close()

    def _settle_down(self, world: World) -> None:
        """Heal everything, end what makes work, and let the workers finish what there is."""
        self._say("Healing, and draining the queue ...")
        self._servers.heal()
        world.revive(WEB)
        world.supervisor.stop(*CLIENTS, *BEATS)
        deadline = time.monotonic() + DRAIN_SECONDS
        while (left := self._under_way()) and time.monotonic() < deadline:
            self._say(f"  {left} tasks are under way")
            # A worker looks for the tasks of dead ones once soon after its start, and seldom after that.
            world.supervisor.stop(*WORKERS)
            for name in WORKERS:
                world.revive(name)
            restarted = time.monotonic()
            while self._under_way() and time.monotonic() < restarted + RESTART_SECONDS:
                time.sleep(LOOK_SECONDS)
        world.supervisor.stop(*WORKERS, WEB)

    def _under_way(self) -> int:
        """Tasks that wait, and tasks that some worker has or had."""
        with client(self._servers.broker) as broker:
            return (queued() or 0) + int(broker.hlen("unacked"))

    def _verdict(self, elapsed: float) -> dict[str, Any]:
        """Judge what there is before anything is put in step, and the counts after that."""
        # Whatever was connected before the faults is not any more.
        connections.close_all()
        self._say("Asking again about what nobody has an answer to ...")
        asked_again = self._ask_again()
        self._say("Judging ...")
        evidence = self._evidence()
        verdict = judge(evidence)
        before = _all_offers(figures.take(figures.LimitWatch()), evidence.rows)
        violations = self._counts.wrong + [str(each) for each in verdict.violations]
        violations += [str(each) for each in judge_figures(before)]
        gaps = self._quotas.audit(repair=False).problems
        violations += [f"{code}: {gap}" for code, gap in gaps.items()]
        drifts = self._repair()
        violations += [str(each) for each in judge_counts(figures.take(figures.LimitWatch()))]
        return {
            "seconds": round(elapsed),
            "seed": self._seed,
            **self._done(evidence),
            **_seen(evidence),
            "quotas": len(before.accounts),
            "asked_again_at_the_end": asked_again,
            "lost_between_pop_and_note": verdict.in_gap,
            "drifts_before_the_repair": _sorted(drifts),
            "violations": violations[:MOST_SHOWN],
            "violations_in_all": len(violations),
        }

    def _evidence(self) -> Evidence:
        answers = journal.read(self._journals)
        return Evidence(answers, witness.rows(), witness.edits(), _kept(), self._counts.losses)

    def _done(self, evidence: Evidence) -> dict[str, Any]:
        """Faults and edits by kind; those that clients did to themselves among them."""
        faults = self._counts.faults + Counter(f"client {s}" for s in evidence.answers.stops)
        return {
            "faults_in_all": sum(faults.values()),
            "faults": _sorted(faults),
            "not_possible": _sorted(self._counts.not_possible),
            "edits": _sorted(self._counts.edits),
        }

    def _ask_again(self) -> int:
        """Post once more what was left without an answer: with the same id it must come to an end."""
        answers = journal.read(self._journals)
        done = {a.batch_id for a in answers.attempts if a.outcomes is not None}
        undecided = {a.batch_id: a for a in answers.attempts if a.batch_id not in done}
        kept = _kept()
        with Journal(self._journals, FINAL) as ours:
            create = ours.posted(FINAL, create_offers)
            for batch_id, attempt in undecided.items():
                if batch_id not in kept:
                    offers = [NewOffer(url=url, title="asked again") for url in attempt.urls]
                    # What it meets is in the journal, and is judged there.
                    with suppress(Exception):
                        create(attempt.target_id, offers, batch_id=UUID(batch_id))
        return len(undecided)

    def _repair(self) -> Counter[str]:
        """Sync and audit until nothing is held any more; the drifts that the first audit found."""
        self._quotas.sync()
        drifts = Counter(str(drift.reason) for drift in self._quotas.audit().drifts)
        deadline = time.monotonic() + REST_SECONDS
        while time.monotonic() < deadline:
            self._quotas.sync()
            self._quotas.audit()
            if not judge_counts(figures.take(figures.LimitWatch())):
                break
            time.sleep(LOOK_SECONDS)
        return drifts


def _all_offers(before: Figures, rows: Sequence[Row]) -> Figures:
    """The figures with deleted offers among the offers; limits are judged by the order of commits."""
    made = Counter(row.quota_id for row in rows)
    return replace(
        before,
        deleted=0,
        accounts=tuple(
            replace(account, offers=made[account.quota_id], permitted=None)
            for account in before.accounts
        ),
    )


def _kept() -> set[str]:
    return {str(each) for each in FailedBatch.objects.values_list("batch_id", flat=True)}


def _seen(evidence: Evidence) -> dict[str, Any]:
    """What clients were answered, and what came of it."""
    attempts = evidence.answers.attempts
    letters = Counter("".join(attempt.outcomes or "" for attempt in attempts))
    return {
        "batches": len({attempt.batch_id for attempt in attempts}),
        "answers": _sorted(count_outcomes(attempts)),
        "outcomes": {name: letters[letter] for name, letter in journal.LETTERS.items()},
        "offers_created": len(evidence.rows),
        "offers_deleted": sum(row.deleted_at is not None for row in evidence.rows),
        "failed_batches_kept": len(evidence.failed),
    }


def _sorted(counts: Counter[str]) -> dict[str, int]:
    return dict(sorted(counts.items()))


def new_seed() -> int:
    return secrets.randbelow(10**6)
