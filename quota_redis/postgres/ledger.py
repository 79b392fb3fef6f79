"""The ledger: which slots were used, in PostgreSQL, where a slot cannot be used twice."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import psycopg
from psycopg.pq import TransactionStatus

from quota_redis import ranges
from quota_redis.errors import (
    InsideTransaction,
    InvalidArgument,
    NotInstalled,
    QuotaInUse,
    QuotaMoved,
    SlotConflict,
    Unavailable,
    WrongIsolation,
)
from quota_redis.keys import check_text
from quota_redis.postgres.queries import AsyncPgConnection, PgConnection, Query, ask
from quota_redis.postgres.table import QuotaTable
from quota_redis.ranges import Ranges
from quota_redis.types import Reservation, check_integer

_INTEGER_BITS = {"bigint": 63, "integer": 31}
_BY_SQLSTATE: dict[str, type[Exception]] = {
    "QS001": QuotaMoved,
    "QS002": SlotConflict,
    "QS003": InvalidArgument,
    "QS004": QuotaInUse,
    "40P01": SlotConflict,
    "40001": SlotConflict,
    "42883": NotInstalled,
    "42P01": NotInstalled,
}


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """The wall towards psycopg: the primitives' errors become ours, a lost server becomes Unavailable."""
    try:
        yield
    except psycopg.Error as error:
        ours = _BY_SQLSTATE.get(error.sqlstate or "")
        if ours is not None:
            raise ours(_sentence(error)) from error
        if isinstance(error, (psycopg.OperationalError, psycopg.InterfaceError)):
            raise Unavailable(f"PostgreSQL failed: {error}".strip()) from error
        raise


def _sentence(error: psycopg.Error) -> str:
    primary, hint = error.diag.message_primary or str(error), error.diag.message_hint
    return f"{primary}. {hint}" if hint else primary


def refuse_transaction(connection: "PgConnection | AsyncPgConnection") -> None:
    """Raise InsideTransaction where the connection is not between transactions, WrongIsolation where those
    that it begins are not READ COMMITTED."""
    if connection.info.transaction_status != TransactionStatus.IDLE:
        raise InsideTransaction(
            "called inside a transaction, whose locks and whose clock would hold up everybody else: "
            "call it outside, it commits by itself."
        )
    level = connection.isolation_level
    if level not in (None, psycopg.IsolationLevel.READ_COMMITTED):
        raise WrongIsolation(
            f"the connection's isolation_level is {psycopg.IsolationLevel(level).name}: "
            "the ledger is exact under READ COMMITTED alone."
        )


@dataclass(frozen=True, slots=True)
class LedgerQuota:
    """A quota as PostgreSQL has it: its definition and its slots that are taken, void ones too.

    `column` is what its used column says, `used` what the ledger counts. `is_past`: it ended more than a minute
    ago, so that nothing under way can concern it and Redis need not know it.
    """

    id: int
    start: datetime
    end: datetime | None
    limit: int | None
    column: int
    is_past: bool
    usable: int
    used: int
    taken: Ranges


@dataclass(frozen=True, slots=True)
class LedgerSubject:
    """A subject's definitions at a version and their slots, all of one snapshot; latest start first."""

    subject: str
    version: int
    quotas: tuple[LedgerQuota, ...]


