#!/usr/bin/env python3
"""Makes .venv in the tree from the hashed lock, or leaves it alone when it is already that.

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
REQUIREMENTS = ROOT / "requirements" / "development.txt"
VENV = ROOT / ".venv"
STAMP = VENV / "complete"
PROGRESS_SECONDS = 2
ANSWER_SECONDS = 15
TAIL_LINES = 8


class SetupError(Exception):
    """The environment cannot be made; the text says why and what helps."""


def main() -> int:
    """Make the environment if it is not there yet, and return the exit status."""
    try:
        with _alone() as lock:
            if not _is_complete():
                _make(lock)
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
def _alone() -> Iterator[int]:
    """Hold the lock that lets one command at a time make the environment."""
    # The lock is on a file that is always there, so it leaves none of its own behind, and the
    # installer inherits it: as long as one still writes, nobody else begins.
    with REQUIREMENTS.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("Another command makes .venv; waiting for it.", file=sys.stderr)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield file.fileno()


def _wanted_stamp() -> str:
    # The scripts of a virtual environment name its folder, so a moved tree needs a new one.
    return f"{hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()} {ROOT}\n"


def _is_complete() -> bool:
    try:
        stamp = STAMP.read_text(encoding="utf-8")
    except FileNotFoundError:
        return False
    return stamp == _wanted_stamp() and os.access(VENV / "bin" / "python", os.X_OK)


def _make(lock: int) -> None:
    stamp = _wanted_stamp()
    _remove()
    # Python behind its links: the one on PATH may live in the very folder just removed.
    python = str(Path(sys.executable).resolve())
    uv = _find_uv()
    if uv:
        _make_with_uv(uv, python, lock)
    else:
        _make_with_pip(python, lock)
    unfinished = STAMP.with_suffix(".new")
    unfinished.write_text(stamp, encoding="utf-8")
    unfinished.replace(STAMP)


def _remove() -> None:
    if VENV.is_symlink():
        VENV.unlink()
    elif VENV.exists():
        STAMP.unlink(missing_ok=True)
        shutil.rmtree(VENV)


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


def _make_with_uv(uv: str, python: str, lock: int) -> None:
    _run([uv, "venv", "--python", python, str(VENV)], "Making .venv with uv", lock)
    install = [uv, "pip", "install", "--python", str(VENV / "bin" / "python")]
    _install(install, lock)


def _make_with_pip(python: str, lock: int) -> None:
    for module in ("venv", "ensurepip"):
        if importlib.util.find_spec(module) is None:
            version = f"{sys.version_info.major}.{sys.version_info.minor}"
            raise SetupError(
                f"{python} has no module {module}: install it (Debian and Ubuntu:"
                f" apt-get install python{version}-venv), or install uv."
            )
    _run([python, "-I", "-m", "venv", str(VENV)], "Making .venv", lock)
    pip = [str(VENV / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "--no-input"]
    _install([*pip, "install", "--retries", "2", "--progress-bar", "off"], lock)


def _install(installer: list[str], lock: int) -> None:
    # The lock names every package, so nothing has to be resolved; no package may run a build.
    options = ["--require-hashes", "--no-deps", "--only-binary", ":all:", "-r", str(REQUIREMENTS)]
    what = f"Installing {REQUIREMENTS.relative_to(ROOT)}"
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
    sys.exit(main())
