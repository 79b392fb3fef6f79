"""Logs: lines for people or for machines, and fields that follow a batch through all that is logged about it."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from types import MappingProxyType
from typing import Any, Final, Literal, TypeAlias

from pythonjsonlogger.json import JsonFormatter

from shargain.printable import RecordFormatter

Format: TypeAlias = Literal["text", "json"]
FORMATS: Final = ("text", "json")
NAMES: Final = (
    "timestamp", "level", "logger", "message", "batch_id", "target_id", "quota_id", "task_id", "road",
    "conflicts", "exc_info", "stack_info",
)  # fmt: skip
"""The fields of a record as JSON; those that it does not have are left out."""
TEXT_FORMAT = "%(asctime)s %(levelname)s %(name)s %(message)s"

_fields: ContextVar[Mapping[str, Any]] = ContextVar("fields", default=MappingProxyType({}))


@contextmanager
def fields(**values: str | int | None) -> Iterator[None]:
    """Give these fields to every record that is logged inside, by whatever package; None is left out."""
    known = {name: value for name, value in values.items() if value is not None}
    token = _fields.set({**_fields.get(), **known})
    try:
        yield
    finally:
        _fields.reset(token)


class FieldsFilter(logging.Filter):
    """For a handler: adds the fields. What a record says itself comes first."""

    def filter(self, record: logging.LogRecord) -> bool:
        for name, value in _fields.get().items():
            record.__dict__.setdefault(name, value)
        return True


class _Json(JsonFormatter):
    """Writes the named fields alone: what other packages attach may be secret, large, or no value at all.

    Everything beyond ASCII is escaped, line breaks and what steers a terminal too: one record, one line.
    """

    def process_log_record(self, log_data: dict[str, Any]) -> dict[str, Any]:
        return {name: log_data[name] for name in NAMES if log_data.get(name) is not None}


def formatter(kind: Format, text_format: str = TEXT_FORMAT) -> logging.Formatter:
    """The formatter that no text from outside can make a second record with, in either format."""
    if kind == "text":
        return RecordFormatter(text_format)
    return _Json(
        ["levelname", "name", "message"],
        rename_fields={"levelname": "level", "name": "logger"},
        timestamp=True,
        json_ensure_ascii=True,
    )
