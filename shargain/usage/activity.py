"""Counting what became of offers: in memory where batches are decided, in PostgreSQL a few seconds later.

These are statistics, and a batch never waits for them. A process that is killed loses at most its last
FLUSH_SECONDS of them. An outage of PostgreSQL keeps them in memory, up to MAX_BUFFERED rows; a connection that
breaks while PostgreSQL commits may count them twice.
"""

import logging
import os
import threading
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any, cast

import psycopg
from django.db import DEFAULT_DB_ALIAS, connections

from shargain.offers.services.offer_creation import BatchResult, Outcome
from shargain.usage.models import NO_QUOTA

logger = logging.getLogger(__name__)

FLUSH_SECONDS = 10.0
MAX_BUFFERED = 10_000
FLUSH_ROWS = 1_000
"""Rows of one statement; the next flush goes on after the last that was written."""
STATEMENT_SECONDS = 5

_ADD = """
INSERT INTO usage_offercount AS known
    (quota_id, resolution, at, target_id, created, duplicates, discarded)
SELECT quota_id, minutes, date_trunc(unit, at, 'UTC'), target_id,
    sum(created), sum(duplicates), sum(discarded)
FROM unnest(%s::bigint[], %s::timestamptz[], %s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[])
    AS counts (quota_id, at, target_id, created, duplicates, discarded)
CROSS JOIN (VALUES (1, 'minute'), (60, 'hour'), (1440, 'day')) AS resolutions (minutes, unit)
GROUP BY 1, 2, 3, 4
ORDER BY 1, 2, 3, 4
ON CONFLICT (quota_id, resolution, at, target_id) DO UPDATE SET
    created = known.created + EXCLUDED.created,
    duplicates = known.duplicates + EXCLUDED.duplicates,
    discarded = known.discarded + EXCLUDED.discarded
"""


@dataclass(frozen=True, slots=True)
class Key:
    """Whose offers, in which minute; the quota is NO_QUOTA where none was active."""

    quota_id: int
    minute: datetime
    target_id: int


@dataclass(slots=True)
class Counts:
    """Offers by what became of them."""

    created: int = 0
    duplicates: int = 0
    discarded: int = 0

    def add(self, other: "Counts") -> None:
        self.created += other.created
        self.duplicates += other.duplicates
        self.discarded += other.discarded


class Buffer:
    """Counts of this process, for any number of threads. The first after a flush starts a timer for the next."""

    def __init__(self, *, flush_seconds: float = FLUSH_SECONDS, size: int = MAX_BUFFERED) -> None:
        self._flush_seconds = flush_seconds
        self._size = size
        self.forget()

    def forget(self) -> None:
        """Drop everything that is not flushed."""
        self._counts: dict[Key, Counts] = {}
        self._timer: threading.Timer | None = None
        self._is_failing = False
        self._has_dropped = False
        self._lock = threading.Lock()
        self._flushing = threading.Lock()

    def add(self, target_id: int, quota_id: int | None, counts: Counts) -> None:
        """Count offers of a batch that was decided just now."""
        minute = datetime.now(UTC).replace(second=0, microsecond=0)
        with self._lock:
            self._merge({Key(quota_id or NO_QUOTA, minute, target_id): counts})
            self._set_timer()

    def flush(self) -> bool:
        """Write everything to PostgreSQL, over a connection of its own; whether that is done. Never raises for an
        outage: what was not written is kept for the next flush."""
        with self._flushing:
            with self._lock:
                taken, self._counts = self._counts, {}
            if not taken:
                return True
            try:
                while taken:
                    some = dict(islice(taken.items(), FLUSH_ROWS))
                    _write(some)
                    for key in some:
                        del taken[key]
            except Exception as error:  # noqa: BLE001  statistics hold nothing up, whatever is wrong
                self._put_back(taken, error)
                return False
            self._is_failing = self._has_dropped = False
            return True

    def _flush_in_time(self) -> None:
        with self._lock:
            self._timer = None
        if not self.flush():
            with self._lock:
                self._set_timer()

    def _set_timer(self) -> None:
        if self._timer is None:
            self._timer = threading.Timer(self._flush_seconds, self._flush_in_time)
            self._timer.name = "usage"
            self._timer.daemon = True
            self._timer.start()

    def _put_back(self, taken: dict[Key, Counts], error: Exception) -> None:
        if not self._is_failing:
            logger.warning("statistics of offers wait for PostgreSQL: %s", error)
        self._is_failing = True
        with self._lock:
            later, self._counts = self._counts, taken
            self._merge(later)

    def _merge(self, counts: Mapping[Key, Counts]) -> None:
        for key, more in counts.items():
            self._counts.setdefault(key, Counts()).add(more)
        while len(self._counts) > self._size:
            del self._counts[next(iter(self._counts))]
            if not self._has_dropped:
                logger.warning(
                    "statistics of offers: more than %d rows, dropping the oldest", self._size
                )
            self._has_dropped = True


buffer = Buffer()
# What the parent has counted is the parent's to flush, and its threads and locks are not the child's.
os.register_at_fork(after_in_child=buffer.forget)


def count_batch(target_id: int, result: BatchResult, **_: Any) -> None:
    """Receiver of batch_decided."""
    outcomes = result.outcomes
    counts = Counts(*map(outcomes.count, (Outcome.CREATED, Outcome.DUPLICATE, Outcome.DISCARDED)))
    buffer.add(target_id, result.quota.id if result.quota else None, counts)


def flush() -> bool:
    """Write what this process has counted to PostgreSQL now; whether that is done."""
    return buffer.flush()


def _write(counts: Mapping[Key, Counts]) -> None:
    """One statement that adds; its rows are in order, so that processes cannot deadlock."""
    columns = zip(
        *(
            (key.quota_id, key.minute, key.target_id, n.created, n.duplicates, n.discarded)
            for key, n in counts.items()
        ),
        strict=True,
    )
    with closing(connections.create_connection(DEFAULT_DB_ALIAS)) as wrapper:
        wrapper.ensure_connection()
        own = cast("psycopg.Connection[Any]", wrapper.connection)
        with own.transaction():
            limit = timedelta(seconds=STATEMENT_SECONDS)
            own.execute(
                f"SET LOCAL statement_timeout = {limit // timedelta(milliseconds=1)}".encode()
            )
            own.execute(_ADD, [list(column) for column in columns])
