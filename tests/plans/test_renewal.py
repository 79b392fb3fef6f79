"""Renewal: the next period stands before the present one ends, whatever happened meanwhile."""

import itertools
import logging
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from django.db import connection

from shargain.offers.models import OfferQuota, ScrapingTarget
from shargain.offers.services.edits import edits
from shargain.offers.services.errors import ServiceUnavailable
from shargain.offers.services.quota import QuotaService
from shargain.plans import renewal
from shargain.plans.arming import wanted
from shargain.plans.models import ArmedPeriod, Plan, Subscription
from shargain.plans.rhythm import Period, Rhythm
from shargain.plans.signals import gap_found
from shargain.plans.subscriptions import apply_plan, stop

DAY = timedelta(days=1)


@pytest.fixture
def gaps() -> Iterator[list[dict[str, Any]]]:
    heard: list[dict[str, Any]] = []

    def hear(**said: Any) -> None:
        heard.append(said)

    gap_found.connect(hear)
    yield heard
    gap_found.disconnect(hear)


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> Callable[[timedelta], datetime]:
    """Let renewal live so much later; quotas themselves go by PostgreSQL's clock."""

    def move(ahead: timedelta) -> datetime:
        now = datetime.now(UTC) + ahead
        monkeypatch.setattr(renewal, "_now", lambda: now)
        return now

    return move


def quotas(target: ScrapingTarget) -> list[OfferQuota]:
    return list(OfferQuota.objects.filter(target=target).order_by("period_start"))  # type: ignore[arg-type]


def subscription(target: ScrapingTarget) -> Subscription:
    return Subscription.objects.get(target=target)


def are_contiguous(found: list[OfferQuota]) -> bool:
    return all(one.period_end == two.period_start for one, two in itertools.pairwise(found))


def test_a_plan_gives_the_present_period_and_the_next(target: ScrapingTarget, plan: Plan) -> None:
    assert apply_plan(plan, [target.pk], who="admin alice") == 1
    found = quotas(target)
    assert len(found) == 2
    assert are_contiguous(found)
    active = QuotaService().get_active_quota(target)
    assert active is not None
    assert (active.id, active.max_offers_per_period) == (found[0].pk, 400)
    [edit] = edits(found[1].pk)
    assert (edit.who, edit.why) == ("admin alice", "plan small")


def test_renewal_that_has_nothing_to_do_changes_nothing(target: ScrapingTarget, plan: Plan) -> None:
    apply_plan(plan, [target.pk], who="test")
    before = quotas(target)
    report = renewal.renew()
    assert (report.subscriptions, report.changed, report.failed, report.gaps) == (1, 0, 0, 0)
    assert [q.pk for q in quotas(target)] == [q.pk for q in before]


def test_the_next_period_is_armed_ahead_for_a_year(
    target: ScrapingTarget, plan: Plan, later: Callable[[timedelta], datetime]
) -> None:
    apply_plan(plan, [target.pk], who="test")
    for days in range(0, 366, 5):
        now = later(days * DAY)
        renewal.renew()
        found = quotas(target)
        assert are_contiguous(found)
        assert found[-1].period_start > now
        assert found[-1].period_end is not None
        assert found[-1].period_end > now + timedelta(hours=48)
    # What renewal remembers does not grow with the years.
    assert ArmedPeriod.objects.count() <= 3
    [edit] = edits(quotas(target)[-1].pk)
    assert (edit.who, edit.why) == ("renewal", "plan small")


def test_daily_periods_are_armed_for_two_days() -> None:
    now = datetime(2026, 5, 5, 23, 59, tzinfo=UTC)
    found = wanted(Rhythm(date(2026, 1, 1), every_days=1), now, None)
    assert found[0].start == datetime(2026, 5, 5, tzinfo=UTC)
    assert found[-1].end > now + timedelta(hours=48)


def test_after_an_outage_the_present_period_goes_on_from_where_it_should() -> None:
    """Whole periods that were missed are not made: nobody could use them."""
    now = datetime(2026, 5, 25, tzinfo=UTC)
    last = Period(datetime(2026, 5, 1, tzinfo=UTC), datetime(2026, 5, 4, tzinfo=UTC))
    found = wanted(Rhythm(date(2026, 5, 1), every_days=10), now, last)
    assert found[0] == Period(datetime(2026, 5, 21, tzinfo=UTC), datetime(2026, 5, 31, tzinfo=UTC))


