"""The protocol with one rule otherwise: each breaks the invariant that its rule is for, or says why it is safe."""

from dataclasses import replace
from typing import Any

from tests.model.cases import (
    AB,
    BC,
    CD,
    DELETED,
    NEXT_FOLLOWS,
    NEXT_STARTS,
    ONE_SLOT,
    SYNC,
    THREE_SLOTS,
    Case,
    world,
)
from tests.model.invariants import GUARANTEE
from tests.model.protocol import SHIPPED, Limit
from tests.model.search import HOLDS
from tests.model.world import Faults

RULES = frozenset(SHIPPED.__dataclass_fields__)


def mutant(name: str, expected: str, *, is_long: bool = False, **values: Any) -> Case:
    """Rules are told from the world's settings by their names; only the expected invariant is watched."""
    rules = {key: value for key, value in values.items() if key in RULES}
    settings = {key: value for key, value in values.items() if key not in RULES}
    settings["watch"] = frozenset({expected})
    scenario = world(name, **settings, protocol=replace(SHIPPED, **rules))
    return Case(scenario, expected, is_short=not is_long)


def safe(name: str, why: str, *, is_long: bool = False, **values: Any) -> Case:
    watch = values.pop("watch", GUARANTEE)
    case = mutant(name, HOLDS, is_long=is_long, **values)
    return replace(case, scenario=replace(case.scenario, watch=watch), why=why)


THREE: dict[str, Any] = {"batches": (AB, BC, CD)}

FAILING = [
    # The ledger.
    mutant(
        "slots may be used twice, stale replica",
        "TWICE",
        slots_are_once=False,
        faults=Faults(promote=1),
    ),
    mutant(
        "slots may be used twice: over the limit",
        "OVER",
        slots_are_once=False,
        **THREE,
        faults=Faults(kill=1),
    ),
    mutant(
        "slots may be used twice, settle twice",
        "OVER",
        slots_are_once=False,
        settles_once=False,
        **THREE,
    ),
    mutant(
        "void by number",
        "OVER",
        limit=Limit.VOID_BY_NUMBER,
        **THREE,
        **THREE_SLOTS,
        faults=Faults(limit=1),
    ),
    mutant("limit by a plain read", "OVER", limit=Limit.PLAIN_READ, faults=Faults(limit=1)),
    mutant(
        "limit by a locked read",
        "OVER",
        limit=Limit.LOCKED_READ,
        **THREE,
        **THREE_SLOTS,
        faults=Faults(limit=1),
    ),
    mutant("limit known to Redis alone", "OVER", limit=Limit.UNCHECKED, is_lying=True),
    mutant(
        "a deleted offer frees its slot",
        "OVER",
        ledger_is_apart=False,
        **THREE,
        faults=Faults(delete=1),
    ),
    mutant("the ruler is not checked", "RULE", ruler_is_checked=False, **NEXT_FOLLOWS),
    mutant("slots of tried offers are recorded", "COUNT", records_inserted=False, **THREE_SLOTS),
    mutant(
        "an edit leaves the version",
        "DISC",
        edits_bump_version=False,
        **ONE_SLOT,
        faults=Faults(limit=1),
    ),
    mutant(
        "a deleted quota leaves no void",
        "OVER",
        deletion_leaves_void=False,
        **DELETED,
        faults=Faults(define=1),
    ),
    mutant(
        "compaction in two transactions",
        "COUNT",
        compaction_is_atomic=False,
        faults=Faults(compact=1),
    ),
    # The scripts.
    mutant("FULL beside live holds", "DISC", full_heeds_holds=False),
    mutant("FULL near a boundary", "DISC", full_heeds_boundary=False, **NEXT_STARTS),
    mutant("settle returns nothing", "DISC", settle_returns=False, **THREE_SLOTS),
    mutant("settle twice", "HELD", settles_once=False, faults=Faults(kill=1)),
    # A worker.
    mutant(
        "FULL at any version", "DISC", full_needs_version=False, **ONE_SLOT, faults=Faults(limit=1)
    ),
    mutant("expired is FULL", "DISC", expired_is_full=True),
    mutant("BUSY is a refusal", "DISC", busy_goes_direct=False),
    mutant("fewer inserted means nothing left", "LOST", left_is_read=False, **THREE_SLOTS),
    mutant(
        "a task is acknowledged early", "LOST", tasks_are_acked_late=False, faults=Faults(kill=1)
    ),
    mutant(
        "direct leaves no mark", "SYNC", direct_leaves_mark=False, is_down=True, leases_last=True
    ),
    # absorb.
    mutant("absorb over another absorb", "DISC", absorb_is_alone=False, faults=Faults(limit=2)),
    mutant(
        "absorb reads the ledger first",
        "SYNC",
        absorb_reads_redis_first=False,
        leases_last=True,
        absorbs=1,
        faults=Faults(absorb=1),
    ),
    mutant(
        "absorb reads version and ledger apart",
        "DISC",
        absorb_has_one_snapshot=False,
        **ONE_SLOT,
        absorbs=1,
        faults=Faults(limit=1, absorb=1),
    ),
    mutant(
        "absorb gives nothing back",
        "DISC",
        absorb_gives_back=False,
        **ONE_SLOT,
        absorbs=1,
        faults=Faults(limit=1, absorb=1),
    ),
    mutant("absorb forgets holds and their slots", "DISC", absorb_forgets_slots=True),
    mutant("absorb reclaims nothing", "DISC", absorb_reclaims=False, faults=Faults(kill=1)),
    mutant(
        "absorb does not look at the ledger",
        "REST",
        absorb_subtracts=False,
        faults=Faults(settle=1),
    ),
    # sync.
    mutant("sync adds", "SYNC", sync_sets=False, **SYNC | {"faults": Faults(sync=1)}),
    mutant(
        "sync reads before its lock",
        "SYNC",
        is_long=True,
        sync_reads_under_lock=False,
        **SYNC | {"syncs": 2},
        faults=Faults(sync=2),
    ),
    mutant(
        "sync clears a changed mark",
        "SYNC",
        sync_unmarks_unchanged=False,
        **SYNC,
        **THREE_SLOTS,
        faults=Faults(sync=1),
    ),
    mutant(
        "sync clears a held mark", "SYNC", sync_unmarks_unheld=False, **SYNC, faults=Faults(sync=1)
    ),
    mutant("sync leaves expired holds", "REST", sync_reclaims=False, faults=Faults(settle=1)),
    mutant(
        "marks go before absorb",
        "SYNC",
        marks_go_last=False,
        **SYNC,
        is_down=True,
        faults=Faults(sync=1, kill=1),
    ),
    mutant(
        "all marks go",
        "SYNC",
        marks_go_by_id=False,
        **SYNC,
        **THREE_SLOTS,
        is_down=True,
        faults=Faults(sync=1),
    ),
]

