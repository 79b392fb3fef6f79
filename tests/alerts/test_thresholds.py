"""Thresholds: each is told once for a limit, whoever notices it."""

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.db import connection

from quota_redis.django.events import counts_written
from shargain.alerts import receivers, thresholds
from shargain.alerts.models import Alert, Endpoint, TargetThresholds
from shargain.alerts.roles import percents
from shargain.offers.models import OfferQuota, ScrapingTarget
from shargain.offers.services.quota import QuotaInfo, QuotaService
from shargain.usage.models import UsedCount

NewQuota = Callable[..., QuotaInfo]
Spend = Callable[[int], None]
HOUR = timedelta(hours=1)


def told(alerts: list[Alert]) -> list[tuple[str, int, int]]:
    return [(alert.threshold, alert.used, alert.limit) for alert in alerts]


def test_a_sync_raises_each_threshold_once(
    new_quota: NewQuota, spend: Spend, heard: list[Alert], target: ScrapingTarget
) -> None:
    quota = new_quota(10)
    spend(7)
    assert heard == []
    spend(1)
    assert told(heard) == [("80", 8, 10)]
    spend(1)
    spend(1)
    spend(1)
    assert told(heard) == [("80", 8, 10), ("100", 10, 10)]
    assert {(a.quota_id, a.target_id) for a in heard} == {(quota.id, target.pk)}
    assert Alert.objects.count() == 2


def test_one_batch_may_raise_several(new_quota: NewQuota, spend: Spend, heard: list[Alert]) -> None:
    new_quota(10)
    spend(25)
    assert sorted(told(heard)) == [("100", 10, 10), ("80", 10, 10)]


def test_another_period_is_told_anew(new_quota: NewQuota, spend: Spend, heard: list[Alert]) -> None:
    new_quota(4)
    spend(4)
    heard.clear()
    new_quota(2, began=1)
    spend(2)
    assert sorted(told(heard)) == [("100", 2, 2), ("80", 2, 2)]


def test_a_higher_limit_is_told_anew_and_a_lower_one_is_not(
    new_quota: NewQuota, spend: Spend, heard: list[Alert]
) -> None:
    quota = new_quota(10)
    spend(10)
    heard.clear()

    def limit(value: int) -> None:
        QuotaService().update_quota(
            quota.id,
            max_offers_per_period=value,
            period_start=quota.period_start,
            period_end=quota.period_end,
        )

    limit(20)
    spend(5)
    assert heard == []
    spend(1)
    assert told(heard) == [("80", 16, 20)]
    limit(18)
    spend(2)
    assert told(heard) == [("80", 16, 20), ("100", 18, 18)]
    limit(17)
    spend(1)
    thresholds.evaluate()
    assert len(heard) == 2


@pytest.mark.parametrize("limit", [None, 0])
def test_without_a_limit_nothing_is_told(
    new_quota: NewQuota, spend: Spend, heard: list[Alert], limit: int | None
) -> None:
    new_quota(limit)
    spend(5)
    thresholds.evaluate()
    assert heard == []


def test_an_ended_quota_is_not_told(new_quota: NewQuota, heard: list[Alert]) -> None:
    quota = new_quota(10, began=3, ends=-1)
    thresholds.raise_alerts({quota.id: 10})
    assert heard == []


def test_a_target_may_have_thresholds_of_its_own(
    new_quota: NewQuota, spend: Spend, heard: list[Alert], target: ScrapingTarget
) -> None:
    own = TargetThresholds.objects.create(target=target, percents=[50])
    new_quota(10)
    spend(10)
    assert told(heard) == [("50", 10, 10)]
    own.percents = []
    own.save()
    new_quota(10, began=1)
    spend(10)
    assert len(heard) == 1


