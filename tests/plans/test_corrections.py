"""Granted units: they raise the limit once, with a reason."""

import threading
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from django.db import connection

from shargain.offers.models import MAX_LIMIT, OfferQuota, ScrapingTarget
from shargain.offers.services.edits import edits
from shargain.offers.services.errors import UnknownQuota
from shargain.offers.services.quota import QuotaInfo, QuotaService
from shargain.plans.corrections import InvalidCorrection, grant
from shargain.plans.models import Correction

HOUR = timedelta(hours=1)


def new_quota(target: ScrapingTarget, limit: int | None = 400, *, ended: bool = False) -> QuotaInfo:
    now = datetime.now(UTC)
    return QuotaService().set_new_quota(
        target,
        max_offers_per_period=limit,
        period_start=now - 2 * HOUR,
        period_end=now - HOUR if ended else None,
    )


def limit_of(quota: QuotaInfo) -> int | None:
    return OfferQuota.objects.get(pk=quota.id).max_offers_per_period


def test_a_grant_raises_the_limit_and_says_why(target: ScrapingTarget) -> None:
    quota = new_quota(target)
    correction = grant(quota.id, 50, " spam was counted ", "admin alice")
    assert limit_of(quota) == 450
    assert (correction.limit_before, correction.limit_after) == (400, 450)
    assert (correction.reason, correction.target_id) == ("spam was counted", target.pk)
    edit = edits(quota.id)[0]
    assert (edit.who, edit.why) == ("admin alice", "50 granted: spam was counted")
    info = QuotaService().describe([quota.id])[quota.id]
    assert info.remaining == 450


def test_the_same_key_grants_once(target: ScrapingTarget) -> None:
    quota, key = new_quota(target), uuid4()
    first = grant(quota.id, 50, "spam", "test", key=key)
    assert grant(quota.id, 50, "spam", "test", key=key).pk == first.pk
    assert limit_of(quota) == 450
    with pytest.raises(InvalidCorrection, match="was used for another"):
        grant(quota.id, 51, "spam", "test", key=key)
    grant(quota.id, 50, "spam", "test", key=uuid4())
    assert limit_of(quota) == 500


def test_the_same_key_at_the_same_moment_grants_once(target: ScrapingTarget) -> None:
    quota, key = new_quota(target), uuid4()
    start, made = threading.Barrier(6), []

    def run(number: int) -> None:
        try:
            start.wait(10)
            made.append(grant(quota.id, 50, "spam", "test", key=key if number % 2 else None).pk)
        finally:
            connection.close()

    threads = [threading.Thread(target=run, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(made) == 6
    assert len(set(made)) == Correction.objects.count() == 4
    assert limit_of(quota) == 600


def test_a_key_of_another_quota_at_the_same_moment_is_refused(target: ScrapingTarget) -> None:
    one, two, key = new_quota(target), new_quota(target), uuid4()
    start, refused = threading.Barrier(2), []

    def run(quota: QuotaInfo) -> None:
        try:
            start.wait(10)
            grant(quota.id, 50, "spam", "test", key=key)
        except InvalidCorrection as error:
            refused.append(error.field)
        finally:
            connection.close()

    threads = [threading.Thread(target=run, args=(quota,)) for quota in (one, two)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert refused == ["key"]
    assert sorted([limit_of(one) or 0, limit_of(two) or 0]) == [400, 450]


@pytest.mark.parametrize(
    ("units", "reason", "field"),
    [
        (0, "spam", "units"),
        (-5, "spam", "units"),
        (MAX_LIMIT + 1, "spam", "units"),
        (MAX_LIMIT, "spam", "units"),
        (5, "", "reason"),
        (5, "   ", "reason"),
        (5, "x" * 501, "reason"),
        (5, "a\0b", "reason"),
    ],
)
def test_bad_grants_are_refused(
    target: ScrapingTarget, units: int, reason: str, field: str
) -> None:
    quota = new_quota(target)
    with pytest.raises(InvalidCorrection) as error:
        grant(quota.id, units, reason, "test")
    assert error.value.field == field
    assert (limit_of(quota), Correction.objects.count()) == (400, 0)


def test_an_unlimited_and_an_ended_quota_are_refused(target: ScrapingTarget) -> None:
    with pytest.raises(InvalidCorrection, match="unlimited"):
        grant(new_quota(target, None).id, 5, "spam", "test")
    with pytest.raises(InvalidCorrection, match="has ended"):
        grant(new_quota(target, ended=True).id, 5, "spam", "test")
    with pytest.raises(UnknownQuota):
        grant(0, 5, "spam", "test")
