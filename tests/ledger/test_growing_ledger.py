"""How much of a ledger is read, by the rows that PostgreSQL counts: what one quota has is no cost of another's."""

from collections.abc import Callable, Iterator

import pytest
from bench import NAMESPACE, SUBJECT, Bench

from quota_redis.postgres import compact

ROWS, OF_EACH = 4_000, 5
USED = ROWS * OF_EACH
OTHER = "team:8"


def rows_read(bench: Bench, doing: Callable[[], object]) -> int:
    """How many rows of the ledger a call reads in a transaction, of the table and of its index."""
    query = """SELECT pg_stat_get_xact_tuples_returned('quota_redis_ledger'::regclass)
                    + pg_stat_get_xact_tuples_returned('quota_redis_ledger_slot_once'::regclass)"""
    with bench.connection.transaction():
        before = bench.value(query)
        doing()
        return bench.value(query) - before


@pytest.fixture
def grown(bench: Bench) -> Iterator[int]:
    """Id of a quota that has nearly all rows of the ledger, as batches leave them, beside a small one."""
    quota = bench.define(10 * USED)
    bench.define(100, team=8)
    fill(bench, quota)
    bench.connection.execute("ANALYZE quota_redis_ledger")
    yield quota
    bench.connection.execute("TRUNCATE quota_redis_ledger")
    bench.connection.execute("ANALYZE quota_redis_ledger")


def fill(bench: Bench, quota: int) -> None:
    bench.connection.execute(
        """INSERT INTO quota_redis_ledger (namespace, quota_id, slots)
        SELECT %s, %s, int8range(n, n + %s) FROM generate_series(1, %s, %s) n""",
        (NAMESPACE, quota, OF_EACH, USED, OF_EACH),
    )


def take(bench: Bench, quota: int, amount: int = 20) -> None:
    assert bench.ledger.take(bench.connection, SUBJECT, quota, amount)


def test_slots_are_taken_without_a_look_at_what_is_used(bench: Bench, grown: int) -> None:
    assert rows_read(bench, lambda: take(bench, grown)) < 10


def test_nor_at_all_that_was_taken_from_the_top(bench: Bench, grown: int) -> None:
    bench.connection.execute(
        """INSERT INTO quota_redis_ledger (namespace, quota_id, slots)
        SELECT %s, %s, int8range(n, n + 20) FROM generate_series(%s, %s, 20) n""",
        (NAMESPACE, grown, 5 * USED + 1, 10 * USED),
    )
    assert rows_read(bench, lambda: take(bench, grown)) < 100
    compact(bench.ledger, bench.connection, above=1)
    assert rows_read(bench, lambda: take(bench, grown)) < 10


def test_a_plan_of_when_the_ledger_was_small_does_not_stay(bench: Bench) -> None:
    """Statistics come later than rows, and a session keeps its plans until they do."""
    quota = bench.define(10 * USED)
    bench.connection.execute("ANALYZE quota_redis_ledger")
    for _ in range(10):
        take(bench, quota)
    fill(bench, quota)
    assert rows_read(bench, lambda: take(bench, quota)) < 10


def test_a_small_quota_is_read_alone(bench: Bench, grown: int) -> None:
    def read() -> None:
        (subject,) = bench.ledger.read(bench.connection, [OTHER])
        assert subject.quotas[0].usable == 100

    assert rows_read(bench, read) == 1


def test_a_small_quota_is_counted_alone(bench: Bench, grown: int) -> None:
    small = bench.value("SELECT id FROM team_quota WHERE team_id = 8")

    def count() -> None:
        assert bench.ledger.used(bench.connection, [small]) == {small: 0}

    assert rows_read(bench, count) <= 1
