"""What there is: one subject in PostgreSQL and in Redis, its workers, and what is under way between them.

Everything is a tuple of small integers. Sets of slots and sets of offers are bit masks: slot 1 is bit 0. Offers
of a batch are taken from the lowest bit up, as slots are.
"""

from dataclasses import dataclass
from enum import IntEnum
from functools import cache
from typing import NamedTuple

from tests.model.invariants import GUARANTEE
from tests.model.protocol import SHIPPED, Protocol

NO_QUOTA = -1
UNDEFINED = -1
"""The limit of a quota that PostgreSQL has no definition of."""

NEW_MARK, READ_MARK = 1, 2
"""Marks in PostgreSQL: rows that no sync has read yet, and rows that the running sync has read."""


class Quota(NamedTuple):
    """A quota in PostgreSQL."""

    limit: int
    used: int
    void: int
    made: int
    """Offers ever created under it, deleted ones too: counted for the judge, read by nobody else."""
    column: int
    """used_offers_count"""


class Postgres(NamedTuple):
    quotas: tuple[Quota, ...]
    offers: int
    ever: int
    """Offers that were ever created."""
    version: int
    marks: int


class Stock(NamedTuple):
    """A quota in the hash: its free list, and what the definitions say; used = usable - free - held."""

    free: int
    limit: int
    usable: int


class Hold(NamedTuple):
    id: int
    quota: int
    slots: int


class Redis(NamedTuple):
    """The hash of the subject."""

    version: int
    stocks: tuple[Stock | None, ...]
    holds: tuple[Hold, ...]
    absorbed: int = 0
    """The token of the last absorb that was applied; 0 where none was since the search began."""


class Entry(NamedTuple):
    """What absorb read of one quota: slots that are used or void, and those to give back."""

    taken: int
    limit: int
    usable: int
    back: int


class Seen(NamedTuple):
    """An absorb, or a sync, that has read the first of its two servers."""

    redis: Redis | None
    postgres: Postgres | None


class Plan(NamedTuple):
    """An absorb that has read both, and is to apply."""

    version: int
    entries: tuple[Entry | None, ...]
    expired: tuple[Hold, ...]
    """Holds whose lease may have ended when the hash was read."""
    absorbed: int | None
    """The token that the hash had, None where there was no hash."""


class Pc(IntEnum):
    """Where a worker is."""

    ASK = 0
    CHECK = 1
    LOOK = 2
    COMMIT = 3
    SETTLE = 4
    DIRECT = 5
    ABSORB = 6
    END = 7
    RELEASE = 8
    DONE = 9


class Transaction(NamedTuple):
    """A batch's transaction: slots in hand, offers to insert, offers that it saw to exist.

    `offers` is empty and `is_open` false until it has looked.
    """

    quota: int
    slots: int
    hold: int
    offers: int = 0
    known: int = 0
    is_open: bool = False
    is_direct: bool = False
    is_ruled: bool = True


class Refusal(NamedTuple):
    """FULL as Redis answered it, and whether that quota ruled by PostgreSQL's clock then."""

    quota: int
    version: int
    is_ruled: bool


class Settle(NamedTuple):
    """A call to settle, on its way to Redis."""

    hold: int
    returned: int


class Worker(NamedTuple):
    """A worker with its batch; `then` is where it goes after settle."""

    pc: Pc
    left: int
    attempts: int = 0
    has_absorbed: bool = False
    must_absorb: bool = False
    is_denied: bool = False
    doubtful: int = 0
    conflicting: int = 0
    doing: Transaction | Refusal | Settle | Seen | Plan | None = None
    then: Pc = Pc.ASK


class SyncPc(IntEnum):
    IDLE = 0
    ABSORB_MARKED = 1
    UNMARK_POSTGRES = 2
    READ = 3
    ABSORB_STALE = 4
    READ_AGAIN = 5
    WRITE = 6
    UNMARK_REDIS = 7


class Sync(NamedTuple):
    pc: SyncPc
    doing: Seen | Plan | None = None


class Faults(NamedTuple):
    """How often each thing may still happen."""

    kill: int = 0
    """a worker, or a sync, is killed; a commit of its may still be under way"""
    lose: int = 0
    """Redis loses all"""
    promote: int = 0
    """a stale copy of Redis becomes the master"""
    reply: int = 0
    """reserve is done and its answer lost"""
    settle: int = 0
    """settle comes late or never"""
    cut: int = 0
    """the connection to PostgreSQL breaks at a commit, which may still be under way"""
    limit: int = 0
    """a limit is raised or lowered by one"""
    define: int = 0
    """the last quota is defined, or deleted where it was not used"""
    delete: int = 0
    """an offer is deleted"""
    absorb: int = 0
    """an absorb begins that no worker asked for: beat, audit, the push of an edit"""
    sync: int = 0
    """a sync begins"""
    compact: int = 0
    """a compaction begins"""


NO_FAULTS = Faults()


