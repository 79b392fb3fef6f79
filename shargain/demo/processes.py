"""The processes of a run: web, Celery worker and beat, the marketplace, scrapers and posters."""

import os
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from shargain.demo.servers import Server
from shargain.demo.supervisor import Process, ProcessError, Supervisor

ROOT = Path(__file__).resolve().parent.parent.parent
READY_SECONDS = 60.0
PROGRESS_SECONDS = 2.0
MAX_RESTARTS = 5
WORKER_GRACE = 60.0
REPEAT_SECONDS = 10
POSTERS = 2
BATCHES_PER_SECOND = 4


@dataclass(frozen=True, slots=True)
class Site:
    """Where to look."""

    web: str
    marketplace: str


class Processes:
    """Starts them, starts again what ends by itself, and stops them; a context manager.

    Args:
        state: folder for logs and for beat's schedule.
        servers: servers to be started again, too.
        say: where to report.
    """

    def __init__(self, state: Path, servers: Sequence[Server], say: Callable[[str], None]) -> None:
        self._state = state
        self._servers = servers
        self._say = say
        self._restarts: Counter[str] = Counter()
        env = {**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONUTF8": "1"}
        self._supervisor = Supervisor(state / "logs", cwd=ROOT, env=env)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._supervisor.stop()

    @property
    def worker_log(self) -> Path:
        return self._state / "logs" / "worker.log"

    def start_service(self) -> Site:
        """Start what serves, and return when it is ready.

        Raises:
            ProcessError: something did not start; with the end of its log.
        """
        (self._state / "beat").mkdir(mode=0o700, exist_ok=True)
        self._say("Starting web, worker, beat and marketplace ...")
        worker = self._supervisor.start("worker", _worker(), grace=WORKER_GRACE)
        self._supervisor.start("beat", _beat(self._state / "beat" / "schedule"))
        marketplace = self._serve("marketplace", _marketplace, r"^(http://127\.0\.0\.1:(\d+))$")
        web = self._serve("web", _web, r"Listening at: (http://127\.0\.0\.1:(\d+))")
        self._wait_for_line(worker, r"(celery@\S+ ready)")
        return Site(web, marketplace)

    def start_producers(self, target_ids: Sequence[int], site: Site) -> None:
        """Start what makes work: a scraper for each target, and posters for all of them."""
        for number, target_id in enumerate(target_ids):
            command = _scraper(target_id, number, site.marketplace)
            self._supervisor.start(f"scraper-{number}", command)
        for number in range(POSTERS):
            self._supervisor.start(f"poster-{number}", _poster(target_ids))

    def revive(self) -> None:
        """Start again what has ended by itself, a few times; the data bear it.

        Raises:
            ProcessError, ServerError: it ends again and again, or cannot be started.
        """
        for server in self._servers:
            if not server.is_running:
                self._count_restart(server.name, server.log)
                server.start()
        for process in self._supervisor.processes.values():
            if process.died:
                self._count_restart(process.name, process.log)
                process.start()

    def stop_producers(self) -> None:
        """End everything that makes work, web and beat included: all but the workers."""
        names = [name for name in self._supervisor.processes if name != "worker"]
        self._supervisor.stop(*names)

    def stop_workers(self) -> None:
        """Let the workers finish what they are at, and end them."""
        self._supervisor.stop("worker")

    def _serve(self, name: str, command: Callable[[int], list[str]], line: str) -> str:
        """Start a web server on a free port, which it keeps should it have to be started again."""
        process = self._supervisor.start(name, command(0))
        url, port = self._wait_for_line(process, line).groups()
        process.command = command(int(port))
        return str(url)

    def _wait_for_line(self, process: Process, pattern: str) -> re.Match[str]:
        began = progress = time.monotonic()
        while time.monotonic() < began + READY_SECONDS:
            text = process.log.read_text(encoding="utf-8", errors="replace")
            if found := re.search(pattern, text, re.MULTILINE):
                return found
            self._supervisor.check()
            if time.monotonic() > progress + PROGRESS_SECONDS:
                progress = time.monotonic()
                self._say(f"  {progress - began:.0f} s: waiting for {process.name} ...")
            time.sleep(0.05)
        raise ProcessError(
            f"{process.name} was not ready within {READY_SECONDS:.0f} s; the last lines of"
            f" {process.log}:\n{process.tail()}"
        )

    def _count_restart(self, name: str, log: Path) -> None:
        if self._restarts[name] == MAX_RESTARTS:
            raise ProcessError(
                f"{name} has ended by itself {MAX_RESTARTS + 1} times: {log} may say why."
            )
        self._restarts[name] += 1
        self._say(f"{name} has ended by itself and is started again.")


def _python(*arguments: str) -> list[str]:
    return [sys.executable, *arguments]


def _web(port: int) -> list[str]:
    return _python(
        "-m", "gunicorn", "shargain.wsgi", "--workers", "2", "--bind", f"127.0.0.1:{port}",
        "--no-control-socket", "--logger-class", "shargain.weblog.RecordLogger",
        "--config", "python:shargain.monitoring.web_server",
    )  # fmt: skip


def _worker() -> list[str]:
    return _python(
        "-m", "celery", "-A", "shargain", "worker", "--concurrency", "2", "--loglevel", "INFO",
        "--without-gossip", "--without-mingle",
    )  # fmt: skip


def _beat(schedule: Path) -> list[str]:
    return _python(
        "-m", "celery", "-A", "shargain", "beat", "--loglevel", "INFO",
        "--schedule", str(schedule), "--pidfile", "",
    )  # fmt: skip


def _marketplace(port: int) -> list[str]:
    return _python("-m", "shargain.demo.marketplace", "--port", str(port))


def _scraper(target_id: int, seller: int, marketplace: str) -> list[str]:
    return _python(
        "manage.py", "scrape", str(target_id), f"{marketplace}/sellers/{seller}/",
        "--repeat-every", str(REPEAT_SECONDS), "--allow-host", marketplace.partition("//")[2],
    )  # fmt: skip


def _poster(target_ids: Sequence[int]) -> list[str]:
    return _python(
        "-m", "shargain.demo.post", *map(str, target_ids),
        "--batches-per-second", str(BATCHES_PER_SECOND),
    )  # fmt: skip
