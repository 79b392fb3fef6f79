"""`/metrics` of a Celery worker with two child processes, and of beat."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from uuid import uuid4

import pytest
from kombu import Connection
from scraping import TOKEN, Scrape, scrape

from shargain.demo.servers import Valkey
from shargain.monitoring.processes import alone
from shargain.offers.models import ScrapingTarget
from shargain.offers.services.offer_creation import NewOffer
from shargain.offers.services.payload import batch_to_json
from shargain.offers.services.quota import QuotaService
from shargain.offers.tasks import create_batch
from tests.deploy.compose_file import ROOT
from tests.security.server import database_url

SECONDS = 60
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)
WORKER = ("worker", "--concurrency=2", "--without-gossip", "--without-mingle", "--loglevel=INFO")


class Role:
    """A process of Celery's and the port of its metrics."""

    def __init__(self, process: "subprocess.Popen[bytes]", port: int, log: Path) -> None:
        self.process = process
        self.port = port
        self.log = log

    def until(self, is_so: Callable[[Scrape], bool]) -> Scrape:
        """The first scrape of which this is so."""
        deadline = time.monotonic() + SECONDS
        while time.monotonic() < deadline and self.process.poll() is None:
            with suppress(OSError, KeyError):
                scraped = scrape(self.port)
                if is_so(scraped):
                    return scraped
            time.sleep(0.1)
        raise AssertionError(self.log.read_text())


@pytest.fixture
def broker(home: Path) -> Iterator[Valkey]:
    with Valkey(home / "broker", persistent=False) as server:
        yield server


@pytest.fixture
def start(broker: Valkey, home: Path) -> Iterator[Callable[..., Role]]:
    with ExitStack() as stack:

        def begin(*arguments: str, **environment: str) -> Role:
            return stack.enter_context(_running(home, arguments, broker, environment))

        yield begin


@contextmanager
def _running(
    home: Path, arguments: tuple[str, ...], broker: Valkey, environment: dict[str, str]
) -> Iterator[Role]:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    log = home / f"{arguments[0]}.log"
    own = {
        "DATABASE_URL": database_url(),
        "CELERY_BROKER_URL": broker.url,
        "METRICS_PORT": str(port),
        "METRICS_TOKEN": TOKEN,
        "TMPDIR": str(home),
        "LOG_FORMAT": "json",
    }
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "celery", "--app=shargain", *arguments],
            cwd=ROOT,
            env={**os.environ, **own, **environment},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        yield Role(process, port, log)
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(20)
        process.kill()
        process.wait()


@pytest.fixture
def post(target: ScrapingTarget, broker: Valkey) -> Callable[[int], str]:
    """Queue a batch of one offer, and its id."""

    def send(number: int) -> str:
        offers = [NewOffer(url=f"https://x.test/{number}", title="a")]
        batch_id = uuid4()
        with Connection(broker.url) as connection:
            create_batch.apply_async(
                args=(batch_to_json(target.pk, batch_id, offers),), connection=connection
            )
        return str(batch_id)

    return send


