"""sync: the counts of changed subjects, from Redis (or the ledger) to the definitions' used column."""

import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TypeAlias

from quota_redis.connection import text
from quota_redis.counters import Counters
from quota_redis.errors import Unavailable
from quota_redis.postgres.absorb import absorb, absorb_each, write_counts
from quota_redis.postgres.ledger import Ledger, refuse_transaction, translated
from quota_redis.postgres.queries import PgConnection
from quota_redis.types import Snapshot

logger = logging.getLogger(__name__)

BATCH = 200

OnCounts: TypeAlias = Callable[[Mapping[int, int]], None]
"""Called with used units by quota id, after the transaction that wrote them."""


@dataclass(frozen=True, slots=True)
class SyncReport:
    """What one run did. `is_complete` is False where Redis was out of reach for a part of it."""

    subjects: int
    counts: int
    absorbed: int
    is_complete: bool
    was_running: bool = False


def sync(
    counters: Counters,
    ledger: Ledger,
    connection: PgConnection,
    *,
    on_counts: OnCounts | None = None,
) -> SyncReport:
    """Write the counts of every subject that changed; one run at a time, safe to start twice.

    Marks that PostgreSQL keeps (edits, the direct road) are absorbed first. Where Redis does not answer, their
    counts come from the ledger and the marks stay. Call it outside a transaction.
    """
    refuse_transaction(connection)
    with translated(), writing_counts(connection, ledger.namespace, wait=False) as is_ours:
        if not is_ours:
            return SyncReport(0, 0, 0, is_complete=False, was_running=True)
        return _sync(counters, ledger, connection, on_counts or _ignore)


@contextlib.contextmanager
def writing_counts(connection: PgConnection, namespace: str, *, wait: bool) -> Iterator[bool]:
    """Be the only one in this namespace who writes counts; false where somebody else is and we don't wait."""
    function = "pg_advisory_lock" if wait else "pg_try_advisory_lock"
    name = f"quota_redis:sync:{namespace}"
    row = connection.execute(
        f"SELECT {function}(hashtextextended(%s, 0))::text".encode(),
        (name,),
    ).fetchone()
    connection.commit()
    is_ours = bool(row and row[0] != "false")
    try:
        yield is_ours
    finally:
        if is_ours and not connection.closed:
            connection.rollback()
            connection.execute("SELECT pg_advisory_unlock(hashtextextended(%s, 0))", (name,))
            connection.commit()


def _ignore(_counts: Mapping[int, int]) -> None:
    """Nobody wants to hear of the counts."""


def _sync(
    counters: Counters, ledger: Ledger, connection: PgConnection, on_counts: OnCounts
) -> SyncReport:
    absorbed, is_complete = _absorb_marked(counters, ledger, connection, on_counts)
    subjects = counts = 0
    try:
        for shard in range(counters.keys.shards):
            for names in _changed(counters, ledger, shard):
                reclaimed, written = _sync_batch(counters, ledger, connection, names)
                on_counts(written)
                absorbed += reclaimed
                subjects += len(names)
                counts += len(written)
    except Unavailable as error:
        logger.warning("sync leaves the rest to the next run: %s", error)
        is_complete = False
    return SyncReport(subjects, counts, absorbed, is_complete)


def _absorb_marked(
    counters: Counters, ledger: Ledger, connection: PgConnection, on_counts: OnCounts
) -> tuple[int, bool]:
    """Absorb what PostgreSQL marked. A mark goes only after what it stands for has reached Redis."""
    absorbed, after = 0, 0
    while marks := _marks(connection, ledger.namespace, after):
        after = marks[-1][0]
        subjects = sorted({subject for _, subject in marks})
        on_counts(_count_from_ledger(ledger, connection, subjects))
        try:
            done = absorb_each(counters, ledger, connection, subjects)
        except Unavailable as error:
            logger.warning("marks stay for the next run: %s", error)
            return absorbed, False
        absorbed += len(done)
        with connection.transaction():
            connection.execute(
                "DELETE FROM quota_redis_mark WHERE id = ANY(%s)",
                ([mark for mark, subject in marks if subject in done],),
            )
    return absorbed, True


def _marks(connection: PgConnection, namespace: str, after: int) -> list[tuple[int, str]]:
    with connection.transaction():
        return connection.execute(
            "SELECT id, subject FROM quota_redis_mark WHERE namespace = %s AND id > %s ORDER BY id LIMIT %s",
            (namespace, after, BATCH),
        ).fetchall()


def _count_from_ledger(
    ledger: Ledger, connection: PgConnection, subjects: Sequence[str]
) -> dict[int, int]:
    with connection.transaction():
        known = ledger.read(connection, subjects)
        wanted = {quota.id: quota.used for now in known for quota in now.quotas}
        written = write_counts(ledger, connection, wanted)
    return {quota: wanted[quota] for quota in written}


def _changed(counters: Counters, ledger: Ledger, shard: int) -> Iterator[list[str]]:
    """The subjects of a shard that are marked as changed, in batches."""
    members = counters.connection.command("SMEMBERS", counters.keys.changed_of(shard))
    ours = filter(ledger.is_subject, map(text, members))
    while names := list(islice(ours, BATCH)):
        yield names


def _sync_batch(
    counters: Counters, ledger: Ledger, connection: PgConnection, names: Sequence[str]
) -> tuple[int, dict[int, int]]:
    """Write the counts of these subjects; returns how many had to be absorbed first, and what was written."""
    snapshots = counters.snapshots(names)
    stale = [s.subject for s in snapshots if s.document is None or s.expired]
    if stale:
        absorb(counters, ledger, connection, stale)
        snapshots = counters.snapshots(names)
    wanted = {
        quota: state.usage.used
        for snapshot in snapshots
        for quota, state in snapshot.quotas.items()
    }
    with connection.transaction():
        written = write_counts(ledger, connection, wanted)
        missing = _gone(ledger, connection, wanted.keys() - written)
    _unmark(counters, [s for s in snapshots if s.quotas.keys() <= written | missing])
    return len(stale), {quota: wanted[quota] for quota in written}


def _gone(ledger: Ledger, connection: PgConnection, quotas: set[int]) -> set[int]:
    """Those of the quotas that have no row any more, unlike rows that are merely locked."""
    t = ledger.table
    query = f"SELECT {t.id} FROM {t.table} WHERE {t.id} = ANY(%s)"  # noqa: S608
    rows = connection.execute(query.encode(), (list(quotas),)).fetchall() if quotas else []
    return quotas - {row[0] for row in rows}


def _unmark(counters: Counters, snapshots: Sequence[Snapshot]) -> None:
    """Clear the marks of subjects that have not changed since, and of which nothing is held."""
    calls = []
    for snapshot in snapshots:
        if snapshot.document is None or snapshot.holds:
            continue
        seen = [snapshot.subject, "d", snapshot.document]
        for quota, state in snapshot.quotas.items():
            seen += [f"q{quota}", state.raw]
        keys = [counters.keys.subject(snapshot.subject), counters.keys.changed(snapshot.subject)]
        calls.append((keys, seen))
    counters.connection.run_many("unmark", calls)
