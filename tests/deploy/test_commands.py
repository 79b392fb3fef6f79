"""The commands and health checks of docker-compose.yml, run on what the image would hold.

No container engine is needed: the folder has what .dockerignore and the Dockerfile let in, the servers are
those of the test run, and packages that the production lock does not have cannot be imported.
"""

import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit
from urllib.request import Request, urlopen

import psycopg
import pytest

from tests.deploy.compose_file import ROOT, compose, interpolate, make_image, required_variables

START_SECONDS = 60
STOP_SECONDS = 30
STAYING = ("web", "worker", "beat")


class Deployment:
    """The application's services as compose would start them."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.folder = folder
        self.port = _free_port()
        variables = dict.fromkeys(required_variables(), "x") | {"DJANGO_ALLOWED_HOSTS": "localhost"}
        self.services = interpolate(compose()["services"], variables)
        own = self.services["web"]["environment"] | environment
        tools = Path(sys.executable).parent
        self.environment = {
            **own,
            "PATH": f"{tools}:{os.environ['PATH']}",
            "PYTHONPATH": str(folder / "guard"),
            "PYTHONDONTWRITEBYTECODE": "1",
            "DJANGO_STATIC_ROOT": str(folder / "static"),
        }

    def run(self, *command: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            command,
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=START_SECONDS,
        )

    def start(self, name: str) -> "subprocess.Popen[bytes]":
        log = (self.folder / f"{name}.log").open("wb")
        with log:
            return subprocess.Popen(
                self._here(self.services[name]["command"]),
                cwd=self.folder,
                env=self.environment,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def is_healthy(self, name: str) -> bool:
        kind, *test = self._here(self.services[name]["healthcheck"]["test"])
        return self.run(*(["sh", "-c", *test] if kind == "CMD-SHELL" else test)).returncode == 0

    def becomes_healthy(self, name: str, process: "subprocess.Popen[bytes]") -> bool:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and process.poll() is None:
            if self.is_healthy(name):
                return True
            time.sleep(0.2)
        return False

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text()

    def _here(self, command: list[str]) -> list[str]:
        """The command on this machine's free port and in this test's folder."""
        places = {
            "0.0.0.0:8000": f"127.0.0.1:{self.port}",
            "127.0.0.1:8000": f"127.0.0.1:{self.port}",
            "=/tmp/": f"={self.folder}/",
        }
        for place, ours in places.items():
            command = [word.replace(place, ours) for word in command]
        return command


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    folder = tmp_path_factory.mktemp("image")
    make_image(folder)
    _guard(folder / "guard")
    number = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    with _database(f"deployed_{number}") as address:
        addresses = {
            "DATABASE_URL": address,
            "REDIS_URL": os.environ["REDIS_URL"],
            "CELERY_BROKER_URL": _place(os.environ["CELERY_BROKER_URL"], str(15 - number)),
            "QUOTA_TIMEOUT_SECONDS": "5",
            # On one host worker and beat would want the same port.
            "METRICS_PORT": "0",
        }
        deployed = Deployment(folder, addresses)
        migrated = deployed.run(*deployed.services["migrate"]["command"])
        assert migrated.returncode == 0, migrated.stderr
        yield deployed


@contextmanager
def _database(name: str) -> Iterator[str]:
    """The database and the role that compose would make, under a name of this test's."""
    variables = dict.fromkeys(required_variables(), "secret")
    content = interpolate(compose()["configs"]["role"]["content"], variables)
    with psycopg.connect(os.environ["DATABASE_URL"], autocommit=True) as server:
        _drop(server, name)
        for statement in content.replace("shargain", name).splitlines():
            server.execute(statement.encode())
        parts = urlsplit(_place(os.environ["DATABASE_URL"], name))
        host = parts.netloc.rpartition("@")[2]
        yield urlunsplit(parts._replace(netloc=f"{name}:secret@{host}"))
        _drop(server, name)


def _drop(server: "psycopg.Connection[Any]", name: str) -> None:
    server.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)".encode())
    server.execute(f"DROP ROLE IF EXISTS {name}".encode())


def test_the_image_collects_the_static_files(deployment: Deployment) -> None:
    collected = deployment.run("python", "manage.py", "collectstatic", "--noinput")
    assert collected.returncode == 0, collected.stderr
    assert (deployment.folder / "static" / "admin" / "css" / "base.css").exists()
    assert (deployment.folder / "static" / "offers" / "admin.css").exists()


def test_the_guard_hides_the_packages_of_developers(deployment: Deployment) -> None:
    tried = deployment.run("python", "-c", "import rich")
    assert "not in the production lock" in tried.stderr


def test_the_checks_of_a_deployment_pass(deployment: Deployment) -> None:
    command = ("check", "--deploy", "--database=default", "--fail-level=WARNING")
    deployment.environment["DJANGO_SECRET_KEY"] = "0123456789abcdefghijklmnopqrstuvwxyz" * 2
    checked = deployment.run("python", "manage.py", *command)
    problems = set(re.findall(r"\((\S+\.[EW]\d+)\)", checked.stderr))
    # Subdomains and preload lists are the owner of the domain's to decide about.
    assert problems <= {"security.W005", "security.W021"}, checked.stderr


def test_services_become_healthy_serve_and_stop_when_asked(deployment: Deployment) -> None:
    with ExitStack() as stack:
        running = {}
        for name in STAYING:
            process = deployment.start(name)
            stack.callback(_end, process)
            running[name] = process
        for name, process in running.items():
            assert deployment.becomes_healthy(name, process), deployment.log(name)
        secure = {"X-Forwarded-Proto": "https"}
        page = Request(f"http://127.0.0.1:{deployment.port}/admin/login/", headers=secure)
        with urlopen(page, timeout=10) as answer:
            assert answer.status == 200
            assert answer.headers["Strict-Transport-Security"]
        for name, process in running.items():
            process.terminate()
            assert process.wait(STOP_SECONDS) == 0, deployment.log(name)
        assert not any(deployment.is_healthy(name) for name in ("web", "worker"))


def _end(process: "subprocess.Popen[bytes]") -> None:
    if process.poll() is None:
        process.kill()
        process.wait()


def _guard(folder: Path) -> None:
    """Make what the production lock lacks unimportable, for processes with the folder on PYTHONPATH."""
    only = _locked("development") - _locked("production")
    hidden = sorted(
        module
        for module, packages in packages_distributions().items()
        if {_normal(package) for package in packages} <= only
    )
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(
        "import sys\n"
        f"HIDDEN = set({hidden!r})\n"
        "class Guard:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name in HIDDEN:\n"
        "            raise ModuleNotFoundError(f'{name} is not in the production lock')\n"
        "sys.meta_path.insert(0, Guard())\n"
    )


def _locked(name: str) -> set[str]:
    text = (ROOT / "requirements" / f"{name}.txt").read_text()
    return {_normal(package) for package in re.findall(r"^([\w.-]+)==", text, re.MULTILINE)}


def _normal(package: str) -> str:
    return re.sub(r"[-_.]+", "-", package).lower()


def _place(address: str, name: str) -> str:
    return f"{address.rpartition('/')[0]}/{name}"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
