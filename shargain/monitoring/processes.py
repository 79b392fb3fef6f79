"""The directory in which the processes of one role count together, and what dead processes leave in it."""

import atexit
import fcntl
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
_COUNTS = re.compile(r"(counter|histogram|gauge_mostrecent)_(\d+)\.db")
_DEAD = 0
"""Stands for the pid of all dead processes together."""


def open_directory() -> Path:
    """Make a fresh directory for this process and all that it will fork; it is removed when this process ends.

    Always a new one: a second role that inherited it would add its counts to ours.
    """
    assert "prometheus_client" not in sys.modules, "prometheus_client has decided already"
    folder = Path(tempfile.mkdtemp(prefix="shargain-metrics-"))
    os.environ[VARIABLE] = str(folder)
    owner = os.getpid()

    def remove() -> None:
        if os.getpid() == owner:
            shutil.rmtree(folder, ignore_errors=True)

    atexit.register(remove)
    return folder


def directory() -> Path | None:
    """Where this role's processes count, or None where it is one process that counts by itself."""
    folder = os.environ.get(VARIABLE)
    return Path(folder) if folder else None


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Be the only one who reads the directory or tidies it up."""
    with (folder / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            # Closing is not enough: a child that is forked meanwhile keeps the file open, and the lock with it.
            fcntl.flock(file, fcntl.LOCK_UN)


def fold_dead(folder: Path) -> None:
    """Add what dead processes have counted to one account, so that restarts do not pile up files.

    To be called `alone`. Nothing of the sums is lost, however a process has died.
    """
    for file in sorted(folder.iterdir()):
        found = _COUNTS.fullmatch(file.name)
        if found and int(found[2]) != _DEAD and not _is_alive(int(found[2])):
            _fold(file, folder / f"{found[1]}_{_DEAD}.db", is_sum=not found[1].startswith("gauge"))


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _fold(file: Path, into: Path, *, is_sum: bool) -> None:
    from prometheus_client.mmap_dict import MmapedDict

    total = MmapedDict(str(into))
    try:
        for key, value, timestamp, _ in MmapedDict.read_all_values_from_file(str(file)):
            known, known_timestamp = total.read_value(key)
            if is_sum:
                total.write_value(key, known + value, 0)
            elif timestamp > known_timestamp:
                total.write_value(key, value, timestamp)
    finally:
        total.close()
    file.unlink()
