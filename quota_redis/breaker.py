"""A circuit breaker: a server that keeps failing is left alone for a moment, then tried by one call at a time."""

import logging
import threading
import time
from collections.abc import Callable

logger = logging.getLogger(__name__)


class Breaker:
    """Opens after `failures` in a row, for `pause` seconds; after it one call is let through to try.

    Thread-safe. `clock` returns seconds and never goes back.
    """

    def __init__(
        self, failures: int = 3, pause: float = 1.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._failures = failures
        self._pause = pause
        self._clock = clock
        self._lock = threading.Lock()
        self._failed = 0
        self._retry_at = 0.0

    @property
    def is_open(self) -> bool:
        """Whether calls are being kept away."""
        return self._failed >= self._failures and self._clock() < self._retry_at

    def admit(self) -> bool:
        """Whether a call may go through; where the pause is over, true for one caller until it reports."""
        if self._failed < self._failures:
            return True
        with self._lock:
            if self._clock() < self._retry_at:
                return False
            self._retry_at = self._clock() + self._pause
            return True

    def succeeded(self) -> None:
        if self._failed >= self._failures:
            logger.warning("Redis answers again.")
        self._failed = 0

    def failed(self, error: Exception) -> None:
        with self._lock:
            self._failed += 1
            if self._failed == self._failures:
                logger.warning("Redis is left alone for %.1f s at a time: %s", self._pause, error)
            if self._failed >= self._failures:
                self._retry_at = self._clock() + self._pause
