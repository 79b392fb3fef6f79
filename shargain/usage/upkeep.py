"""Keeping how runs of sync and audit ended."""

from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from django.db import transaction
from django.db.models.functions import Now

from shargain.usage.models import AuditFinding, LastRun, UpkeepRecord

MAX_DRIFTS = 200
MAX_FINDINGS = 50
"""Audits that found something and are kept."""


@dataclass(frozen=True, slots=True)
class Upkeep:
    """How a run ended. Each drift has subject, quota_id, reason and the units of ledger, column and redis; there
    are the first 200 of `drift_count`. `seconds` is how long it took. Problems are sentences by code."""

    kind: str
    """sync or audit"""
    ended_at: datetime
    is_complete: bool
    seconds: float | None
    drifts: list[dict[str, Any]]
    problems: dict[str, str]
    drift_count: int = 0


def write_sync(*, is_complete: bool, seconds: float | None) -> None:
    """Keep that a sync has ended now."""
    _keep_last("sync", {"is_complete": is_complete, "seconds": seconds})


def write_audit(
    *,
    is_complete: bool,
    seconds: float | None,
    drifts: list[Any],
    problems: dict[str, str],
    more: int = 0,
) -> None:
    """Keep that an audit has ended now with these drifts (dataclasses) and so many more that it did not list, and
    among the findings if it has any."""
    values = {
        "is_complete": is_complete,
        "seconds": seconds,
        "drift_count": len(drifts) + more,
        "drifts": [asdict(drift) for drift in drifts[:MAX_DRIFTS]],
        "problems": problems,
    }
    with transaction.atomic():
        _keep_last("audit", values)
        if drifts or problems:
            _keep_finding(values)


def last_upkeep() -> dict[str, Upkeep]:
    """The last run of each kind, "sync" and "audit"; a kind that never ran is left out. One query."""
    return {record.kind: _upkeep(record) for record in LastRun.objects.all()}


def audit_findings(*, limit: int = MAX_FINDINGS) -> list[Upkeep]:
    """The last audits that found drifts or problems, the latest first; at most `limit`, 1 to 50. One query."""
    if not 1 <= limit <= MAX_FINDINGS:
        raise ValueError(f"limit is {limit}: give 1 to {MAX_FINDINGS}.")
    return [_upkeep(record) for record in AuditFinding.objects.order_by("-pk")[:limit]]


def _keep_last(kind: str, values: dict[str, Any]) -> None:
    run = LastRun(kind=kind, ended_at=Now(), **values)
    LastRun.objects.bulk_create(
        [run], update_conflicts=True, unique_fields=["kind"], update_fields=["ended_at", *values]
    )


def _keep_finding(values: dict[str, Any]) -> None:
    AuditFinding.objects.create(kind="audit", ended_at=Now(), **values)
    latest = AuditFinding.objects.order_by("-pk").values_list("pk", flat=True)[:MAX_FINDINGS]
    AuditFinding.objects.exclude(pk__in=list(latest)).delete()


def _upkeep(record: UpkeepRecord) -> Upkeep:
    return Upkeep(
        kind=record.kind,
        ended_at=record.ended_at,
        is_complete=record.is_complete,
        seconds=record.seconds,
        drifts=record.drifts,
        problems=record.problems,
        drift_count=record.drift_count,
    )
