"""A worker with its batch: what one delivered task does, from one call to a server to the next.

A step is one script, one statement's look at the database, or one commit; all else may come between them.
"""

from collections.abc import Callable, Iterator
from typing import TypeAlias

from tests.model import counters, ledger
from tests.model.beat import begin_absorb, end_absorb, read_ledger
from tests.model.invariants import judge
from tests.model.world import (
    NO_QUOTA,
    Faults,
    Pc,
    Plan,
    Refusal,
    Scenario,
    Seen,
    Settle,
    Transaction,
    Worker,
    World,
    lowest,
    put_worker,
    rules_in_postgres,
)

Step: TypeAlias = tuple[str, World]

MAX_ATTEMPTS = 6
"""Holds of one worker, redeliveries included; after that it goes direct."""


def steps(scenario: Scenario, world: World) -> Iterator[Step]:
    """What each worker may do next."""
    for i, worker in enumerate(world.workers):
        if worker.pc is not Pc.DONE:
            for label, after in _STEPS[worker.pc](scenario, world, i, worker):
                yield f"worker {i} {label}", after


def spend(world: World, fault: str) -> Faults:
    """The faults that are left after one of this kind; call it where one is left."""
    return world.faults._replace(**{fault: getattr(world.faults, fault) - 1})


def hold_id(scenario: Scenario, i: int, worker: Worker) -> int:
    """Ids of holds are never 0, and never the same for two attempts."""
    return (
        1
        + i * (MAX_ATTEMPTS + 1)
        + (worker.attempts if scenario.protocol.hold_ids_are_fresh else 0)
    )


def _ask(scenario: Scenario, world: World, i: int, worker: Worker) -> Iterator[Step]:
    if not worker.left:
        yield "has nothing left", finish(scenario, world, i, worker)
        return
    if scenario.is_down or worker.attempts == MAX_ATTEMPTS:
        down = worker._replace(must_absorb=True, pc=Pc.DIRECT)
        yield "gets no answer", put_worker(world, i, down)
        if worker.attempts == MAX_ATTEMPTS:
            return
    hold = hold_id(scenario, i, worker)
    for answer in counters.reserve(scenario, world, hold, worker.left.bit_count()):
        made = answer.word == "SLOTS"
        asked = worker._replace(attempts=worker.attempts + 1) if made and world.redis else worker
        is_changed = world.is_changed or (made and not scenario.is_lying)
        reserved = world._replace(redis=answer.redis, is_changed=is_changed)
        if made and world.faults.reply:
            lost = asked._replace(doubtful=hold, must_absorb=True, pc=Pc.DIRECT)
            yield (
                "reserves and the reply is lost",
                put_worker(reserved._replace(faults=spend(world, "reply")), i, lost),
            )
        yield f"hears {answer.word}", _answered(scenario, reserved, i, asked, answer, hold)


def _answered(
    scenario: Scenario, world: World, i: int, worker: Worker, answer: counters.Answer, hold: int
) -> World:
    if answer.word == "SLOTS":
        doing = Transaction(answer.quota, answer.slots, hold)
        return put_worker(world, i, worker._replace(pc=Pc.LOOK, doing=doing))
    if answer.word == "NO_QUOTA":
        return put_worker(world, i, worker._replace(pc=Pc.LOOK, doing=Transaction(NO_QUOTA, 0, 0)))
    if answer.word == "FULL":
        is_ruled = answer.quota == rules_in_postgres(scenario, world)
        refusal = Refusal(answer.quota, answer.version, is_ruled)
        return put_worker(world, i, worker._replace(pc=Pc.CHECK, doing=refusal))
    if answer.word in ("BUSY", "BOUNDARY"):
        # Asking again in a moment is the same as not having asked yet.
        if not scenario.protocol.busy_goes_direct and answer.word == "BUSY":
            return _deny(scenario, world, i, worker, answer.quota, is_ruled=True)
        return put_worker(world, i, worker._replace(pc=Pc.DIRECT))
    return put_worker(world, i, absorb_once(worker))


def absorb_once(worker: Worker) -> Worker:
    if worker.has_absorbed:
        return worker._replace(pc=Pc.DIRECT, must_absorb=True, doing=None)
    return worker._replace(pc=Pc.ABSORB, has_absorbed=True, then=Pc.ASK, doing=None)


