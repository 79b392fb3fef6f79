"""What a program without Django does with the package; prints what came of it."""

import json
import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

# Whoever installs the core alone has none of these.
for name in ("django", "django_redis", "celery", "psycopg", "pytest", "fakeredis"):
    sys.modules[name] = None  # type: ignore[assignment]

import quota_redis  # noqa: E402
from quota_redis import Counters, Quota, scripts  # noqa: E402

START = datetime(2020, 1, 1, tzinfo=UTC)
counters = Counters.from_url(os.environ["REDIS_URL"], namespace=uuid4().hex, timeout=5.0)
counters.define("team:7", Quota(id=1, limit=10, start=START))
counters.consume("team:7", 3, key="job")
reservation = counters.reserve("team:7", 5)
counters.settle(reservation, 2)  # type: ignore[arg-type]
told = {
    "package": str(Path(quota_redis.__file__).parent),
    "lua": str(scripts.folder()),
    "used": counters.usage("team:7")[1].used,
}

del sys.modules["psycopg"]
import psycopg  # noqa: E402

from quota_redis.postgres import ExactQuota, Ledger, QuotaTable, install  # noqa: E402

table = QuotaTable("team_quota", namespace="api", prefix="team:", subject="team_id")
exact = ExactQuota(counters, Ledger(table))
with psycopg.connect(os.environ["DATABASE_URL"], autocommit=True) as connection:
    connection.execute(
        """CREATE TABLE team_quota (id bigserial PRIMARY KEY, team_id bigint, quota_limit bigint,
        used bigint DEFAULT 0, period_start timestamptz, period_end timestamptz)"""
    )
    install(connection, table)
    connection.execute("INSERT INTO team_quota VALUES (DEFAULT, 8, 4, 0, '2020-01-01')")
    told["spent"] = [exact.spend(connection, "team:8", 3, lambda n: n).used for _ in range(3)]

print(json.dumps(told))
