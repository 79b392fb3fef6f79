"""What must hold, each in a sentence, and the judge that says when it does not."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.model.world import Scenario

INVARIANTS = {
    "OVER": "No offer is created under a quota unless fewer were than the limit that is committed.",
    "COUNT": "The ledger has as many slots of a quota as offers were created under it, deleted ones included.",
    "TWICE": "No slot is used by two transactions.",
    "RULE": "An offer counts under the quota that rules by PostgreSQL's clock at its statement, and no other.",
    "DISC": "No offer is discarded while the ruling quota has room below its committed limit, unless Redis lies.",
    "LOST": "When a batch is answered, each of its offers was created, by it or by another, or is discarded.",
    "HELD": "In Redis no slot is free and held, nor held twice.",
    "AUDIT": "At rest, with all leases ended, one audit leaves the column at the ledger's count.",
    "REST": "At rest, one sync and one audit leave Redis and the column at the ledger, and no hold.",
    "SYNC": "At rest, one sync alone leaves the column at the ledger, and Redis at its version and count where it "
    "knows the subject.",
}
GUARANTEE = frozenset(INVARIANTS) - {"SYNC"}
"""What no fault may break. SYNC is for worlds in which Redis forgets nothing and leases outlive transactions."""


class Violation(Exception):  # noqa: N818  it is what the search looks for, no error
    """An invariant does not hold; the path that led there is the search's to tell."""


def judge(scenario: "Scenario", name: str, holds: bool) -> None:
    """Raise Violation where an invariant that the scenario watches does not hold."""
    if not holds and name in scenario.watch:
        raise Violation(name)
