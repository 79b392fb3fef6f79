import getpass
import os
import sys
from argparse import ArgumentParser, ArgumentTypeError
from datetime import datetime
from typing import Any

from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError

from quota_redis.django.editing import editing
from quota_redis.django.engine import Engine, definition_models, engine_for
from quota_redis.django.management.printing import (
    DIFFERS,
    EXIT_STATUS,
    OUTAGE,
    USAGE,
    escaped,
    failing_clearly,
    parse_moment,
)
from quota_redis.django.models import QuotaDefinition
from quota_redis.types import MAX_LIMIT

KEEP = object()
"""No --end was given."""


class Command(BaseCommand):
    help = (
        "Create the quota of a subject that starts at --start, or change it; what was used stays counted. "
        "Shows what it does before it does it. Done again, it changes nothing. " + EXIT_STATUS
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("subject", help="as `target:42`")
        parser.add_argument(
            "--limit", type=_limit, required=True, metavar="N", help="units, or `unlimited`"
        )
        parser.add_argument(
            "--start",
            type=parse_moment,
            required=True,
            metavar="TIME",
            help="the first moment that counts, in ISO 8601 with a time zone: 2026-01-31T00:00:00Z",
        )
        parser.add_argument(
            "--end",
            type=_end,
            default=KEEP,
            metavar="TIME",
            help="the first moment that no longer counts, or `none`; left out, an existing quota keeps its own",
        )
        parser.add_argument("--reason", default="", metavar="TEXT", help="why, for the history")
        parser.add_argument(
            "--dry-run", action="store_true", help="say what it would do, and do nothing"
        )
        parser.add_argument(
            "--yes",
            action="store_true",
            help="do it, also where it stops creation or leaves the subject without a limit",
        )
        parser.add_argument(
            "--model",
            metavar="APP.MODEL",
            help="the definition model, where the project has several",
        )

    def handle(self, **options: Any) -> None:
        with failing_clearly():
            engine = _engine(options["model"])
            quota = _quota(engine, options)
            self._preview(engine, quota, options)
            if options["dry_run"]:
                self.stdout.write("Nothing was changed.")
                return
            self._save(quota, options)

    def _preview(self, engine: Engine, quota: QuotaDefinition, options: dict[str, Any]) -> None:
        names = quota.quota
        preview = engine.preview_edit(
            options["subject"],
            quota.pk,
            limit=options["limit"],
            start=options["start"],
            end=getattr(quota, names.end),
        )
        for sentence in preview.sentences:
            self.stdout.write(escaped(sentence))
        if preview.is_dangerous and not options["dry_run"] and not options["yes"]:
            self._ask()

    def _ask(self) -> None:
        if not sys.stdin.isatty():
            raise CommandError("This is dangerous: repeat it with --yes.", returncode=USAGE)
        if input("This is dangerous. Do it? [y/N] ").strip().lower() not in ("y", "yes"):
            raise CommandError("Nothing was changed.", returncode=DIFFERS)

    def _save(self, quota: QuotaDefinition, options: dict[str, Any]) -> None:
        is_new = quota.pk is None
        given = [quota.quota.limit, *([] if options["end"] is KEEP else [quota.quota.end])]
        with editing(f"command quota_set ({_user()})", options["reason"]):
            try:
                # Somebody else may have edited the rest since it was read.
                quota.save(update_fields=None if is_new else given)
            except DatabaseError as error:
                is_outage = getattr(error.__cause__, "sqlstate", None) is None
                raise CommandError(
                    escaped(str(error)), returncode=OUTAGE if is_outage else DIFFERS
                ) from error
        self.stdout.write(f"Quota {quota.pk} was {'created' if is_new else 'saved'}.")


def _engine(label: str | None) -> Engine:
    models = definition_models()
    chosen = [model for model in models if label is None or model._meta.label == label]
    if len(chosen) == 1:
        return engine_for(chosen[0])
    labels = ", ".join(model._meta.label for model in models) or "none"
    raise CommandError(
        f"give --model one of the project's definition models: {labels}.", returncode=USAGE
    )


def _quota(engine: Engine, options: dict[str, Any]) -> QuotaDefinition:
    """The quota with this start as it is to be, made or changed, and not saved."""
    names = engine.model.quota
    key = {
        names.subject: engine.ledger.table.value(options["subject"]),
        names.start: options["start"],
    }
    engine.reading()
    try:
        quota = engine.model.objects.filter(**key).first() or engine.model(**key)
        setattr(quota, names.limit, options["limit"])
        if options["end"] is not KEEP:
            setattr(quota, names.end, options["end"])
        quota.full_clean()
    except (ValidationError, ValueError) as error:
        raise CommandError(escaped(_sentence(error)), returncode=USAGE) from error
    return quota


def _sentence(error: Exception) -> str:
    if not isinstance(error, ValidationError):
        return str(error)
    named = error.message_dict if hasattr(error, "error_dict") else {"": error.messages}
    return " ".join(
        f"{field}: {message}".removeprefix(": ")
        for field, messages in named.items()
        for message in messages
    )


def _limit(text: str) -> int | None:
    if text == "unlimited":
        return None
    if not text.isascii() or not text.isdecimal() or int(text) > MAX_LIMIT:
        raise ArgumentTypeError(
            f"{escaped(text)!r} is no limit: give an integer from 0 to {MAX_LIMIT}, or `unlimited`."
        )
    return int(text)


def _end(text: str) -> datetime | None:
    return None if text == "none" else parse_moment(text)


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())
