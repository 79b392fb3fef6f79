"""The judge is given figures that are wrong in one way each, and has to name that way and no other."""

from dataclasses import replace

import pytest

from shargain.demo.judge import Account, Disagreement, Figures, Rule, judge, judge_counts

EXACT = Account(
    quota_id=7,
    target="Rings",
    limit=10,
    permitted=10,
    offers=6,
    ledger=6,
    repeated=0,
    free=4,
    used_offers_count=6,
    redis_used=6,
    redis_held=0,
    is_over=False,
)


def used(count: int) -> dict[str, object]:
    """What all who count say when they agree."""
    return dict.fromkeys(("offers", "ledger", "used_offers_count", "redis_used"), count)


def both(figures: Figures) -> list[Disagreement]:
    return [*judge(figures), *judge_counts(figures)]


def of(**changes: object) -> Figures:
    return Figures((EXACT, replace(EXACT, quota_id=8, **changes)))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {**used(10), "free": 0},
        # Lowered from 10 to 5 when 8 were used: they stay, and none is added.
        {**used(8), "limit": 5, "permitted": 8, "free": 0},
        {"limit": None, "permitted": None, "free": 2**52 - 7},
        {"is_over": True, "redis_used": None, "redis_held": None},
    ],
)
def test_figures_that_agree_are_exact(changes: dict[str, object]) -> None:
    assert both(of(**changes)) == []


@pytest.mark.parametrize(
    ("rule", "changes", "expected", "found"),
    [
        (Rule.LIMIT, {**used(11), "free": 0}, 10, 11),
        (Rule.REPEATED, {"repeated": 2}, 0, 2),
        (Rule.FREE, {"free": 5}, 4, 5),
        (Rule.FREE, {"free": 3}, 4, 3),
        (Rule.OFFERS, {"offers": 7}, 6, 7),
        (Rule.OFFERS, {"offers": 5}, 6, 5),
        (Rule.COUNT, {"used_offers_count": 5}, 6, 5),
        (Rule.COUNT, {"used_offers_count": 7}, 6, 7),
        (Rule.REDIS, {"redis_used": 5}, 6, 5),
        (Rule.REDIS, {"redis_used": None}, 6, None),
        (Rule.REDIS, {"redis_used": 7, "is_over": True}, 6, 7),
        (Rule.HELD, {"redis_held": 1}, 0, 1),
    ],
)
def test_each_wrong_figure_is_named(
    rule: Rule, changes: dict[str, object], expected: int, found: int | None
) -> None:
    assert both(of(**changes)) == [Disagreement(rule, 8, "Rings", expected, found)]


def test_above_a_lowered_limit_nothing_may_be_added() -> None:
    figures = of(limit=5, permitted=8, offers=9, ledger=9, free=0)
    assert judge(figures) == [Disagreement(Rule.LIMIT, 8, "Rings", 8, 9)]


def test_an_offer_without_its_quota_is_named() -> None:
    assert both(Figures((EXACT,), stray=3)) == [Disagreement(Rule.STRAY, None, "", 0, 3)]


def test_as_many_offers_may_be_missing_as_were_deleted() -> None:
    missing = Figures((replace(EXACT, offers=4), replace(EXACT, quota_id=8, offers=5)))
    assert judge(replace(missing, deleted=3)) == []
    assert [each.quota_id for each in judge(replace(missing, deleted=2))] == [7, 8]


def test_deleted_offers_excuse_no_offer_too_many() -> None:
    figures = replace(of(offers=7), deleted=5)
    assert judge(figures) == [Disagreement(Rule.OFFERS, 8, "Rings", 6, 7)]


def test_a_disagreement_says_which_quota_and_what_was_expected() -> None:
    (wrong,) = judge(of(offers=1_234_567))
    assert "Quota 8 of Rings" in str(wrong)
    assert "6 was expected and 1,234,567 found" in str(wrong)
