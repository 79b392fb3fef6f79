"""Edges that no other module has: a commit that fails, another namespace, the last slot there is."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import psycopg
from bench import SUBJECT, Bench

from quota_redis.postgres import Spent, adopt


def failing_once(bench: Bench) -> Callable[[], AbstractContextManager[object]]:
    """Transactions of which the first fails when everything in it is done."""
    failures = [psycopg.errors.SerializationFailure("could not serialize")]

    @contextmanager
    def transaction() -> Iterator[object]:
        with bench.connection.transaction():
            yield None
            if failures:
                raise failures.pop()

    return transaction


def test_units_count_only_once_their_transaction_has_committed(
    bench: Bench, absorbed: Callable[..., int]
) -> None:
    quota = absorbed(10)
    spent = bench.exact.spend(
        bench.connection, SUBJECT, 4, bench.work, transaction=failing_once(bench)
    )
    assert spent == Spent(4, 0, None)
    assert bench.items() == bench.used(quota) == 4


def test_without_a_quota_units_count_only_once_their_transaction_has_committed(
    bench: Bench,
) -> None:
    bench.exact.spend(bench.connection, SUBJECT, 1, bench.work)
    spent = bench.exact.spend(
        bench.connection, SUBJECT, 4, bench.work, transaction=failing_once(bench)
    )
    assert spent == Spent(4, 0, None)
    assert bench.items() == 5


def test_slots_of_another_namespace_are_other_slots(bench: Bench) -> None:
    quota = bench.define(400)
    bench.connection.execute(
        "INSERT INTO quota_redis_ledger (namespace, quota_id, slots) VALUES ('other', %s, '[1,400]')",
        (quota,),
    )
    bench.use(quota, ((1, 20),))
    assert (bench.used(quota), bench.items()) == (20, 20)


def test_adopting_one_quota_leaves_the_limits_of_others(bench: Bench) -> None:
    counted = bench.define(10)
    bench.connection.execute("UPDATE team_quota SET used = 4")
    other = bench.define(5, team=8)
    assert adopt(bench.ledger, bench.connection) == 1
    assert (bench.free(counted), bench.free(other)) == (((5, 10),), ((1, 5),))
