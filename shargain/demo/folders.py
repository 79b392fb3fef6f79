"""What the folder of a server needs: a lock that is exact, and a password that is private."""

import fcntl
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

LOCK_SECONDS = 30.0
LOCK_RETRY_SECONDS = 0.05


class ServerError(Exception):
    """A server cannot be started or used; the text says why and what helps."""


@contextmanager
def locked(folder: Path) -> Iterator[int]:
    """Hold the folder's lock, and yield its file descriptor.

    A process that inherits the descriptor keeps the lock for as long as it lives. So the lock is
    free only when no server of an earlier run is left, whatever became of that run.

    Raises:
        ServerError: another run uses the folder.
        OSError: the folder cannot be written.
    """
    lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        _acquire(lock, folder)
        os.pwrite(lock, b"%-20d\n" % os.getpid(), 0)
        yield lock
    finally:
        os.close(lock)


@contextmanager
def flocked(folder: Path) -> Iterator[None]:
    """Hold a lock that is only ever held for moments, and is simply waited for."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _acquire(lock: int, folder: Path) -> None:
    deadline = time.monotonic() + LOCK_SECONDS
    while True:
        with suppress(BlockingIOError):
            return fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # The servers of a run that was killed still need a moment to shut down.
        owner = os.pread(lock, 20, 0).decode().strip()
        if _is_alive(owner) or time.monotonic() > deadline:
            raise ServerError(
                f"{folder} is in use by another run (process {owner}): stop it first."
            )
        time.sleep(LOCK_RETRY_SECONDS)


def _is_alive(pid: str) -> bool:
    return pid.isdecimal() and Path("/proc", pid).exists()


def write_private(file: Path, text: str) -> None:
    """Write a file that only its owner can read, in one step."""
    new = file.with_name(f"{file.name}.new")
    new.unlink(missing_ok=True)
    new.touch(mode=0o600)
    new.write_text(text, encoding="utf-8")
    new.replace(file)


def password_of(folder: Path) -> str:
    """The password made for this folder; a new one is made on the first call. Needs the lock."""
    file = folder / "password"
    if not file.exists():
        write_private(file, secrets.token_urlsafe(24))
    return file.read_text(encoding="utf-8")
