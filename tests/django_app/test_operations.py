"""Migrations: the ledger is installed, and a table with rows is bound to it and released."""

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from django.db import connection
from django.db.migrations.executor import MigrationExecutor
from django.db.migrations.writer import MigrationWriter

from quota_redis.django.binding import Binding
from quota_redis.django.engine import Engine
from quota_redis.django.operations import BindQuota, InstallLedger
from quota_redis.postgres import problems
from quota_redis.postgres.schema import schema_sql
from shargain.offers.models import OfferQuota

ROOT = Path(__file__).parents[2]


def bind(*, backwards: bool) -> None:
    operation = BindQuota("OfferQuota", OfferQuota.quota)
    state = MigrationExecutor(connection).loader.project_state()
    with connection.schema_editor() as editor:
        move = operation.database_backwards if backwards else operation.database_forwards
        move("offers", editor, state, state)


def test_a_table_with_rows_is_released_and_bound_again(
    new_quota: Callable[..., OfferQuota], engine: Engine, use: Callable[[OfferQuota, int], int]
) -> None:
    quota = new_quota(10)
    use(quota, 4)
    bind(backwards=True)
    try:
        assert set(problems(engine.connection(), engine.ledger.table)) == {"function", "trigger"}
        OfferQuota.objects.update(max_offers_per_period=6)
        unbound = OfferQuota.objects.bulk_create(
            [
                OfferQuota(
                    target=quota.target,
                    max_offers_per_period=3,
                    period_start=quota.period_start.replace(year=2019),
                )
            ]
        )
    finally:
        bind(backwards=False)
    assert problems(engine.connection(), engine.ledger.table) == {}
    assert use(quota, 9) == 2
    assert engine.counters.usage(quota.subject)[unbound[0].pk].limit == 3


def test_operations_can_be_written_to_a_migration() -> None:
    binding = Binding(subject="target_id", limit="most", used="used", prefix="t:")
    for operation in (InstallLedger(), BindQuota("OfferQuota", binding)):
        name, args, kwargs = operation.deconstruct()
        again = type(operation)(*args, **kwargs)
        assert name == type(operation).__name__
        assert again.deconstruct() == operation.deconstruct()
        assert operation.describe()
    text, imports = MigrationWriter.serialize(binding)
    assert text.startswith("quota_redis.django.binding.Binding(")
    assert imports


def test_models_and_schema_agree(quota_db: None) -> None:
    """The ledger's tables are made by SQL and read by models: each has the other's columns."""
    from quota_redis.django.models import LedgerEntry, SubjectMark, SubjectVersion

    with connection.cursor() as cursor:
        for model in (LedgerEntry, SubjectMark, SubjectVersion):
            described = connection.introspection.get_table_description(cursor, model._meta.db_table)
            assert {column.name for column in described} == {
                field.column for field in model._meta.concrete_fields
            }
            assert model._meta.db_table in schema_sql()


@pytest.fixture
def empty_database() -> Iterator[str]:
    """The address of a new database, dropped at the end."""
    server, name = os.environ["DATABASE_URL"], f"from_zero_{uuid4().hex[:12]}"
    with psycopg.connect(server, autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name}".encode())
        yield f"{server.rpartition('/')[0]}/{name}"
        admin.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


MIGRATIONS = """
import django, sys
from django.core.management import call_command
django.setup()
call_command("migrate", verbosity=0)
call_command("check", databases=["default"], fail_level="WARNING")
call_command("makemigrations", check_changes=True, dry_run=True)
call_command("migrate", "offers", "0001", verbosity=0)
call_command("migrate", verbosity=0)
call_command("check", databases=["default"], fail_level="WARNING")
"""


def test_migrating_from_nothing_and_back(empty_database: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", MIGRATIONS],
        cwd=ROOT,
        env={
            **os.environ,
            "DATABASE_URL": empty_database,
            "DJANGO_SETTINGS_MODULE": "shargain.settings",
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (done.stdout.count("no issues"), done.stdout.count("No changes")) == (2, 1)
    # While migrations are pending, nothing else is said about the ledger.
    said = done.stdout + done.stderr
    assert set(re.findall(r"quota_redis\.[EW]\d+", said)) <= {"quota_redis.W036"}
