"""A Redis that answers anything: it may make work slow or refuse it, and never makes it inexact."""

import random
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

import psycopg
import pytest
from bench import SUBJECT, Bench, Connect, together

from quota_redis import Contention, Counters, QuotaError, Unavailable
from quota_redis.connection import Connection
from quota_redis.postgres import absorb, audit, rebuild, sync
from quota_redis.scripts import Call, Reply, Value

T = TypeVar("T")

WORKERS = 4
CALLS = 40
MAX_QUOTAS = 6


class LyingConnection(Connection):
    """Gives each script's caller an answer that its contract allows, or any other, or none at all."""

    def __init__(self, counters: Counters, seed: int) -> None:
        super().__init__(counters.connection.client)
        self._dice = random.Random(seed)

    def send(self, call: Call[T]) -> T:
        if self._dice.random() < 0.1:
            raise Unavailable("silence")
        if self._dice.random() < 0.1:
            nonsense = [None, 7, b"OK", [], [b"?"], [None, None], {b"a": b"b"}]
            return call.answer(self._dice.choice(nonsense))
        return call.answer(getattr(self, f"_{call.script.name}", self._number_each)(call))

    def send_many(self, calls: Sequence[Call[T]]) -> list[T | Exception]:
        if calls and self._dice.random() < 0.1:
            raise Unavailable("silence")
        return [self._outcome(call) for call in calls]

    def send_unanswered(self, call: Call[Any]) -> None:
        """Lost."""

    def _outcome(self, call: Call[T]) -> T | Exception:
        try:
            return self.send(call)
        except QuotaError as error:
            return error

    def command(self, *args: Value) -> Reply:
        members = [SUBJECT.encode(), b"team:8", b"stranger"]
        answers = {"SSCAN": [self._dice.choice([b"0", b"7"]), members], "SET": b"OK"}
        return answers.get(str(args[0]), 1)

    def _number_each(self, call: Call[Any]) -> Reply:
        """What absorb answers of one subject, or load and unmark of each of theirs."""
        if call.script.name == "absorb":
            return self._dice.randint(0, 1)
        return [self._dice.randint(0, 2) for _ in call.keys[1:]]

    def _reserve(self, call: Call[Any]) -> Reply:
        words = [b"SLOTS"] * 6 + [
            b"FULL",
            b"BUSY",
            b"EXPIRED",
            b"BOUNDARY",
            b"NO_QUOTA",
            b"UNKNOWN",
        ]
        word = self._dice.choice(words)
        if word == b"UNKNOWN":
            return word
        if word == b"NO_QUOTA":
            return b":".join([word, self._number(9), b""])
        numbers = [
            self._number(6),
            self._number(9),
            self._number(90),
            b"%d" % self._dice.randint(-3, 60),
            b"2",
            self._dice.choice([b"", b"5"]),
        ]
        return b":".join([word, *numbers, self._ranges()])

    def _snapshots(self, call: Call[Any]) -> Reply:
        return [self._dice.choice([1, 10**13]), *(self._snapshot(call)[1:] for _ in call.keys)]

    def _snapshot(self, call: Call[Any]) -> Reply:
        """A hash whose definitions, free lists and holds have nothing to do with each other."""
        if self._dice.random() < 0.2:
            return [1]
        quotas = [self._dice.randint(1, 6) for _ in range(2)]
        listed = b";".join(b"%d:0::%d:%d" % (quota, 50, 50) for quota in quotas)
        reply: list[bytes | int] = [self._dice.choice([1, 10**13]), b"d"]
        reply.append(b"%d|%s" % (self._dice.randint(0, 9), listed))
        for quota in quotas:
            reply += [b"q%d" % quota, b"9:3:1:5:" + self._ranges()]
            reply += [b"h%d" % quota, b"%d:7:" % quota + self._ranges()]
        return reply

    def _number(self, highest: int) -> bytes:
        return str(self._dice.randint(0, highest)).encode()

    def _ranges(self) -> bytes:
        starts = sorted(self._dice.sample(range(70), 2))
        return b",".join(b"%d-%d" % (lo, lo + self._dice.randint(0, 8)) for lo in starts)


class Editor:
    """Changes definitions while work is under way; knows what may be used of each quota at most."""

    def __init__(self, bench: Bench, seed: int) -> None:
        self._bench = bench
        self._dice = random.Random(seed)
        self.at_most: dict[int, int] = {}

    def add(self, limit: int) -> int:
        """A quota that begins later than all before it, and so rules."""
        connection = self._bench.connection
        with connection.transaction():
            quota = self._bench.value(
                """INSERT INTO team_quota (team_id, quota_limit, period_start)
                SELECT 7, %s, coalesce(max(period_start), '2020-01-01Z') + interval '1 hour' FROM team_quota
                RETURNING id""",
                (limit,),
            )
        self.at_most[quota] = limit
        return int(quota)

    def edit(self) -> None:
        quota = self._dice.choice(list(self.at_most))
        action = self._dice.choice([self._limit, self._limit, self._delete, self._overlap])
        try:
            action(quota)
        except psycopg.Error as error:
            if error.sqlstate != "QS004":
                raise

    def _limit(self, quota: int) -> None:
        limit = self._dice.randint(0, 60)
        connection = self._bench.connection
        with connection.transaction():
            self._bench.set_limit(quota, limit)
            used = self._bench.ledger.used(connection, [quota])[quota]
            # What is used after an edit was used before it, or fits the new limit.
            self.at_most[quota] = max(limit, used)

    def _delete(self, quota: int) -> None:
        """Goes only where nothing was used; PostgreSQL refuses otherwise."""
        if len(self.at_most) > 1:
            self._bench.connection.execute("DELETE FROM team_quota WHERE id = %s", (quota,))
            del self.at_most[quota]
            self.add(self._dice.randint(5, 40))

    def _overlap(self, _quota: int) -> None:
        if len(self.at_most) < MAX_QUOTAS:
            self.add(self._dice.randint(5, 40))


