"""Giving plans to targets, and taking them away."""

from collections.abc import Sequence

from django.db import transaction

from shargain.offers.models import ScrapingTarget
from shargain.plans import renewal
from shargain.plans.models import Plan, Subscription

MAX_TARGETS = 10_000
ARMED_AT_ONCE = 20
"""Targets whose periods are armed before the call returns; those of more are left to the renewal task."""


def apply_plan(plan: Plan, target_ids: Sequence[int], *, who: str) -> int:
    """Give a plan to targets, in place of the one they had; returns how many there are.

    A period that has begun stays as it is, the plan holds from the next one on. A target without any gets the
    present one too. Of more than 20 targets the periods are armed by the next renewal. `who` is written into the
    history of edits. Raises ValueError for more than 10,000 targets, ServiceError.
    """
    if len(target_ids) > MAX_TARGETS:
        raise ValueError(f"There are {len(target_ids):,} targets: give at most {MAX_TARGETS:,}.")
    with transaction.atomic():
        known = ScrapingTarget.objects.filter(pk__in=target_ids).order_by("pk")
        ids = list(known.values_list("pk", flat=True))
        subscriptions = _subscribe(plan, ids)
    if len(subscriptions) <= ARMED_AT_ONCE:
        for pk in subscriptions:
            renewal.arm(pk, who=who)
    return len(ids)


def stop(subscription_id: int, *, who: str) -> int:
    """Arm nothing for a target any more, and delete what is armed and has not begun; returns how many quotas went.

    The present period goes on to its end; after it nothing limits the target. Raises ServiceError.
    """
    with transaction.atomic():
        mine = Subscription.objects.filter(pk=subscription_id)
        mine.update(repeats=False, checked_until=None, gap_start=None, gap_end=None)
        return renewal.arm(subscription_id, who=who)


def _subscribe(plan: Plan, target_ids: Sequence[int]) -> list[int]:
    rows = [Subscription(target_id=pk, plan=plan) for pk in target_ids]
    Subscription.objects.bulk_create(rows, ignore_conflicts=True)
    mine = Subscription.objects.filter(target__in=target_ids)
    # What was meant to be without a quota is no gap.
    mine.filter(repeats=False).update(checked_until=None, gap_start=None, gap_end=None)
    mine.update(plan=plan, repeats=True)
    return list(mine.order_by("pk").values_list("pk", flat=True))
