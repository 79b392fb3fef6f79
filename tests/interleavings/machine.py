"""The state machine: Hypothesis chooses who makes the next call, and what goes wrong with it."""

import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, ClassVar, TypeAlias
from uuid import UUID

import hypothesis.strategies as st
import psycopg
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from quota_redis.errors import Unavailable
from tests.interleavings import invariants, programs
from tests.interleavings.gate import Actor, Fault, Post
from tests.interleavings.invariants import Violation, demand
from tests.interleavings.programs import BatchDone, Program, SpendDone
from tests.interleavings.world import LEASE, TARGET, Seen, World

MAX_ACTORS = 5
MAX_CALLS_IN_FINE_RUN = 3
MAX_STEPS_TO_END = 600
"""Calls that an actor may need before it has to be done."""
REFUSED_EDITS = ("QS004", "23505", "23514")
"""Deleting a used quota; two quotas with one start; an end before the start."""

LIMITS = st.sampled_from([0, 1, 2, 2, 3, 4, 6, 9, None])
CHANGES = st.one_of(
    st.tuples(st.just("limit"), LIMITS),
    st.tuples(st.just("limit"), LIMITS),
    st.tuples(st.just("limit"), LIMITS),
    st.tuples(
        st.just("add"),
        LIMITS,
        st.sampled_from([-900, -5, 1, 3, 20]),
        st.sampled_from([None, 2, 15, 40]),
    ),
    st.tuples(st.just("end"), st.sampled_from([0, 0, 1, 20, None])),
    st.tuples(st.just("delete")),
)
"""Edits of a definition; starts and ends in seconds from now."""
INDEX = st.integers(0, 7)
CALLS = st.sampled_from([0, 0, 1, 2, 3, 4, 5, 6, 8, MAX_STEPS_TO_END])
"""How many calls to make in a row; the last means to the end."""
RARELY = st.sampled_from([False, False, False, True])
WORK = st.one_of(
    st.lists(st.integers(0, 15), min_size=1, max_size=4, unique=True), st.integers(1, 4)
)

Change: TypeAlias = tuple[Any, ...]
INSERT_SQL = """
INSERT INTO offers_offerquota (target_id, max_offers_per_period, used_offers_count, period_start, period_end)
VALUES (%s, %s, 0, %s, %s)"""


class Totals:
    """What a whole search did, and who is told of each step while it happens."""

    def __init__(self, trace: Callable[[str], None] = lambda _: None) -> None:
        self.trace = trace
        self.runs = self.steps = self.waits = 0
        self.done: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()

    def line(self, minutes: float, seed: int) -> str:
        return (
            f"seed {seed}: {self.runs} runs, {self.steps} steps, {self.steps / minutes:.0f} a minute, "
            f"{self.waits} waits for a lock, no violation"
        )

    def table(self) -> str:
        counts = [*sorted(self.done.items()), *sorted(self.faults.items())]
        return "\n".join(f"{count:8} {name}" for name, count in counts)


