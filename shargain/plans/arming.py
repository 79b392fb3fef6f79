"""What renewal has to do for subscriptions: what should be armed, compared with what is. It only reads."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TypeAlias, cast

from django.db.models import Q, QuerySet

from shargain.offers.models import OfferQuota
from shargain.plans.models import ArmedPeriod, Subscription
from shargain.plans.rhythm import Period, Rhythm, next_begin, periods

AHEAD = timedelta(hours=48)
"""How far ahead a target's periods are armed at the least, and one whole period at the least. So long may renewal
be out of order before anything is late."""


@dataclass(frozen=True, slots=True)
class Arm:
    """Make the quota of a period, or give it these values."""

    period: Period
    limit: int | None


@dataclass(frozen=True, slots=True)
class Disarm:
    """Delete the quota of a period that has not begun and is not wanted any more."""

    armed: ArmedPeriod


@dataclass(frozen=True, slots=True)
class Forget:
    """Leave to the hand that edited it a quota that is not wanted any more."""

    armed: ArmedPeriod


Step: TypeAlias = Arm | Disarm | Forget


@dataclass(slots=True)
class _Known:
    """What there is for one subscription: what renewal armed, in order, and quotas as they are now."""

    armed: list[ArmedPeriod] = field(default_factory=list)
    by_id: dict[int, OfferQuota] = field(default_factory=dict)
    by_start: dict[datetime, OfferQuota] = field(default_factory=dict)


def wanted(
    rhythm: Rhythm, now: datetime, last_begun: Period | None, *, ahead: timedelta = AHEAD
) -> list[Period]:
    """The periods that should stand now: the present one, the next, and all that begin within `ahead`.

    The first to come begins where the last that has begun ends, whatever the rhythm is meanwhile; so after a
    change of the plan it may be a shorter one. Whole periods that were missed are left out:
    nobody can use them any more.
    """
    present = _present(rhythm, now, last_begun)
    found = [present]
    while found[-1].start <= now or found[-1].end <= now + ahead:
        start = found[-1].end
        found.append(Period(start, next_begin(rhythm, start)))
    return found


def _present(rhythm: Rhythm, now: datetime, last: Period | None) -> Period:
    if last is not None and now < last.end:
        return last
    [regular] = periods(rhythm, now, 1)
    return regular if last is None else Period(max(regular.start, last.end), regular.end)


def steps(subscriptions: Sequence[Subscription], now: datetime) -> dict[int, list[Step]]:
    """What is to be done, by subscription id; those that are as they should be are left out. Two queries."""
    armed = _armed(subscriptions)
    plans = {row.pk: _wanted(row, armed[row.pk], now) for row in subscriptions}
    known = _known(subscriptions, armed, plans)
    found = {row.pk: _steps(row, plans[row.pk], known[row.pk], now) for row in subscriptions}
    return {pk: todo for pk, todo in found.items() if todo}


def _armed(subscriptions: Sequence[Subscription]) -> dict[int, list[ArmedPeriod]]:
    found: dict[int, list[ArmedPeriod]] = defaultdict(list)
    rows = ArmedPeriod.objects.filter(subscription__in=[row.pk for row in subscriptions])
    for armed in rows.order_by("period_start"):
        found[armed.subscription_id].append(armed)
    return found


def _wanted(row: Subscription, armed: Iterable[ArmedPeriod], now: datetime) -> list[Period]:
    if not row.repeats:
        return []
    begun = [Period(a.period_start, a.period_end) for a in armed if a.period_start <= now]
    return wanted(row.plan.rhythm, now, begun[-1] if begun else None)


def _known(
    subscriptions: Sequence[Subscription],
    armed: dict[int, list[ArmedPeriod]],
    plans: dict[int, list[Period]],
) -> dict[int, _Known]:
    ids = [a.quota_id for rows in armed.values() for a in rows]
    starts = {period.start for some in plans.values() for period in some}
    targets = {row.target_id: row.pk for row in subscriptions}
    known = {row.pk: _Known(armed[row.pk]) for row in subscriptions}
    mine = cast("QuerySet[OfferQuota]", OfferQuota.objects.filter(target__in=targets))
    for quota in mine.filter(Q(pk__in=ids) | Q(period_start__in=starts)):
        of = known[targets[quota.target_id]]
        of.by_id[quota.pk] = of.by_start[quota.period_start] = quota
    return known


def _steps(row: Subscription, plan: list[Period], known: _Known, now: datetime) -> list[Step]:
    starts = {period.start for period in plan}
    armed = {a.period_start: a for a in known.armed}
    stale = [a for a in known.armed if a.period_start > now and a.period_start not in starts]
    todo: list[Step] = [Disarm(a) if _is_ours(a, known) else Forget(a) for a in stale]
    due = (p for p in plan if _is_due(row.limit, p, armed.get(p.start), known, now))
    return [*todo, *(Arm(period, row.limit) for period in due)]


def _is_due(
    limit: int | None, period: Period, armed: ArmedPeriod | None, known: _Known, now: datetime
) -> bool:
    """Whether a period has to be armed. What was made, edited or has begun is not touched; what was deleted by
    hand is armed again, for without a quota nothing would limit the target."""
    if armed is None or armed.quota_id not in known.by_id:
        return period.start not in known.by_start
    if armed.period_start <= now or not _is_ours(armed, known):
        return False
    return (armed.period_end, armed.limit) != (period.end, limit)


def _is_ours(armed: ArmedPeriod, known: _Known) -> bool:
    """Whether a quota is as renewal has set it."""
    quota = known.by_id.get(armed.quota_id)
    return quota is not None and (
        quota.period_start,
        quota.period_end,
        quota.max_offers_per_period,
    ) == (armed.period_start, armed.period_end, armed.limit)
