"""A copy of the tree with servers of its own, in which one mutant at a time meets the tests."""

import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psycopg

from shargain.demo.servers import Postgres, Valkey
from tests.mutations.mutant import ROOT, Mutant, StaleMutant, read
from tests.mutations.selection import LEFT_OUT, first_of, folders_of
from tests.plugin import POSTGRES_SETTINGS

COPIED = ("quota_redis", "shargain", "scripts", "tests", "manage.py", "pyproject.toml", "README.md")
RUN_SECONDS = 420
"""A run of all tests takes a minute or two; what takes longer hangs."""

_FAILED = re.compile(r"^(?:FAILED|ERROR) (\S+)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a run: `by` is the test that failed, empty where none did."""

    verdict: str
    by: str
    seconds: float


class BenchClosed(Exception):  # noqa: N818  a name says what is wrong
    """The bench was taken away meanwhile."""


class Bench:
    """One copy and its three servers; `open` makes it and takes it away again."""

    def __init__(self, folder: Path) -> None:
        self.tree = folder / "tree"
        self._postgres = Postgres(folder / "postgres", settings=POSTGRES_SETTINGS)
        self._quotas = Valkey(folder / "quotas", persistent=False)
        self._broker = Valkey(folder / "broker", persistent=False)
        self._process: subprocess.Popen[str] | None = None
        self._is_closed = False

    @classmethod
    @contextmanager
    def open(cls) -> Iterator["Bench"]:
        with ExitStack() as stack:
            folder = Path(tempfile.mkdtemp(prefix="shargain-mutations-"))
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
            folder.chmod(0o711)
            bench = cls(folder)
            _copy(bench.tree)
            for server in (bench._postgres, bench._quotas, bench._broker):
                stack.enter_context(server)
            stack.callback(bench.close)
            yield bench

    def try_out(self, mutant: Mutant) -> Outcome:
        """Run the tests that could see the mistake until one does."""
        path = self.tree / mutant.file
        original = path.read_text(encoding="utf-8")
        if original != read(mutant.file):
            raise StaleMutant(f"{mutant.file} was edited while the copy was made: start again.")
        try:
            _write(path, mutant.applied_to(original))
            return self.run(folders_of(mutant.file), first_of(mutant.file))
        finally:
            _write(path, original)

    def run(self, folders: Sequence[str], first: Sequence[str] = ()) -> Outcome:
        """Run these tests, in this order, until one fails."""
        if self._is_closed:
            raise BenchClosed("Nothing is run here any more.")
        self._clean()
        began = time.monotonic()
        output = self._pytest(folders, first)
        seconds = time.monotonic() - began
        if self._is_closed:
            raise BenchClosed("The run was ended from outside: it says nothing.")
        if output is None:
            return Outcome("timed out", "no test ended it", seconds)
        assert self._process is not None
        if self._process.returncode == 0:
            return Outcome("survived", "", seconds)
        found = _FAILED.search(output)
        return Outcome("killed", found[1] if found else "the tests do not start", seconds)

    def close(self) -> None:
        """End what runs; nothing is run here again."""
        self._is_closed = True
        if self._process is not None and self._process.poll() is None:
            self._kill(self._process)

    def _kill(self, process: "subprocess.Popen[str]") -> None:
        """End it with whatever it started."""
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def _pytest(self, folders: Sequence[str], first: Sequence[str]) -> str | None:
        options = [
            "-n0",
            "-x",
            "-q",
            "--tb=no",
            "-p",
            "no:cacheprovider",
            "-p",
            "tests.mutations.in_order",
        ]
        left_out = [f"--deselect={test}" for test in LEFT_OUT]
        order = f"--in-order={','.join([*first, *folders])}"
        self._process = subprocess.Popen(
            [sys.executable, "-m", "pytest", *options, *left_out, order, *folders],
            cwd=self.tree,
            env={**os.environ, **self._addresses()},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        try:
            return self._process.communicate(timeout=RUN_SECONDS)[0]
        except subprocess.TimeoutExpired:
            return None
        finally:
            self._kill(self._process)

    def _addresses(self) -> dict[str, str]:
        return {
            "DATABASE_URL": self._postgres.url,
            "REDIS_URL": self._quotas.url,
            "CELERY_BROKER_URL": self._broker.url,
        }

    def _clean(self) -> None:
        """Servers as new: a mutant may have left a script that never ends, or databases."""
        for server in (self._quotas, self._broker):
            server.kill()
            server.start()
        with psycopg.connect(self._postgres.url, autocommit=True) as connection:
            rows = connection.execute(
                "SELECT datname FROM pg_database WHERE NOT datistemplate AND datname <> 'postgres'"
            ).fetchall()
            for (name,) in rows:
                connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)'.encode())


def _copy(tree: Path) -> None:
    tree.mkdir()
    unwanted = shutil.ignore_patterns("__pycache__", ".*")
    for name in COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, tree / name, ignore=unwanted)
        else:
            shutil.copy2(ROOT / name, tree / name)


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
    # Compiled code is known by time and size, in which two mutants of a second may agree.
    Path(importlib.util.cache_from_source(str(path))).unlink(missing_ok=True)
