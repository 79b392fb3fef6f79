"""Mistakes that the machine must find: changes to the shipped Lua, SQL or Python, made in tests alone."""

import importlib
import inspect
import textwrap
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

import psycopg
from django.conf import settings

from quota_redis.postgres.schema import schema_sql
from shargain.offers.models import OfferQuota
from tests.interleavings.invariants import Violation
from tests.interleavings.machine import Totals
from tests.interleavings.search import search
from tests.interleavings.world import EMPTY_SQL, World

RUNS = 20
CONSTRAINT = "CONSTRAINT quota_redis_ledger_slot_once"
OFFERS_SQL = Path(__file__).parents[2] / "shargain" / "offers" / "sql" / "create_offers_v2.sql"


@dataclass(frozen=True)
class Mutant:
    """`where` is a script (`absorb.lua`), the ledger's or the offers' SQL (`ledger.sql`, `offers.sql`), or a
    Python function (`package.module:Class.method`); there each `old` becomes its `new`."""

    name: str
    where: str
    changes: tuple[tuple[str, str], ...]

    @contextmanager
    def applied(self, world: World) -> Iterator[None]:
        if self.where.endswith(".lua"):
            script = self.where.removesuffix(".lua")
            world.rewrites.update({(script, old): new for old, new in self.changes})
            try:
                yield
            finally:
                world.rewrites.clear()
        elif self.where.endswith(".sql"):
            yield from self._in_database(world)
        else:
            yield from self._in_python()

    def _changed(self, text: str) -> str:
        for old, new in self.changes:
            assert old in text, f"{self.where} has no {old!r}"
            text = text.replace(old, new)
        return text

    def _in_database(self, world: World) -> Iterator[None]:
        text = schema_sql() if self.where == "ledger.sql" else _offers_sql()
        world.observer.execute(EMPTY_SQL)
        # Not on the observer, on whose search path these would come before the functions that triggers call.
        with psycopg.connect(world.dsn, autocommit=True) as connection:
            connection.execute(self._changed(text).encode())
            try:
                yield
            finally:
                world.observer.execute(EMPTY_SQL)
                connection.execute(text.encode())

    def _in_python(self) -> Iterator[None]:
        module, _, path = self.where.partition(":")
        function: Any = importlib.import_module(module)
        for name in path.split("."):
            function = getattr(function, name)
        assert isinstance(function, FunctionType)
        original = function.__code__
        source = self._changed(textwrap.dedent(inspect.getsource(function)))
        function.__code__ = _code_in(compile(source, self.where, "exec"), function.__name__)
        try:
            yield
        finally:
            function.__code__ = original


def _code_in(module: CodeType, name: str) -> CodeType:
    return next(c for c in module.co_consts if isinstance(c, CodeType) and c.co_name == name)


def _offers_sql() -> str:
    text = OFFERS_SQL.read_text(encoding="utf-8")
    namespace, prefix = settings.QUOTA_REDIS["NAMESPACE"], OfferQuota.quota.prefix
    return text.replace("{namespace}", namespace).replace("{prefix}", prefix)


@contextmanager
def without_constraint(world: World) -> Iterator[None]:
    """The ledger as it would be if a slot could be used twice."""
    world.observer.execute(EMPTY_SQL)
    row = world.observer.execute(
        "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conname = 'quota_redis_ledger_slot_once'"
    ).fetchone()
    assert row
    world.observer.execute(
        "ALTER TABLE quota_redis_ledger DROP CONSTRAINT quota_redis_ledger_slot_once"
    )
    try:
        yield
    finally:
        world.observer.execute(EMPTY_SQL)
        world.observer.execute(f"ALTER TABLE quota_redis_ledger ADD {CONSTRAINT} {row[0]}".encode())


def hunt(world: World, mutant: Mutant, seed: int, totals: Totals, minutes: float) -> str | None:
    """Search with the mistake in place; returns what was found wrong, None where nothing was in time."""
    give_up = time.monotonic() + minutes * 60
    with ExitStack() as stack:
        if mutant.changes:
            stack.enter_context(mutant.applied(world))
        else:
            stack.enter_context(without_constraint(world))
        for at in count(seed):
            try:
                search(world, at, RUNS, totals, is_shrunk=False)
            except (Violation, ExceptionGroup) as error:
                return str(error).splitlines()[0]
            if time.monotonic() > give_up:
                break
    return None


