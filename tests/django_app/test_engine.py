"""Engine.spend and aspend: a caller's own models and the ledger, in Django's transactions."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from asgiref.sync import async_to_sync

from quota_redis.celery import _give_stocks_back
from quota_redis.django import engine as engine_module
from quota_redis.django.engine import Engine, engine_for
from shargain.offers.models import OfferQuota, ScrapingTarget


@pytest.fixture
def make_targets(engine: Engine, target: ScrapingTarget) -> Callable[[int], int]:
    """Work that creates a row for each unit."""

    def work(allowed: int) -> int:
        for number in range(allowed):
            ScrapingTarget.objects.create(name=f"made {number}", owner=target.owner)
        return allowed

    return work


def made() -> int:
    return ScrapingTarget.objects.filter(name__startswith="made").count()


def test_rows_and_slots_are_written_together(
    engine: Engine, new_quota: Callable[..., OfferQuota], make_targets: Callable[[int], int]
) -> None:
    quota = new_quota(5)
    assert engine.spend(quota.subject, 3, make_targets).used == 3
    spent = engine.spend(quota.subject, 3, make_targets)
    assert (spent.used, spent.denied) == (2, 1)
    assert made() == engine.ledger.used(engine.connection(), [quota.pk])[quota.pk] == 5


def test_work_that_fails_leaves_neither(
    engine: Engine, new_quota: Callable[..., OfferQuota], make_targets: Callable[[int], int]
) -> None:
    quota = new_quota(5)

    def fail(allowed: int) -> int:
        make_targets(allowed)
        raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        engine.spend(quota.subject, 3, fail)
    engine.counters.flush()
    assert made() == 0
    assert engine.counters.usage(quota.subject)[quota.pk].remaining == 5


@pytest.mark.parametrize("by", ["end of a pool's process", "flush"])
def test_with_stocks_the_limit_holds_and_the_rest_goes_back(
    engine: Engine, new_quota: Callable[..., OfferQuota], settings: Any, by: str
) -> None:
    settings.QUOTA_REDIS = {**settings.QUOTA_REDIS, "STOCK_SIZE": 50}
    quota = new_quota(300)
    stocked, stocks = engine_for(OfferQuota), engine_module.stocks()
    assert stocks is not None
    used = [stocked.spend(quota.subject, 3, lambda allowed: allowed).used for _ in range(60)]
    assert used == [3] * 60
    assert stocked.counters.usage(quota.subject)[quota.pk].held > 0
    if by == "flush":
        stocked.flush()
    else:
        _give_stocks_back()
        stocked.counters.flush()
    usage = stocked.counters.usage(quota.subject)[quota.pk]
    assert (usage.used, usage.held) == (180, 0)
    assert sum(stocked.spend(quota.subject, 50, lambda n: n).used for _ in range(4)) == 120
    stocks.close()


def test_async_callers_share_the_limit(
    engine: Engine, new_quota: Callable[..., OfferQuota], make_targets: Callable[[int], int]
) -> None:
    quota = new_quota(5)

    async def view() -> int:
        spent = await asyncio.gather(
            *(engine.aspend(quota.subject, 2, make_targets) for _ in range(4))
        )
        return sum(each.used for each in spent)

    assert async_to_sync(view)() == 5
    assert made() == 5
