"""The rules of the protocol, one switch each, so that a search can show what each of them is for."""

from dataclasses import dataclass
from enum import Enum, auto


class Limit(Enum):
    """How PostgreSQL keeps usage below the limit."""

    VOID_ROWS = auto()
    """The highest free slots are void until free = max(0, limit - used)."""
    VOID_BY_NUMBER = auto()
    """Slots with a number above the limit are void: a number mistaken for a count."""
    PLAIN_READ = auto()
    """No void rows: a transaction begins by comparing its slots' numbers with the limit."""
    LOCKED_READ = auto()
    """The same comparison under a lock that is kept until the commit."""
    UNCHECKED = auto()
    """Only Redis knows the limit."""


@dataclass(frozen=True, slots=True)
class Protocol:
    """The protocol as it is shipped; a mutant has one of these otherwise."""

    # The ledger.
    limit: Limit = Limit.VOID_ROWS
    slots_are_once: bool = True  # the exclusion constraint
    ledger_is_apart: bool = True  # a deleted offer keeps its slot
    ruler_is_checked: bool = True  # the quota that Redis named must rule by PostgreSQL's clock
    records_inserted: bool = True  # slots of offers really inserted, not of those that were tried
    edits_bump_version: bool = True
    deletion_leaves_void: bool = True  # a deleted definition keeps its void row
    compaction_is_atomic: bool = True

    # The scripts.
    full_heeds_holds: bool = True  # FULL only where nothing of the quota is held
    full_heeds_boundary: bool = True  # BOUNDARY instead, where the clocks may disagree
    settles_once: bool = True  # settle acts only where the hold is there
    settle_intersects: bool = True  # only what the hold still has comes back
    settle_returns: bool = True  # what was not used comes back at all

    # A worker.
    full_needs_version: bool = (
        True  # FULL counts where PostgreSQL, asked later, has the version of the answer
    )
    expired_is_full: bool = False
    busy_goes_direct: bool = True  # rather than refusing
    left_is_read: bool = True  # what is left comes from PostgreSQL, not from the number inserted
    tasks_are_acked_late: bool = True
    hold_ids_are_fresh: bool = True  # an id for every attempt, not one for the batch
    direct_leaves_mark: bool = True
    direct_takes_top: bool = True
    direct_is_queued: bool = True  # direct users wait for each other
    releases_after_absorb: bool = True  # a conflict's hold comes back once absorb has cut it down
    conflict_absorbs: bool = True

    # absorb.
    absorb_heeds_version: bool = True  # below the hash's version nothing is applied
    absorb_is_alone: bool = (
        True  # nothing is applied where another absorb was since the hash was read
    )
    absorb_rebuilds: bool = (
        False  # a later version takes every slot that the ledger leaves for free
    )
    absorb_reads_redis_first: bool = True
    absorb_has_one_snapshot: bool = True  # version and ledger are of the same moment
    absorb_gives_back: bool = True  # slots that neither the hash read nor the ledger has are free
    absorb_keeps_holds: bool = True  # rather than freeing live ones
    absorb_forgets_slots: bool = False  # live holds go and their slots with them
    absorb_cuts_holds: bool = True  # a hold loses what the ledger has
    absorb_reclaims: bool = True  # what expired holds kept is free
    absorb_subtracts: bool = True  # what the ledger has is not free

    # sync.
    sync_sets: bool = True  # rather than adding to the column
    sync_reads_under_lock: bool = True
    sync_unmarks_unchanged: bool = (
        True  # a mark stays where something changed since the counts were read
    )
    sync_unmarks_unheld: bool = True  # a mark stays while something is held
    sync_reclaims: bool = True  # subjects with expired holds are absorbed first
    marks_go_last: bool = True  # after what they stand for has reached Redis
    marks_go_by_id: bool = True  # rather than all there are


SHIPPED = Protocol()
