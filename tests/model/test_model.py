"""The short bound of the search: the shipped protocol holds, and every mutant breaks what it must break."""

import pytest

from tests.model.cases import SHORT, Case
from tests.model.invariants import INVARIANTS
from tests.model.mutants import FAILING, MUTANTS, RULES
from tests.model.protocol import SHIPPED
from tests.model.search import search

MOST_STATES = 120_000


def _named(cases: list[Case]) -> list[object]:
    return [pytest.param(case, id=case.scenario.name) for case in cases if case.is_short]


@pytest.mark.parametrize("case", _named(SHORT))
def test_shipped_protocol_holds(case: Case) -> None:
    verdict = search(case.scenario, MOST_STATES)
    assert (verdict.word, verdict.path) == (case.expected, ())


@pytest.mark.parametrize("case", _named(MUTANTS))
def test_mutant_breaks_what_its_rule_is_for(case: Case) -> None:
    verdict = search(case.scenario, MOST_STATES)
    assert verdict.word == case.expected, verdict.path


def test_every_rule_has_a_mutant() -> None:
    changed = {
        rule
        for case in MUTANTS
        for rule in RULES
        if getattr(case.scenario.protocol, rule) != getattr(SHIPPED, rule)
    }
    assert changed == RULES


def test_every_invariant_but_audit_is_broken_by_a_mutant() -> None:
    # AUDIT says that the column is the ledger's count after an audit, which writes it: REST's mutants break more.
    assert {case.expected for case in FAILING} == set(INVARIANTS) - {"AUDIT"}