class Ledger:
    """The slots of all quotas that one table defines. Any psycopg connection will do; none is kept."""

    def __init__(self, table: QuotaTable) -> None:
        self.table = table
        self.namespace = table.namespace

    def record(self, connection: PgConnection, reservation: Reservation, used: int) -> None:
        """Write the reservation's `used` lowest slots, in the transaction that does the work.

        Raises SlotConflict or QuotaMoved, on which the transaction must be rolled back.
        """
        check_integer("used", used, 0, reservation.amount)
        self.record_slots(
            connection, reservation.subject, reservation.quota_id, reservation.ranges, used
        )

    def record_slots(
        self, connection: PgConnection, subject: str, quota_id: int, slots: Ranges, used: int
    ) -> None:
        """Write the `used` lowest of the slots, where `quota_id` is the quota that rules."""
        with translated():
            ask(connection, self.recording(subject, quota_id, slots, used))

    def active_quota(self, connection: PgConnection, subject: str) -> int | None:
        """The quota that rules at this statement, None for no quota."""
        with translated():
            return ask(connection, self.ruling(subject))

    def take(
        self, connection: PgConnection, subject: str, quota_id: int, amount: int
    ) -> Ranges | None:
        """Up to `amount` slots to be recorded in this transaction, without Redis; None where none is left."""
        with translated():
            return ask(connection, self.taking(subject, quota_id, amount))

    def version(self, connection: PgConnection, subject: str) -> int:
        """The version of the subject's definitions; 0 where there never were any."""
        with translated():
            return ask(connection, self.version_of(subject))

    def recording(self, subject: str, quota_id: int, slots: Ranges, used: int) -> Query[None]:
        """What record_slots asks."""
        text = f"""SELECT quota_redis_record_v1(%s, %s,
            (SELECT quota_id FROM {self.table.active_function}(%s)), %s::int8multirange, %s)"""  # noqa: S608
        listed = ranges.render_multirange(slots)
        values = (self.namespace, quota_id, self._value(subject), listed, used)
        return Query(text, values, _nothing)

    def ruling(self, subject: str) -> Query[int | None]:
        """What active_quota asks."""
        text = f"SELECT quota_id FROM {self.table.active_function}(%s)"  # noqa: S608
        return Query(text, (self._value(subject),), _quota)

    def taking(self, subject: str, quota_id: int, amount: int) -> Query[Ranges | None]:
        """What take asks."""
        text = "SELECT quota_redis_take_v3(%s, %s, %s, %s)::text"
        return Query(text, (self.namespace, subject, quota_id, amount), _slots)

    def version_of(self, subject: str) -> Query[int]:
        """What version asks."""
        text = "SELECT version FROM quota_redis_subject WHERE namespace = %s AND subject = %s"
        return Query(text, (self.namespace, subject), _version)

    def read(
        self, connection: PgConnection, subjects: Sequence[str], *, ended: bool = False
    ) -> list[LedgerSubject]:
        """Definitions, versions and taken slots of subjects, in one statement and so in one snapshot.

        Quotas that are past are left out unless `ended`.
        """
        if not subjects:
            return []
        values = (
            list(subjects),
            [self._value(subject) for subject in subjects],
            self.namespace,
            self.namespace,
        )
        # Values apart from the statement and binary answers, whatever the connection's own cursors do: it halves
        # what thousands of subjects cost.
        with translated(), psycopg.Cursor(connection) as cursor:
            query = self._read_query(ended=ended).encode()
            rows = cursor.execute(query, values, binary=True).fetchall()
        found: dict[str, tuple[int, list[LedgerQuota]]] = {s: (0, []) for s in subjects}
        for subject, version, *quota in rows:
            quotas = found[subject][1]
            if quota[0] is not None:
                quotas.append(_ledger_quota(*quota))
            found[subject] = (version, quotas)
        return [
            LedgerSubject(subject, version, tuple(quotas))
            for subject, (version, quotas) in found.items()
        ]

    def used(self, connection: PgConnection, quota_ids: Sequence[int]) -> dict[int, int]:
        """Units that the ledger counts, for each of the quotas."""
        with translated():
            rows = connection.execute(
                """SELECT q, l.used FROM unnest(%s::bigint[]) AS q CROSS JOIN LATERAL (
                    SELECT coalesce(sum(upper(slots) - lower(slots)), 0)::bigint AS used
                    FROM quota_redis_ledger WHERE namespace = %s AND quota_id = q AND NOT void
                ) l""",
                (list(quota_ids), self.namespace),
            ).fetchall()
        return {row[0]: row[1] for row in rows}

    def is_subject(self, subject: str) -> bool:
        """Whether it can be a subject of the table: Redis, where anybody may write, can name others."""
        try:
            check_text("subject", subject)
            self._value(subject)
        except InvalidArgument:
            return False
        return True

    def _value(self, subject: str) -> str | int:
        value = self.table.value(subject)
        try:
            if self.table.subject_type == "uuid":
                return str(UUID(value))
            bits = _INTEGER_BITS.get(self.table.subject_type)
            if bits is None:
                return value
            return check_integer("subject", int(value), -(2**bits), 2**bits - 1)
        except ValueError as error:
            raise InvalidArgument(
                f"subject {subject!r} does not name a row of {self.table.table}."
            ) from error

    def _read_query(self, *, ended: bool) -> str:
        # One look at the ledger for each quota: the planner cannot turn that into reading all of it.
        t = self.table
        is_past = f"coalesce(q.{t.end} <= statement_timestamp() - interval '1 minute', false)"
        return f"""
            SELECT s.subject, coalesce(v.version, 0), q.{t.id}, q.{t.start}, q.{t.end}, q.{t.limit}, q.{t.used},
                   {is_past}, l.void, l.used, l.taken
            FROM unnest(%s::text[], %s::{t.subject_type}[]) AS s (subject, value)
            LEFT JOIN quota_redis_subject v ON v.namespace = %s AND v.subject = s.subject
            LEFT JOIN {t.table} q ON q.{t.subject} = s.value{"" if ended else f" AND NOT {is_past}"}
            LEFT JOIN LATERAL (
                SELECT range_agg(slots)::text AS taken,
                       coalesce(sum(least(coalesce(upper(slots), {ranges.SLOT_END}), {ranges.SLOT_END})
                           - lower(slots)) FILTER (WHERE void), 0)::bigint AS void,
                       coalesce(sum(upper(slots) - lower(slots)) FILTER (WHERE NOT void), 0)::bigint AS used
                FROM quota_redis_ledger WHERE namespace = %s AND quota_id = q.{t.id}
            ) l ON true
            ORDER BY s.subject, q.{t.start} DESC"""  # noqa: S608  names are checked by QuotaTable


def _ledger_quota(
    quota: int,
    start: datetime,
    end: datetime | None,
    limit: int | None,
    column: int,
    is_past: bool,
    void: int,
    used: int,
    taken: str | None,
) -> LedgerQuota:
    usable = ranges.SLOT_END - 1 - void
    slots = ranges.parse_multirange(taken or "{}")
    return LedgerQuota(quota, start, end, limit, column, is_past, usable, used, slots)


def _nothing(_row: Any) -> None:
    """For a statement whose answer says nothing."""


def _quota(row: Any) -> int | None:
    return row[0] if row else None


def _slots(row: Any) -> Ranges | None:
    return None if row[0] is None else ranges.parse_multirange(row[0])


def _version(row: Any) -> int:
    return row[0] if row else 0
