"""Exact quotas: Redis hands out numbered slots, and PostgreSQL refuses to use a number twice.

This is the core, which needs redis-py alone: `Counters`. `quota_redis.postgres` adds the ledger that makes
counts exact under every fault, `quota_redis.django` brings both to Django models, `quota_redis.celery` the
periodic tasks, `quota_redis.testing` fixtures for tests.
"""

from quota_redis.counters import Counters
from quota_redis.errors import (
    Contention,
    Garbled,
    InsideTransaction,
    InvalidArgument,
    KeyReused,
    NotInstalled,
    QuotaError,
    QuotaInUse,
    QuotaMoved,
    SlotConflict,
    StateLost,
    Unavailable,
    WrongIsolation,
)
from quota_redis.types import Denied, Granted, NoQuota, Quota, Reason, Reservation, Usage

__all__ = [
    "Contention",
    "Counters",
    "Denied",
    "Garbled",
    "Granted",
    "InsideTransaction",
    "InvalidArgument",
    "KeyReused",
    "NoQuota",
    "NotInstalled",
    "Quota",
    "QuotaError",
    "QuotaInUse",
    "QuotaMoved",
    "Reason",
    "Reservation",
    "SlotConflict",
    "StateLost",
    "Unavailable",
    "Usage",
    "WrongIsolation",
]
