"""Whether the ledger stands: everything without which limits would fail open is found."""

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from bench import NAMESPACE, TABLE, Bench, Connect

from quota_redis import InvalidArgument
from quota_redis.postgres import QuotaTable, install, problems
from quota_redis.postgres.schema import FUNCTIONS, schema_sql


@pytest.fixture
def undone(bench: Bench) -> Iterator["psycopg.Connection[Any]"]:
    """A connection whose changes to the schema are undone after the test."""
    with bench.connection.transaction(force_rollback=True):
        yield bench.connection


def test_all_is_well(bench: Bench) -> None:
    bench.define(10)
    bench.define(None, team=8)
    assert problems(bench.connection, TABLE) == {}


@pytest.mark.parametrize(
    ("damage", "code", "named"),
    [
        ("DROP EXTENSION btree_gist CASCADE", "btree_gist", "btree_gist"),
        (
            "ALTER TABLE quota_redis_ledger DROP CONSTRAINT quota_redis_ledger_slot_once",
            "constraint",
            "exclusion constraint",
        ),
        ("DROP TABLE quota_redis_ledger", "constraint", "exclusion constraint"),
        ("DROP FUNCTION quota_redis_take_v1", "function", "quota_redis_take_v1"),
        ("DROP FUNCTION team_quota_active_v1", "function", "team_quota_active_v1"),
        ("DROP TRIGGER team_quota_quota_v1 ON team_quota", "trigger", "missing"),
        ("ALTER TABLE team_quota DISABLE TRIGGER team_quota_quota_v1", "trigger", "disabled"),
        (
            "ALTER TABLE team_quota ENABLE REPLICA TRIGGER team_quota_quota_v1",
            "trigger",
            "disabled",
        ),
        ("DELETE FROM quota_redis_ledger WHERE void", "void_tail", "their limit does not hold: 1"),
    ],
)
def test_what_is_missing_is_named(
    bench: Bench, undone: "psycopg.Connection[Any]", damage: str, code: str, named: str
) -> None:
    bench.define(10)
    undone.execute(damage.encode())
    found = problems(undone, TABLE)
    assert named in found[code]


def test_only_limited_quotas_need_a_void_tail(
    bench: Bench, undone: "psycopg.Connection[Any]"
) -> None:
    bench.define(None)
    assert problems(undone, TABLE) == {}


def test_a_void_row_that_is_no_tail_does_not_count(
    bench: Bench, undone: "psycopg.Connection[Any]"
) -> None:
    quota = bench.define(10)
    undone.execute("UPDATE quota_redis_ledger SET slots = '[11,99)' WHERE quota_id = %s", (quota,))
    assert "void_tail" in problems(undone, TABLE)


def test_a_trigger_for_another_namespace(bench: Bench, undone: "psycopg.Connection[Any]") -> None:
    other = QuotaTable("team_quota", namespace="other", prefix="team:", subject="team_id")
    assert "made for other names" in problems(undone, other)["trigger"]


def test_an_isolation_level_of_the_servers(connect: Connect, bench: Bench) -> None:
    careless = connect(options="-c default_transaction_isolation=serializable")
    assert "serializable" in problems(careless, TABLE)["isolation"]


def test_installing_again_changes_nothing(bench: Bench) -> None:
    quota = bench.define(10)
    bench.use(quota, ((2, 3),))
    install(bench.connection, TABLE)
    assert problems(bench.connection, TABLE) == {}
    assert bench.free(quota) == ((1, 1), (4, 10))


def test_binding_a_table_with_rows_makes_their_limits_hold(
    bench: Bench, undone: "psycopg.Connection[Any]"
) -> None:
    undone.execute(
        b"""CREATE TABLE seat (id bigint PRIMARY KEY, subject text, quota_limit int, used int DEFAULT 0,
        period_start timestamptz DEFAULT '2020-01-01', period_end timestamptz)"""
    )
    undone.execute("INSERT INTO seat VALUES (501, 'a', 3), (502, 'b', NULL), (503, 'c', 0)")
    seats = QuotaTable("seat", namespace=NAMESPACE, prefix="seat:", subject_type="text")
    undone.execute(seats.install_sql().encode())
    assert problems(undone, seats) == {}
    assert bench.free(501) == ((1, 3),)
    assert bench.free(503) == ()
    assert bench.version(subject="seat:b") == 1
    undone.execute(seats.uninstall_sql().encode())
    assert set(problems(undone, seats)) == {"trigger", "function"}


def test_every_function_of_the_schema_is_looked_for() -> None:
    created = {
        line.split()[4].partition("(")[0]
        for line in schema_sql().splitlines()
        if line.startswith("CREATE OR REPLACE FUNCTION")
    }
    assert created == set(FUNCTIONS)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"table": "Team"}, "'Team'"),
        ({"table": "team; DROP TABLE item"}, "DROP TABLE"),
        ({"limit": 'a"b'}, "cannot name"),
        ({"subject": ""}, "cannot name"),
        ({"subject_type": "json"}, "subject_type is 'json'"),
        ({"prefix": "team'"}, "prefix is"),
        ({"namespace": "a b"}, "namespace is"),
    ],
)
def test_names_that_need_quoting_are_refused(options: dict[str, str], named: str) -> None:
    with pytest.raises(InvalidArgument, match=named):
        QuotaTable(**{"table": "team_quota", "namespace": "api", **options})  # type: ignore[arg-type]


def test_long_names_stay_apart() -> None:
    tables = [QuotaTable(f"{'x' * 60}_{n}", namespace="api") for n in "ab"]
    assert len({table.trigger for table in tables}) == 2
    assert all(len(table.active_function) <= 63 for table in tables)


def test_a_name_is_shortened_only_where_postgresql_would_cut_it() -> None:
    fits, too_long = (QuotaTable("x" * length, namespace="api") for length in (53, 54))
    assert fits.active_function == "x" * 53 + "_active_v1"
    assert len(fits.active_function) == 63
    assert too_long.active_function.startswith("x" * 40 + "_")
    assert len(too_long.active_function) <= 63
