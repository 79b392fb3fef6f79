"""The web process as it is shipped, and bytes sent to it as they are."""

import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from django.db import connection

from tests.deploy.compose_file import ROOT, compose, interpolate, required_variables

START_SECONDS = 60
ANSWER_SECONDS = 20
HOST = "shargain.test"


@dataclass(frozen=True, slots=True)
class Server:
    port: int
    process: "subprocess.Popen[bytes]"
    log: Path

    def send(self, *parts: bytes, wait_for: bytes = b"") -> bytes:
        """What comes back for these bytes, until the server closes or `wait_for` has come."""
        received = b""
        with socket.create_connection(("127.0.0.1", self.port), timeout=ANSWER_SECONDS) as client:
            with suppress(ConnectionError):
                for part in parts:
                    client.sendall(part)
                if not wait_for:
                    client.shutdown(socket.SHUT_WR)
                while not wait_for or wait_for not in received:
                    piece = client.recv(65536)
                    if not piece:
                        break
                    received += piece
            return received

    def is_alive(self) -> bool:
        answer = self.send(request("GET", "/livez", Connection="close"))
        # With https alone, a redirect is what lives.
        is_answer = answer.startswith((b"HTTP/1.1 200 ", b"HTTP/1.1 301 "))
        return self.process.poll() is None and is_answer


def request(method: str, path: str, body: bytes = b"", **headers: str) -> bytes:
    """A request; `headers` are written with underscores."""
    lines = [f"{method} {path} HTTP/1.1", f"Host: {HOST}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def statuses(answer: bytes) -> list[int]:
    """The status of every response in what came back."""
    return [int(found) for found in re.findall(rb"HTTP/1\.[01] (\d{3}) ", answer)]


def database_url() -> str:
    settings = connection.settings_dict
    user, password = settings["USER"], settings["PASSWORD"]
    place = f"{settings['HOST']}:{settings['PORT']}/{settings['NAME']}"
    return f"postgresql://{user}:{password}@{place}"


@contextmanager
def serve(folder: Path, *, workers: int = 1, **environment: str) -> Iterator[Server]:
    """Start the `web` of docker-compose.yml on a port of its own and on the test's database."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    log = folder / "web.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            _command(port, workers),
            cwd=ROOT,
            env={
                **os.environ,
                "DATABASE_URL": database_url(),
                "DJANGO_SECRET_KEY": "0123456789abcdefghijklmnopqrstuvwxyz" * 2,
                "DJANGO_ALLOWED_HOSTS": HOST,
                "PYTHONUNBUFFERED": "1",
                **environment,
            },
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    server = Server(port, process, log)
    try:
        _wait(server)
        yield server
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _command(port: int, workers: int) -> list[str]:
    variables = dict.fromkeys(required_variables(), "x")
    words: list[str] = interpolate(compose()["services"]["web"]["command"], variables)
    own = [
        word
        for word in words[1:]
        if not word.startswith(("--bind", "--worker-tmp-dir", "--workers"))
    ]
    return [
        sys.executable,
        "-m",
        *words[:1],
        *own,
        f"--bind=127.0.0.1:{port}",
        f"--workers={workers}",
    ]


def _wait(server: Server) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and server.process.poll() is None:
        with suppress(OSError):
            if server.is_alive():
                return
        time.sleep(0.1)
    raise AssertionError(server.log.read_text())