def _check(scenario: Scenario, world: World, i: int, worker: Worker) -> Iterator[Step]:
    """FULL: one read of the version and of the known offers."""
    refusal = worker.doing
    assert isinstance(refusal, Refusal)
    worker = worker._replace(left=worker.left & ~world.postgres.offers, doing=None)
    if refusal.version == world.postgres.version or not scenario.protocol.full_needs_version:
        denied = _deny(scenario, world, i, worker, refusal.quota, is_ruled=refusal.is_ruled)
        yield "believes FULL", denied
    else:
        yield "sees another version", put_worker(world, i, absorb_once(worker))


def _deny(
    scenario: Scenario, world: World, i: int, worker: Worker, quota: int, *, is_ruled: bool
) -> World:
    """Discard what is left."""
    if worker.left and not scenario.is_lying:
        judge(scenario, "DISC", is_ruled and not ledger.has_room(world.postgres, quota))
    return finish(scenario, world, i, worker._replace(is_denied=True))


def _look(scenario: Scenario, world: World, i: int, worker: Worker) -> Iterator[Step]:
    asked = worker.doing
    assert isinstance(asked, Transaction)
    opened = ledger.look(scenario, world, asked, worker.left)
    if opened is not None:
        yield "looks", put_worker(world, i, worker._replace(pc=Pc.COMMIT, doing=opened))
        return
    moved = worker._replace(pc=Pc.DIRECT, must_absorb=True, doing=None)
    if asked.hold:
        everything = Settle(asked.hold, scenario.universe)
        moved = moved._replace(pc=Pc.SETTLE, doing=everything, then=Pc.DIRECT)
    yield "finds that another quota rules", put_worker(world, i, moved)


def _direct(scenario: Scenario, world: World, i: int, worker: Worker) -> Iterator[Step]:
    if not worker.left:
        yield "has nothing left", finish(scenario, world, i, worker)
        return
    opened = ledger.take(scenario, world, worker.left)
    if opened is None:
        known = worker.left & world.postgres.offers
        full = worker._replace(left=worker.left & ~known, must_absorb=True)
        quota = rules_in_postgres(scenario, world)
        yield "finds the ledger full", _deny(scenario, world, i, full, quota, is_ruled=True)
    elif not (scenario.protocol.direct_is_queued and _is_direct_under_way(world, opened.quota)):
        yield "looks, direct", put_worker(world, i, worker._replace(pc=Pc.COMMIT, doing=opened))


def _is_direct_under_way(world: World, quota: int) -> bool:
    under_way = [w.doing for w in world.workers if isinstance(w.doing, Transaction)]
    return quota != NO_QUOTA and any(
        work.is_direct and work.quota == quota for work in (*under_way, *world.zombies)
    )


def _commit(scenario: Scenario, world: World, i: int, worker: Worker) -> Iterator[Step]:
    work = worker.doing
    assert isinstance(work, Transaction)
    if world.faults.cut:
        # The connection breaks: nobody here knows whether it committed. The hold comes back, the task is repeated.
        cut = world._replace(
            faults=spend(world, "cut"), zombies=tuple(sorted((*world.zombies, work)))
        )
        again = redelivered(scenario, i, worker)
        if work.hold:
            everything = Settle(work.hold, scenario.universe)
            again = again._replace(pc=Pc.SETTLE, doing=everything, then=Pc.ASK)
        yield "loses PostgreSQL", put_worker(cut, i, again)
    done = ledger.commit(scenario, world.postgres, work)
    if done is None:
        yield "meets a conflict", put_worker(world, i, _conflicted(scenario, worker, work))
        return
    postgres, inserted = done
    left = worker.left & ~(work.known | inserted)
    if not scenario.protocol.left_is_read and inserted.bit_count() < work.slots.bit_count():
        left = 0
    then = Pc.DIRECT if work.is_direct else Pc.ASK
    after = worker._replace(left=left, pc=then, doing=None)
    if work.hold:
        rest = work.slots & ~lowest(work.slots, inserted.bit_count())
        after = after._replace(pc=Pc.SETTLE, doing=Settle(work.hold, rest), then=then)
    yield "commits", put_worker(world._replace(postgres=postgres), i, after)


def _conflicted(scenario: Scenario, worker: Worker, work: Transaction) -> Worker:
    if work.is_direct:
        return worker._replace(pc=Pc.DIRECT, doing=None)
    rules = scenario.protocol
    direct = worker._replace(pc=Pc.DIRECT, doing=None, must_absorb=rules.conflict_absorbs)
    if not work.hold:
        return direct
    if rules.releases_after_absorb:
        return direct._replace(conflicting=work.hold)
    return direct._replace(pc=Pc.SETTLE, doing=Settle(work.hold, scenario.universe), then=Pc.DIRECT)


