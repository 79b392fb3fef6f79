"""absorb: the one way in which Redis learns what PostgreSQL knows."""

import logging
import secrets
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta

import psycopg

from quota_redis import ranges
from quota_redis.calls import microseconds, usable_text
from quota_redis.connection import raise_first
from quota_redis.counters import Counters
from quota_redis.errors import Unavailable
from quota_redis.postgres.ledger import Ledger, LedgerQuota, LedgerSubject, translated
from quota_redis.postgres.queries import PgConnection
from quota_redis.postgres.shards import run, snapshots
from quota_redis.scripts import Value
from quota_redis.types import Snapshot

logger = logging.getLogger(__name__)

BATCH = 1000
"""Subjects that are read and applied together: what bounds memory, transactions and round trips."""
ATTEMPTS = 3
"""How often a subject is read again because another absorb came between; somebody has put it right by then."""
PAUSE = timedelta(milliseconds=100)
"""How long after one absorb of a subject the hot path leaves the next to somebody else."""


def absorb(
    counters: Counters, ledger: Ledger, connection: PgConnection, subjects: Sequence[str]
) -> int:
    """Bring Redis in line with the ledger for these subjects; live holds stay. Returns how many were applied.

    Safe at any time and beside any other absorb. One round trip reads Redis, one statement reads PostgreSQL,
    one round trip applies, for a batch at a time; a subject where another absorb came between is done again.
    Raises Unavailable where a server does not answer.
    """
    names = list(dict.fromkeys(subjects))
    return sum(
        len(absorb_batch(counters, ledger, connection, names[at : at + BATCH]))
        for at in range(0, len(names), BATCH)
    )


def absorb_batch(
    counters: Counters, ledger: Ledger, connection: PgConnection, subjects: Sequence[str]
) -> dict[str, LedgerSubject]:
    """As absorb, of subjects named once, all of them together; returns those that were brought in line, as
    PostgreSQL had them."""
    done: dict[str, LedgerSubject] = {}
    for attempt in range(ATTEMPTS):
        left = [name for name in subjects if name not in done]
        if not left:
            break
        # What is there but says nothing, or came meanwhile, is for absorb.
        done |= _absorb(counters, ledger, connection, left, may_load=attempt == 0)
    return done


def load_batch(
    counters: Counters, ledger: Ledger, connection: PgConnection, subjects: Sequence[str]
) -> dict[str, LedgerSubject]:
    """As absorb_batch, of subjects of which Redis was just made to know nothing."""
    with translated(), connection.transaction():
        known = ledger.read(connection, subjects)
    done = _load(counters, known)
    left = [name for name in subjects if name not in done]
    return done | absorb_batch(counters, ledger, connection, left)


def _absorb(
    counters: Counters,
    ledger: Ledger,
    connection: PgConnection,
    names: Sequence[str],
    *,
    may_load: bool,
) -> dict[str, LedgerSubject]:
    seen = snapshots(counters, names)
    with translated(), connection.transaction():
        known = ledger.read(connection, names)
        write_last_counts(ledger, connection, seen, known)
    _forget_impossible(counters, seen, known)
    pairs = list(zip(seen, known, strict=True))
    lost = [now for snapshot, now in pairs if may_load and _is_lost(snapshot)]
    there = [pair for pair in pairs if not (may_load and _is_lost(pair[0]))]
    return _load(counters, lost) | _apply(counters, there)


def _is_lost(snapshot: Snapshot) -> bool:
    return snapshot.document is None and not snapshot.is_garbled


def _apply(
    counters: Counters, pairs: Sequence[tuple[Snapshot, LedgerSubject]]
) -> dict[str, LedgerSubject]:
    calls = [
        (
            [counters.keys.subject(now.subject), counters.keys.changed(now.subject)],
            _arguments(snapshot, now),
        )
        for snapshot, now in pairs
    ]
    replies = counters.connection.run_many("absorb", calls)
    raise_first(replies)
    return _done(
        counters, [now for (_, now), reply in zip(pairs, replies, strict=True) if reply == 1]
    )


def _load(counters: Counters, known: Sequence[LedgerSubject]) -> dict[str, LedgerSubject]:
    values = {now.subject: _values_to_load(now) for now in known}
    answers = run(counters, "load", values, secrets.token_urlsafe(8))
    return _done(counters, [now for now in known if answers[now.subject] == 1])


def _done(counters: Counters, applied: Sequence[LedgerSubject]) -> dict[str, LedgerSubject]:
    for now in applied:
        # What was lost may be free again: a FULL that was true before is to be asked for anew.
        counters.forget(now.subject)
    return {now.subject: now for now in applied}


def _values_to_load(now: LedgerSubject) -> list[Value]:
    values: list[Value] = [now.subject, now.version, len(now.quotas)]
    for quota in now.quotas:
        free = ranges.subtract(ranges.EVERYTHING, quota.taken)
        definition = ":".join(map(str, _definition(quota)))
        values += [quota.id, definition, ranges.size(free), ranges.render(free)]
    return values


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


def write_counts(ledger: Ledger, connection: PgConnection, counts: Mapping[int, int]) -> set[int]:
    """Set the used column of these quotas, in id order, in a transaction of the caller's; returns those that are
    written or need no writing.

    Rows that somebody has locked are skipped, and so is one that somebody changed a moment ago: they are the next
    run's. Measured, two arrays are as fast as COPY into a temporary table, and there is no table to keep; what
    matters more is that the ids of a call are neighbours.
    """
    if not counts:
        return set()
    t = ledger.table
    ids = sorted(counts)
    # Locked rows are found again by their place, which is cheaper than by id; the id is compared all the same, for
    # in a partitioned table a place is not unique.
    query = f"""
        WITH wanted AS MATERIALIZED (
            SELECT q.ctid AS place, q.{t.id} AS id, w.used, q.{t.used} <> w.used AS differs
            FROM unnest(%s::bigint[], %s::bigint[]) AS w (id, used)
            CROSS JOIN LATERAL (
                SELECT ctid, {t.id}, {t.used} FROM {t.table} WHERE {t.id} = w.id
                FOR NO KEY UPDATE SKIP LOCKED
            ) q
        ), written AS (
            UPDATE {t.table} q SET {t.used} = w.used FROM wanted w
            WHERE q.ctid = w.place AND q.{t.id} = w.id AND w.differs RETURNING w.id
        )
        SELECT id FROM written UNION ALL SELECT id FROM wanted WHERE NOT differs"""  # noqa: S608
    values = (_array(ids), _array(counts[quota] for quota in ids))
    with psycopg.Cursor(connection) as cursor:
        # For thousands of rows the planner would rather read the whole table, unless it is very large.
        cursor.execute("SET LOCAL enable_hashjoin = off; SET LOCAL enable_mergejoin = off")
        rows = cursor.execute(query.encode(), values, binary=True).fetchall()
    return {row[0] for row in rows}


def _array(numbers: Iterable[int]) -> str:
    return "{" + ",".join(map(str, numbers)) + "}"


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
    usable = usable_text(quota.usable, quota.limit)
    return [quota.id, microseconds(quota.start), microseconds(quota.end), limit, usable]


def _given_back(snapshot: Snapshot, quota: LedgerQuota) -> ranges.Ranges:
    """Slots that Redis had neither free nor held, and that the ledger, read later, does not have."""
    state = snapshot.quotas.get(quota.id)
    if state is None:
        return ()
    held = (hold.ranges for hold in snapshot.holds if hold.quota_id == quota.id)
    return ranges.subtract(ranges.EVERYTHING, ranges.union(state.free, quota.taken, *held))
