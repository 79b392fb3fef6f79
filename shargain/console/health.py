"""Whether what quotas rest on is well: both servers, and the tasks that keep counts in step."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db import connection

from shargain.offers.services.quota import QuotaService
from shargain.usage.services import Upkeep, last_upkeep

SYNC_STALE_AFTER = timedelta(minutes=2)
AUDIT_STALE_AFTER = timedelta(minutes=30)
"""The alert rules in monitoring/ wait as long."""
MAX_DRIFTS = 20


@dataclass(frozen=True, slots=True)
class Sign:
    """One line of health: what it is about, in what state ("ok", "stale", "down"), and a sentence."""

    name: str
    state: str
    sentence: str


@dataclass(frozen=True, slots=True)
class Health:
    """The signs, and what the last audit found. `now` is by PostgreSQL's clock."""

    now: datetime
    is_redis_up: bool
    signs: tuple[Sign, ...]
    drifts: tuple[dict[str, Any], ...]
    more_drifts: int
    problems: Mapping[str, str]
    sync: Upkeep | None
    audit: Upkeep | None

    @property
    def is_good(self) -> bool:
        return all(sign.state == "ok" for sign in self.signs) and not self.problems


def health() -> Health:
    """Two queries and a PING. Raises OperationalError where PostgreSQL does not answer."""
    now, postgres = _postgres()
    is_up, redis = _redis()
    upkeep = last_upkeep()
    sync, audit = upkeep.get("sync"), upkeep.get("audit")
    drifts = audit.drifts if audit else []
    shown = drifts[:MAX_DRIFTS]
    count = max(audit.drift_count, len(drifts)) if audit else 0
    return Health(
        now=now,
        is_redis_up=is_up,
        signs=(
            postgres,
            redis,
            _run("Sync", sync, now, SYNC_STALE_AFTER),
            _run("Audit", audit, now, AUDIT_STALE_AFTER),
        ),
        drifts=tuple(shown),
        more_drifts=count - len(shown),
        problems=audit.problems if audit else {},
        sync=sync,
        audit=audit,
    )


def _postgres() -> tuple[datetime, Sign]:
    began = time.perf_counter()
    with connection.cursor() as cursor:
        cursor.execute("SELECT clock_timestamp()")
        (now,) = cursor.fetchone()
    return now, Sign("PostgreSQL", "ok", f"answers in {_milliseconds(began)}")


def _redis() -> tuple[bool, Sign]:
    began = time.perf_counter()
    if QuotaService().is_redis_up():
        return True, Sign("Redis", "ok", f"answers in {_milliseconds(began)}")
    sentence = "does not answer: offers are created as exactly and more slowly, and counts are the ledger's"
    return False, Sign("Redis", "down", sentence)


def _run(name: str, run: Upkeep | None, now: datetime, stale_after: timedelta) -> Sign:
    if run is None:
        return Sign(name, "stale", "has not run yet: look whether beat and a worker run")
    age = max(now - run.ended_at, timedelta(0))
    sentence = f"ended {_age(age)} ago"
    if age > stale_after:
        return Sign(name, "stale", f"{sentence}: look whether beat and a worker run")
    if not run.is_complete:
        return Sign(name, "stale", f"{sentence}, incomplete: Redis did not answer it")
    return Sign(name, "ok", sentence)


def _age(age: timedelta) -> str:
    seconds = int(age.total_seconds())
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"


def _milliseconds(began: float) -> str:
    return f"{(time.perf_counter() - began) * 1000:.1f} ms"