class Interleavings(RuleBasedStateMachine):
    """One run. Subclasses name the world it happens in.

    No rule has a precondition: where PostgreSQL lets two waiting actors go at once, who comes first may differ
    from one run to the next, and Hypothesis has to be able to repeat its choices nevertheless.
    """

    world: ClassVar[World]
    totals: ClassVar[Totals]

    def __init__(self) -> None:
        super().__init__()
        self.world.reset()
        self.totals.runs += 1
        self.actors: list[Actor] = []
        self.started = 0
        self.batches: dict[UUID, list[str]] = {}
        self.began: dict[UUID, int] = {}
        self.deleted: Counter[int] = Counter()
        self.deleted_offers: set[tuple[str, UUID]] = set()
        self.copy = b""
        self.expired: set[str] = set()
        self.is_calm = False
        """Whether this run has no faults."""
        self.is_fine = False
        """Whether actors make few calls in a row, so that many are under way at once."""
        self.is_redis_true = True
        """Whether Redis has had no reason to count fewer than the ledger, so that sync alone must be right."""
        self.history: list[Seen] = [self.world.see(self.world.hash())]

    # Beginning

    @initialize(
        limit=LIMITS,
        ends_in=st.sampled_from([None, None, 3, 20]),
        is_known=st.booleans(),
        is_calm=st.booleans(),
        is_fine=st.booleans(),
        crew=st.lists(WORK, min_size=1, max_size=3),
    )
    def define(
        self,
        limit: int | None,
        ends_in: int | None,
        is_known: bool,
        is_calm: bool,
        is_fine: bool,
        crew: list[list[int] | int],
    ) -> None:
        self.is_calm, self.is_fine = is_calm, is_fine
        self.edit(0, ("add", limit, -1000, ends_in), is_known, 0)
        self._go(self.actors[0], MAX_STEPS_TO_END)
        for work in crew:
            self.start_worker(work, posts_late=False, calls=0)

    # Starting actors

    def _make_room(self) -> None:
        """Have one end, or in a fine run all go in turns until one has, unless all wait for each other."""
        while len(self.actors) >= MAX_ACTORS and self._standing():
            if not self.is_fine:
                self._go(self._standing()[0], MAX_STEPS_TO_END)
            self.go_in_turns(1)

    def _start(self, name: str, program: Program, *, posts_late: bool = False) -> Actor:
        self._make_room()
        self.started += 1
        actor = Actor(f"{name} {self.started}", program, len(self.history) - 1, posts_late)
        self.world.equip(actor)
        self.actors.append(actor)
        actor.start()
        self._settle()
        return actor

    @rule(work=WORK, posts_late=RARELY, calls=CALLS)
    def start_worker(self, work: list[int] | int, posts_late: bool, calls: int) -> None:
        """A batch of these offers, or a spend of so many units."""
        batch_id = UUID(int=self.started + 1)
        if isinstance(work, int):
            program = programs.spend(self.world, batch_id, work)
            self.began[batch_id] = len(self.history) - 1
            self._proceed(self._start("spend", program, posts_late=posts_late), calls)
        else:
            self.batches[batch_id] = [f"https://example.org/{number}" for number in work]
            self._proceed(self._start_batch(batch_id, posts_late), calls)

    @rule(which=INDEX, calls=CALLS)
    def deliver_batch_again(self, which: int, calls: int) -> None:
        if self.batches:
            batch_id = list(self.batches)[which % len(self.batches)]
            self._proceed(self._start_batch(batch_id, False), calls)

    def _start_batch(self, batch_id: UUID, posts_late: bool) -> Actor:
        self.began.setdefault(batch_id, len(self.history) - 1)
        program = programs.batch(self.world, batch_id, self.batches[batch_id])
        return self._start("batch", program, posts_late=posts_late)

    @rule(
        kind=st.sampled_from(["sync", "sync", "absorb", "audit", "compact", "rebuild"]), calls=CALLS
    )
    def start_upkeep(self, kind: str, calls: int) -> None:
        self._proceed(self._start(kind, programs.upkeep(self.world, kind)), calls)

    # Edits of definitions

    @rule(which=INDEX, change=CHANGES, is_pushed=RARELY, calls=CALLS)
    def edit(self, which: int, change: Change, is_pushed: bool, calls: int) -> None:
        query, values = self._statement(self._quota(which), change)
        program = programs.edit(self.world, query, values, is_pushed=is_pushed)
        self._proceed(self._start("edit", program), calls)

    def _statement(self, quota: int, change: Change) -> tuple[str, tuple[object, ...]]:
        match change:
            case ("limit", limit):
                query = "UPDATE offers_offerquota SET max_offers_per_period = %s WHERE id = %s"
                return query, (limit, quota)
            case ("end", seconds):
                query = "UPDATE offers_offerquota SET period_end = %s WHERE id = %s"
                return query, (self._in(seconds), quota)
            case ("add", limit, starts_in, ends_in):
                values = (TARGET, limit, self._in(starts_in), self._in(ends_in))
                return INSERT_SQL, values
        return "DELETE FROM offers_offerquota WHERE id = %s", (quota,)

    def _in(self, seconds: int | None) -> datetime | None:
        return None if seconds is None else self.world.now + timedelta(seconds=seconds)

    def _quota(self, which: int) -> int:
        defined = [quota.id for quota in self.history[-1].quotas.values() if quota.is_defined]
        return defined[which % len(defined)] if defined else 0

    # Steps

    def _standing(self) -> list[Actor]:
        return [actor for actor in self.actors if actor.stopped.is_set()]

    @rule(which=INDEX, calls=CALLS)
    def go(self, which: int, calls: int) -> None:
        if actor := self._pick(which):
            self._proceed(actor, max(1, calls))

    def _proceed(self, actor: Actor, calls: int) -> None:
        self._go(actor, min(calls, MAX_CALLS_IN_FINE_RUN) if self.is_fine else calls)

    @rule(rounds=st.integers(1, 6))
    def go_in_turns(self, rounds: int) -> None:
        for _ in range(rounds):
            for actor in self._standing():
                self._go(actor, 1)

    def _go(self, actor: Actor, calls: int) -> None:
        """Let an actor make so many calls, or fewer where it ends or has to wait for another."""
        for _ in range(calls):
            if actor not in self._standing():
                return
            self._resume(actor)
        demand(
            calls < MAX_STEPS_TO_END,
            f"{actor.name} makes no progress: {calls} calls, now at {actor.at}",
        )

    @rule(which=INDEX, fault=st.sampled_from(Fault))
    def hurt(self, which: int, fault: Fault) -> None:
        actor = self._pick(which)
        if self.is_calm or actor is None:
            return
        where = actor.at.split()[0]
        if where == "sql" and fault is Fault.REPLY_LOST:
            # The worker gives its hold back, for it cannot know that it was used.
            self.is_redis_true = False
        self.totals.faults[f"{where}: {fault.name.lower()}"] += 1
        self._resume(actor, fault)

    @rule(which=INDEX)
    def kill_waiting(self, which: int) -> None:
        """Kill an actor that waits for a lock inside PostgreSQL."""
        waiting = [actor for actor in self.actors if not actor.stopped.is_set()]
        if self.is_calm or not waiting:
            return
        actor = waiting[which % len(waiting)]
        actor.is_dead = actor.was_hurt = True
        self.totals.faults["waiting: killed"] += 1
        self.world.terminate(actor.connection)
        self._settle()

    def _pick(self, which: int) -> Actor | None:
        standing = self._standing()
        return standing[which % len(standing)] if standing else None

    def _resume(self, actor: Actor, fault: Fault | None = None) -> None:
        self.totals.steps += 1
        touched, is_rebuild = actor.at.split()[0], actor.name.startswith("rebuild")
        self.totals.trace(f"{actor.name}: {actor.at} {fault.name if fault else ''}")
        actor.resume(fault)
        self._settle(touched, is_loss=is_rebuild)
        self.totals.waits += not actor.stopped.is_set()
        self.totals.trace(f"    {self.history[-1]}")

    # Posts

    @rule(which=INDEX, is_lost=RARELY)
    def post_travels(self, which: int, is_lost: bool) -> None:
        if not self.world.posts:
            return
        post = self.world.posts.pop(which % len(self.world.posts))
        if is_lost:
            self.totals.faults["post: lost"] += 1
        else:
            self._deliver(post)

    def _deliver(self, post: Post) -> None:
        self.world.deliver(post)
        self._settle("redis", settled={post.hold_id})

    # Faults of Redis, time, and the owner's deletions

    @rule(
        what=st.sampled_from(["nothing", "scripts", "copy", "restore", "changed", "subject", "all"])
    )
    def break_redis(self, what: str) -> None:
        """Lose a part of what Redis knows, or bring back an older copy of it, as a stale replica does."""
        if self.is_calm:
            return
        world = self.world
        key = world.keys.subject(world.subject)
        if what == "copy":
            self.copy = world.client.dump(key) or b""
        if what in ("nothing", "copy") or (what == "restore" and not self.copy):
            return
        self.totals.faults[f"redis: {what}"] += 1
        if what == "scripts":
            world.client.script_flush()
            return
        if what == "restore":
            world.client.restore(key, 0, self.copy, replace=True)
        elif what == "all":
            world.flush()
        else:
            world.client.delete(key if what == "subject" else world.keys.changed(world.subject))
        self._settle("redis", is_loss=True)

    @rule(
        milliseconds=st.sampled_from([1, 150, 1000, 5000, 11_000, 70_000]),
        skew_ms=st.sampled_from([None, None, 0, 700, -700]),
    )
    def pass_time(self, milliseconds: int, skew_ms: int | None) -> None:
        skew = None if skew_ms is None else timedelta(milliseconds=skew_ms)
        self.world.set_clock(timedelta(milliseconds=milliseconds), skew)
        self._settle()

    @rule(which=INDEX)
    def delete_offer(self, which: int) -> None:
        rows = self.world.observer.execute("SELECT id FROM offers_offer ORDER BY id").fetchall()
        if rows:
            url, batch_id, quota_id = self.world.observer.execute(
                "DELETE FROM offers_offer WHERE id = %s RETURNING url, batch_id, quota_id",
                rows[which % len(rows)],
            ).fetchone() or ("", UUID(int=0), None)
            self.deleted_offers.add((url, batch_id))
            self.deleted[quota_id or 0] += 1
            self._settle()

    # After every step

    def _settle(
        self, touched: str = "", *, settled: set[str] | None = None, is_loss: bool = False
    ) -> None:
        """Wait for quiet, look at the server that was touched (or both), and judge what happened meanwhile."""
        self.world.settle(self.actors)
        before = self.history[-1]
        now = before if touched == "redis" else self.world.see(before.hash)
        now = now if touched == "sql" else replace(now, hash=self.world.hash())
        self.history.append(now)
        invariants.check_committed(before, now, self.deleted)
        invariants.check_hash(now.hash)
        if not is_loss:
            demand(
                now.hash.document is not None or before.hash.document is None,
                "the hash of the subject is gone",
            )
            self.expired |= invariants.check_holds(self.history, settled or set())
        else:
            self.is_redis_true = False
        ended = [actor for actor in self.actors if actor.is_done]
        for actor in ended:
            self._collect(actor)
        if ended:
            # Whoever waited for a lock of theirs goes on now.
            self._settle()
        elif prompt := [post for post in self.world.posts if not post.is_late]:
            self.world.posts.remove(prompt[0])
            self._deliver(prompt[0])

    def _collect(self, actor: Actor) -> None:
        actor.join()
        self.actors.remove(actor)
        self.world.take_back(actor)
        kind = actor.name.split()[0]
        self.totals.done["killed" if actor.is_dead else kind] += 1
        if actor.hold_ids & self.expired:
            # It went on after its lease, and Redis may have given its slots back.
            self.is_redis_true = False
        if actor.is_dead:
            return
        if actor.error is not None:
            self._judge_error(actor, actor.error)
        elif isinstance(actor.result, BatchDone):
            self._judge_batch(actor, actor.result)
        elif isinstance(actor.result, SpendDone):
            self._judge_spend(actor, actor.result)

    def _judge_error(self, actor: Actor, error: Exception) -> None:
        if actor.was_hurt and isinstance(error, (Unavailable, psycopg.OperationalError)):
            return
        is_refused = isinstance(error, psycopg.Error) and error.sqlstate in REFUSED_EDITS
        if not (actor.name.startswith("edit") and is_refused):
            raise Violation(f"{actor.name} failed at {actor.at}: {error!r}") from error

    def _since(self, actor: Actor) -> list[Seen]:
        return self.history[actor.began :]

    def _judge_batch(self, actor: Actor, done: BatchDone) -> None:
        rows: dict[str, UUID] = dict(
            self.world.observer.execute("SELECT url, batch_id FROM offers_offer").fetchall()
        )
        self.totals.done.update(f"offer {outcome}" for outcome in done.outcomes)
        self.totals.done["batch on the direct road"] += done.went_direct
        was_full = any(seen.is_full for seen in self._since(actor))
        invariants.check_batch(done, rows, self.deleted_offers, was_full)
        self._judge_labels(done.batch_id)

    def _judge_spend(self, actor: Actor, done: SpendDone) -> None:
        rows = self.world.observer.execute(
            "SELECT 1 FROM offers_offer WHERE batch_id = %s", (done.batch_id,)
        ).fetchall()
        stored = len(rows) + sum(batch == done.batch_id for _, batch in self.deleted_offers)
        demand(stored == done.spent.used, f"spent {done.spent.used}, but {stored} rows are there")
        was_full = any(seen.is_full for seen in self._since(actor))
        demand(was_full or not done.spent.denied, "units were denied, and the quota had room")
        self._judge_labels(done.batch_id)

    def _judge_labels(self, batch_id: UUID) -> None:
        """Every quota that counted offers of this batch, none included, ruled at some moment since it began."""
        rows = self.world.observer.execute(
            "SELECT DISTINCT quota_id FROM offers_offer WHERE batch_id = %s", (batch_id,)
        ).fetchall()
        ruled = {seen.active for seen in self.history[self.began[batch_id] :]}
        demand({row[0] for row in rows} <= ruled, f"{rows} counted offers and never ruled")

    # At the end

    def teardown(self) -> None:
        has_failed = sys.exc_info()[0] is not None
        try:
            if not has_failed:
                self._come_to_rest()
        finally:
            self._abandon()

    def _come_to_rest(self) -> None:
        """Let everybody finish beside a sync; then sync and audit, and the accounts must agree."""
        self._start("sync", programs.upkeep(self.world, "sync"))
        self._finish_all()
        while self.world.posts:
            self.post_travels(0, is_lost=False)
        self.world.set_clock(LEASE * 2, timedelta(0))
        self._settle()
        self._upkeep("sync")
        if self.is_redis_true:
            self._check_columns("sync")
        self._upkeep("audit")
        invariants.check_rest(self.history[-1])
        report = self._upkeep("audit")
        demand(not report.drifts, f"a second audit found {report.drifts}")
        self._upkeep("sync")
        invariants.check_rest(self.history[-1])

    def _finish_all(self) -> None:
        for _ in range(MAX_STEPS_TO_END * MAX_ACTORS):
            if not self.actors:
                return
            demand(bool(self._standing()), "everybody waits for a lock of somebody")
            self._resume(self._standing()[0])
            self.actors = self.actors[1:] + self.actors[:1]
        raise Violation(f"no end: {[f'{a.name} at {a.at}' for a in self.actors]}")

    def _upkeep(self, kind: str) -> Any:
        actor = self._start(kind, programs.upkeep(self.world, kind))
        self._go(actor, MAX_STEPS_TO_END)
        return actor.result

    def _check_columns(self, after: str) -> None:
        for quota in self.history[-1].quotas.values():
            demand(
                not quota.is_defined or quota.column == quota.used,
                f"quota {quota.id}: after {after} the column has {quota.column}, the ledger {quota.used}",
            )

    def _abandon(self) -> None:
        """End every thread and backend that is left, whatever happened."""
        for actor in self.actors:
            actor.is_dead = actor.was_hurt = True
            if not actor.stopped.is_set():
                self.world.terminate(actor.connection)
            else:
                actor.resume(Fault.KILLED_BEFORE)
            actor.join()
            self.world.take_back(actor)
        self.actors.clear()


def machine_in(world: World, totals: Totals) -> type[Interleavings]:
    """The machine in a world; its runs add to the totals."""
    return type("Interleavings", (Interleavings,), {"world": world, "totals": totals})
