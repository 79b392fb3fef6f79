import os
from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from bench import EMPTY_SQL, NAMESPACE, NOBODY, TABLE, TABLES_SQL, Bench, Connect
from psycopg.conninfo import make_conninfo

from quota_redis import Counters
from quota_redis.postgres import absorb, install

# A wait that should not be fails, and does not hang.
CONNECTION = {"autocommit": True, "options": "-c lock_timeout=20s"}


@pytest.fixture(scope="session")
def ledger_dsn() -> Iterator[str]:
    """A database with the ledger and a table of quotas bound to it, without Django."""
    server, name = os.environ["DATABASE_URL"], f"quota_ledger_{uuid4().hex[:12]}"
    dsn = make_conninfo(server, dbname=name)
    with psycopg.connect(server, autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name}".encode())
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute(TABLES_SQL.encode())
            install(connection, TABLE)
        yield dsn
        admin.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


@pytest.fixture
def connect(ledger_dsn: str) -> Iterator[Connect]:
    """Connections to that database, closed after the test; autocommit where nothing else is said."""
    opened: list[psycopg.Connection[Any]] = []

    def make(**options: Any) -> "psycopg.Connection[Any]":
        opened.append(psycopg.connect(ledger_dsn, **{**CONNECTION, **options}))
        return opened[-1]

    yield make
    for connection in opened:
        connection.close()


@pytest.fixture
def counters() -> Iterator[Counters]:
    """Counters in an empty Redis database."""
    counters = Counters.from_url(os.environ["REDIS_URL"], namespace=NAMESPACE, timeout=5.0)
    counters.connection.client.flushdb()
    yield counters
    counters.close()
    counters.connection.client.close()


@pytest.fixture
def dead_counters() -> Counters:
    """Counters whose Redis is not there."""
    return Counters.from_url(NOBODY, namespace=NAMESPACE)


@pytest.fixture
def bench(connect: Connect, counters: Counters) -> Bench:
    connection = connect()
    connection.execute(EMPTY_SQL.encode())
    return Bench(connection, counters)


@pytest.fixture
def absorbed(bench: Bench) -> Callable[..., int]:
    """Define a quota that Redis knows of too; returns its id."""

    def make(limit: int | None, **options: Any) -> int:
        quota = bench.define(limit, **options)
        absorb(bench.counters, bench.ledger, bench.connection, [f"team:{options.get('team', 7)}"])
        return quota

    return make
