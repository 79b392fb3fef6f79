"""Benchmarks: `scripts/bench` runs cases, each in a process of its own, and judges what they found.

A module with cases has `cases() -> tuple[Case, ...]`, and is named in `shargain.demo.bench.process.MODULES`:

    def cases() -> tuple[Case, ...]:
        return (Case("stocks", "Units from a local stock", run, bars=(
            Bar("a stock against a round trip", "stock over round trip", at_least=10),
        )),)

    def run(bench: Bench) -> Result:
        valkey = bench.valkey()                      # runs until the case ends, so does bench.postgres()
        with bench.on_one_core(valkey.pid):          # only while client and server take turns
            speeds = interleaved({"stock": ..., "round trip": ...}, bench.rounds)  # see `rounds`
        return Result(
            figures={"stock over round trip": ratio(speeds["stock"], speeds["round trip"])},
            tables=[Table("One thread", ["", "calls/s"], [["stock", 2_600_000]])],
        )

A case may set the environment and django.setup(): the process is its own, and the environment names no server.
What is imported here must work without the peers, which only `.venv-bench` has; a case imports them when it runs.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol, TypeAlias

from shargain.demo.servers import Postgres, Valkey

__all__ = [
    "Bar",
    "Bench",
    "Case",
    "Curve",
    "Figure",
    "Result",
    "SkippedError",
    "Table",
    "paragraphs",
]

Cell: TypeAlias = str | int | float | None


class SkippedError(Exception):
    """A case cannot run here; the text says why."""


def paragraphs(text: str) -> tuple[str, ...]:
    """Notes as they are written in the source: in lines, with an empty one between two of them."""
    return tuple(" ".join(part.split()) for part in text.strip().split("\n\n"))


@dataclass(frozen=True, slots=True)
class Figure:
    """A number that a case found: the median of its rounds, with the lowest and the highest.

    unit: "x" for a ratio within the run; others ("bytes", "s", "/s", "us") as they are to be shown.
    better: which way is better. slack: by what share `--check` lets it be worse than recorded; None where
    it depends on the machine and is not compared. Ratios and bytes should be compared, speeds should not.
    """

    median: float
    low: float
    high: float
    unit: str = "x"
    better: Literal["higher", "lower"] = "higher"
    slack: float | None = 0.15


@dataclass(frozen=True, slots=True)
class Bar:
    """What a figure of the case has to reach: `at_least` or `at_most`, and better still `aim`."""

    what: str
    figure: str
    at_least: float | None = None
    at_most: float | None = None
    aim: float | None = None


@dataclass(frozen=True, slots=True)
class Table:
    """Rows to be shown, the first cell of each being its name."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]


@dataclass(frozen=True, slots=True)
class Curve:
    """A plot: of each series one y for each x; None where it was not measured. Axes are logarithmic where said."""

    name: str
    title: str
    x_label: str
    y_label: str
    x: Sequence[float]
    series: dict[str, Sequence[float | None]]
    log_x: bool = True
    log_y: bool = False


@dataclass(frozen=True, slots=True)
class Result:
    """What a case found. Notes are sentences for the reader, as what a peer does not do."""

    figures: dict[str, Figure] = field(default_factory=dict)
    tables: Sequence[Table] = ()
    curves: Sequence[Curve] = ()
    notes: Sequence[str] = ()


class Bench(Protocol):
    """What a case gets. Servers and folder are its own, and go when it ends."""

    is_full: bool
    """Whether all of it is wanted, or what three minutes for all cases allow."""
    rounds: int
    """Interleaved rounds of a comparison: odd."""
    folder: Path
    """An empty folder."""

    def valkey(self, *, persistent: bool = False, **settings: str) -> Valkey:
        """A new Valkey that runs; settings with '_' for '-'."""

    def postgres(self, **settings: str) -> Postgres:
        """A new PostgreSQL that runs, with fsync and synchronous_commit on unless the settings say otherwise."""

    def on_one_core(self, *pids: int) -> AbstractContextManager[None]:
        """This process and those with these pids share one core, so that a ratio does not depend on
        where the kernel puts them."""

    def on_two_cores(self, *pids: int) -> AbstractContextManager[None]:
        """This process has one core, and those with these pids another, as on machines of their own."""

    def say(self, text: str) -> None:
        """Tell whoever waits how far it is."""


@dataclass(frozen=True, slots=True)
class Case:
    """One thing to measure; its name is a word for the command line."""

    name: str
    title: str
    run: Callable[[Bench], Result]
    bars: tuple[Bar, ...] = ()
    is_quick: bool = True
    """Whether the quick mode takes it without being asked to."""