SAFE = [
    safe(
        "settle returns what the hold lost",
        "a slot that goes out again is refused by the constraint, and absorb takes it back",
        settle_intersects=False,
        faults=Faults(kill=1, settle=1),
        is_long=True,
    ),
    safe(
        "a conflict's hold comes back before absorb",
        "its taken slots go out again and meet a conflict each: slower, as exact",
        releases_after_absorb=False,
        is_down=True,
        faults=Faults(kill=1),
    ),
    safe(
        "a conflict is followed by no absorb",
        "its hold expires and is absorbed then; until then its slots stay held",
        conflict_absorbs=False,
        is_down=True,
        faults=Faults(kill=1),
    ),
    safe(
        "absorb frees live holds",
        "whoever comes second to a slot meets the constraint and goes direct",
        absorb_keeps_holds=False,
        faults=Faults(kill=1),
    ),
    safe(
        "settle twice, beyond Redis",
        "what is free and held at once in Redis is used once, by the constraint",
        settles_once=False,
        watch=GUARANTEE - {"HELD"},
        faults=Faults(kill=1),
    ),
    safe(
        "one hold id for a batch",
        "a hold that is given out twice is used once, by the constraint",
        hold_ids_are_fresh=False,
        faults=Faults(kill=1),
    ),
    safe(
        "absorb cuts no hold",
        "used slots come back through the hold, meet a conflict each, and go with the next absorb",
        absorb_cuts_holds=False,
        is_down=True,
        faults=Faults(kill=1),
    ),
    safe(
        "direct from the bottom",
        "more conflicts, and nothing else",
        direct_takes_top=False,
        is_down=True,
    ),
    safe(
        "direct users do not queue",
        "more conflicts, and nothing else",
        direct_is_queued=False,
        is_down=True,
    ),
    safe(
        "absorb heeds no version",
        "nothing is applied over another absorb, so what is applied is of the hash's version or a later one",
        absorb_heeds_version=False,
        faults=Faults(limit=2),
    ),
    safe(
        "a later version rebuilds the free list, over other absorbs",
        "a slot that was used between absorb's read and its end is free again and meets a conflict",
        absorb_is_alone=False,
        absorb_rebuilds=True,
        faults=Faults(limit=2),
    ),
]

MUTANTS = FAILING + SAFE