def spend(worker: Bench, seed: int) -> int:
    """How many units it was told that it used; an outage in the middle of a call tells nothing."""
    dice, used = random.Random(seed), 0
    for _ in range(CALLS):
        with suppress(Unavailable, Contention):
            used += worker.spend(dice.randint(1, 9)).used
    return used


def upkeep(beside: Bench) -> None:
    for _ in range(10):
        for work in (
            partial(sync, beside.counters, beside.ledger, beside.connection),
            partial(audit, beside.counters, beside.ledger, beside.connection),
            partial(absorb, beside.counters, beside.ledger, beside.connection, [SUBJECT]),
            partial(rebuild, beside.counters, beside.ledger, beside.connection, [SUBJECT]),
        ):
            with suppress(Unavailable):
                work()


@pytest.mark.parametrize("seed", range(4))
def test_whatever_redis_says(bench: Bench, connect: Connect, seed: int) -> None:
    """Nothing is over-admitted, lost or counted twice; when Redis tells the truth again all agree."""
    editor = Editor(Bench(connect(), bench.counters), seed)
    editor.add(40)
    editor.add(50)
    crew = [lying(connect, bench.counters, 100 * seed + i) for i in range(WORKERS)]
    beside = lying(connect, bench.counters, 100 * seed + 99)
    doings: list[Callable[[], object]] = [partial(spend, b, i) for i, b in enumerate(crew)]
    doings += [partial(upkeep, beside), lambda: [editor.edit() for _ in range(25)]]
    told = together(*doings)[:WORKERS]
    ledger = bench.value(
        "SELECT coalesce(sum(upper(slots) - lower(slots)), 0) FROM quota_redis_ledger WHERE NOT void"
    )
    assert sum(told) == bench.items() == ledger > 0
    for quota, at_most in editor.at_most.items():
        assert bench.used(quota) <= at_most
    audit(bench.counters, bench.ledger, bench.connection)
    assert audit(bench.counters, bench.ledger, bench.connection).drifts == ()
    for quota in editor.at_most:
        assert bench.column(quota) == bench.used(quota)


def lying(connect: Connect, counters: Counters, seed: int) -> Bench:
    liar = Counters(counters.connection.client, namespace=counters.keys.namespace)
    liar.connection = LyingConnection(counters, seed)
    return Bench(connect(), liar)


class TestGarbled:
    """What something else wrote into our keys is forgotten, and loaded from the ledger."""

    @pytest.fixture
    def quota(self, bench: Bench, absorbed: Callable[..., int]) -> int:
        quota = absorbed(10)
        assert bench.spend(3).used == 3
        bench.counters.flush()
        return quota

    @pytest.fixture(params=["free list", "definitions", "hold", "another kind", "reversed"])
    def garbled(self, bench: Bench, quota: int, request: pytest.FixtureRequest) -> int:
        client, key = bench.counters.connection.client, bench.counters.keys.subject(SUBJECT)
        if request.param == "another kind":
            client.set(key, "no hash")
        else:
            field, value = {
                "free list": (f"q{quota}", "what"),
                "definitions": ("d", "9|1:2"),
                "hold": ("h1", f"{quota}:soon:1-2"),
                "reversed": (f"q{quota}", "7:0:0:0:10-4"),
            }[request.param]
            client.hset(key, field, value)
        return quota

    def test_a_call_is_exact_and_puts_it_right(self, bench: Bench, garbled: int) -> None:
        assert sum(bench.spend(4).used for _ in range(3)) == 7
        assert bench.items() == bench.used(garbled) == 10
        absorb(bench.counters, bench.ledger, bench.connection, [SUBJECT])
        assert bench.in_redis(garbled).used == 10

    def test_an_audit_names_and_repairs_it(self, bench: Bench, garbled: int) -> None:
        [drift] = audit(bench.counters, bench.ledger, bench.connection).drifts
        assert (drift.quota_id, drift.reason) == (garbled, "unknown")
        assert audit(bench.counters, bench.ledger, bench.connection).drifts == ()
        assert bench.in_redis(garbled).used == 3

    def test_a_sync_is_not_stopped_by_it(
        self, bench: Bench, garbled: int, absorbed: Callable[..., int]
    ) -> None:
        other = absorbed(10, team=8)
        bench.spend(2, subject="team:8")
        bench.counters.flush()
        assert sync(bench.counters, bench.ledger, bench.connection).is_complete
        assert (bench.column(other), bench.column(garbled)) == (2, 3)
