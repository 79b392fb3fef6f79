"""Decides whether figures of quotas agree. Pure: what it is given is all that it knows."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum


@dataclass(frozen=True, slots=True)
class Account:
    """All that is known of one quota, in offers or slots.

    `permitted` is the most that may be used: the limit, or what was used when the limit was lowered
    below that; None is unlimited. `repeated` are slots that the ledger has twice, `free` those
    that it has not at all. Redis's figures are None where it does not have the quota.
    """

    quota_id: int
    target: str
    limit: int | None
    permitted: int | None
    offers: int
    ledger: int
    repeated: int
    free: int
    used_offers_count: int
    redis_used: int | None
    redis_held: int | None
    is_over: bool


@dataclass(frozen=True, slots=True)
class Figures:
    """The accounts of all quotas at one moment.

    `deleted` offers were deleted in the admin; `stray` offers name a quota that does not exist.
    """

    accounts: tuple[Account, ...]
    deleted: int = 0
    stray: int = 0


class Rule(StrEnum):
    """What can be wrong with a quota."""

    LIMIT = "no more is used than the limit permits"
    REPEATED = "no slot is used twice"
    FREE = "the ledger has free slots up to the limit and no more"
    OFFERS = "every offer has a slot and every slot an offer"
    STRAY = "every offer's quota exists"
    COUNT = "used_offers_count is the ledger's"
    REDIS = "Redis counts what the ledger counts"
    HELD = "nothing is held when nothing is under way"


@dataclass(frozen=True, slots=True)
class Disagreement:
    """A rule that a quota breaks; `quota_id` is None where it is about no single quota."""

    rule: Rule
    quota_id: int | None
    target: str
    expected: int
    found: int | None

    def __str__(self) -> str:
        whose = "" if self.quota_id is None else f"Quota {self.quota_id} of {self.target}: "
        found = "nothing" if self.found is None else f"{self.found:,}"
        return f"{whose}{self.rule}, but {self.expected:,} was expected and {found} found."


def judge(figures: Figures) -> list[Disagreement]:
    """What PostgreSQL alone must have right at every moment without a transaction under way."""
    found = [each for account in figures.accounts for each in _in_postgres(account)]
    found += _offers(figures)
    if figures.stray:
        found.append(Disagreement(Rule.STRAY, None, "", 0, figures.stray))
    return found


def judge_counts(figures: Figures) -> list[Disagreement]:
    """What must agree with the ledger once it was synced and nothing has changed since."""
    return [each for account in figures.accounts for each in _beside_ledger(account)]


def _in_postgres(account: Account) -> Iterator[Disagreement]:
    if account.permitted is not None and account.ledger > account.permitted:
        yield _broken(Rule.LIMIT, account, account.permitted, account.ledger)
    if account.repeated:
        yield _broken(Rule.REPEATED, account, 0, account.repeated)
    if account.limit is not None:
        free = max(0, account.limit - account.ledger)
        if account.free != free:
            yield _broken(Rule.FREE, account, free, account.free)


def _offers(figures: Figures) -> Sequence[Disagreement]:
    """An offer that is deleted leaves its slot used, so as many may be missing as were deleted."""
    missing = sum(max(0, account.ledger - account.offers) for account in figures.accounts)
    return [
        _broken(Rule.OFFERS, account, account.ledger, account.offers)
        for account in figures.accounts
        if account.offers > account.ledger
        or (account.offers < account.ledger and missing > figures.deleted)
    ]


def _beside_ledger(account: Account) -> Iterator[Disagreement]:
    if account.used_offers_count != account.ledger:
        yield _broken(Rule.COUNT, account, account.ledger, account.used_offers_count)
    # Redis forgets a quota whose period is over.
    if account.redis_used != account.ledger and not (
        account.is_over and account.redis_used is None
    ):
        yield _broken(Rule.REDIS, account, account.ledger, account.redis_used)
    if account.redis_held:
        yield _broken(Rule.HELD, account, 0, account.redis_held)


def _broken(rule: Rule, account: Account, expected: int, found: int | None) -> Disagreement:
    return Disagreement(rule, account.quota_id, account.target, expected, found)
