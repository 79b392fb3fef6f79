"""One run of the service: prepares, starts, watches, drains, and judges."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

from django.core.exceptions import ImproperlyConfigured
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import DatabaseError, connection

from shargain.demo import figures, seed
from shargain.demo.broker import queued
from shargain.demo.figures import LimitWatch
from shargain.demo.folders import ServerError
from shargain.demo.judge import Disagreement, Figures, judge, judge_counts
from shargain.demo.processes import Processes
from shargain.demo.screen import Row, Screen
from shargain.demo.servers import Server
from shargain.demo.tally import Tally
from shargain.offers.models import FailedBatch, ScrapingTarget
from shargain.offers.services.errors import ServiceError
from shargain.offers.services.offer_creation import Outcome
from shargain.offers.services.quota import QuotaInfo, QuotaService
from shargain.stopping import PatientStop

LOOK_SECONDS = 1.0
DRAIN_SECONDS = 60.0
# Longer than a lease: what a killed worker held is given back when its lease has ended.
SYNC_SECONDS = 25.0
MAX_TARGETS = 20


class Session:
    """A run, on servers that answer already.

    Args:
        state: where it keeps what outlives it.
        servers: those that it has to start again when they end.
    """

    def __init__(self, state: Path, servers: Sequence[Server], stop: PatientStop) -> None:
        self._state = state
        self._servers = servers
        self._stop = stop
        self._screen = Screen()
        self._watch = LimitWatch(state / "limits.json")
        self._quotas = QuotaService()
        self._started = 0.0

    def run(self, seconds: float | None) -> bool:
        """Run for so many seconds, or until it is stopped; returns whether everything was exact.

        Raises:
            ServerError, ProcessError: something cannot be started, or does not stay.
        """
        login = self._prepare()
        with Processes(self._state, self._servers, self._screen.say) as processes:
            tally = Tally(processes.worker_log)
            site = processes.start_service()
            targets = self._make_targets(seconds)
            processes.start_producers([target.pk for target in targets], site)
            self._screen.say(
                f"\nAdmin        {site.web}/admin/  user {login.username}, password"
                f" {login.password}\nAPI          {site.web}/api/v1/docs\nMarketplace "
                f" {site.marketplace}/\nLogs         {self._state / 'logs'}\n"
                "Stop with ctrl-C.\n"
            )
            self._stop.is_patient = True
            self._look_on(processes, tally, targets, seconds)
            self._drain(processes)
            tally.close()
        return self._verdict()

    def _prepare(self) -> seed.Login:
        for variable, answers in (
            ("REDIS_URL", self._quotas.is_redis_up()),
            ("CELERY_BROKER_URL", queued() is not None),
        ):
            if not answers:
                raise ServerError(f"The server at {variable} does not answer: start it first.")
        self._screen.say("Preparing the database ...")
        with _translated("The database cannot be prepared"):
            call_command("migrate", verbosity=0, interactive=False)
            self._quotas.refuse_to_start()
            for drift in self._quotas.audit().drifts:
                self._screen.say(
                    f"Repaired before the start: {drift.reason} of quota {drift.quota_id} (ledger"
                    f" {drift.ledger}, used_offers_count {drift.column}, Redis {drift.redis})"
                )
            return seed.open_login()

    def _make_targets(self, seconds: float | None) -> list[ScrapingTarget]:
        with _translated("The targets cannot be made"):
            is_new = not ScrapingTarget.objects.exists()
            switch = timedelta(seconds=seconds * 2 / 3) if seconds else seed.DEFAULT_SWITCH
            targets = seed.make_targets(switch)
            if is_new:
                # Whatever Redis has of these targets, it has from another database.
                self._quotas.rebuild()
            self._watch.look(is_start=True)
        return targets

    def _look_on(
        self,
        processes: Processes,
        tally: Tally,
        targets: Sequence[ScrapingTarget],
        seconds: float | None,
    ) -> None:
        self._started = time.monotonic()
        with self._screen.live():
            while not self._stop.wait(LOOK_SECONDS):
                elapsed = time.monotonic() - self._started
                if seconds is not None and elapsed >= seconds:
                    return
                processes.revive()
                tally.read()
                self._show(tally, targets, elapsed)

    def _show(self, tally: Tally, targets: Sequence[ScrapingTarget], elapsed: float) -> None:
        try:
            self._watch.look()
            active = self._quotas.active_quotas([target.pk for target in targets])
        except (DatabaseError, ServiceError) as error:
            connection.close()
            self._screen.say(f"No figures just now: {error}".strip())
            return
        rows = [_row(target, active.get(target.pk), tally) for target in targets[:MAX_TARGETS]]
        waiting = queued()
        queue = "the broker does not answer" if waiting is None else f"{waiting:,} batches wait"
        self._screen.show(rows, f"{elapsed:.0f} s, {queue}")

    def _drain(self, processes: Processes) -> None:
        """End what makes work, let the workers finish what there is, and end them too."""
        self._screen.say("Stopping the scrapers ...")
        processes.stop_producers()
        deadline = time.monotonic() + DRAIN_SECONDS
        while (waiting := queued()) != 0 and time.monotonic() < deadline:
            processes.revive()
            self._screen.say(f"Draining: {_or_unknown(waiting)} tasks wait ...")
            time.sleep(LOOK_SECONDS)
        self._screen.say("Stopping the workers ...")
        processes.stop_workers()
        if left := queued():
            self._screen.say(f"{left:,} tasks stay in the queue for the next run.")

    def _verdict(self) -> bool:
        """Judge what there is before anything is put in step, and the counts after that."""
        with _translated("The figures cannot be taken"):
            connection.close()
            self._watch.look()
            before = figures.take(self._watch)
            figures.write(self._state / "figures.json", before)
            self._screen.accounts(before.accounts, "Figures before any sync or repair")
            wrong = judge(before)
            after, wrong_after = self._sync()
            figures.write(self._state / "figures.json", before, after)
            seed.close_login()
            failed = FailedBatch.objects.count()
        if failed:
            self._screen.say(f"{failed:,} batches failed and are kept: see the admin.")
        wrong += [each for each in wrong_after if each not in wrong]
        self._say_verdict(wrong)
        return not wrong

    def _sync(self) -> tuple[Figures, list[Disagreement]]:
        deadline = time.monotonic() + SYNC_SECONDS
        while True:
            self._quotas.sync()
            after = figures.take(self._watch)
            wrong = judge_counts(after)
            if not any(account.redis_held for account in after.accounts) and not wrong:
                break
            if time.monotonic() >= deadline:
                break
            self._screen.say("Waiting for leases of lost workers to end ...")
            time.sleep(2 * LOOK_SECONDS)
        return after, judge(after) + wrong

    def _say_verdict(self, wrong: Sequence[Disagreement]) -> None:
        for each in wrong:
            self._screen.say(str(each))
        self._screen.say(f"The figures are kept in {self._state / 'figures.json'}.")
        self._screen.say(f"VERDICT {f'{len(wrong)} disagreements' if wrong else 'exact'}")


@contextmanager
def _translated(what: str) -> Iterator[None]:
    """Errors of Django and the services, as a sentence that begins with what cannot be done."""
    try:
        yield
    except (DatabaseError, CommandError, ImproperlyConfigured, ServiceError) as error:
        raise ServerError(f"{what}: {error}".strip()) from error


def _row(target: ScrapingTarget, quota: QuotaInfo | None, tally: Tally) -> Row:
    record = tally.record(target.pk)
    return Row(
        target=target.name,
        limit=_limit(quota),
        used=quota.used if quota else None,
        held=quota.held if quota and quota.is_live else None,
        created=record.outcomes[Outcome.CREATED],
        duplicates=record.outcomes[Outcome.DUPLICATE],
        discarded=record.outcomes[Outcome.DISCARDED],
        batches_per_second=record.rate(),
    )


def _limit(quota: QuotaInfo | None) -> str:
    if quota is None:
        return "no quota"
    limit = quota.max_offers_per_period
    return "unlimited" if limit is None else f"{limit:,}"


def _or_unknown(count: int | None) -> str:
    return "an unknown number of" if count is None else f"{count:,}"
