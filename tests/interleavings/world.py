"""The servers of a run, their time, and what is true in them between two steps."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import sha1
from typing import Any

import psycopg
import redis
from django.db import connections

from quota_redis import Counters, ranges, scripts
from quota_redis.calls import EPOCH, read_snapshot
from quota_redis.keys import Keys
from quota_redis.postgres import QuotaTable, spending
from quota_redis.ranges import Ranges
from quota_redis.scripts import Script
from quota_redis.types import Snapshot
from quota_redis.wire import Wires
from shargain.offers.models import OfferQuota
from tests.interleavings.gate import Actor, GatedPostgres, GatedRedis, Post

BEGINNING = datetime(2030, 1, 1, tzinfo=UTC)
LEASE = timedelta(seconds=10)
TARGET = 1
CLOCK_KEY = "clock"
PATIENCE = 30.0
"""Real seconds after which a step that does not end is a failure."""

# A schema before pg_catalog replaces the clock that the shipped SQL reads, and leaves the SQL alone.
CLOCK_SQL = """
CREATE SCHEMA interleavings_clock;
CREATE TABLE interleavings_clock.instant (moment timestamptz NOT NULL);
INSERT INTO interleavings_clock.instant VALUES (now());
CREATE FUNCTION interleavings_clock.statement_timestamp() RETURNS timestamptz
LANGUAGE sql STABLE AS 'SELECT moment FROM interleavings_clock.instant';
"""
SEARCH_PATH = "-c search_path=interleavings_clock,pg_catalog,public"

EMPTY_SQL = """
TRUNCATE offers_offer, offers_offerquota, quota_redis_ledger, quota_redis_subject, quota_redis_mark
RESTART IDENTITY CASCADE;
INSERT INTO auth_user (id, username, password, first_name, last_name, email, is_superuser, is_staff, is_active,
                       date_joined)
VALUES (1, 'owner', '', '', '', '', false, false, true, now()) ON CONFLICT DO NOTHING;
INSERT INTO offers_scrapingtarget (id, name, owner_id, is_active) VALUES (1, 'target', 1, true)
ON CONFLICT DO NOTHING
"""

SEEN_SQL = """
SELECT coalesce((SELECT max(version) FROM quota_redis_subject), 0),
       (SELECT quota_id FROM offers_offerquota_active_v1(%s)),
       i.id, q.id IS NOT NULL, q.max_offers_per_period, coalesce(q.used_offers_count, 0),
       q.period_start, q.period_end,
       coalesce((SELECT sum(upper(slots) - lower(slots)) FROM quota_redis_ledger
                 WHERE quota_id = i.id AND NOT void), 0)::bigint,
       (SELECT coalesce(range_agg(slots), '{}') FROM quota_redis_ledger WHERE quota_id = i.id)::text,
       (SELECT count(*) FROM offers_offer WHERE quota_id = i.id)
