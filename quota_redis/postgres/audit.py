"""audit: compare Redis, the used column and the ledger; name what differs, and repair it towards the ledger."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from quota_redis import ranges
from quota_redis.counters import Counters
from quota_redis.errors import Unavailable
from quota_redis.postgres.absorb import absorb, load_batch, write_counts
from quota_redis.postgres.ledger import (
    Ledger,
    LedgerQuota,
    LedgerSubject,
    refuse_transaction,
    translated,
)
from quota_redis.postgres.queries import PgConnection
from quota_redis.postgres.schema import problems
from quota_redis.postgres.shards import forget, snapshots
from quota_redis.postgres.sync import writing_counts
from quota_redis.types import QuotaState, Snapshot

BATCH = 1000
"""Subjects that are read and compared together: what bounds memory and transactions."""
MAX_DRIFTS = 10_000
"""Differences that a report lists; the others are repaired and counted alike."""
COMPACT_ABOVE = 500
"""Rows of one quota in the ledger above which compaction merges them."""


class DriftReason(StrEnum):
    """Where the three accounts of a quota differ."""

    COUNT = "count"
    """The used column is not the ledger's: sync has not run since, or somebody wrote the column."""
    UNKNOWN = "unknown"
    """Redis does not know the quota: it lost the subject, or never heard of it."""
    VERSION = "version"
    """Redis has another version of the definitions."""
    BEHIND = "behind"
    """Redis counts fewer than the ledger: a settle was lost, or slots were taken past Redis."""
    AHEAD = "ahead"
    """Redis counts more than the ledger: slots leaked, or Redis is wrong."""
    FREE = "free"
    """The count is right but Redis would hand out slots that are taken."""
    EXPIRED = "expired"
    """Holds have outlived their lease: their worker died, or its answer was lost."""


@dataclass(frozen=True, slots=True)
class Drift:
    """One difference of one quota, in units."""

    subject: str
    quota_id: int
    reason: DriftReason
    ledger: int
    column: int
    redis: int | None


@dataclass(frozen=True, slots=True)
class AuditReport:
    """What an audit found and did. `problems` are gaps in the schema itself, by code; `more` is how many
    differences there were beside the first MAX_DRIFTS."""

    subjects: int
    drifts: tuple[Drift, ...]
    problems: dict[str, str]
    repaired: bool
    is_complete: bool
    more: int = 0


def audit(
    counters: Counters,
    ledger: Ledger,
    connection: PgConnection,
    subjects: Sequence[str] | None = None,
    *,
    repair: bool = True,
    progress: Callable[[int], None] | None = None,
) -> AuditReport:
    """Compare these subjects (None = all). With `repair`, absorb what differs and write the ledger's counts.

    Under load a difference may be a transaction under way; at rest there is none left after one repairing
    audit. Where Redis does not answer, counts are repaired from the ledger alone and `is_complete` is False.
    """
    refuse_transaction(connection)
    found: list[Drift] = []
    looked_at, more, is_complete = 0, 0, True
    with translated():
        for names in _batches(ledger, connection, subjects):
            drifts, could_ask = _audit_batch(counters, ledger, connection, names)
            if repair and drifts:
                could_ask = _repair(counters, ledger, connection, drifts) and could_ask
            room = MAX_DRIFTS - len(found)
            found += drifts[:room]
            more += len(drifts[room:])
            is_complete = is_complete and could_ask
            looked_at += len(names)
            if progress:
                progress(looked_at)
        gaps = problems(connection, ledger.table)
        connection.commit()
    return AuditReport(looked_at, tuple(found), gaps, repair, is_complete, more)


def rebuild(
    counters: Counters,
    ledger: Ledger,
    connection: PgConnection,
    subjects: Sequence[str] | None = None,
    *,
    progress: Callable[[int], None] | None = None,
) -> int:
    """Forget what Redis has of these subjects (None = all) and load it from the ledger; returns how many.

    Safe under load: workers that meet an unknown subject take the direct road.
    """
    refuse_transaction(connection)
    done = 0
    with translated():
        for names in _batches(ledger, connection, subjects):
            forget(counters, names)
            load_batch(counters, ledger, connection, names)
            connection.commit()
            done += len(names)
            if progress:
                progress(done)
    return done


def compact(ledger: Ledger, connection: PgConnection, above: int = COMPACT_ABOVE) -> int:
    """Merge the rows of quotas that have more than `above`; returns how many rows went. Frees no slot."""
    refuse_transaction(connection)
    gone = 0
    with translated():
        rows = connection.execute(
            """SELECT quota_id FROM quota_redis_ledger WHERE namespace = %s AND NOT void
            GROUP BY quota_id HAVING count(*) > %s ORDER BY quota_id""",
            (ledger.namespace, above),
        ).fetchall()
        connection.commit()
        for (quota_id,) in rows:
            with connection.transaction():
                row = connection.execute(
                    "SELECT quota_redis_compact_v1(%s, %s)", (ledger.namespace, quota_id)
                ).fetchone()
                gone += row[0] if row else 0
    return gone


def adopt(ledger: Ledger, connection: PgConnection) -> int:
    """Turn the used counts of quotas that the ledger knows nothing of into opening slots; returns how many.

    For a table that was counted by other means so far. Stop the old counting first. Safe to repeat.
    """
    refuse_transaction(connection)
    t = ledger.table
    query = f"""
        SELECT q.{t.id}, q.{t.used}, q.{t.limit}, '{t.prefix}' || q.{t.subject} FROM {t.table} q
        WHERE q.{t.used} > 0 AND NOT EXISTS (
            SELECT 1 FROM quota_redis_ledger l
            WHERE l.namespace = %s AND l.quota_id = q.{t.id} AND NOT l.void
        ) ORDER BY q.{t.id} FOR NO KEY UPDATE OF q"""  # noqa: S608  names are checked by QuotaTable
    with translated(), connection.transaction():
        rows = connection.execute(query.encode(), (ledger.namespace,)).fetchall()
        for quota_id, used, limit, subject in rows:
            _open_with(connection, ledger.namespace, quota_id, used, limit)
            connection.execute("SELECT quota_redis_bump_v1(%s, %s)", (ledger.namespace, subject))
    return len(rows)


def _open_with(
    connection: PgConnection, namespace: str, quota_id: int, used: int, limit: int | None
) -> None:
    connection.execute(
        "DELETE FROM quota_redis_ledger WHERE namespace = %s AND quota_id = %s AND void",
        (namespace, quota_id),
    )
    connection.execute(
        "INSERT INTO quota_redis_ledger (namespace, quota_id, slots) VALUES (%s, %s, int8range(1, %s))",
        (namespace, quota_id, used + 1),
    )
    connection.execute(
        "SELECT quota_redis_apply_limit_v1(%s, %s, %s)", (namespace, quota_id, limit)
    )


def _batches(
    ledger: Ledger, connection: PgConnection, subjects: Sequence[str] | None
) -> Iterator[Sequence[str]]:
    if subjects is None:
        yield from all_subjects(ledger, connection)
        return
    names = list(dict.fromkeys(subjects))
    for at in range(0, len(names), BATCH):
        yield names[at : at + BATCH]


def all_subjects(ledger: Ledger, connection: PgConnection) -> Iterator[list[str]]:
    """Every subject that ever had a quota, in order and in batches."""
    after = ""
    while True:
        with connection.transaction():
            rows = connection.execute(
                """SELECT subject FROM quota_redis_subject WHERE namespace = %s AND subject > %s
                ORDER BY subject LIMIT %s""",
                (ledger.namespace, after, BATCH),
            ).fetchall()
        if not rows:
            return
        after = rows[-1][0]
        yield [row[0] for row in rows]


def _audit_batch(
    counters: Counters, ledger: Ledger, connection: PgConnection, names: Sequence[str]
) -> tuple[list[Drift], bool]:
    seen: Sequence[Snapshot | None] = [None] * len(names)
    could_ask = False
    with contextlib.suppress(Unavailable):
        seen = snapshots(counters, names)
        could_ask = True
    with connection.transaction():
        known = ledger.read(connection, names, ended=True)
    drifts = [
        drift
        for now, snapshot in zip(known, seen, strict=True)
        for quota in now.quotas
        if (drift := _drift(now, quota, snapshot))
    ]
    return drifts, could_ask


def _drift(now: LedgerSubject, quota: LedgerQuota, snapshot: Snapshot | None) -> Drift | None:
    reason, in_redis = None, None
    if snapshot is not None and not quota.is_past:
        reason, in_redis = _compare(snapshot, now.version, quota)
    if reason is None and quota.column != quota.used:
        reason = DriftReason.COUNT
    if reason is None:
        return None
    return Drift(now.subject, quota.id, reason, quota.used, quota.column, in_redis)


def _compare(
    snapshot: Snapshot, version: int, quota: LedgerQuota
) -> tuple[DriftReason | None, int | None]:
    state = snapshot.quotas.get(quota.id)
    if state is None:
        return DriftReason.UNKNOWN, None
    used = state.usage.used
    if snapshot.version != version:
        return DriftReason.VERSION, used
    if any(hold.quota_id == quota.id for hold in snapshot.expired):
        return DriftReason.EXPIRED, used
    under_way = used <= quota.used <= used + state.usage.held
    if used != quota.used and not under_way:
        return (DriftReason.BEHIND if used < quota.used else DriftReason.AHEAD), used
    return (DriftReason.FREE if _is_free_wrong(state, quota) else None), used


def _is_free_wrong(state: QuotaState, quota: LedgerQuota) -> bool:
    return ranges.subtract(state.free, quota.taken) != state.free


def _repair(
    counters: Counters, ledger: Ledger, connection: PgConnection, drifts: Sequence[Drift]
) -> bool:
    """Bring Redis and the column in line with the ledger; False where Redis could not be asked."""
    in_redis = sorted({d.subject for d in drifts if d.reason != DriftReason.COUNT})
    could_ask = True
    try:
        absorb(counters, ledger, connection, in_redis)
    except Unavailable:
        could_ask = False
    quotas = [drift.quota_id for drift in drifts]
    with writing_counts(connection, ledger.namespace, wait=True), connection.transaction():
        write_counts(ledger, connection, ledger.used(connection, quotas))
    return could_ask
