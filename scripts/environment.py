#!/usr/bin/env python3
"""Makes an environment in the tree from a hashed lock, or leaves it alone when it is already that.

    environment.py [LOCK [FOLDER]]

LOCK is the name of a file in `requirements`, without its ending: by default `development`, for the folder .venv.

The last thing written is a stamp. An environment without the right stamp is never believed: it
is made anew, so a kill at any moment leaves nothing behind that the next command would trust.
"""

import fcntl
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROGRESS_SECONDS = 2
ANSWER_SECONDS = 15
TAIL_LINES = 8


class SetupError(Exception):
    """The environment cannot be made; the text says why and what helps."""


class Environment:
    """A virtual environment in the tree, and the lock that says what is in it."""

    def __init__(self, lock: str = "development", folder: str = ".venv") -> None:
        self.requirements = ROOT / "requirements" / f"{lock}.txt"
        self.folder = ROOT / folder
        self.stamp = self.folder / "complete"
        self.python = self.folder / "bin" / "python"

    def wanted_stamp(self) -> str:
        # The scripts of a virtual environment name its folder, so a moved tree needs a new one.
        return f"{hashlib.sha256(self.requirements.read_bytes()).hexdigest()} {ROOT}\n"

    def is_complete(self) -> bool:
        try:
            stamp = self.stamp.read_text(encoding="utf-8")
        except FileNotFoundError:
            return False
        return stamp == self.wanted_stamp() and os.access(self.python, os.X_OK)

    def remove(self) -> None:
        if self.folder.is_symlink():
            self.folder.unlink()
        elif self.folder.exists():
            self.stamp.unlink(missing_ok=True)
            shutil.rmtree(self.folder)


def main(arguments: list[str]) -> int:
    """Make the environment if it is not there yet, and return the exit status."""
    environment = Environment(*arguments)
    try:
        with _alone(environment) as lock:
            if not environment.is_complete():
                _make(environment, lock)
    except SetupError as failure:
        print(failure, file=sys.stderr)
        return 1
    except OSError as error:
        print(f"The environment could not be made: {error}.", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


@contextmanager
def _alone(environment: Environment) -> Iterator[int]:
    """Hold the lock that lets one command at a time make the environment."""
    # The lock is on a file that is always there, so it leaves none of its own behind, and the
    # installer inherits it: as long as one still writes, nobody else begins.
    with environment.requirements.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(
                f"Another command makes {environment.folder.name}; waiting for it.", file=sys.stderr
            )
            fcntl.flock(file, fcntl.LOCK_EX)
        yield file.fileno()


def _make(environment: Environment, lock: int) -> None:
    stamp = environment.wanted_stamp()
    environment.remove()
    # Python behind its links: the one on PATH may live in the very folder just removed.
    python = str(Path(sys.executable).resolve())
    uv = _find_uv()
    if uv:
        _make_with_uv(environment, uv, python, lock)
    else:
        _make_with_pip(environment, python, lock)
    unfinished = environment.stamp.with_suffix(".new")
    unfinished.write_text(stamp, encoding="utf-8")
    unfinished.replace(environment.stamp)


def _find_uv() -> str | None:
    """Where uv is, if there is one that works: a version manager's shim may not."""
    uv = shutil.which("uv")
    if uv is None:
        return None
    try:
        subprocess.run(  # noqa: S603
            [uv, "--version"], check=True, capture_output=True, timeout=ANSWER_SECONDS
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return uv


def _make_with_uv(environment: Environment, uv: str, python: str, lock: int) -> None:
    folder = environment.folder
    _run([uv, "venv", "--python", python, str(folder)], f"Making {folder.name} with uv", lock)
    _install(environment, [uv, "pip", "install", "--python", str(environment.python)], lock)


def _make_with_pip(environment: Environment, python: str, lock: int) -> None:
    for module in ("venv", "ensurepip"):
        if importlib.util.find_spec(module) is None:
            version = f"{sys.version_info.major}.{sys.version_info.minor}"
            raise SetupError(
                f"{python} has no module {module}: install it (Debian and Ubuntu:"
                f" apt-get install python{version}-venv), or install uv."
            )
    folder = environment.folder
    _run([python, "-I", "-m", "venv", str(folder)], f"Making {folder.name}", lock)
    pip = [str(environment.python), "-m", "pip", "--disable-pip-version-check", "--no-input"]
    _install(environment, [*pip, "install", "--retries", "2", "--progress-bar", "off"], lock)


def _install(environment: Environment, installer: list[str], lock: int) -> None:
    # The lock names every package, so nothing has to be resolved; no package may run a build.
    requirements = environment.requirements
    options = ["--require-hashes", "--no-deps", "--only-binary", ":all:", "-r", str(requirements)]
    what = f"Installing {requirements.relative_to(ROOT)}"
    cure = ": check that the package registry can be reached from here, and start again"
    _run([*installer, *options], what, lock, cure)


def _run(command: list[str], what: str, lock: int, cure: str = "") -> None:
    """Run a command, with a sign of life every other second; its output is kept for a failure."""
    print(f"{what} ...", file=sys.stderr, flush=True)
    began = time.monotonic()
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(  # noqa: S603
            command,
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            pass_fds=[lock],
        )
        while _is_running(process):
            lines = _tail(output.fileno(), 1)
            print(f"  {time.monotonic() - began:.0f} s {lines[:90]}", file=sys.stderr, flush=True)
        if process.returncode:
            raise SetupError(
                f"{_tail(output.fileno(), TAIL_LINES)}\n"
                f"{what} failed with status {process.returncode}, see above{cure}."
            )


def _is_running(process: "subprocess.Popen[bytes]") -> bool:
    try:
        process.wait(PROGRESS_SECONDS)
    except subprocess.TimeoutExpired:
        return True
    return False


def _tail(file: int, count: int) -> str:
    size = os.fstat(file).st_size
    text = os.pread(file, 4096, max(0, size - 4096)).decode("utf-8", "replace")
    return "\n".join(text.split("\n")[-count - 1 :]).strip()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