class World(NamedTuple):
    postgres: Postgres
    redis: Redis | None
    is_changed: bool
    """The subject is in Redis's set of changed ones."""
    workers: tuple[Worker, ...]
    faults: Faults
    clock: int = 0
    copy: tuple[Redis | None, bool] | None = None
    """What the replica has, once it has stopped to follow."""
    zombies: tuple[Transaction, ...] = ()
    """Transactions of workers that are gone or have given up."""
    late: tuple[Settle, ...] = ()
    absorbs: tuple[Seen | Plan | None, ...] = ()
    syncs: tuple[Sync, ...] = ()
    compacting: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True)
class Scenario:
    """A small world and what may happen in it.

    batches: a mask of offers for each worker. limits: of each quota, UNDEFINED where it may be defined later.
    slots: how many there are, void ones included; what lies above is void for good. starts, ends: the phase in
    which each quota begins (included) and ends (excluded; 2 = never).
    """

    name: str
    batches: tuple[int, ...]
    limits: tuple[int, ...]
    slots: int
    faults: Faults = NO_FAULTS
    protocol: Protocol = SHIPPED
    starts: tuple[int, ...] = (0,)
    ends: tuple[int, ...] = (2,)
    has_boundary: bool = False
    is_late: bool = False
    """The boundary is over when the search begins."""
    is_down: bool = False
    """Redis may leave any call unanswered, as often as it likes."""
    is_lying: bool = False
    """Redis may answer anything, forever."""
    is_cold: bool = False
    """Redis knows nothing at first."""
    is_split: bool = True
    """Others may come between the steps of an absorb by a worker."""
    absorbs: int = 0
    syncs: int = 0
    leases_last: bool = False
    """No lease ends while the transaction that uses it is under way."""
    watch: frozenset[str] = GUARANTEE
    """Names of the invariants that are judged."""

    @property
    def universe(self) -> int:
        return (1 << self.slots) - 1


# The clocks of Redis and of PostgreSQL around the boundary of a period, as they may differ within the skew. Redis
# is far before it, near before, near after, far after, or so long after that absorb leaves out a quota that ended
# there; PostgreSQL is before or after.
CLOCKS = ((0, 0), (1, 0), (1, 1), (2, 0), (2, 1), (3, 1), (4, 1))
NEXT_CLOCKS = ((1,), (2, 3), (4,), (4,), (5,), (6,), ())
LAST_CLOCK = len(CLOCKS) - 1


def redis_phase(world: World) -> int:
    return int(CLOCKS[world.clock][0] >= 2)


def is_near_boundary(world: World) -> bool:
    return CLOCKS[world.clock][0] in (1, 2)


def is_long_over(scenario: Scenario, world: World, quota: int) -> bool:
    return world.clock == LAST_CLOCK and scenario.ends[quota] <= 1


def postgres_phase(world: World) -> int:
    return CLOCKS[world.clock][1]


def ruler(scenario: Scenario, is_defined: list[bool], phase: int) -> int:
    """The quota with the latest start among the active ones."""
    for quota in range(len(is_defined) - 1, -1, -1):
        if is_defined[quota] and scenario.starts[quota] <= phase < scenario.ends[quota]:
            return quota
    return NO_QUOTA


def rules_in_postgres(scenario: Scenario, world: World) -> int:
    defined = [quota.limit != UNDEFINED for quota in world.postgres.quotas]
    return ruler(scenario, defined, postgres_phase(world))


@cache
def lowest(mask: int, amount: int) -> int:
    """The `amount` lowest members of a set."""
    out = 0
    for _ in range(amount):
        bit = mask & -mask
        out |= bit
        mask ^= bit
    return out


@cache
def top_of_largest_gap(mask: int, amount: int) -> int:
    """Up to `amount` members from the top of the longest run of neighbours; the lowest of equal runs."""
    best = run = 0
    for bit in (1 << i for i in range(mask.bit_length() + 1)):
        if mask & bit:
            run |= bit
        else:
            best = run if run.bit_count() > best.bit_count() else best
            run = 0
    return best & ~lowest(best, max(0, best.bit_count() - amount))


def put_worker(world: World, i: int, worker: Worker) -> World:
    workers = world.workers
    return world._replace(workers=(*workers[:i], worker, *workers[i + 1 :]))


def initial(scenario: Scenario) -> World:
    """All slots below the limits are free, and Redis knows it unless it is cold."""
    universe = scenario.universe
    quotas = tuple(
        Quota(limit, 0, 0 if limit == UNDEFINED else universe & ~((1 << limit) - 1), 0, 0)
        for limit in scenario.limits
    )
    stocks = tuple(
        None
        if quota.limit == UNDEFINED
        else Stock(universe & ~quota.void, quota.limit, quota.limit)
        for quota in quotas
    )
    is_cold = scenario.is_cold or scenario.is_lying
    return World(
        postgres=Postgres(quotas, 0, 0, 1, 0),
        redis=None if is_cold else Redis(1, stocks, ()),
        is_changed=False,
        workers=tuple(Worker(Pc.ASK, batch) for batch in scenario.batches),
        faults=scenario.faults,
        clock=LAST_CLOCK if scenario.is_late else 0,
        absorbs=(None,) * scenario.absorbs,
        syncs=(Sync(SyncPc.IDLE),) * scenario.syncs,
    )
