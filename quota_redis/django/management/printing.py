"""What the commands share: what they print, and how they end.

Exit status: 0 all is well, 1 something differs or nothing was found, 2 wrong usage, 3 a server is out of reach.
"""

import json
import time
from argparse import ArgumentTypeError
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass
from datetime import UTC, datetime
from typing import Any

from django.core.management.base import CommandError, OutputWrapper
from django.db.models import ForeignKey, Model, QuerySet

from quota_redis.django.engine import Engine, engines
from quota_redis.errors import InsideTransaction, InvalidArgument, QuotaError, Unavailable

DIFFERS, USAGE, OUTAGE = 1, 2, 3
EXIT_STATUS = (
    "Exit status: 0 all is well, 1 something differs or nothing was found, 2 wrong usage, "
    "3 a server is out of reach."
)


@contextmanager
def failing_clearly() -> Iterator[None]:
    """Errors of the quota system as errors of a command, with their exit status."""
    try:
        yield
    except (InvalidArgument, InsideTransaction) as error:
        raise CommandError(escaped(str(error)), returncode=USAGE) from error
    except Unavailable as error:
        raise CommandError(escaped(str(error)), returncode=OUTAGE) from error
    except QuotaError as error:
        raise CommandError(escaped(str(error)), returncode=DIFFERS) from error


def escaped(text: str) -> str:
    """The text with everything escaped that could steer a terminal."""
    return "".join(
        char if char.isprintable() or char == "\n" else char.encode("unicode_escape").decode()
        for char in text
    )


def as_json(value: Any) -> str:
    """One line of JSON; moments in ISO 8601. A dataclass becomes an object."""
    return json.dumps(value, default=_plain)


def _plain(value: object) -> object:
    if isinstance(value, datetime):
        return value.isoformat()
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    raise TypeError(f"{value!r} cannot be written as JSON.")


def row(cells: Sequence[object], widths: Sequence[int]) -> str:
    """A line of a table: numbers and what stands for them to the right, the rest to the left."""
    parts = [
        f"{escaped(str(cell)):>{width}}" if width > 0 else f"{escaped(str(cell)):<{-width}}"
        for cell, width in zip(cells, widths, strict=True)
    ]
    return "  ".join(parts).rstrip()


def number(value: int | None, none: str = "unlimited") -> str:
    return none if value is None else f"{value:,}"


def moment(value: datetime | None, none: str = "no end") -> str:
    return none if value is None else f"{value.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


def parse_moment(text: str) -> datetime:
    """A moment in ISO 8601, which must say its time zone."""
    try:
        value = datetime.fromisoformat(text)
    except ValueError as error:
        raise ArgumentTypeError(
            f"{escaped(text)!r} is no time: write it as 2026-01-31T12:00:00Z."
        ) from error
    if value.utcoffset() is None:
        raise ArgumentTypeError(
            f"{escaped(text)!r} has no time zone: add Z or an offset, as in 2026-01-31T12:00:00Z."
        )
    return value


class Progress:
    """How far something long is: a line that is written anew on a terminal, else one a second at most."""

    def __init__(self, stream: OutputWrapper, what: str) -> None:
        self._stream = stream
        self._what = what
        self._is_terminal = stream.isatty()
        self._last = time.monotonic()
        self._is_open = False

    def __call__(self, done: int) -> None:
        now = time.monotonic()
        if now - self._last < (0.1 if self._is_terminal else 1):
            return
        self._last = now
        line = f"{done:,} {self._what}"
        if self._is_terminal:
            self._stream.write(f"\r{line}", ending="")
            self._stream.flush()
            self._is_open = True
        else:
            self._stream.write(line)

    def close(self) -> None:
        """Leave the line, where one was written."""
        if self._is_open:
            self._stream.write("")


def engines_of(subjects: Sequence[str]) -> list[tuple[Engine, list[str] | None]]:
    """The engines, each with those of the subjects that are its; None for all where none is named.

    Raises CommandError for one that can be nobody's.
    """
    found = list(engines())
    if not subjects:
        return [(engine, None) for engine in found]
    for subject in subjects:
        if not any(engine.ledger.is_subject(subject) for engine in found):
            prefixes = ", ".join(repr(engine.ledger.table.prefix) for engine in found)
            raise CommandError(
                f"subject {escaped(subject)!r} is none: give the prefix ({prefixes}) and an id.",
                returncode=USAGE,
            )
    chosen = [(e, [s for s in subjects if e.ledger.is_subject(s)]) for e in found]
    return [(engine, names) for engine, names in chosen if names]


def engine_of(subject: str) -> Engine:
    """The engine that has the subject. Raises CommandError where none has ever seen it."""
    [(engine, _), *_] = engines_of([subject])
    if not is_known(engine, subject):
        raise CommandError(f"There is no {escaped(subject)}.", returncode=DIFFERS)
    return engine


def is_known(engine: Engine, subject: str) -> bool:
    """Whether the subject ever had a quota, or is the key of a row that may have one."""
    if engine.ledger.version(engine.reading(), subject):
        return True
    names = engine.model.quota
    field = engine.model._meta.get_field(names.subject.removesuffix("_id"))
    if not isinstance(field, ForeignKey):
        return False
    key = {field.target_field.name: engine.ledger.table.value(subject)}
    related: type[Model] = field.related_model
    return QuerySet(related, using=engine.database).filter(**key).exists()
