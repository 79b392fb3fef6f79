"""Quotas as CSV: written so that a spreadsheet runs nothing of it, and read with an error for each line at fault.

A quota is known by its target and its start, as for `set_new_quota`. A file that was exported and comes back
unedited changes nothing.
"""

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from shargain.console.changes import Change, Values, all_quotas
from shargain.offers.models import MAX_LIMIT, OfferQuota, ScrapingTarget
from shargain.offers.services.edits import MAX_WHY

COLUMNS = (
    "target_id",
    "target_name",
    "max_offers_per_period",
    "period_start",
    "period_end",
    "reason",
)
OPTIONAL = frozenset({"target_name", "reason"})
MAX_BYTES = 1_000_000
MAX_LINES = 5_000
MAX_ERRORS = 100
"""Errors that are shown; a file with this many is not read on."""
FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""What a cell begins with that a spreadsheet takes for a formula."""
_SHOWN = 40


@dataclass(frozen=True, slots=True)
class LineError:
    """What is wrong at a line of the file, and what to do."""

    line: int
    message: str


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the file, read and not yet compared with what stands."""

    line: int
    target_id: int
    target_name: str
    limit: int | None
    start: datetime
    end: datetime | None
    why: str

    def packed(self) -> dict[str, Any]:
        """For JSON."""
        row = asdict(self)
        end = self.end.isoformat() if self.end else None
        return {**row, "start": self.start.isoformat(), "end": end}

    @classmethod
    def unpacked(cls, row: dict[str, Any]) -> "Row":
        start, end = datetime.fromisoformat(row["start"]), row["end"]
        return cls(**{**row, "start": start, "end": datetime.fromisoformat(end) if end else None})


@dataclass(frozen=True, slots=True)
class DryRun:
    """What a file would do. With errors it does nothing."""

    changes: tuple[Change, ...]
    unchanged: int
    errors: tuple[LineError, ...]

    @property
    def created(self) -> int:
        return sum(change.before is None for change in self.changes)

    @property
    def changed(self) -> int:
        return len(self.changes) - self.created


class _Wrong(Exception):  # noqa: N818
    """A line that cannot be read; the text says why and what to do."""


def export(quotas: Iterable[OfferQuota]) -> Iterator[str]:
    """The lines of a CSV file, the first with a mark by which spreadsheets know UTF-8."""
    yield "\ufeff" + _line(COLUMNS)
    for quota in quotas:
        limit, end = quota.max_offers_per_period, quota.period_end
        yield _line(
            (
                str(quota.target_id),
                guarded(quota.target.name),
                "" if limit is None else str(limit),
                quota.period_start.isoformat(),
                end.isoformat() if end else "",
                "",
            )
        )


