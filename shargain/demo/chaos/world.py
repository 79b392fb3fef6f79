"""The servers and processes of a run, as the faults find them."""

import os
import re
import secrets
import signal
import sys
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Self

import redis

from shargain.demo import folders
from shargain.demo.chaos.proxy import Mode, Network, Proxy
from shargain.demo.servers import Postgres, Server, Valkey
from shargain.demo.supervisor import Process, ProcessError, Supervisor

ROOT = Path(__file__).resolve().parent.parent.parent.parent
READY_SECONDS = 60.0
ANSWER_SECONDS = 5.0
WORKERS = ("worker-0", "worker-1")
BEATS = ("beat-0", "beat-1")
WEB = "web"
JOURNALS_VARIABLE = "CHAOS_JOURNALS"
CLIENTS = tuple(f"client-{number}" for number in range(6))

DURABLE = {
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    # The judge reads the order of commits from it.
    "track_commit_timestamp": "on",
}
# What is appended stays in one file, for the faults that copy it and cut it.
APPENDED = {"auto-aof-rewrite-percentage": "0"}


class Servers:
    """PostgreSQL, the broker, and two quota servers of which one is in use; as a context manager, running.

    Clients reach PostgreSQL and the quota server in use by way of proxies.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.postgres = Postgres(folder / "postgres", settings=DURABLE)
        self.broker = Valkey(folder / "broker", persistent=True)
        password = secrets.token_urlsafe(24)
        self.quotas = self._quota_server("quotas-0", password)
        self.spare = self._quota_server("quotas-1", password)
        self._stack = ExitStack()

    def _quota_server(self, name: str, password: str) -> Valkey:
        place = self.folder / name
        place.mkdir(mode=0o700, exist_ok=True)
        # The same for both: one takes the other's place.
        folders.write_private(place / "password", password)
        return Valkey(place, persistent=True, settings={**APPENDED, "masterauth": password})

    def __enter__(self) -> Self:
        self._stack.enter_context(folders.locked(self.folder))
        for server in (self.postgres, self.broker, self.quotas, self.spare):
            server.erase()
            self._stack.callback(server.erase)
        for server in (self.postgres, self.broker, self.quotas):
            server.start()
        self._stack.callback(self._stop)
        network = self._stack.enter_context(Network())
        self.to_postgres = network.proxy(self.postgres.url)
        self.to_quotas = network.proxy(self.quotas.url)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _stop(self) -> None:
        for server in (self.postgres, self.broker, self.quotas, self.spare):
            resume(server)
            server.stop()

    @property
    def proxies(self) -> tuple[Proxy, Proxy]:
        return self.to_postgres, self.to_quotas

    def use(self, server: Valkey) -> None:
        """Lead clients to the other quota server; the one in use becomes the spare one."""
        if server is not self.quotas:
            self.quotas, self.spare = self.spare, self.quotas
        self.to_quotas.upstream = ("127.0.0.1", self.quotas.port)
        self.to_quotas.cut()

    def heal(self) -> None:
        """End every fault that would not end by itself."""
        for proxy in self.proxies:
            proxy.mode = Mode.PASS
        for server in (self.postgres, self.broker, self.quotas):
            resume(server)
            if not server.is_running:
                server.start()
        with client(self.quotas) as quotas:
            quotas.config_set("maxmemory", "0")


class World:
    """The servers, and the processes of the service and its clients; as a context manager, running.

    Args:
        plan: the file that tells clients what to post.
        journals: folder for what they are answered.
    """

    def __init__(self, servers: Servers, journals: Path) -> None:
        self.servers = servers
        self.journals = journals
        env = {
            **os.environ,
            JOURNALS_VARIABLE: str(journals),
            "PYTHONUNBUFFERED": "1",
            "PYTHONUTF8": "1",
        }
        self.supervisor = Supervisor(servers.folder / "logs", cwd=ROOT, env=env)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for name in self.supervisor.processes:
            self.signal_all(name, signal.SIGCONT)
        self.supervisor.stop()

    def start_service(self) -> str:
        """Start what serves; returns the address of the web."""
        for name in WORKERS:
            self.supervisor.start(name, _worker(name), grace=30.0)
        for name in BEATS:
            self.supervisor.start(name, _beat(self.servers.folder / name))
        web = self.supervisor.start(WEB, _web(0))
        url, port = self._wait_for_line(web, r"Listening at: (http://127\.0\.0\.1:(\d+))").groups()
        web.command = _web(int(port))
        for name in WORKERS:
            self._wait_for_line(
                self.supervisor.processes[name], r"(celery@\S+|worker-\d@\S+) ready"
            )
        return str(url)

    def start_clients(self, plan: Path) -> None:
        for number, name in enumerate(CLIENTS):
            command = _python("-m", "shargain.demo.chaos.client", str(plan), str(number))
            self.supervisor.start(name, command)

    def revive(self, name: str) -> None:
        """Start a process again unless it runs."""
        process = self.supervisor.processes[name]
        if not process.is_running:
            process.start()

    def children(self, name: str) -> list[int]:
        """Pids of the processes that a process has started itself; none where it has gone."""
        with suppress(OSError, ProcessError):
            pid = self.supervisor.processes[name].pid
            return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
        return []

    def signal_all(self, name: str, number: signal.Signals) -> None:
        """Send a signal to a process and to its children."""
        with suppress(ProcessError):
            for pid in (self.supervisor.processes[name].pid, *self.children(name)):
                send(pid, number)

    def _wait_for_line(self, process: Process, pattern: str) -> re.Match[str]:
        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline:
            text = process.log.read_text(encoding="utf-8", errors="replace")
            if found := re.search(pattern, text):
                return found
            self.supervisor.check()
            time.sleep(0.1)
        raise ProcessError(f"{process.name} was not ready in time:\n{process.tail()}")


def send(pid: int, number: signal.Signals) -> None:
    """Send a signal, unless the process has gone."""
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def resume(server: Server) -> None:
    """Let a server that was paused go on."""
    if server.is_running:
        send(server.pid, signal.SIGCONT)


def client(server: Valkey) -> redis.Redis:
    """A client of the server itself, past the proxy."""
    return redis.Redis.from_url(
        server.url, socket_timeout=ANSWER_SECONDS, socket_connect_timeout=ANSWER_SECONDS
    )


def _python(*arguments: str) -> list[str]:
    return [sys.executable, *arguments]


def _web(port: int) -> list[str]:
    return _python(
        "-m", "gunicorn", "shargain.wsgi", "--workers", "2", "--bind", f"127.0.0.1:{port}",
        "--no-control-socket", "--timeout", "20",
    )  # fmt: skip


def _worker(name: str) -> list[str]:
    return _python(
        "-m", "celery", "-A", "shargain.demo.chaos.worker", "worker", "--hostname", f"{name}@%h",
        "--concurrency", "2", "--loglevel", "INFO", "--without-gossip", "--without-mingle",
    )  # fmt: skip


def _beat(schedule: Path) -> list[str]:
    return _python(
        "-m", "celery", "-A", "shargain.demo.chaos.worker", "beat", "--loglevel", "WARNING",
        "--schedule", str(schedule), "--pidfile", "",
    )  # fmt: skip
