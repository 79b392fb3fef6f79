"""PostgreSQL: transactions under way, edits, and what absorb and sync read and write."""

from tests.model.invariants import judge
from tests.model.protocol import Limit
from tests.model.world import (
    NEW_MARK,
    NO_QUOTA,
    UNDEFINED,
    Entry,
    Plan,
    Postgres,
    Quota,
    Redis,
    Scenario,
    Transaction,
    World,
    is_long_over,
    lowest,
    rules_in_postgres,
    top_of_largest_gap,
)


def put_quota(postgres: Postgres, quota: int, value: Quota) -> Postgres:
    quotas = postgres.quotas
    return postgres._replace(quotas=(*quotas[:quota], value, *quotas[quota + 1 :]))


def has_room(postgres: Postgres, quota: int) -> bool:
    return postgres.quotas[quota].used.bit_count() < postgres.quotas[quota].limit


def look(scenario: Scenario, world: World, asked: Transaction, left: int) -> Transaction | None:
    """The statement that chooses what to insert with the slots in hand; None where another quota rules."""
    ruling = rules_in_postgres(scenario, world)
    if ruling != asked.quota and scenario.protocol.ruler_is_checked:
        return None
    limit = scenario.protocol.limit
    if limit is Limit.PLAIN_READ and _is_above(world.postgres, asked.quota, asked.slots):
        return None
    return _opened(world.postgres, asked._replace(is_ruled=ruling == asked.quota), left)


def _opened(postgres: Postgres, asked: Transaction, left: int) -> Transaction:
    known = left & postgres.offers
    fresh = left & ~known
    room = fresh.bit_count() if asked.quota == NO_QUOTA else asked.slots.bit_count()
    return asked._replace(
        offers=lowest(fresh, min(room, fresh.bit_count())), known=known, is_open=True
    )


def take(scenario: Scenario, world: World, left: int) -> Transaction | None:
    """The direct road's statement: slots from the ledger itself; None where it is full."""
    postgres, ruling = world.postgres, rules_in_postgres(scenario, world)
    slots = 0
    if ruling != NO_QUOTA:
        quota = postgres.quotas[ruling]
        gaps = scenario.universe & ~quota.used & ~quota.void
        if scenario.protocol.limit is not Limit.VOID_ROWS:
            gaps &= (1 << quota.limit) - 1
        if not gaps:
            return None
        amount = left.bit_count()
        if scenario.protocol.direct_takes_top:
            slots = top_of_largest_gap(gaps, amount)
        else:
            slots = lowest(gaps, min(amount, gaps.bit_count()))
    return _opened(postgres, Transaction(ruling, slots, 0, is_direct=True), left)


def commit(
    scenario: Scenario, postgres: Postgres, work: Transaction
) -> tuple[Postgres, int] | None:
    """What PostgreSQL has after the commit and which offers went in; None where a slot is taken."""
    rules = scenario.protocol
    inserted = work.offers & ~postgres.offers
    postgres = postgres._replace(
        offers=postgres.offers | inserted,
        ever=postgres.ever | inserted,
    )
    judge(scenario, "RULE", work.is_ruled or not inserted)
    if work.quota == NO_QUOTA:
        return postgres, inserted
    if work.is_direct and rules.direct_leaves_mark:
        postgres = postgres._replace(marks=postgres.marks | NEW_MARK)
    quota = postgres.quotas[work.quota]
    amount = (inserted if rules.records_inserted else work.offers).bit_count()
    slots = lowest(work.slots, amount)
    if _is_refused(scenario, postgres, work.quota, slots):
        return None
    judge(scenario, "TWICE", not slots & quota.used)
    counted = quota._replace(used=quota.used | slots, made=quota.made + inserted.bit_count())
    judge(scenario, "OVER", not inserted or counted.made <= max(0, quota.limit))
    judge(scenario, "COUNT", counted.used.bit_count() == counted.made)
    return put_quota(postgres, work.quota, counted), inserted


