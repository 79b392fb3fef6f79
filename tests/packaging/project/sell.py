"""Migrates, checks, defines a quota, spends it, syncs and audits, in a project that is not shargain.

Prints what came of it, then migrates away and back. Whatever is wrong ends it with an exception.
"""

import json
import os
from datetime import UTC, datetime

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "club_settings")
django.setup()

from django.core.management import call_command  # noqa: E402
from seats.models import SeatQuota  # noqa: E402

from quota_redis.celery import quota_sync  # noqa: E402
from quota_redis.django.engine import engine_for  # noqa: E402


def migrate(*where: str) -> None:
    call_command("migrate", *where, verbosity=0)


def check() -> None:
    call_command("check", databases=["default"], fail_level="WARNING")


migrate()
check()
call_command("makemigrations", check_changes=True, dry_run=True)

quota = SeatQuota.objects.create(room="blue größe", seats=5, opens=datetime(2020, 1, 1, tzinfo=UTC))
engine = engine_for(SeatQuota)
engine.counters.connection.client.flushdb()
sold = [
    engine.exact.spend(engine.connection(), quota.subject, 2, lambda allowed: allowed).used
    for _ in range(4)
]
engine.counters.flush()
quota_sync()
quota.refresh_from_db()
call_command("quota_audit")
print(json.dumps({"subject": quota.subject, "sold": sold, "column": quota.sold}))

migrate("seats", "zero")
migrate("quota_redis", "zero")
migrate()
check()
