"""What usage hears of syncs and audits, in whatever process they run."""

from collections.abc import Mapping
from typing import Any

from quota_redis.django.events import audit_ended, counts_written, sync_ended
from shargain.usage import history, upkeep


def connect() -> None:
    counts_written.connect(_on_counts, dispatch_uid="shargain.usage")
    sync_ended.connect(_on_sync, dispatch_uid="shargain.usage")
    audit_ended.connect(_on_audit, dispatch_uid="shargain.usage")


def _on_counts(counts: Mapping[int, int], **_: Any) -> None:
    history.write_counts(counts)


def _on_sync(report: Any, seconds: float | None = None, **_: Any) -> None:
    # One that found another at work has done nothing.
    if not report.was_running:
        upkeep.write_sync(is_complete=report.is_complete, seconds=seconds)


def _on_audit(report: Any, seconds: float | None = None, **_: Any) -> None:
    if report.repaired and report.drifts:
        history.copy_counts(drift.quota_id for drift in report.drifts)
    upkeep.write_audit(
        is_complete=report.is_complete,
        seconds=seconds,
        drifts=list(report.drifts),
        more=report.more,
        problems=report.problems,
    )