def test_many_at_once_tell_it_once(new_quota: NewQuota, heard: list[Alert]) -> None:
    quota = new_quota(10)
    Endpoint.objects.create(name="pager", url="https://example.org/")
    start = threading.Barrier(6)

    def run() -> None:
        try:
            start.wait(10)
            thresholds.raise_alerts({quota.id: 10})
        finally:
            connection.close()

    threads = [threading.Thread(target=run) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(told(heard)) == [("100", 10, 10), ("80", 10, 10)]
    assert Alert.objects.count() == 2
    assert all(alert.deliveries.count() == 1 for alert in Alert.objects.all())


def test_what_a_sync_could_not_tell_is_told_later(
    new_quota: NewQuota, spend: Spend, heard: list[Alert], settings: Any
) -> None:
    settings.ALERT_PREDICTED = False
    new_quota(10)

    counts_written.disconnect(dispatch_uid="shargain.alerts")
    try:
        spend(8)
    finally:
        receivers.connect()
    assert heard == []
    assert thresholds.evaluate() == 1
    assert thresholds.evaluate() == 0
    assert told(heard) == [("80", 8, 10)]


def known_count(quota: QuotaInfo, used: int, ago: timedelta) -> None:
    UsedCount.objects.create(
        quota_id=quota.id, at=datetime.now(UTC) - ago, used=used, resolution=60
    )


def test_what_will_run_out_is_foretold_once(
    new_quota: NewQuota, spend: Spend, heard: list[Alert]
) -> None:
    quota = new_quota(100, began=2, ends=8)
    known_count(quota, 0, 26 * HOUR)
    spend(24)
    assert thresholds.evaluate() == 1
    assert thresholds.evaluate() == 0
    [alert] = heard
    assert (alert.threshold, alert.used) == ("predicted", 24)
    assert alert.runs_out_at is not None
    # One an hour: 76 are left.
    left = alert.runs_out_at - datetime.now(UTC)
    assert timedelta(hours=74) < left < timedelta(hours=78)


@pytest.mark.parametrize(
    "values",
    [
        {"limit": 1000, "began": 2, "ends": 8},
        {"limit": 100, "began": 2, "ends": None},
        {"limit": 100, "began": 0.1, "ends": 20},
    ],
    ids=["lasts to its end", "has no end", "has just begun"],
)
def test_what_is_not_foretold(
    new_quota: NewQuota, spend: Spend, heard: list[Alert], values: dict[str, Any]
) -> None:
    quota = new_quota(values.pop("limit"), **values)
    known_count(quota, 0, 26 * HOUR)
    spend(24)
    assert thresholds.evaluate() == 0


def test_forecasts_can_be_switched_off(
    new_quota: NewQuota, spend: Spend, target: ScrapingTarget, settings: Any
) -> None:
    settings.ALERT_PREDICTED = False
    quota = new_quota(100)
    known_count(quota, 0, 26 * HOUR)
    spend(24)
    assert thresholds.evaluate() == 0
    TargetThresholds.objects.create(target=target, percents=[], is_predicted=True)
    assert thresholds.evaluate() == 1


def test_a_sync_of_many_that_reach_nothing_costs_one_statement(
    new_quota: NewQuota, django_assert_max_num_queries: Any
) -> None:
    quotas = [new_quota(10, began=n) for n in range(1, 21)]
    with django_assert_max_num_queries(3):  # its transaction begins and ends
        assert thresholds.raise_alerts(dict.fromkeys([q.id for q in quotas], 3)) == []


def test_old_alerts_are_forgotten(new_quota: NewQuota, spend: Spend) -> None:
    quota = new_quota(10)
    spend(10)
    assert thresholds.forget_old() == 0
    Alert.objects.filter(threshold="80").update(period_end=datetime.now(UTC) - timedelta(days=401))
    assert thresholds.forget_old() == 1
    assert OfferQuota.objects.filter(pk=quota.id).exists()
    assert Alert.objects.get().threshold == "100"


def test_the_settings_thresholds_are_checked() -> None:
    assert percents([100, 80, 80]) == (80, 100)
    for bad in ([0], [101], list(range(1, 12))):
        with pytest.raises(ImproperlyConfigured, match="ALERT_PERCENTS"):
            percents(bad)


def test_a_sync_asks_nothing_of_the_broker(
    new_quota: NewQuota, spend: Spend, heard: list[Alert], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A broker that is down would hold it up: what is raised waits in the database for beat's next task."""
    sent: list[object] = []
    monkeypatch.setattr("celery.app.task.Task.apply_async", lambda *_, **__: sent.append(_))
    new_quota(1)
    spend(1)
    assert Alert.objects.count() == 2
    assert sent == []
