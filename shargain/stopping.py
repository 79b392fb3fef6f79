"""Ends a long-running command where it likes to end, when a signal asks for it."""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
SLICE_SECONDS = 0.1


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Let signals wait until the block ends. For imports: Python 3.11 turns a KeyboardInterrupt within
    `__set_name__`, as of Django's classes, into a RuntimeError."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class StopRequest:
    """Is set by ctrl-C, SIGTERM or SIGHUP.

    Not a threading.Event: a handler would wait for ever for its lock where it interrupts the very
    thread that holds it.
    """

    def __init__(self) -> None:
        self.is_set = False

    def listen(self) -> None:
        """Take the signals over, for the rest of the process."""
        for number in SIGNALS:
            signal.signal(number, self._handle)

    def wait(self, seconds: float) -> bool:
        """Return after so many seconds, or soon after the request; whether there was one."""
        deadline = time.monotonic() + seconds
        while not self.is_set and (left := deadline - time.monotonic()) > 0:
            time.sleep(min(left, SLICE_SECONDS))
        return self.is_set

    def _handle(self, _number: int, _frame: FrameType | None) -> None:
        self.is_set = True


class PatientStop(StopRequest):
    """For a command that ends with some ceremony: a second signal interrupts it.

    Until `is_patient` is set, the first one does. From an interruption on signals are ignored, so
    that the cleaning up is not interrupted too.
    """

    def __init__(self) -> None:
        super().__init__()
        self.is_patient = False

    def _handle(self, _number: int, _frame: FrameType | None) -> None:
        if self.is_patient and not self.is_set:
            self.is_set = True
            return
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt
