"""absorb: the one way in which Redis learns what PostgreSQL knows."""

import logging
import secrets
from collections.abc import Sequence
from datetime import timedelta

from quota_redis import ranges
from quota_redis.calls import microseconds
from quota_redis.counters import Counters
from quota_redis.errors import Unavailable
from quota_redis.postgres.ledger import Ledger, LedgerQuota, LedgerSubject, translated
from quota_redis.postgres.queries import PgConnection
from quota_redis.scripts import Value
from quota_redis.types import Snapshot

logger = logging.getLogger(__name__)

ATTEMPTS = 3
"""How often a subject is read again because another absorb came between; somebody has put it right by then."""
PAUSE = timedelta(milliseconds=100)
"""How long after one absorb of a subject the hot path leaves the next to somebody else."""


def absorb(
    counters: Counters, ledger: Ledger, connection: PgConnection, subjects: Sequence[str]
) -> int:
    """Bring Redis in line with the ledger for these subjects; live holds stay. Returns how many were applied.

    Safe at any time and beside any other absorb. One round trip reads Redis, one statement reads PostgreSQL,
    one round trip applies; a subject where another absorb came between is done again. Raises Unavailable where
    a server does not answer.
    """
    return len(absorb_each(counters, ledger, connection, subjects))


def absorb_each(
    counters: Counters, ledger: Ledger, connection: PgConnection, subjects: Sequence[str]
) -> set[str]:
    """As absorb; returns the subjects that were brought in line."""
    done: set[str] = set()
    for _ in range(ATTEMPTS):
        left = [name for name in dict.fromkeys(subjects) if name not in done]
        if not left:
            break
        done |= _absorb(counters, ledger, connection, left)
    return done


def _absorb(
    counters: Counters, ledger: Ledger, connection: PgConnection, names: Sequence[str]
) -> set[str]:
    seen = counters.snapshots(names)
    with translated(), connection.transaction():
        known = ledger.read(connection, names)
        write_last_counts(ledger, connection, seen, known)
    _forget_impossible(counters, seen, known)
    calls = [
        (
            [counters.keys.subject(now.subject), counters.keys.changed(now.subject)],
            _arguments(snapshot, now),
        )
        for snapshot, now in zip(seen, known, strict=True)
    ]
    replies = counters.connection.run_many("absorb", calls)
    for reply in replies:
        if isinstance(reply, Exception):
            raise reply
    return {name for name, reply in zip(names, replies, strict=True) if reply == 1}


def absorb_soon(counters: Counters, ledger: Ledger, connection: PgConnection, subject: str) -> bool:
    """Absorb one subject, unless somebody did a moment ago or Redis is out of reach. Whether it was done."""
    try:
        first = counters.connection.command(
            "SET",
            counters.keys.absorbing(subject),
            1,
            "NX",
            "PX",
            int(PAUSE.total_seconds() * 1000),
        )
        return bool(first) and absorb(counters, ledger, connection, [subject]) == 1
    except Unavailable as error:
        logger.debug("absorb of %s is left to the periodic task: %s", subject, error)
        return False


def _forget_impossible(
    counters: Counters, seen: Sequence[Snapshot], known: Sequence[LedgerSubject]
) -> None:
    """Drop hashes that nothing of ours wrote, and those of a version that PostgreSQL, asked later, does not have:
    it was restored from a backup."""
    for snapshot, now in zip(seen, known, strict=True):
        if snapshot.is_garbled or snapshot.version > now.version:
            logger.warning(
                "Redis forgets %s: %s",
                now.subject,
                "it is garbled"
                if snapshot.is_garbled
                else f"it is at version {snapshot.version}, and PostgreSQL at {now.version}",
            )
            counters.connection.command("DEL", counters.keys.subject(now.subject))


def write_last_counts(
    ledger: Ledger,
    connection: PgConnection,
    seen: Sequence[Snapshot],
    known: Sequence[LedgerSubject],
) -> None:
    """Write the counts of quotas that Redis is about to forget, from the ledger."""
    leaving = [
        quota
        for snapshot, now in zip(seen, known, strict=True)
        for quota in snapshot.quotas.keys() - {quota.id for quota in now.quotas}
    ]
    if leaving:
        write_counts(ledger, connection, ledger.used(connection, leaving))


def write_counts(ledger: Ledger, connection: PgConnection, counts: dict[int, int]) -> set[int]:
    """Set the used column of these quotas, in id order; returns those that are written or need no writing.

    Rows that somebody has locked are skipped: they are the next run's.
    """
    t = ledger.table
    ids = sorted(counts)
    query = f"""
        WITH wanted AS (
            SELECT q.{t.id}, w.used FROM unnest(%s::bigint[], %s::bigint[]) AS w (id, used)
            JOIN {t.table} q ON q.{t.id} = w.id ORDER BY q.{t.id}
            FOR NO KEY UPDATE OF q SKIP LOCKED
        ), written AS (
            UPDATE {t.table} q SET {t.used} = w.used FROM wanted w
            WHERE q.{t.id} = w.{t.id} AND q.{t.used} <> w.used
        )
        SELECT {t.id} FROM wanted"""  # noqa: S608  names are checked by QuotaTable
    rows = connection.execute(query.encode(), (ids, [counts[quota] for quota in ids])).fetchall()
    return {row[0] for row in rows}


def _arguments(snapshot: Snapshot, now: LedgerSubject) -> list[Value]:
    token = secrets.token_urlsafe(8)
    values: list[Value] = [now.subject, now.version, snapshot.token, token, len(now.quotas)]
    for quota in now.quotas:
        values += _definition(quota)
        values += [ranges.render(quota.taken), ranges.render(_given_back(snapshot, quota))]
    for hold in snapshot.expired:
        values += [hold.id, hold.raw]
    return values


def _definition(quota: LedgerQuota) -> list[Value]:
    limit = "" if quota.limit is None else quota.limit
    return [quota.id, microseconds(quota.start), microseconds(quota.end), limit, quota.usable]


def _given_back(snapshot: Snapshot, quota: LedgerQuota) -> ranges.Ranges:
    """Slots that Redis had neither free nor held, and that the ledger, read later, does not have."""
    state = snapshot.quotas.get(quota.id)
    if state is None:
        return ()
    held = (hold.ranges for hold in snapshot.holds if hold.quota_id == quota.id)
    return ranges.subtract(ranges.EVERYTHING, ranges.union(state.free, quota.taken, *held))
