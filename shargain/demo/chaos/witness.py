"""What PostgreSQL itself noted: definitions by a trigger of ours, deletions, and the moments of commits."""

from collections.abc import Iterator
from typing import Any

from django.db import connection

from shargain.demo.chaos.history import Edit
from shargain.demo.chaos.rules import Row

FETCHED = 10_000

_INSTALL = """
CREATE SCHEMA chaos;
CREATE TABLE chaos.edit (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, quota_id bigint, target_id bigint,
    quota_limit bigint, starts timestamptz, ends timestamptz, is_deleted boolean
);
CREATE TABLE chaos.deletion (
    target_id bigint, url text, batch_id uuid, quota_id bigint, created_at timestamptz,
    committed_at timestamptz
);
CREATE FUNCTION chaos.note_edit() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    r offers_offerquota := CASE WHEN TG_OP = 'DELETE' THEN OLD ELSE NEW END;
BEGIN
    INSERT INTO chaos.edit (quota_id, target_id, quota_limit, starts, ends, is_deleted)
    VALUES (r.id, r.target_id, r.max_offers_per_period, r.period_start, r.period_end, TG_OP = 'DELETE');
    RETURN NULL;
END $$;
CREATE TRIGGER chaos_edit AFTER INSERT OR DELETE OR UPDATE OF max_offers_per_period, period_start, period_end
ON offers_offerquota FOR EACH ROW EXECUTE FUNCTION chaos.note_edit();
"""
_DELETE = """
WITH gone AS (
    DELETE FROM offers_offer WHERE id IN (
        SELECT id FROM offers_offer WHERE target_id = %s ORDER BY id DESC OFFSET %s LIMIT %s
    ) RETURNING target_id, url, batch_id, quota_id, created_at, pg_xact_commit_timestamp(xmin) AS committed_at
) INSERT INTO chaos.deletion
SELECT target_id, url, batch_id, quota_id, created_at, committed_at FROM gone
"""


def _micros(moment: str) -> str:
    return f"(extract(epoch FROM {moment}) * 1000000)::bigint"


_ROWS = f"""
SELECT target_id, url, batch_id::text, quota_id, {_micros("created_at")},
       {_micros("pg_xact_commit_timestamp(xmin)")}, NULL::bigint FROM offers_offer
UNION ALL
SELECT target_id, url, batch_id::text, quota_id, {_micros("created_at")}, {_micros("committed_at")},
       {_micros("pg_xact_commit_timestamp(xmin)")} FROM chaos.deletion
"""  # noqa: S608
_EDITS = f"""
SELECT {_micros("pg_xact_commit_timestamp(xmin)")}, quota_id, target_id, quota_limit, {_micros("starts")},
       {_micros("ends")}, is_deleted FROM chaos.edit ORDER BY id
"""  # noqa: S608


def install() -> None:
    """Begin to note; before the first quota is defined."""
    with connection.cursor() as cursor:
        cursor.execute(_INSTALL)


def delete_offers(target_id: int, skipped: int, count: int) -> int:
    """Delete so many of a target's offers, the newest but for `skipped`, and note it; returns how many."""
    with connection.cursor() as cursor:
        cursor.execute(_DELETE, [target_id, skipped, count])
        return cursor.rowcount


def rows() -> list[Row]:
    """All offers that ever were."""
    return [Row(*values) for values in _fetch(_ROWS)]


def edits() -> list[Edit]:
    """All definitions that ever held, in the order of their commits."""
    return [Edit(*values) for values in _fetch(_EDITS)]


def _fetch(query: str) -> Iterator[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(query)
        while found := cursor.fetchmany(FETCHED):
            yield from found
