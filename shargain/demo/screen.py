"""What a run shows: lines of progress, and a table that stays in place where there is a terminal."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, TypeAlias

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from shargain.demo.judge import Account
from shargain.printable import printable

PLAIN_SECONDS = 5.0
PLAIN_WIDTH = 120
Cell: TypeAlias = str | int | None


@dataclass(frozen=True, slots=True)
class Row:
    """A target as the live table shows it; the last four are of this run."""

    target: str
    limit: str
    used: int | None
    held: int | None
    created: int
    duplicates: int
    discarded: int
    batches_per_second: float


class Screen:
    """Writes to standard output, in plain lines where that is no terminal."""

    def __init__(self) -> None:
        self._console = Console(highlight=False)
        if not self._console.is_terminal:
            self._console.width = PLAIN_WIDTH
        self._live: Live | None = None
        self._next_line = 0.0

    def say(self, text: str) -> None:
        """One line, or more, above the table."""
        self._console.print(Text(printable(text)), soft_wrap=True)

    @contextmanager
    def live(self) -> Iterator[None]:
        """Keep the table in place during the block."""
        if not self._console.is_terminal:
            yield
            return
        with Live(console=self._console, auto_refresh=False) as self._live:
            yield
        self._live = None

    def show(self, rows: Sequence[Row], caption: str) -> None:
        """The table as it is now; without a terminal, every few seconds a line with the sums."""
        if self._live is not None:
            self._live.update(_live_table(rows, caption), refresh=True)
        elif time.monotonic() >= self._next_line:
            self._next_line = time.monotonic() + PLAIN_SECONDS
            self.say(_line(rows, caption))

    def accounts(self, accounts: Sequence[Account], title: str) -> None:
        """The figures of all quotas."""
        names = ("offers", "ledger", "Redis", "held", "count")
        table = _table(title, "quota", "target", "limit", *names)
        for a in accounts:
            limit = "unlimited" if a.limit is None else a.limit
            redis = (a.redis_used, a.redis_held)
            _add(
                table, a.quota_id, a.target, limit, a.offers, a.ledger, *redis, a.used_offers_count
            )
        table.caption = Text("Redis: its used slots. count: used_offers_count.")
        self._console.print(table)


def _live_table(rows: Sequence[Row], caption: str) -> Table:
    table = _table(
        None,
        *("target", "limit", "used", "held"),
        *("created", "duplicates", "discarded", "batches/s"),
    )
    for row in rows:
        outcomes = (row.created, row.duplicates, row.discarded)
        rate = f"{row.batches_per_second:.1f}"
        _add(table, row.target, row.limit, row.used, row.held, *outcomes, rate)
    table.caption = Text(caption)
    return table


def _line(rows: Sequence[Row], caption: str) -> str:
    rate = sum(row.batches_per_second for row in rows)
    return (
        f"{caption}: {sum(row.created for row in rows):,} created,"
        f" {sum(row.duplicates for row in rows):,} duplicates,"
        f" {sum(row.discarded for row in rows):,} discarded, {rate:.1f} batches/s"
    )


def _table(title: str | None, *names: str) -> Table:
    table = Table(title=title, title_justify="left", caption_justify="left")
    for name in names:
        is_text = name == "target"
        justify: Literal["left", "right"] = "left" if is_text else "right"
        table.add_column(name, justify=justify, no_wrap=not is_text, min_width=6)
    return table


def _add(table: Table, *cells: Cell) -> None:
    # As Text, for names come from outside and brackets in them are no markup.
    table.add_row(*(Text(_shown(cell)) for cell in cells))


def _shown(cell: Cell) -> str:
    if cell is None:
        return "-"
    return f"{cell:,}" if isinstance(cell, int) else printable(cell)
