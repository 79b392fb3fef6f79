"""A circuit breaker: a server that keeps failing is left alone for a moment, then tried by one call at a time."""

import logging
import threading
import time
from collections.abc import Callable

logger = logging.getLogger(__name__)


class Breaker:
    """Opens after `failures` in a row, or one that took its time, for `pause` seconds; then one call is let
    through to try.

    Thread-safe. `clock` returns seconds and never goes back.
    """

    def __init__(
        self, failures: int = 3, pause: float = 1.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._failures = failures
        self._pause = pause
        self._clock = clock
        self._lock = threading.Lock()
        self.failed_in_a_row = 0
        """Calls; while it is zero there is nothing to ask and nothing to tell."""
        self._retry_at = 0.0

    @property
    def is_open(self) -> bool:
        """Whether calls are being kept away, but for the one that tries."""
        return self.failed_in_a_row >= self._failures

    def admit(self) -> bool:
        """Whether a call may go through; where the pause is over, true for one caller until it reports."""
        if not self.is_open:
            return True
        with self._lock:
            if self._clock() < self._retry_at:
                return False
            self._retry_at = self._clock() + self._pause
            return True

    def succeeded(self) -> None:
        if self.is_open:
            logger.warning("Redis answers again.")
        self.failed_in_a_row = 0

    def failed(self, error: Exception, *, at_once: bool = False) -> None:
        """A call failed; `at_once` opens whatever came before, for failures that cost their caller time."""
        with self._lock:
            was_open = self.is_open
            self.failed_in_a_row = max(self.failed_in_a_row + 1, self._failures if at_once else 0)
            if self.is_open:
                if not was_open:
                    logger.warning(
                        "Redis is left alone for %.1f s at a time: %s", self._pause, error
                    )
                self._retry_at = self._clock() + self._pause
