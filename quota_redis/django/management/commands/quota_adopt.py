from typing import Any

from django.core.management.base import BaseCommand

from quota_redis.django.engine import engines
from quota_redis.django.management.printing import EXIT_STATUS, failing_clearly
from quota_redis.postgres import adopt


class Command(BaseCommand):
    help = (
        "Turn existing used counts into opening slots of the ledger, for a project that counted by other means. "
        "Stop the old counting first; safe to repeat. " + EXIT_STATUS
    )

    def handle(self, **options: Any) -> None:
        with failing_clearly():
            for engine in engines():
                done = adopt(engine.ledger, engine.connection())
                self.stdout.write(f"adopted {done} quotas of {engine.ledger.table.table}")