def _is_refused(scenario: Scenario, postgres: Postgres, quota: int, slots: int) -> bool:
    limit = scenario.protocol.limit
    taken = postgres.quotas[quota].used if scenario.protocol.slots_are_once else 0
    if limit in (Limit.VOID_ROWS, Limit.VOID_BY_NUMBER):
        taken |= postgres.quotas[quota].void | (1 << scenario.slots)
    if limit is Limit.LOCKED_READ and _is_above(postgres, quota, slots):
        return True
    return bool(slots & taken)


def _is_above(postgres: Postgres, quota: int, slots: int) -> bool:
    return quota != NO_QUOTA and slots.bit_length() > postgres.quotas[quota].limit


def edit_limit(scenario: Scenario, postgres: Postgres, quota: int, limit: int) -> Postgres:
    """The transaction that sets a limit, with its triggers: UNDEFINED deletes the definition."""
    rules, old = scenario.protocol, postgres.quotas[quota]
    gaps = scenario.universe & ~old.used
    if rules.limit is Limit.VOID_BY_NUMBER:
        void = gaps & ~((1 << limit) - 1)
    elif rules.limit is Limit.VOID_ROWS:
        room = max(0, limit - old.used.bit_count())
        void = gaps & ~lowest(gaps, min(room, gaps.bit_count()))
    else:
        void = 0
    if limit == UNDEFINED and not rules.deletion_leaves_void:
        void = 0
    postgres = put_quota(postgres, quota, old._replace(limit=limit, void=void))
    version = postgres.version + (1 if rules.edits_bump_version else 0)
    return postgres._replace(version=version, marks=postgres.marks | NEW_MARK)


def delete_offer(scenario: Scenario, postgres: Postgres, offer: int) -> Postgres:
    """An offer goes; its slot stays used, where the ledger is a table of its own."""
    postgres = postgres._replace(offers=postgres.offers & ~offer)
    if scenario.protocol.ledger_is_apart:
        return postgres
    quota = postgres.quotas[0]
    slot = 1 << (quota.used.bit_length() - 1)
    return put_quota(postgres, 0, quota._replace(used=quota.used & ~slot))


def read_for_absorb(
    scenario: Scenario, world: World, redis: Redis | None, postgres: Postgres
) -> tuple[Plan, Postgres]:
    """What absorb is to apply, having read this hash and then this ledger, in one snapshot.

    The last count of a quota that Redis is about to forget is written in the same transaction.
    """
    entries: list[Entry | None] = []
    written = world.postgres
    for number, quota in enumerate(postgres.quotas):
        stock = redis.stocks[number] if redis else None
        if quota.limit == UNDEFINED or is_long_over(scenario, world, number):
            entries.append(None)
            if stock:
                written = put_count(written, number, written.quotas[number].used.bit_count())
            continue
        taken = quota.used | quota.void
        seen = stock.free if stock else scenario.universe
        for hold in redis.holds if redis else ():
            seen |= hold.slots if hold.quota == number else 0
        usable = scenario.slots - quota.void.bit_count()
        entries.append(Entry(taken, quota.limit, usable, scenario.universe & ~seen & ~taken))
    absorbed = redis.absorbed if redis else None
    expired = redis.holds if redis else ()
    return Plan(postgres.version, tuple(entries), expired, absorbed), written


def put_count(postgres: Postgres, quota: int, count: int) -> Postgres:
    return put_quota(postgres, quota, postgres.quotas[quota]._replace(column=count))


def count_from_ledger(scenario: Scenario, world: World) -> Postgres:
    """The columns of all quotas that absorb would read."""
    postgres = world.postgres
    for number, quota in enumerate(postgres.quotas):
        if quota.limit != UNDEFINED and not is_long_over(scenario, world, number):
            postgres = put_count(postgres, number, quota.used.bit_count())
    return postgres