def _settle(scenario: Scenario, world: World, i: int, worker: Worker) -> Iterator[Step]:
    call = worker.doing
    assert isinstance(call, Settle)
    after = put_worker(world, i, worker._replace(pc=worker.then, doing=None, then=Pc.ASK))
    redis = counters.settle(scenario, world.redis, call.hold, call.returned)
    yield "settles", after._replace(redis=redis)
    if world.faults.settle:
        late = tuple(sorted((*world.late, call)))
        yield (
            "sends a settle that is late",
            after._replace(faults=spend(world, "settle"), late=late),
        )


def _absorb(scenario: Scenario, world: World, i: int, worker: Worker) -> Iterator[Step]:
    """One absorb, or none: somebody did a moment ago, or Redis does not answer."""
    after = worker._replace(pc=worker.then, doing=None, then=Pc.ASK)
    if worker.doing is None:
        yield (
            "leaves absorb to others",
            put_worker(world, i, _after_absorb(after, is_applied=False)),
        )
        if not scenario.is_lying:
            seen = begin_absorb(scenario, world)
            if scenario.is_split:
                yield "absorbs: reads first", put_worker(world, i, worker._replace(doing=seen))
            else:
                plan, world = read_ledger(scenario, world, seen)
                yield from _apply(scenario, world, i, after, plan)
    elif isinstance(worker.doing, Seen):
        plan, world = read_ledger(scenario, world, worker.doing)
        yield "absorbs: reads second", put_worker(world, i, worker._replace(doing=plan))
    else:
        assert isinstance(worker.doing, Plan)
        yield from _apply(scenario, world, i, after, worker.doing)


def _apply(scenario: Scenario, world: World, i: int, after: Worker, plan: Plan) -> Iterator[Step]:
    for is_applied, absorbed in end_absorb(scenario, world, plan):
        if scenario.protocol.absorb_is_alone and not is_applied:
            # Somebody else's was applied since; read again, or leave it at that.
            again = after._replace(pc=Pc.ABSORB, then=after.pc)
            yield "absorbs: must read again", put_worker(absorbed, i, again)
            return
        done = _after_absorb(after, is_applied=is_applied)
        yield "absorbs: applies", put_worker(absorbed, i, done)


def _after_absorb(worker: Worker, *, is_applied: bool) -> Worker:
    """The last absorb of a call is followed by the release of the hold that met a conflict."""
    if worker.pc is not Pc.DONE:
        return worker
    if is_applied and worker.conflicting:
        return worker._replace(pc=Pc.RELEASE)
    return Worker(Pc.DONE, 0, worker.attempts)


def finish(scenario: Scenario, world: World, i: int, worker: Worker) -> World:
    """The batch is decided; what is left of the call concerns Redis alone."""
    refused = worker.left if worker.is_denied else 0
    judge(scenario, "LOST", not scenario.batches[i] & ~world.postgres.ever & ~refused)
    if scenario.is_lying or not (worker.doubtful or worker.must_absorb):
        return put_worker(world, i, Worker(Pc.DONE, 0, worker.attempts))
    return put_worker(world, i, worker._replace(pc=Pc.END, left=0, is_denied=False, doing=None))


def _end(scenario: Scenario, world: World, i: int, worker: Worker) -> Iterator[Step]:
    if worker.doubtful:
        release = Settle(worker.doubtful, scenario.universe)
        released = worker._replace(pc=Pc.SETTLE, doubtful=0, doing=release, then=Pc.END)
        yield "gives back what it may hold", put_worker(world, i, released)
    elif worker.must_absorb:
        yield from _absorb(scenario, world, i, worker._replace(pc=Pc.ABSORB, then=Pc.DONE))
    else:
        yield "ends", put_worker(world, i, Worker(Pc.DONE, 0, worker.attempts))


def _release(scenario: Scenario, world: World, i: int, worker: Worker) -> Iterator[Step]:
    release = Settle(worker.conflicting, scenario.universe)
    released = Worker(Pc.SETTLE, 0, worker.attempts, doing=release, then=Pc.DONE)
    yield from _settle(scenario, world, i, released)


def redelivered(scenario: Scenario, i: int, worker: Worker) -> Worker:
    """The same batch again, from its first line."""
    return Worker(Pc.ASK, scenario.batches[i], worker.attempts)


_STEPS: dict[Pc, Callable[[Scenario, World, int, Worker], Iterator[Step]]] = {
    Pc.ASK: _ask,
    Pc.CHECK: _check,
    Pc.LOOK: _look,
    Pc.COMMIT: _commit,
    Pc.SETTLE: _settle,
    Pc.DIRECT: _direct,
    Pc.ABSORB: _absorb,
    Pc.END: _end,
    Pc.RELEASE: _release,
}
