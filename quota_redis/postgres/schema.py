"""Installing the ledger, and seeing whether it stands."""

from importlib.resources import files
from typing import Any

import psycopg

from quota_redis.postgres.table import QuotaTable

FUNCTIONS = (
    "quota_redis_gaps_v1",
    "quota_redis_record_v1",
    "quota_redis_record_v2",
    "quota_redis_take_v1",
    "quota_redis_gap_v3",
    "quota_redis_take_v3",
    "quota_redis_apply_limit_v1",
    "quota_redis_bump_v1",
    "quota_redis_definition_v1",
    "quota_redis_compact_v1",
)


VERSIONS = (1, 2, 3)


def schema_sql(*versions: int) -> str:
    """The SQL that creates extension, tables and functions, of these versions or of all; applying it again
    changes nothing."""
    folder = files("quota_redis.postgres") / "sql"
    texts = (
        (folder / f"v{version}.sql").read_text(encoding="utf-8") for version in versions or VERSIONS
    )
    return "\n".join(texts)


def install(connection: "psycopg.Connection[Any]", table: QuotaTable) -> None:
    """Install the ledger and bind a table of definitions to it, in one transaction.

    The user needs CREATE on the schema, and on the database where btree_gist is not there yet.
    """
    with connection.transaction():
        connection.execute(schema_sql().encode())
        connection.execute(table.install_sql().encode())


def problems(connection: "psycopg.Connection[Any]", table: QuotaTable) -> dict[str, str]:
    """What would let a limit fail: a code and a sentence for each; empty where all is well."""
    found: dict[str, str] = {}
    extension, isolation, functions, constraint, trigger, arguments = _look(connection, table)
    if not extension:
        found["btree_gist"] = "the extension btree_gist is missing, so no slot can be refused twice"
    if isolation != "read committed":
        found["isolation"] = f"transactions run under {isolation}, the ledger needs READ COMMITTED"
    missing = sorted({*FUNCTIONS, table.active_function} - set(functions))
    if missing:
        found["function"] = f"SQL functions are missing: {', '.join(missing)}"
    if not constraint:
        found["constraint"] = (
            "the ledger's exclusion constraint is missing: slots could be used twice"
        )
    if trigger != "O" and trigger != "A":
        state = "disabled" if trigger else "missing"
        found["trigger"] = (
            f"the trigger {table.trigger} on {table.table} is {state}: limits fail open"
        )
    elif tuple(arguments.split("\\000")[:-1]) != table.trigger_arguments:
        found["trigger"] = f"the trigger {table.trigger} was made for other names: install it again"
    if not found:
        open_ended = without_void_tail(connection, table)
        if open_ended:
            listed = ", ".join(map(str, open_ended))
            found["void_tail"] = (
                f"limited quotas have no void tail, so their limit does not hold: {listed}"
            )
    return found


def without_void_tail(
    connection: "psycopg.Connection[Any]", table: QuotaTable, most: int = 20
) -> list[int]:
    """Ids of limited quotas, at most so many, whose limit the ledger does not know."""
    query = f"""
        SELECT q.{table.id} FROM {table.table} q WHERE q.{table.limit} IS NOT NULL AND NOT EXISTS (
            SELECT 1 FROM quota_redis_ledger l WHERE l.namespace = %s AND l.quota_id = q.{table.id}
            AND l.void AND upper_inf(l.slots)
        ) ORDER BY 1 LIMIT %s"""  # noqa: S608  names are checked by QuotaTable
    rows = connection.execute(query.encode(), (table.namespace, most)).fetchall()
    return [row[0] for row in rows]


def _look(connection: "psycopg.Connection[Any]", table: QuotaTable) -> Any:
    return connection.execute(
        """
        SELECT EXISTS (SELECT 1 FROM pg_extension WHERE extname = 'btree_gist'),
               current_setting('default_transaction_isolation'),
               (SELECT coalesce(array_agg(proname::text), '{}') FROM pg_proc
                WHERE proname = ANY(%(functions)s) AND pg_function_is_visible(oid)),
               EXISTS (SELECT 1 FROM pg_constraint WHERE conname = 'quota_redis_ledger_slot_once'
                       AND contype = 'x' AND conrelid = to_regclass('quota_redis_ledger')),
               t.tgenabled::text, encode(t.tgargs, 'escape')
        FROM (VALUES (1)) AS one LEFT JOIN pg_trigger t
        ON t.tgname = %(trigger)s AND t.tgrelid = to_regclass(%(table)s)
        """,
        {
            "functions": [*FUNCTIONS, table.active_function],
            "trigger": table.trigger,
            "table": table.table,
        },
    ).fetchone()
