from typing import Any

from django.core.management.base import BaseCommand, CommandError

from quota_redis.django.engine import engines
from quota_redis.errors import QuotaError


class Command(BaseCommand):
    help = "Write the counts of changed subjects now, as the periodic task does."

    def handle(self, **options: Any) -> None:
        is_complete = True
        try:
            for engine in engines():
                report = engine.sync()
                is_complete = is_complete and report.is_complete
                self.stdout.write(
                    f"{engine.ledger.table.table}: {report.counts} counts of {report.subjects} subjects, "
                    f"{report.absorbed} absorbed"
                    + ("; another sync is running" if report.was_running else "")
                )
        except QuotaError as error:
            raise CommandError(str(error)) from error
        if not is_complete:
            raise CommandError("not everything was written: see the log, or run it again")