def read(content: bytes) -> tuple[list[Row], list[LineError]]:
    """The rows of a file, and what is wrong with the lines that make none."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        return [], [LineError(line, "This is not UTF-8: save the file as 'CSV UTF-8'.")]
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    rows: list[Row] = []
    errors: list[LineError] = []
    try:
        header = _header(next(reader, []))
        _read_lines(reader, header, rows, errors)
    except _Wrong as wrong:
        errors.append(LineError(1, str(wrong)))
    except csv.Error as error:
        message = f"This is no CSV from here on ({error}): look for a quote that is not closed."
        errors.append(LineError(max(reader.line_num, 1), message))
    return rows, errors


def dry_run(rows: Sequence[Row], errors: Sequence[LineError] = ()) -> DryRun:
    """Compare rows with the quotas that stand. Two queries."""
    names = dict(
        ScrapingTarget.objects.filter(pk__in={row.target_id for row in rows}).values_list(
            "pk", "name"
        )
    )
    standing = {
        (quota.target_id, quota.period_start): quota
        for quota in all_quotas().filter(
            target__in=names, period_start__in={row.start for row in rows}
        )
    }
    changes, found = [], list(errors)
    for row in rows:
        wrong = _disagrees(row, names)
        if wrong:
            found.append(LineError(row.line, wrong))
            continue
        change = _change(row, names[row.target_id], standing.get((row.target_id, row.start)))
        if change.before != change.after:
            changes.append(change)
    found.sort(key=lambda error: error.line)
    unchanged = len(rows) + len(errors) - len(found) - len(changes)
    return DryRun(tuple(changes), unchanged, tuple(found))


def guarded(text: str) -> str:
    """A cell that no spreadsheet takes for a formula: a quote stands before what looks like one."""
    return f"'{text}" if text.startswith((*FORMULA, "'")) else text


def unguarded(text: str) -> str:
    """What `guarded` was given."""
    return text[1:] if text[:1] == "'" and text[1:].startswith((*FORMULA, "'")) else text


def _line(cells: Sequence[str]) -> str:
    line = io.StringIO()
    csv.writer(line).writerow(cells)
    return line.getvalue()


def _header(cells: Sequence[str]) -> list[str]:
    names = [cell.strip() for cell in cells]
    if not any(names):
        raise _Wrong(f"The file is empty: its first line names the columns, {', '.join(COLUMNS)}.")
    if len(names) == 1:
        for sign, word in ((";", "semicolons"), ("\t", "tabs"), ("|", "bars")):
            if sign in names[0]:
                raise _Wrong(f"The columns are separated by {word}: save the file with commas.")
    missing = [name for name in COLUMNS if name not in names and name not in OPTIONAL]
    if missing:
        raise _Wrong(
            f"The column {missing[0]} is missing: the first line names {', '.join(COLUMNS)}."
        )
    for name in names:
        if name not in COLUMNS:
            raise _Wrong(f"The column {_short(name)} is none of ours: remove or rename it.")
        if names.count(name) > 1:
            raise _Wrong(f"The column {name} is there twice: remove one of them.")
    return names


def _read_lines(
    reader: Any, header: Sequence[str], rows: list[Row], errors: list[LineError]
) -> None:
    seen: dict[tuple[int, datetime], int] = {}
    line = reader.line_num + 1
    for cells in reader:
        if any(cell.strip() for cell in cells):
            if len(rows) + len(errors) >= MAX_LINES:
                message = f"The file has more than {MAX_LINES:,} lines: cut it into several."
                errors.append(LineError(line, message))
                return
            try:
                rows.append(_row(line, header, cells, seen))
            except _Wrong as wrong:
                errors.append(LineError(line, str(wrong)))
        if len(errors) >= MAX_ERRORS:
            errors.append(LineError(line, "There may be more errors: repair these first."))
            return
        line = reader.line_num + 1


def _row(
    line: int, header: Sequence[str], cells: Sequence[str], seen: dict[tuple[int, datetime], int]
) -> Row:
    if len(cells) != len(header):
        raise _Wrong(f"There are {len(cells)} cells: give {len(header)}, as in the first line.")
    cell = {name: text.strip() for name, text in zip(header, cells, strict=True)}
    target_id = _integer("target_id", cell["target_id"], 1, 2**63 - 1)
    limit = cell["max_offers_per_period"]
    start = _moment("period_start", cell["period_start"])
    end = _moment("period_end", cell["period_end"]) if cell["period_end"] else None
    if end is not None and end <= start:
        raise _Wrong(f"period_end {_short(cell['period_end'])} is not after period_start.")
    first = seen.setdefault((target_id, start), line)
    if first != line:
        raise _Wrong(f"This is the same target and period_start as line {first}: remove one.")
    return Row(
        line=line,
        target_id=target_id,
        target_name=cell.get("target_name", ""),
        limit=_integer("max_offers_per_period", limit, 0, MAX_LIMIT) if limit else None,
        start=start,
        end=end,
        why=_reason(unguarded(cell.get("reason", ""))),
    )


def _integer(name: str, text: str, lowest: int, highest: int) -> int:
    is_number = text.isascii() and text.isdecimal() and len(text) <= _SHOWN
    if not is_number or not lowest <= int(text) <= highest:
        raise _Wrong(f"{name} is {_short(text)}: give {lowest} to {highest:,}, digits alone.")
    return int(text)


def _moment(name: str, text: str) -> datetime:
    cure = "give it as 2026-01-31T00:00:00+00:00"
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise _Wrong(f"{name} is {_short(text)}: {cure}.") from None
    if moment.utcoffset() is None:
        raise _Wrong(f"{name} is {_short(text)}, without a time zone: {cure}.")
    if not 1 < moment.year < 9999:
        raise _Wrong(f"{name} is {_short(text)}: give a year from 2 to 9998.")
    return moment


def _reason(text: str) -> str:
    if len(text) > MAX_WHY:
        raise _Wrong(f"reason has {len(text):,} characters: give at most {MAX_WHY:,}.")
    if "\0" in text:
        raise _Wrong("reason has a NUL character: remove it.")
    return text


def _disagrees(row: Row, names: dict[int, str]) -> str:
    """What is wrong with a row's target; nothing where it is right."""
    name = names.get(row.target_id)
    if name is None:
        return f"There is no target {row.target_id}: look its number up in the list of targets."
    if row.target_name and unguarded(row.target_name) != name.strip():
        return (
            f"Target {row.target_id} is {_short(name)}, not {_short(unguarded(row.target_name))}:"
            " correct target_id, or leave target_name empty."
        )
    return ""


def _change(row: Row, name: str, quota: OfferQuota | None) -> Change:
    return Change(
        target_id=row.target_id,
        target_name=name,
        quota_id=quota.pk if quota else None,
        before=Values.of(quota) if quota else None,
        after=Values(row.limit, row.start, row.end),
        used=quota.used_offers_count if quota else 0,
        line=row.line,
        why=row.why,
    )


def _short(text: str) -> str:
    return repr(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}...")