def test_a_change_of_rhythm_goes_on_where_the_present_period_ends() -> None:
    now = datetime(2026, 5, 15, tzinfo=UTC)
    present = Period(datetime(2026, 5, 11, tzinfo=UTC), datetime(2026, 5, 21, tzinfo=UTC))
    found = wanted(Rhythm(date(2026, 1, 1)), now, present)
    assert found[:2] == [present, Period(present.end, datetime(2026, 6, 1, tzinfo=UTC))]


def test_a_late_renewal_is_said_loudly_and_once(
    target: ScrapingTarget,
    plan: Plan,
    gaps: list[dict[str, Any]],
    caplog: pytest.LogCaptureFixture,
    later: Callable[[timedelta], datetime],
) -> None:
    apply_plan(plan, [target.pk], who="test")
    end = quotas(target)[-1].period_end
    assert end is not None
    now = later(end - datetime.now(UTC) + DAY)
    renewal.renew()
    renewal.renew()
    [said] = [r for r in caplog.records if r.levelno == logging.CRITICAL]
    assert f"target {target.pk} had no quota from {end.isoformat()}" in said.getMessage()
    assert [(gap["target_id"], gap["start"], gap["end"]) for gap in gaps] == [(target.pk, end, now)]
    row = subscription(target)
    assert (row.gap_start, row.gap_end) == (end, now)
    assert are_contiguous(quotas(target)), "the present period begins where the last ended"


def test_a_gap_that_a_hand_has_made_is_said_before_it_comes(
    target: ScrapingTarget, plan: Plan, gaps: list[dict[str, Any]]
) -> None:
    apply_plan(plan, [target.pk], who="test")
    present = quotas(target)[0]
    assert present.period_end is not None
    soon = datetime.now(UTC) + timedelta(hours=5)
    OfferQuota.objects.filter(pk=present.pk).update(period_end=soon)
    for _ in range(3):
        renewal.renew()
    assert [(gap["target_id"], gap["start"]) for gap in gaps] == [(target.pk, soon)]


def test_a_quota_that_was_edited_by_hand_stays(target: ScrapingTarget, plan: Plan) -> None:
    apply_plan(plan, [target.pk], who="test")
    coming = quotas(target)[1]
    QuotaService().update_quota(
        coming.pk,
        max_offers_per_period=7,
        period_start=coming.period_start,
        period_end=coming.period_end,
    )
    Plan.objects.update(max_offers_per_period=900)
    renewal.renew()
    assert [q.max_offers_per_period for q in quotas(target)] == [400, 7]


def test_a_changed_plan_changes_what_is_armed_and_has_not_begun(
    target: ScrapingTarget, plan: Plan
) -> None:
    apply_plan(plan, [target.pk], who="test")
    Plan.objects.update(max_offers_per_period=900)
    renewal.renew()
    assert [q.max_offers_per_period for q in quotas(target)] == [400, 900]


def test_a_changed_rhythm_replaces_what_is_armed(target: ScrapingTarget, plan: Plan) -> None:
    apply_plan(plan, [target.pk], who="test")
    present, coming = quotas(target)
    Plan.objects.update(every_days=13)
    renewal.renew()
    found = quotas(target)
    assert found[0].pk == present.pk
    assert found[0].period_end == present.period_end
    assert are_contiguous(found)
    assert coming.period_end != found[1].period_end
    assert renewal.renew().changed == 0


def test_periods_that_are_not_wanted_any_more_go(target: ScrapingTarget, plan: Plan) -> None:
    Plan.objects.update(every_days=1)
    plan.refresh_from_db()
    apply_plan(plan, [target.pk], who="test")
    assert len(quotas(target)) >= 3
    Plan.objects.update(every_days=30)
    renewal.renew()
    assert are_contiguous(quotas(target))
    assert len(quotas(target)) == 2
    assert ArmedPeriod.objects.count() == 2


def test_a_target_may_have_its_own_limit(target: ScrapingTarget, plan: Plan) -> None:
    apply_plan(plan, [target.pk], who="test")
    Subscription.objects.update(has_own_limit=True, own_limit=5)
    renewal.renew()
    assert [q.max_offers_per_period for q in quotas(target)] == [400, 5]
    Subscription.objects.update(own_limit=None)
    renewal.renew()
    assert [q.max_offers_per_period for q in quotas(target)] == [400, None]


def test_what_was_deleted_by_hand_is_armed_again(target: ScrapingTarget, plan: Plan) -> None:
    apply_plan(plan, [target.pk], who="test")
    QuotaService().delete_quota(quotas(target)[1].pk)
    renewal.renew()
    assert are_contiguous(quotas(target))
    assert len(quotas(target)) == 2


