"""Counts what became of the batches of a run, from the lines that the Celery worker logs."""

import os
import re
import time
from collections import Counter, deque
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from shargain.offers.services.offer_creation import Outcome

RATE_SECONDS = 5.0
_LINE = re.compile(rb"batch \S+ of target (\d+): (\d+) created, (\d+) duplicates, (\d+) discarded")


@dataclass(slots=True)
class Record:
    """What became of the batches of one target: offers by outcome, and when the last ones came."""

    outcomes: Counter[Outcome] = field(default_factory=Counter)
    batches: int = 0
    recent: deque[float] = field(default_factory=lambda: deque(maxlen=1000))

    def rate(self) -> float:
        """Batches per second, over the last seconds."""
        since = time.monotonic() - RATE_SECONDS
        return sum(moment > since for moment in self.recent) / RATE_SECONDS


class Tally:
    """Reads a worker's log as it grows, through restarts of the worker that begin it anew.

    A batch that is delivered again is logged again, and a worker that is killed between its commit
    and its line logs nothing: this is for the eye, and nothing is judged by it.
    """

    def __init__(self, log: Path) -> None:
        self.by_target: dict[int, Record] = {}
        self._log = log
        self._file: BinaryIO | None = None
        self._rest = b""

    def record(self, target_id: int) -> Record:
        return self.by_target.setdefault(target_id, Record())

    def read(self) -> None:
        """Take in what was logged since the last call."""
        if self._file is not None:
            self._take(self._file.read())
            if self._is_current():
                return
            self._file.close()
            self._file, self._rest = None, b""
        with suppress(FileNotFoundError):
            self._file = self._log.open("rb")
            self._take(self._file.read())

    def close(self) -> None:
        if self._file is not None:
            self._file.close()

    def _is_current(self) -> bool:
        assert self._file is not None
        try:
            return os.path.samestat(self._log.stat(), os.fstat(self._file.fileno()))
        except FileNotFoundError:
            return True

    def _take(self, text: bytes) -> None:
        *lines, self._rest = (self._rest + text).split(b"\n")
        for line in lines:
            if found := _LINE.search(line):
                self._count(*map(int, found.groups()))

    def _count(self, target_id: int, created: int, duplicates: int, discarded: int) -> None:
        record = self.record(target_id)
        record.batches += 1
        record.recent.append(time.monotonic())
        record.outcomes.update(
            {
                Outcome.CREATED: created,
                Outcome.DUPLICATE: duplicates,
                Outcome.DISCARDED: discarded,
            }
        )
