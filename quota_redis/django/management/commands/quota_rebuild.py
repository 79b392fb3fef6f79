from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from quota_redis.django.engine import engines
from quota_redis.errors import QuotaError


class Command(BaseCommand):
    help = "Forget what Redis has of subjects and load it from the ledger. Safe under load."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("subjects", nargs="*", help="as `target:42`; none means all")

    def handle(self, **options: Any) -> None:
        subjects = options["subjects"] or None
        try:
            for engine in engines():
                done = engine.rebuild(
                    subjects, progress=lambda n: self.stderr.write(f"{n} subjects")
                )
                self.stdout.write(f"rebuilt {done} subjects of {engine.ledger.table.table}")
        except QuotaError as error:
            raise CommandError(str(error)) from error
