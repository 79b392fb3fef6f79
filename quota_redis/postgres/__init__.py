"""The ledger in PostgreSQL that makes quotas exact, on any psycopg connection.

table = QuotaTable("team_quota", namespace="api", prefix="team:", subject="team_id")
install(connection, table)
exact = ExactQuota(Counters.from_url(url, namespace="api"), Ledger(table))
exact.spend(connection, "team:7", 20, work=insert)
"""

from quota_redis.postgres.absorb import absorb
from quota_redis.postgres.audit import (
    AuditReport,
    Drift,
    DriftReason,
    adopt,
    all_subjects,
    audit,
    compact,
    rebuild,
)
from quota_redis.postgres.exact import ExactQuota, Work
from quota_redis.postgres.explain import Explanation, HoldView, QuotaView, Status, examine, explain
from quota_redis.postgres.ledger import Ledger
from quota_redis.postgres.preview import Preview, preview_edit
from quota_redis.postgres.schema import install, problems
from quota_redis.postgres.spending import Course, DirectReason, Outcome, Spent
from quota_redis.postgres.sync import SyncReport, sync
from quota_redis.postgres.table import QuotaTable
from quota_redis.postgres.timeline import Span, spans

__all__ = [
    "AuditReport",
    "Course",
    "DirectReason",
    "Drift",
    "DriftReason",
    "ExactQuota",
    "Explanation",
    "HoldView",
    "Ledger",
    "Outcome",
    "Preview",
    "QuotaTable",
    "QuotaView",
    "Span",
    "Spent",
    "Status",
    "SyncReport",
    "Work",
    "absorb",
    "adopt",
    "all_subjects",
    "audit",
    "compact",
    "examine",
    "explain",
    "install",
    "preview_edit",
    "problems",
    "rebuild",
    "spans",
    "sync",
]
