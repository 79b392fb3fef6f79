"""Runs cases one after the other, each in a process of its own that leaves nothing behind."""

import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

from shargain.demo.bench.process import SKIPPED
from shargain.demo.folders import locked
from shargain.demo.supervisor import Process, ProcessError

ROOT = Path(__file__).resolve().parents[3]
LOOK_SECONDS = 0.2
MAX_SECONDS = 1800.0
# To stop servers, and to throw away what they have on disk.
GRACE_SECONDS = 60.0
ENVIRONMENT = {"PYTHONUNBUFFERED": "1", "PYTHONUTF8": "1"}
# What would lead a case to servers that are not its own.
FOREIGN = ("DATABASE_URL", "REDIS_URL", "CELERY_BROKER_URL", "DJANGO_SETTINGS_MODULE")

Found: TypeAlias = dict[str, Any]
"""A case's `Result` as plain values, with the `seconds` it took and the UTC `day` on which it was taken."""


class CaseError(Exception):
    """A case did not come to its end; why is in the output that was passed on."""


def run_cases(
    names: Iterable[str], mode: str, state: Path, say: Callable[[str], None]
) -> dict[str, Found]:
    """What each of the cases found; those that cannot run here are said and left out.

    Raises:
        CaseError: one failed.
        ServerError: another run uses the folder.
    """
    found = {}
    with _own_folder(state) as folder:
        for name in names:
            say(f"-- {name}")
            result = _run(name, mode, folder / name, say)
            if result is not None:
                found[name] = result
    return found


@contextmanager
def _own_folder(state: Path) -> Iterator[Path]:
    """An empty folder that servers can be reached in; it goes at the end."""
    folder = state / "bench"
    state.mkdir(mode=0o711, exist_ok=True)
    folder.mkdir(mode=0o711, exist_ok=True)
    with locked(folder):
        _empty(folder)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _empty(folder: Path) -> None:
    """Remove what a run left that was killed."""
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)


def _run(name: str, mode: str, folder: Path, say: Callable[[str], None]) -> Found | None:
    folder.mkdir(mode=0o711)
    environment = {key: value for key, value in os.environ.items() if key not in FOREIGN}
    process = Process(
        name,
        [sys.executable, "-m", "shargain.demo.bench.process", name, mode, str(folder)],
        log=folder / "output.log",
        cwd=ROOT,
        env={**environment, **ENVIRONMENT},
        stop_signal=signal.SIGINT,
        grace=GRACE_SECONDS,
    )
    began = time.monotonic()
    process.start()
    try:
        _follow(process, began + MAX_SECONDS, say)
    finally:
        process.stop()
    if process.status == SKIPPED:
        say(f"   left out: {process.tail().splitlines()[-1]}")
        return None
    if process.status:
        raise CaseError(f"{name} ended with status {process.status}: see its output above.")
    result: Found = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    shutil.rmtree(folder)
    took = round(time.monotonic() - began, 1)
    return {
        **result,
        "mode": mode,
        "seconds": took,
        "day": time.strftime("%Y-%m-%d", time.gmtime()),
    }


def _follow(process: Process, deadline: float, say: Callable[[str], None]) -> None:
    """Pass on what the process prints, until it ends."""
    with process.log.open(encoding="utf-8", errors="replace") as log:
        while True:
            is_running = process.is_running
            if text := log.read():
                say("\n".join(f"   {line}" for line in text.splitlines()))
            if not is_running:
                return
            if time.monotonic() > deadline:
                raise ProcessError(f"{process.name} did not end within {MAX_SECONDS:.0f} s.")
            time.sleep(LOOK_SECONDS)