def test_a_quota_made_by_hand_with_the_same_start_stays(target: ScrapingTarget, plan: Plan) -> None:
    [present] = wanted(plan.rhythm, datetime.now(UTC), None)[:1]
    made = QuotaService().set_new_quota(
        target, max_offers_per_period=3, period_start=present.start, period_end=present.end
    )
    apply_plan(plan, [target.pk], who="test")
    found = quotas(target)
    assert (found[0].pk, found[0].max_offers_per_period) == (made.id, 3)
    assert are_contiguous(found)
    assert len(found) == 2


def test_stopping_deletes_what_is_armed_and_keeps_the_present(
    target: ScrapingTarget, plan: Plan, gaps: list[dict[str, Any]]
) -> None:
    apply_plan(plan, [target.pk], who="test")
    present = quotas(target)[0]
    assert stop(subscription(target).pk, who="admin alice") == 1
    assert [q.pk for q in quotas(target)] == [present.pk]
    report = renewal.renew()
    assert (report.changed, report.gaps, gaps) == (0, 0, [])
    apply_plan(plan, [target.pk], who="test")
    assert [q.pk for q in quotas(target)][:1] == [present.pk]
    assert are_contiguous(quotas(target))


def test_stopping_leaves_what_a_hand_has_edited(target: ScrapingTarget, plan: Plan) -> None:
    apply_plan(plan, [target.pk], who="test")
    coming = quotas(target)[1]
    OfferQuota.objects.filter(pk=coming.pk).update(max_offers_per_period=7)
    stop(subscription(target).pk, who="test")
    assert len(quotas(target)) == 2
    assert renewal.renew().changed == 0


def test_a_time_without_a_plan_is_no_gap(
    target: ScrapingTarget,
    plan: Plan,
    gaps: list[dict[str, Any]],
    later: Callable[[timedelta], datetime],
) -> None:
    apply_plan(plan, [target.pk], who="test")
    stop(subscription(target).pk, who="test")
    later(60 * DAY)
    renewal.renew()
    apply_plan(plan, [target.pk], who="test")
    renewal.renew()
    assert gaps == []


def test_many_at_once_make_each_period_once(
    new_target: Callable[[], ScrapingTarget], plan: Plan
) -> None:
    targets = [new_target() for _ in range(30)]
    apply_plan(plan, [t.pk for t in targets], who="test")
    assert OfferQuota.objects.count() == 0, "many are left to the renewal"
    start = threading.Barrier(4)
    failures: list[Exception] = []

    def run() -> None:
        try:
            start.wait(10)
            assert renewal.renew().failed == 0
        except Exception as error:  # noqa: BLE001
            failures.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failures == []
    renewal.renew()
    assert OfferQuota.objects.count() == ArmedPeriod.objects.count() == 60
    assert all(are_contiguous(quotas(t)) for t in targets)
    assert all(len(edits(pk)) == 1 for pk in OfferQuota.objects.values_list("pk", flat=True))


def test_one_that_fails_holds_up_no_other(
    new_target: Callable[[], ScrapingTarget], plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad, good = [new_target() for _ in range(2)]
    for target in (bad, good):
        Subscription.objects.create(target=target, plan=plan)
    real = QuotaService.set_new_quota

    def set_new_quota(self: QuotaService, target: Any, **values: Any) -> Any:
        if target == bad.pk:
            values["max_offers_per_period"] = -1
        return real(self, target, **values)

    monkeypatch.setattr(QuotaService, "set_new_quota", set_new_quota)
    report = renewal.renew()
    assert (report.changed, report.failed) == (1, 1)
    assert len(quotas(good)) == 2
    monkeypatch.undo()
    renewal.renew()
    assert len(quotas(bad)) == 2


def test_an_outage_ends_the_run(
    target: ScrapingTarget, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    Subscription.objects.create(target=target, plan=plan)

    def refuse(*_: Any, **__: Any) -> Any:
        raise ServiceUnavailable("PostgreSQL failed")

    monkeypatch.setattr(QuotaService, "set_new_quota", refuse)
    with pytest.raises(ServiceUnavailable):
        renewal.renew()


def test_queries_do_not_grow_with_subscriptions_that_are_as_they_should_be(
    new_target: Callable[[], ScrapingTarget], plan: Plan, django_assert_max_num_queries: Any
) -> None:
    targets = [new_target().pk for _ in range(15)]
    apply_plan(plan, targets, who="test")
    with django_assert_max_num_queries(10):
        assert renewal.renew().subscriptions == 15


def test_too_many_targets_are_refused(plan: Plan) -> None:
    with pytest.raises(ValueError, match="at most 10,000"):
        apply_plan(plan, range(10_001), who="test")