def children(pid: int) -> list[int]:
    return [int(x) for x in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_n_batches_are_n_over_all_children_and_stay_n_when_they_are_killed(
    target: ScrapingTarget, start: Callable[..., Role], post: Callable[[int], str], home: Path
) -> None:
    QuotaService().set_new_quota(target, max_offers_per_period=12, period_start=LONG_AGO)
    worker = start(*WORKER)
    for number in range(20):
        post(number)
    before = worker.until(
        lambda s: s.sum("shargain_tasks_total", task="shargain.create_batch") >= 20
    )
    assert before.sum("shargain_batches_total", outcome="created") == 12
    assert before.sum("shargain_batches_total", outcome="refused") == 8
    assert before["quota_redis_spends_total"] == 20
    assert before.sum("shargain_tasks_total", state="success") == 20
    for pid in children(worker.process.pid):
        os.kill(pid, signal.SIGKILL)
    post(99)
    after = worker.until(lambda s: s["shargain_batches_total"] >= 21)
    assert after["shargain_batches_total"] == after["quota_redis_spends_total"] == 21
    assert after.sum("shargain_offers_total", outcome="created") == 12
    [folder] = home.glob("shargain-metrics-*")
    alive = {str(pid) for pid in [*children(worker.process.pid), worker.process.pid, 0]}
    assert {file.stem.rpartition("_")[2] for file in folder.glob("*.db")} <= alive
    worker.process.terminate()
    assert worker.process.wait(30) == 0
    assert not folder.exists()


def test_a_fork_during_a_scrape_does_not_keep_the_directory_locked(tmp_path: Path) -> None:
    with alone(tmp_path):
        child = os.fork()
        if not child:
            time.sleep(SECONDS)
            os._exit(0)
    try:
        done = threading.Event()

        def lock_again() -> None:
            with alone(tmp_path):
                done.set()

        threading.Thread(target=lock_again, daemon=True).start()
        assert done.wait(10)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_upkeep_that_children_did_is_seen(
    target: ScrapingTarget, start: Callable[..., Role], broker: Valkey
) -> None:
    from shargain.celery import app

    worker = start(*WORKER)
    with Connection(broker.url) as connection:
        for name in ("quota_redis.sync", "quota_redis.audit"):
            app.send_task(name, connection=connection)
    scraped = worker.until(
        lambda s: (
            s.has("quota_redis_sync_last_success_timestamp_seconds")
            and s.has("quota_redis_audit_last_success_timestamp_seconds")
        )
    )
    assert time.time() - 60 < scraped["quota_redis_audit_last_success_timestamp_seconds"]
    assert scraped["quota_redis_schema_problems"] == 0
    assert scraped["quota_redis_drift_quotas"] == 0


def test_a_worker_shows_its_metrics_to_the_token_alone(
    target: ScrapingTarget, start: Callable[..., Role]
) -> None:
    worker = start(*WORKER)
    worker.until(lambda s: True)
    for token in ("", "wrong"):
        with pytest.raises(HTTPError, match="401"):
            scrape(worker.port, token)


def test_a_port_that_is_taken_is_no_reason_not_to_work(
    target: ScrapingTarget, start: Callable[..., Role], post: Callable[[int], str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        worker = start(*WORKER, METRICS_PORT=str(taken.getsockname()[1]))
        post(1)
        _until(lambda: target.offers.exists(), worker)
    assert "each role needs a METRICS_PORT of its own" in worker.log.read_text()


def test_beat_shows_what_it_sends(
    target: ScrapingTarget, start: Callable[..., Role], home: Path
) -> None:
    beat = start("beat", f"--schedule={home}/schedule", "--pidfile=", "--max-interval=1")
    beat.until(lambda s: s.sum("shargain_beat_tasks_total", task="quota_redis.sync") >= 1)


@pytest.mark.parametrize(
    ("variables", "sentence"),
    [
        ({"METRICS_ADDRESS": "0.0.0.0", "METRICS_TOKEN": ""}, "without a METRICS_TOKEN"),
        ({"METRICS_ADDRESS": "localhost"}, "give a numeric address"),
        ({"METRICS_PORT": "70000"}, "METRICS_PORT is 70000"),
        ({"LOG_FORMAT": "xml"}, "LOG_FORMAT is 'xml'"),
    ],
)
def test_a_setting_that_would_open_the_metrics_is_refused(
    variables: dict[str, str], sentence: str
) -> None:
    command = [sys.executable, "-c", "from django.conf import settings; settings.DEBUG"]
    environment: dict[str, Any] = {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "shargain.settings",
        **variables,
    }
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=SECONDS
    )
    assert done.returncode
    assert sentence in done.stderr


def _until(is_so: Callable[[], bool], worker: Role) -> None:
    deadline = time.monotonic() + SECONDS
    while not is_so():
        assert time.monotonic() < deadline, worker.log.read_text()
        time.sleep(0.1)