FROM (SELECT 1) AS one LEFT JOIN (
    SELECT id FROM offers_offerquota UNION SELECT quota_id FROM quota_redis_ledger
    UNION SELECT quota_id FROM offers_offer WHERE quota_id IS NOT NULL
) i ON true LEFT JOIN offers_offerquota q ON q.id = i.id ORDER BY i.id
"""


@dataclass(frozen=True)
class SeenQuota:
    """A quota as PostgreSQL has it committed; counts in offers."""

    id: int
    is_defined: bool
    limit: int | None
    column: int
    start: datetime | None
    end: datetime | None
    used: int
    taken: Ranges
    offers: int

    @property
    def free(self) -> int:
        return ranges.size(ranges.subtract(ranges.EVERYTHING, self.taken))

    @property
    def is_full(self) -> bool:
        return self.limit is not None and self.used >= self.limit


@dataclass(frozen=True)
class Seen:
    """Everything that is committed, of one snapshot, and the hash in Redis at that moment."""

    version: int
    active: int | None
    quotas: dict[int, SeenQuota]
    hash: Snapshot

    def __str__(self) -> str:
        quotas = [f"{q.id}: {q.used} of {q.limit}, column {q.column}" for q in self.quotas.values()]
        known = {quota: state.raw for quota, state in self.hash.quotas.items()}
        return f"version {self.version}, {self.active} rules, {quotas}; Redis {self.hash.version} {known}"

    @property
    def is_full(self) -> bool:
        """Whether a discard would be right: a quota rules and has no room."""
        return self.active is not None and self.quotas[self.active].is_full


@dataclass
class World:
    """PostgreSQL and Valkey, with a clock that stands still unless it is moved. One target, TARGET."""

    dsn: str
    redis_url: str
    now: datetime = BEGINNING
    skew: timedelta = timedelta(0)
    """How far the clock of Redis is ahead."""
    posts: list[Post] = field(default_factory=list)
    rewrites: dict[tuple[str, str], str] = field(default_factory=dict)
    """Text of the Lua that is replaced: (script or include, old) to new. For code broken on purpose."""
    _idle: list[GatedPostgres] = field(default_factory=list)
    _expiries: dict[str, datetime] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.table: QuotaTable = OfferQuota.quota.table(OfferQuota)
        self.subject = f"{self.table.prefix}{TARGET}"
        # One shard, for sync asks each of them and there is one subject.
        self.keys = Keys(self.table.namespace, shards=1)
        self.client = redis.Redis.from_url(self.redis_url, socket_timeout=PATIENCE)
        self.wires = Wires(self.client)

    @property
    def seconds(self) -> float:
        return (self.now - BEGINNING).total_seconds()

    @contextmanager
    def open(self) -> Iterator["World"]:
        """Connect, replace the clocks, and put everything back afterwards."""
        load, pause = scripts.load, spending.BUSY_PAUSE
        with psycopg.connect(self.dsn, autocommit=True, options=SEARCH_PATH) as self.observer:
            self.observer.execute("DROP SCHEMA IF EXISTS interleavings_clock CASCADE")
            self.observer.execute(CLOCK_SQL)
            scripts.load = lambda name: self._script(load(name))  # type: ignore[assignment]
            spending.BUSY_PAUSE = 0.0
            try:
                yield self
            finally:
                scripts.load, spending.BUSY_PAUSE = load, pause
                for connection in self._idle:
                    connection.close()
                self._idle.clear()
                self.observer.execute("DROP SCHEMA interleavings_clock CASCADE")
                for wire in self.wires.take_idle():
                    wire.drop()
                self.client.close()

    def _script(self, script: Script) -> Script:
        text = script.text.replace(
            "redis.call('TIME')", f"redis.call('LRANGE', '{CLOCK_KEY}', 0, 1)"
        )
        for (name, old), new in self.rewrites.items():
            if name == script.name:
                assert old in text, f"{name}.lua has no {old!r}"
                text = text.replace(old, new)
        return Script(script.name, text, sha1(text.encode(), usedforsecurity=False).hexdigest())

    def reset(self) -> None:
        """An empty world at BEGINNING."""
        self.observer.execute(EMPTY_SQL)
        self.posts.clear()
        self._expiries.clear()
        self.now, self.skew = BEGINNING, timedelta(0)
        self.flush()
        self.set_clock(timedelta(0))

    def set_clock(self, ahead: timedelta, skew: timedelta | None = None) -> None:
        """Move time forward by `ahead`, and the clock of Redis to `skew` from PostgreSQL's."""
        self.now += ahead
        self.skew = self.skew if skew is None else skew
        self.observer.execute("UPDATE interleavings_clock.instant SET moment = %s", (self.now,))
        self._write_redis_clock(self.client.pipeline())
        for key in [key for key, end in self._expiries.items() if end <= self.now]:
            del self._expiries[key]
            self.client.delete(key)

    def flush(self) -> None:
        """FLUSHALL, after which the clock is there again."""
        pipeline = self.client.pipeline()
        pipeline.flushall()
        self._write_redis_clock(pipeline)
        self._expiries.clear()

    def _write_redis_clock(self, pipeline: Any) -> None:
        micros = _microseconds(self.now + self.skew)
        pipeline.delete(CLOCK_KEY).rpush(
            CLOCK_KEY, micros // 1_000_000, micros % 1_000_000
        ).execute()

    def expire_later(self, key: str, span_ms: int) -> None:
        """What PX would do by the server's own clock."""
        self._expiries.setdefault(key, self.now + timedelta(milliseconds=span_ms))

    def equip(self, actor: Actor) -> None:
        """Give an actor a connection to each server."""
        counters = Counters(
            self.client,
            namespace=self.table.namespace,
            lease=LEASE,
            boundary_skew=spending.BOUNDARY_SKEW,
        )
        counters.keys = counters.calls.keys = self.keys
        counters.connection = GatedRedis(self.client, actor, self)
        actor.counters = counters
        if not self._idle:
            self._idle.append(self._connect())
        actor.connection = self._idle.pop()
        actor.connection.actor = actor

    def _connect(self) -> GatedPostgres:
        connection = GatedPostgres.connect(self.dsn, autocommit=True, options=SEARCH_PATH)
        connection.sever = self.sever
        return connection

    def take_back(self, actor: Actor) -> None:
        """An actor is done; its connection serves another, unless it was hurt."""
        connection: GatedPostgres = actor.connection
        connection.actor = None
        is_idle = connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
        if is_idle and not actor.was_hurt:
            self._idle.append(connection)
        else:
            self.sever(connection)

    def sever(self, connection: GatedPostgres) -> None:
        """End a connection's backend; its transaction is rolled back when this returns."""
        if not connection.closed:
            self.terminate(connection)
            connection.close()

    def terminate(self, connection: GatedPostgres) -> None:
        """End the backend alone; whoever is in a call on the connection finds out."""
        pid = connection.info.backend_pid
        self.observer.execute("SELECT pg_terminate_backend(%s, 10000)", (pid,))

    def settle(self, actors: Sequence[Actor]) -> None:
        """Wait until every actor stands before a call, has ended, or waits for a lock of one that stands."""
        give_up = time.monotonic() + PATIENCE
        while True:
            moving = [a for a in actors if not a.stopped.wait(0.002)]
            if not moving or self._wait_for_others(moving, actors):
                return
            if time.monotonic() > give_up:
                where = ", ".join(f"{a.name} at {a.at}" for a in moving)
                raise AssertionError(f"neither done nor waiting for a lock: {where}")

    def _wait_for_others(self, moving: Sequence[Actor], actors: Sequence[Actor]) -> bool:
        standing = {_pid(a) for a in actors if a not in moving}
        blockers: dict[int, list[int]] = dict(
            self.observer.execute(
                "SELECT pid, pg_blocking_pids(pid) FROM unnest(%s::int[]) AS pid",
                ([_pid(a) for a in moving],),
            ).fetchall()
        )
        stuck: set[int] = set()
        while more := {
            pid for pid, by in blockers.items() if pid not in stuck and (standing | stuck) & set(by)
        }:
            stuck |= more
        return len(stuck) == len(moving)

    def see(self, in_redis: Snapshot) -> Seen:
        rows = self.observer.execute(SEEN_SQL, (TARGET,)).fetchall()
        quotas = {}
        for _, _, *values, taken, offers in rows:
            if values[0] is not None:
                quotas[values[0]] = SeenQuota(*[*values, ranges.parse_multirange(taken), offers])
        version, active, *_ = rows[0]
        return Seen(version, active, quotas, in_redis)

    def hash(self) -> Snapshot:
        fields = self.client.hgetall(self.keys.subject(self.subject))
        now_ms = _microseconds(self.now + self.skew) // 1000
        return read_snapshot(self.subject, [now_ms, *(x for pair in fields.items() for x in pair)])

    def deliver(self, post: Post) -> None:
        self.client.eval(post.script.text, len(post.keys), *post.keys, *post.args)


def _microseconds(moment: datetime) -> int:
    return (moment - EPOCH) // timedelta(microseconds=1)


def _pid(actor: Actor) -> int:
    return int(actor.connection.info.backend_pid) if not actor.connection.closed else 0


def database_dsn() -> str:
    """The address of the database that Django uses now, a test's own one under pytest."""
    settings = connections["default"].settings_dict
    return psycopg.conninfo.make_conninfo(
        "",
        dbname=settings["NAME"],
        user=settings["USER"] or None,
        password=settings["PASSWORD"] or None,
        host=settings["HOST"] or None,
        port=settings["PORT"] or None,
    )
