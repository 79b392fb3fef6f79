"""Redis: what its scripts answer and leave behind. Each function is one script, and so one step."""

from collections.abc import Iterator
from itertools import combinations
from typing import NamedTuple

from tests.model.invariants import judge
from tests.model.world import (
    NO_QUOTA,
    Entry,
    Hold,
    Plan,
    Redis,
    Scenario,
    Stock,
    World,
    is_near_boundary,
    lowest,
    redis_phase,
    ruler,
)


class Answer(NamedTuple):
    """The answer of reserve, and the hash after it."""

    word: str
    redis: Redis | None
    quota: int = NO_QUOTA
    slots: int = 0
    version: int = 0


def held(redis: Redis, quota: int) -> int:
    mask = 0
    for hold in redis.holds:
        if hold.quota == quota:
            mask |= hold.slots
    return mask


def used(redis: Redis, quota: int) -> int:
    """The count that Redis tells sync."""
    stock = redis.stocks[quota]
    assert stock is not None
    return max(0, stock.usable - stock.free.bit_count() - held(redis, quota).bit_count())


def reserve(scenario: Scenario, world: World, hold_id: int, amount: int) -> Iterator[Answer]:
    """All answers that the script may give now. Leases end when they like."""
    redis = world.redis
    if scenario.is_lying:
        yield from _lies(scenario, world, amount)
        return
    if redis is None:
        yield Answer("UNKNOWN", redis)
        return
    for hold in redis.holds:
        if hold.id == hold_id:
            yield Answer("SLOTS", redis, hold.quota, hold.slots, redis.version)
            return
    quota = ruler(scenario, [stock is not None for stock in redis.stocks], redis_phase(world))
    stock = redis.stocks[quota] if quota != NO_QUOTA else None
    if stock is None:
        yield Answer("NO_QUOTA", redis, version=redis.version)
        return
    free = stock.free.bit_count()
    most = min(free, stock.limit - (stock.usable - free))
    if most <= 0:
        for word in _refusals(scenario, world, redis, quota):
            yield Answer(word, redis, quota, version=redis.version)
        return
    slots = lowest(stock.free, min(amount, most))
    stocks = _put(redis.stocks, quota, stock._replace(free=stock.free & ~slots))
    holds = tuple(sorted((*redis.holds, Hold(hold_id, quota, slots))))
    yield Answer("SLOTS", redis._replace(stocks=stocks, holds=holds), quota, slots, redis.version)


def _refusals(scenario: Scenario, world: World, redis: Redis, quota: int) -> tuple[str, ...]:
    rules = scenario.protocol
    if rules.full_heeds_holds and any(hold.quota == quota for hold in redis.holds):
        return ("BUSY", "FULL" if rules.expired_is_full else "EXPIRED")
    if rules.full_heeds_boundary and is_near_boundary(world):
        return ("BOUNDARY",)
    return ("FULL",)


def _lies(scenario: Scenario, world: World, amount: int) -> Iterator[Answer]:
    """Any slots of any quota, also some that never were; any refusal, at the right version or at another."""
    yield Answer("UNKNOWN", None)
    yield Answer("NO_QUOTA", None)
    for quota in range(len(scenario.limits)):
        yield Answer("FULL", None, quota, version=world.postgres.version)
        yield Answer("FULL", None, quota, version=world.postgres.version - 1)
        for count in range(1, amount + 1):
            for bits in combinations(range(scenario.slots + 1), count):
                yield Answer("SLOTS", None, quota, sum(1 << bit for bit in bits))


def settle(scenario: Scenario, redis: Redis | None, hold_id: int, returned: int) -> Redis | None:
    """End a hold; what comes back is free again."""
    rules = scenario.protocol
    if redis is None:
        return None
    hold = next((hold for hold in redis.holds if hold.id == hold_id), None)
    if hold is None:
        return redis if rules.settles_once else _free(redis, 0, returned)
    holds = tuple(other for other in redis.holds if other is not hold)
    back = returned & hold.slots if rules.settle_intersects else returned & scenario.universe
    return _free(redis._replace(holds=holds), hold.quota, back if rules.settle_returns else 0)


def _free(redis: Redis, quota: int, slots: int) -> Redis:
    stock = redis.stocks[quota]
    if stock is None:
        return redis
    return redis._replace(stocks=_put(redis.stocks, quota, stock._replace(free=stock.free | slots)))


def absorb(
    scenario: Scenario,
    redis: Redis | None,
    plan: Plan,
    expired: tuple[Hold, ...],
    token: int = 0,
) -> Redis | None:
    """The hash after absorb; None where it applied nothing: another absorb's or a later version's hash stays."""
    rules = scenario.protocol
    if rules.absorb_is_alone and plan.absorbed != (redis.absorbed if redis else None):
        return None
    if redis is not None and redis.version > plan.version and rules.absorb_heeds_version:
        return None
    if rules.absorb_rebuilds and redis is not None and redis.version < plan.version:
        redis = redis._replace(stocks=(None,) * len(redis.stocks))
    back = [entry.back if entry and rules.absorb_gives_back else 0 for entry in plan.entries]
    holds = []
    for hold in redis.holds if redis is not None else ():
        entry = plan.entries[hold.quota]
        if entry is None:
            continue
        left = hold.slots & ~entry.taken if rules.absorb_cuts_holds else hold.slots
        if hold in expired or not rules.absorb_keeps_holds:
            back[hold.quota] |= hold.slots if rules.absorb_reclaims else 0
        elif left and not rules.absorb_forgets_slots:
            holds.append(hold._replace(slots=left))
    kept = Redis(plan.version, (), tuple(holds), token if rules.absorb_is_alone else 0)
    stocks = tuple(
        _absorbed(
            scenario, entry, redis.stocks[quota] if redis else None, back[quota], held(kept, quota)
        )
        for quota, entry in enumerate(plan.entries)
    )
    return kept._replace(stocks=stocks)


def _absorbed(
    scenario: Scenario, entry: Entry | None, stock: Stock | None, back: int, kept: int
) -> Stock | None:
    if entry is None:
        return None
    free = (stock.free if stock else scenario.universe) | back
    if scenario.protocol.absorb_subtracts or stock is None:
        free &= ~entry.taken
    return Stock(free & ~kept, entry.limit, entry.usable)


def check_holds(scenario: Scenario, redis: Redis | None) -> None:
    for quota, stock in enumerate(redis.stocks if redis else ()):
        slots = [hold.slots for hold in redis.holds if hold.quota == quota] if redis else []
        if stock is not None and slots:
            all_slots = [stock.free, *slots]
            is_apart = (
                sum(mask.bit_count() for mask in all_slots)
                == (
                    stock.free | held(redis, quota)  # type: ignore[arg-type]
                ).bit_count()
            )
            judge(scenario, "HELD", is_apart)


def _put(stocks: tuple[Stock | None, ...], quota: int, stock: Stock) -> tuple[Stock | None, ...]:
    return (*stocks[:quota], stock, *stocks[quota + 1 :])
