"""Metrics for Prometheus; needs the extra `metrics`. No label is a subject or a quota, so they stay few.

In a Django project, once in each process that serves or works:

    quota_redis.metrics.connect()

Elsewhere:

    exact = ExactQuota(counters, ledger, observe=quota_redis.metrics.observe_spend)
"""

from typing import Any

from prometheus_client import Counter, Gauge, Histogram

from quota_redis.breaker import Breaker
from quota_redis.postgres import AuditReport, Course, DirectReason, DriftReason, Outcome, SyncReport

_SPEND_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_RESERVE_BUCKETS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5)
# Of several processes the one that has looked last is right.
_LATEST: Any = "mostrecent"

SPENDS = Counter(
    "quota_redis_spends_total", "Calls that spend units, by what came of them.", ["outcome"]
)
UNITS = Counter(
    "quota_redis_units_total",
    "Units of work: done (or found to need no slot), denied by a quota, or left undecided by an error.",
    ["outcome"],
)
SPEND_SECONDS = Histogram(
    "quota_redis_spend_seconds",
    "Duration of a call, its transactions and the caller's work included.",
    buckets=_SPEND_BUCKETS,
)
RESERVE_SECONDS = Histogram(
    "quota_redis_reserve_seconds",
    "Time that a call spent asking Redis for slots.",
    buckets=_RESERVE_BUCKETS,
)
CONFLICTS = Counter(
    "quota_redis_conflicts_total",
    "Transactions that the ledger refused: a slot taken, another quota.",
)
DIRECT_ROAD = Counter(
    "quota_redis_direct_road_total",
    "Calls that took slots from the ledger itself, by why.",
    ["reason"],
)
ABSORBS = Counter(
    "quota_redis_absorbs_total", "Subjects brought in line with the ledger, by who did it.", ["by"]
)
BREAKER_OPEN = Gauge(
    "quota_redis_breaker_open",
    "1 while calls are kept away from Redis because it fails.",
    multiprocess_mode=_LATEST,
)
SYNC_SUCCESS = Gauge(
    "quota_redis_sync_last_success_timestamp_seconds",
    "When a sync last wrote everything.",
    ["table"],
    multiprocess_mode=_LATEST,
)
SYNC_SECONDS = Gauge(
    "quota_redis_sync_duration_seconds",
    "Duration of the last sync.",
    ["table"],
    multiprocess_mode=_LATEST,
)
AUDIT_SUCCESS = Gauge(
    "quota_redis_audit_last_success_timestamp_seconds",
    "When an audit last compared everything.",
    ["table"],
    multiprocess_mode=_LATEST,
)
AUDIT_SECONDS = Gauge(
    "quota_redis_audit_duration_seconds",
    "Duration of the last audit.",
    ["table"],
    multiprocess_mode=_LATEST,
)
DRIFT_QUOTAS = Gauge(
    "quota_redis_drift_quotas",
    "Quotas of which the last audit found that Redis, count and ledger differ, by how.",
    ["table", "reason"],
    multiprocess_mode=_LATEST,
)
SCHEMA_PROBLEMS = Gauge(
    "quota_redis_schema_problems",
    "Gaps in the schema that the last audit found; with any, limits may not hold.",
    ["table"],
    multiprocess_mode=_LATEST,
)

# Made at once: what never happened is a zero, and the hot path looks nothing up.
_SPENDS = {outcome: SPENDS.labels(outcome.value) for outcome in Outcome}
_DIRECT = {reason: DIRECT_ROAD.labels(reason.value) for reason in DirectReason}
_DONE, _DENIED, _UNDECIDED = (UNITS.labels(word) for word in ("done", "denied", "undecided"))
_seen_open = False
_ABSORBED_BY_SPEND, _ABSORBED_BY_SYNC = ABSORBS.labels("spend"), ABSORBS.labels("sync")


def observe_spend(course: Course) -> None:
    """Count a call that has ended: for `observe` of ExactQuota."""
    _SPENDS[course.outcome].inc()
    SPEND_SECONDS.observe(course.seconds)
    RESERVE_SECONDS.observe(course.reserve_seconds)
    if done := course.wanted - course.left:
        _DONE.inc(done)
    if course.left:
        (_DENIED if course.is_denied else _UNDECIDED).inc(course.left)
    if course.went_direct and course.direct_reason:
        _DIRECT[course.direct_reason].inc()
    if course.conflicts:
        CONFLICTS.inc(course.conflicts)
    if course.absorbs:
        _ABSORBED_BY_SPEND.inc(course.absorbs)


def observe_breaker(breaker: Breaker) -> None:
    """Note whether the breaker is open: after a call, and now and then where there are none."""
    global _seen_open  # noqa: PLW0603
    _seen_open = breaker.is_open
    BREAKER_OPEN.set(_seen_open)


def observe_sync(table: str, report: SyncReport, seconds: float) -> None:
    """Note a sync of the definitions in `table`."""
    SYNC_SECONDS.labels(table).set(seconds)
    _ABSORBED_BY_SYNC.inc(report.absorbed)
    if report.is_complete:
        SYNC_SUCCESS.labels(table).set_to_current_time()


def observe_audit(table: str, report: AuditReport, seconds: float) -> None:
    """Note an audit of the definitions in `table`."""
    AUDIT_SECONDS.labels(table).set(seconds)
    SCHEMA_PROBLEMS.labels(table).set(len(report.problems))
    found = [drift.reason for drift in report.drifts]
    for reason in DriftReason:
        DRIFT_QUOTAS.labels(table, reason.value).set(found.count(reason))
    if report.is_complete:
        AUDIT_SUCCESS.labels(table).set_to_current_time()


def connect() -> None:
    """Observe every quota of a Django project from now on, in this process and in those it forks."""
    from quota_redis.django import events

    for signal, receiver in (
        (events.spend_ended, _on_spend),
        (events.sync_ended, _on_sync),
        (events.audit_ended, _on_audit),
    ):
        signal.connect(receiver, dispatch_uid=f"quota_redis.metrics.{receiver.__name__}")


def probe() -> bool:
    """Ask Redis for a sign of life and note its breaker, in a Django project; whether it answered."""
    from quota_redis.django.engine import counters
    from quota_redis.errors import Unavailable

    connection = counters().connection
    try:
        connection.command("PING")
    except Unavailable:
        return False
    finally:
        observe_breaker(connection.breaker)
    return True


def _on_spend(course: Course, **_: Any) -> None:
    from quota_redis.django.engine import counters

    observe_spend(course)
    breaker = counters().connection.breaker
    # Elsewhere it is noted every few seconds; here only news is worth its time.
    if breaker.is_open != _seen_open:
        observe_breaker(breaker)


def _on_sync(sender: Any, report: SyncReport, seconds: float, **_: Any) -> None:
    from quota_redis.django.engine import counters

    observe_sync(sender._meta.db_table, report, seconds)
    observe_breaker(counters().connection.breaker)


def _on_audit(sender: Any, report: AuditReport, seconds: float, **_: Any) -> None:
    observe_audit(sender._meta.db_table, report, seconds)
