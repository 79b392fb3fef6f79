"""Renewal: keeps the next periods of all subscriptions armed, and says loudly where a target has no quota.

It compares what should be with what is, and so can run at any time, twice at once, and after any pause.
"""

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from django.db import DatabaseError, connection
from django.db.models import Exists, OuterRef, Q

from shargain.offers.services.edits import recorded
from shargain.offers.services.errors import QuotaInUse, ServiceError, ServiceUnavailable
from shargain.offers.services.quota import QuotaService
from shargain.plans.arming import AHEAD, Arm, Disarm, Step, steps
from shargain.plans.coverage import Gap, uncovered
from shargain.plans.models import ArmedPeriod, Subscription
from shargain.plans.signals import gap_found

logger = logging.getLogger(__name__)

BATCH = 500


@dataclass(slots=True)
class RenewalReport:
    """What one run did: subscriptions that it looked at and changed, and those that failed; gaps that are new."""

    subscriptions: int = 0
    changed: int = 0
    failed: int = 0
    gaps: int = 0


def renew() -> RenewalReport:
    """Arm what is due for all subscriptions, and look for gaps. Raises ServiceUnavailable.

    A subscription that fails is logged and left to the next run, and holds up no other.
    """
    report = RenewalReport()
    for rows in _batches():
        now = _now()
        behind = uncovered(
            (row.target_id, row.checked_until, now) for row in rows if row.checked_until
        )
        report.subscriptions += len(rows)
        for pk in steps(rows, now):
            _arm_one(pk, report)
        repeating = [row for row in rows if row.repeats]
        ahead = uncovered((row.target_id, now, now + AHEAD) for row in repeating)
        report.gaps += _note(repeating, [*behind, *ahead], now)
    return report


def arm(subscription_id: int, *, who: str = "renewal") -> int:
    """Arm what is due for one subscription; returns how many quotas changed. Does nothing where somebody else is
    at it. Raises ServiceError."""
    plan = Subscription.objects.values_list("plan__name", flat=True).get(pk=subscription_id)
    with recorded(who, f"plan {plan}"):
        locked = Subscription.objects.select_for_update(skip_locked=True, of=("self",))
        row = locked.select_related("plan").filter(pk=subscription_id).first()
        if row is None:
            return 0
        now = _now()
        todo = steps([row], now).get(row.pk, [])
        for step in todo:
            _take(row, step)
        if todo:
            _forget_past(row, now)
        if row.repeats and row.checked_until is None:
            Subscription.objects.filter(pk=row.pk).update(checked_until=now)
    return len(todo)


def _batches() -> Iterator[list[Subscription]]:
    ahead = ArmedPeriod.objects.filter(subscription=OuterRef("pk"), period_start__gt=_now())
    rows = Subscription.objects.filter(Q(repeats=True) | Exists(ahead)).select_related("plan")
    after = 0
    while batch := list(rows.filter(pk__gt=after).order_by("pk")[:BATCH]):
        yield batch
        after = batch[-1].pk


def _arm_one(subscription_id: int, report: RenewalReport) -> None:
    try:
        report.changed += bool(arm(subscription_id))
    except ServiceUnavailable:
        raise
    except (ServiceError, DatabaseError, Subscription.DoesNotExist):
        report.failed += 1
        logger.exception(
            "subscription %d is not renewed, the next run tries again", subscription_id
        )


def _take(row: Subscription, step: Step) -> None:
    if isinstance(step, Arm):
        _set(row, step)
        return
    if isinstance(step, Disarm):
        try:
            QuotaService().delete_quota(step.armed.quota_id)
        except QuotaInUse:
            # It began a moment ago, and was used: it stays.
            return
    step.armed.delete()


def _set(row: Subscription, step: Arm) -> None:
    quota = QuotaService().set_new_quota(
        row.target_id,
        max_offers_per_period=step.limit,
        period_start=step.period.start,
        period_end=step.period.end,
    )
    ArmedPeriod.objects.update_or_create(
        subscription=row,
        period_start=step.period.start,
        defaults={"period_end": step.period.end, "limit": step.limit, "quota_id": quota.id},
    )


def _forget_past(row: Subscription, now: datetime) -> None:
    """Keep the last period that has begun, where the next one goes on, and those ahead."""
    begun = row.armed_periods.filter(period_start__lte=now).order_by("-period_start")
    if last := begun.first():
        row.armed_periods.filter(period_start__lt=last.period_start).delete()


def _note(rows: Sequence[Subscription], gaps: Iterable[Gap], now: datetime) -> int:
    """Keep the gaps with their subscriptions, and tell of the new ones; returns how many these are."""
    by_target = {row.target_id: row for row in rows}
    new = [
        gap for gap in gaps if gap.target_id in by_target and _is_new(by_target[gap.target_id], gap)
    ]
    checked = Subscription.objects.filter(pk__in=[row.pk for row in rows], repeats=True)
    checked.exclude(checked_until=None).update(checked_until=now)
    for gap in new:
        _tell(gap, now)
    return len(new)


def _is_new(row: Subscription, gap: Gap) -> bool:
    """Write a gap down; False where it goes on from the one that stands there."""
    mine = Subscription.objects.filter(pk=row.pk)
    goes_on = mine.filter(gap_start__lte=gap.end, gap_end__gte=gap.start)
    if goes_on.filter(gap_end__lt=gap.end).update(gap_end=gap.end) or goes_on.exists():
        return False
    return bool(mine.update(gap_start=gap.start, gap_end=gap.end))


def _tell(gap: Gap, now: datetime) -> None:
    kind = "will have" if gap.start > now else "has" if gap.end > now else "had"
    logger.critical(
        "target %d %s no quota from %s to %s: nothing limits it then, although it has a plan",
        gap.target_id, kind, gap.start.isoformat(), gap.end.isoformat(),
    )  # fmt: skip
    gap_found.send_robust(Subscription, target_id=gap.target_id, start=gap.start, end=gap.end)


def _now() -> datetime:
    """By PostgreSQL's clock, which also decides which quota rules."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT clock_timestamp()")
        [now] = cursor.fetchone() or [None]
    assert isinstance(now, datetime)
    return now
