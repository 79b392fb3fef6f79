"""How syncs and audits ended."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest
from usage_rows import TODAY, one_query

from quota_redis.django.events import audit_ended, sync_ended
from quota_redis.postgres import DriftReason
from shargain.offers.models import OfferQuota, ScrapingTarget
from shargain.offers.services.quota import QuotaService
from shargain.usage import upkeep
from shargain.usage.models import AuditFinding, LastRun
from shargain.usage.services import audit_findings, last_upkeep


@dataclass(frozen=True, slots=True)
class Drift:
    """As far as it is kept."""

    quota_id: int
    reason: DriftReason = DriftReason.COUNT


@dataclass(frozen=True, slots=True)
class Report:
    """An audit's, or a sync's."""

    drifts: tuple[Drift, ...] = ()
    problems: dict[str, str] | None = None
    repaired: bool = False
    is_complete: bool = True
    was_running: bool = False
    absorbed: int = 0
    more: int = 0


def end_audit(drifts: int = 0, *, more: int = 0, **problems: str) -> None:
    report = Report(tuple(map(Drift, range(drifts))), problems, more=more)
    # Metrics may be listening as well, where another test has connected them.
    outcomes = audit_ended.send_robust(OfferQuota, report=report, seconds=1.5)
    assert outcomes
    assert all(outcome is None for _, outcome in outcomes)


def test_the_last_sync_and_the_last_audit_are_kept(target: ScrapingTarget) -> None:
    assert last_upkeep() == {}
    before = datetime.now(UTC)
    for _ in range(2):
        QuotaService().sync()
        QuotaService().audit()
    with one_query():
        found = last_upkeep()
    assert sorted(found) == ["audit", "sync"]
    for run in found.values():
        assert before <= run.ended_at <= datetime.now(UTC)
        assert run.is_complete
        assert run.seconds is not None
        assert 0 < run.seconds < 60
        assert (run.drifts, run.problems, run.drift_count) == ([], {}, 0)
    assert LastRun.objects.count() == 2
    assert audit_findings() == []


def test_an_audit_keeps_the_drifts_that_it_found(
    target: ScrapingTarget, create: Callable[..., Any]
) -> None:
    quota = QuotaService().set_new_quota(target, max_offers_per_period=5, period_start=TODAY)
    create(1, 2)
    QuotaService().flush()
    QuotaService().sync()
    OfferQuota.objects.update(used_offers_count=4)
    QuotaService().audit()
    drift = {
        "subject": f"target:{target.pk}",
        "quota_id": quota.id,
        "reason": "count",
        "ledger": 2,
        "column": 4,
        "redis": 2,
    }
    assert last_upkeep()["audit"].drifts == [drift]
    QuotaService().audit()
    assert last_upkeep()["audit"].drifts == []
    with one_query():
        [finding] = audit_findings()
    assert (finding.drifts, finding.drift_count) == ([drift], 1)


@pytest.mark.django_db
def test_a_sync_that_found_another_at_work_was_none() -> None:
    sync_ended.send(OfferQuota, report=Report(was_running=True), seconds=0.1)
    assert last_upkeep() == {}
    sync_ended.send(OfferQuota, report=Report(is_complete=False), seconds=0.1)
    assert not last_upkeep()["sync"].is_complete


@pytest.mark.django_db
def test_differences_that_an_audit_did_not_list_are_counted() -> None:
    end_audit(drifts=3, more=40_000)
    for run in (last_upkeep()["audit"], *audit_findings()):
        assert (len(run.drifts), run.drift_count) == (3, 40_003)


@pytest.mark.django_db
def test_findings_are_bounded() -> None:
    end_audit(drifts=upkeep.MAX_DRIFTS + 5)
    for number in range(upkeep.MAX_FINDINGS):
        assert len(audit_findings()[-1].drifts) == upkeep.MAX_DRIFTS
        assert audit_findings()[-1].drift_count == upkeep.MAX_DRIFTS + 5
        end_audit(E1=f"{number}")
        end_audit()
    assert AuditFinding.objects.count() == upkeep.MAX_FINDINGS
    assert [run.problems["E1"] for run in audit_findings(limit=3)] == ["49", "48", "47"]
    assert audit_findings()[-1].problems == {"E1": "0"}
    assert len(audit_findings(limit=1)) == 1


@pytest.mark.django_db
@pytest.mark.parametrize("limit", [0, 51])
def test_a_limit_out_of_bounds_is_refused(limit: int) -> None:
    with pytest.raises(ValueError, match=f"limit is {limit}: give 1 to 50"):
        audit_findings(limit=limit)
