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
    audit,
    compact,
    rebuild,
)
from quota_redis.postgres.exact import Course, ExactQuota, Spent, Work
from quota_redis.postgres.ledger import Ledger
from quota_redis.postgres.schema import install, problems
from quota_redis.postgres.sync import SyncReport, sync
from quota_redis.postgres.table import QuotaTable

__all__ = [
    "AuditReport",
    "Course",
    "Drift",
    "DriftReason",
    "ExactQuota",
    "Ledger",
    "QuotaTable",
    "Spent",
    "SyncReport",
    "Work",
    "absorb",
    "adopt",
    "audit",
    "compact",
    "install",
    "problems",
    "rebuild",
    "sync",
]
