from argparse import ArgumentParser
from contextlib import closing
from typing import Any

from django.core.management.base import BaseCommand

from quota_redis.django.management.printing import (
    EXIT_STATUS,
    Progress,
    as_json,
    engine_of,
    engines_of,
    failing_clearly,
)


class Command(BaseCommand):
    help = (
        "Forget what Redis has of subjects and load it from the ledger. Safe under load. "
        + EXIT_STATUS
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("subjects", nargs="*", help="as `target:42`; none means all")
        parser.add_argument("--json", action="store_true", help="print what was done as JSON")

    def handle(self, **options: Any) -> None:
        with failing_clearly(), closing(Progress(self.stderr, "subjects")) as progress:
            chosen = engines_of(options["subjects"])
            for subject in options["subjects"]:
                engine_of(subject)
            for engine, names in chosen:
                done = engine.rebuild(names, progress=progress)
                table = engine.ledger.table.table
                self.stdout.write(
                    as_json({"table": table, "subjects": done})
                    if options["json"]
                    else f"rebuilt {done} subjects of {table}"
                )
