"""Worlds in which the shipped protocol must hold: combinations of faults, small enough to be searched whole."""

from dataclasses import dataclass
from typing import Any

from tests.model.invariants import INVARIANTS
from tests.model.search import HOLDS
from tests.model.world import UNDEFINED, Faults, Scenario

EVERYTHING = frozenset(INVARIANTS)
AB, BC, CD, A, B = 0b0011, 0b0110, 0b1100, 0b0001, 0b0010
"""Batches: offers a and b, b and c, c and d ..."""


@dataclass(frozen=True, slots=True)
class Case:
    """A search and the verdict that it must come to; `why` is the reason where a mutant is safe."""

    scenario: Scenario
    expected: str = HOLDS
    is_short: bool = False
    why: str = ""


def world(name: str, **changes: Any) -> Scenario:
    """Two workers with overlapping batches under one quota of two slots, unless told otherwise."""
    values: dict[str, Any] = {"batches": (AB, BC), "limits": (2,), "slots": 3}
    return Scenario(name, **{**values, **changes})


def short(name: str, **changes: Any) -> Case:
    return Case(world(name, **changes), is_short=True)


def long(name: str, **changes: Any) -> Case:
    return Case(world(name, **changes))


ONE_SLOT: dict[str, Any] = {"limits": (1,), "slots": 2}
THREE_SLOTS: dict[str, Any] = {"limits": (3,), "slots": 4}
SYNC: dict[str, Any] = {"syncs": 1, "leases_last": True, "watch": EVERYTHING}
NEXT_STARTS: dict[str, Any] = {
    "limits": (1, 1),
    "slots": 2,
    "starts": (0, 1),
    "ends": (2, 2),
    "has_boundary": True,
}
NEXT_FOLLOWS: dict[str, Any] = {**NEXT_STARTS, "ends": (1, 2)}
NONE_FOLLOWS: dict[str, Any] = {**ONE_SLOT, "starts": (0,), "ends": (1,), "has_boundary": True}
NONE_BEFORE: dict[str, Any] = {**ONE_SLOT, "starts": (1,), "ends": (2,), "has_boundary": True}
OPENED: dict[str, Any] = {
    "limits": (1, UNDEFINED),
    "starts": (0, 1),
    "ends": (2, 2),
    "is_late": True,
}
DELETED: dict[str, Any] = {**OPENED, "limits": (1, 1), "slots": 2}

SHORT = [
    short("no fault"),
    short("no fault, one slot", **ONE_SLOT),
    short("the same batch twice", batches=(AB, AB)),
    short("Redis lies", is_lying=True),
    short("Redis is down now and then", is_down=True),
    short("Redis is cold", is_cold=True),
    short("a worker is killed", faults=Faults(kill=1)),
    short("Redis loses all or the hash", faults=Faults(lose=1)),
    short("a stale replica is promoted", faults=Faults(promote=1)),
    short("a reply and a settle are lost", faults=Faults(reply=1, settle=1)),
    short("PostgreSQL breaks at a commit", faults=Faults(cut=1)),
    short("two edits of the limit", faults=Faults(limit=2)),
    short("sync", **SYNC, faults=Faults(sync=1)),
    short("sync, Redis down", **SYNC, is_down=True, faults=Faults(sync=1)),
    short("sync, a settle is late", **SYNC, faults=Faults(sync=1, settle=1)),
]

LONG = [
    long("Redis lies, two edits", is_lying=True, faults=Faults(limit=2)),
    long(
        "Redis lies, kill, edit, one slot",
        is_lying=True,
        **ONE_SLOT,
        faults=Faults(kill=1, limit=1),
    ),
    long(
        "Redis lies, kill, an offer is deleted",
        is_lying=True,
        **ONE_SLOT,
        faults=Faults(kill=1, delete=1),
    ),
    long("Redis lies, next quota starts", is_lying=True, **NEXT_STARTS),
    long("three workers, no fault", batches=(AB, BC, CD)),
    long("three workers, one slot, Redis down", batches=(A, B, AB), **ONE_SLOT, is_down=True),
    long("kill twice", faults=Faults(kill=2)),
    long("kill, an offer is deleted", faults=Faults(kill=1, delete=1)),
    long("kill, settle late, one slot", **ONE_SLOT, faults=Faults(kill=1, settle=1)),
    long("kill, loss, down", is_down=True, faults=Faults(kill=1, lose=1)),
    long("loss twice, stale replica", faults=Faults(lose=2, promote=1)),
    long("stale replica twice, settle late", faults=Faults(promote=2, settle=1)),
    long("kill, stale replica", faults=Faults(kill=1, promote=1)),
    long(
        "stale replica, settle late, three slots", **THREE_SLOTS, faults=Faults(promote=1, settle=1)
    ),
    long("broken commit, settle late, reply lost", faults=Faults(cut=1, settle=1, reply=1)),
    long("broken commit, stale replica", faults=Faults(cut=1, promote=1)),
    long("edit, absorb", absorbs=1, faults=Faults(limit=1, absorb=1)),
    long("two absorbs, no edit", absorbs=2, faults=Faults(absorb=2)),
    long(
        "two edits, absorb, one slot",
        **ONE_SLOT,
        is_split=False,
        absorbs=1,
        faults=Faults(limit=2, absorb=1),
    ),
    long(
        "two edits, stale replica, one slot",
        **ONE_SLOT,
        is_split=False,
        faults=Faults(limit=2, promote=1),
    ),
    long("edit, kill, one slot", **ONE_SLOT, faults=Faults(limit=1, kill=1)),
    long("edit, loss, settle late", faults=Faults(limit=1, lose=1, settle=1)),
    long("sync, kill", **SYNC, faults=Faults(sync=1, kill=1)),
    long("sync, edit", **SYNC, faults=Faults(sync=1, limit=1)),
    long(
        "two syncs, one slot, Redis down",
        **SYNC | {"syncs": 2},
        **ONE_SLOT,
        is_down=True,
        faults=Faults(sync=2),
    ),
    long("next quota starts", **NEXT_STARTS),
    long("next quota starts, settle late", **NEXT_STARTS, faults=Faults(settle=1)),
    long(
        "next quota follows, kill",
        batches=(A, AB),
        **NEXT_FOLLOWS,
        is_split=False,
        faults=Faults(kill=1),
    ),
    long(
        "next quota follows, edit",
        batches=(A, AB),
        **NEXT_FOLLOWS,
        is_split=False,
        faults=Faults(limit=1),
    ),
    long(
        "no quota follows, kill",
        batches=(A, AB),
        **NONE_FOLLOWS,
        is_split=False,
        faults=Faults(kill=1),
    ),
    long("no quota before, cold", **NONE_BEFORE, is_cold=True, is_split=False),
    long(
        "a newer quota is defined",
        **OPENED,
        is_split=False,
        absorbs=1,
        faults=Faults(define=1, absorb=1),
    ),
    long(
        "the newer quota is deleted",
        **DELETED,
        is_split=False,
        absorbs=1,
        faults=Faults(define=1, absorb=1),
    ),
    long(
        "the newer quota is deleted, kill",
        batches=(A, AB),
        **DELETED,
        faults=Faults(define=1, kill=1),
    ),
]