def hunt_all(world: World, wanted: str, seed: int, minutes: float) -> int:
    """Hunt every mutant whose name has `wanted`, each for so long; the exit status is 1 where one survives."""
    survivors = 0
    for mutant in MUTANTS:
        if wanted not in mutant.name:
            continue
        totals = Totals()
        found = hunt(world, mutant, seed, totals, minutes)
        survivors += not found
        print(f"{mutant.name} ({totals.runs} runs): {found or 'SURVIVED'}", flush=True)
    return 1 if survivors else 0


MUTANTS = (
    Mutant("the ledger lets a slot be used twice", "ledger.sql", ()),
    Mutant(
        "a taken slot is no error",
        "ledger.sql",
        (
            (
                "IF NOT FOUND THEN\n            RAISE EXCEPTION 'a slot",
                "IF false THEN\n            RAISE EXCEPTION 'a slot",
            ),
        ),
    ),
    Mutant(
        "FULL is believed without the version (batches)",
        "shargain.offers.services.quota:_Work.is_refusal",
        (
            (
                "self._batch.read_known(self._connection) == version",
                "self._batch.read_known(self._connection) >= 0",
            ),
        ),
    ),
    Mutant(
        "FULL is believed without the version (spend)",
        "quota_redis.postgres.spending:Units.is_refusal",
        (("return await self._database.ask(asked) == version", "return True"),),
    ),
    Mutant(
        "FULL without a look at the holds",
        "reserve.lua",
        (("if holds > 0 then", "if false then"),),
    ),
    Mutant("absorb forgets live holds", "absorb.lua", (("if #left == 0 then", "if true then"),)),
    Mutant(
        "absorb does not see that another came between",
        "absorb.lua",
        (("if (hash.a or '') ~= token_seen then return 0 end", ""),),
    ),
    Mutant(
        "absorb gives nothing back", "absorb.lua", (("back = parse(values[i + 6])", "back = {}"),)
    ),
    Mutant(
        "absorb leaks what an expired hold kept",
        "absorb.lua",
        (
            (
                "for _, range in ipairs(parse(ranges)) do table.insert(quotas[quota].back, range) end",
                "local _ = ranges",
            ),
        ),
    ),
    Mutant(
        "settle twice", "settle.lua", (("redis.call('HDEL', subject_key, 'h' .. hold_id)", ""),)
    ),
    Mutant(
        "reserve leaves the slots on the free list",
        "reserve.lua",
        (("lo = last + 1", "lo = last"),),
    ),
    Mutant(
        "sync adds",
        "quota_redis.postgres.absorb:write_counts",
        (("SET {t.used} = w.used", "SET {t.used} = q.{t.used} + w.used"),),
    ),
    Mutant(
        "unmark without comparing",
        "unmark.lua",
        (
            ("~= seen[first + 1] then return 2 end", "== nil then return 2 end"),
            ("~= seen[first + 2 * i - 1] then return 0 end", "== nil then return 0 end"),
        ),
    ),
    Mutant(
        "unmark while something is held",
        "quota_redis.postgres.sync:_seen_values",
        (("not snapshot.holds and ", ""),),
    ),
    Mutant(
        "lowering compares slot numbers with the limit",
        "ledger.sql",
        (
            ("p_limit - v_used - before", "p_limit - before"),
            ("IF v_room <= greatest(0, p_limit - v_used) THEN", "IF true THEN"),
        ),
    ),
    Mutant(
        "an edit does not look again",
        "ledger.sql",
        (("IF v_room <= greatest(0, p_limit - v_used) THEN", "IF true THEN"),),
    ),
    Mutant(
        "an edit has no version",
        "ledger.sql",
        (("PERFORM quota_redis_bump_v1(TG_ARGV[0], v_subject);", ""),),
    ),
    Mutant(
        "a deleted quota still has room",
        "ledger.sql",
        (("IF quota_redis_apply_limit_v1(TG_ARGV[0], v_id, 0) > 0 THEN", "IF false THEN"),),
    ),
    Mutant(
        "slots of a quota that does not rule",
        "ledger.sql",
        (("IF p_active IS DISTINCT FROM p_quota THEN", "IF false THEN"),),
    ),
    Mutant(
        "what was asked counts",
        "offers.sql",
        (
            (
                "v_slots,\n                    count(i.url))",
                "v_slots,\n                    v_room)",
            ),
        ),
    ),
    Mutant(
        "compaction swallows the gaps",
        "ledger.sql",
        (
            (
                "SELECT unnest(range_agg(slots)) AS slots FROM gone",
                "SELECT range_merge(range_agg(slots)) AS slots FROM gone",
            ),
        ),
    ),
)
