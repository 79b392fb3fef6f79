"""A mutant: a shipped file with one mistake in it."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

ROOT = Path(__file__).resolve().parents[2]

Edit = tuple[int, int, str]
"""Offsets of what is replaced in the file's text, and what stands there instead."""


class StaleMutant(Exception):  # noqa: N818  a name says what is wrong
    """The text that a mutant changes is not, or not only once, in its file; the list has to follow the code."""


@dataclass(frozen=True, slots=True)
class Mutant:
    """`name` says what is wrong in a deliberate one, and is the change itself in one that a tool made.

    `why` says by which promise it must be caught; a made one has none.
    """

    kind: Literal["deliberate", "made"]
    name: str
    file: str
    line: int
    edits: tuple[Edit, ...]
    why: str = ""

    @property
    def key(self) -> str:
        """Names it in results and judgements; survives edits elsewhere in the file."""
        return f"{self.file}: {self.name}"

    def applied_to(self, text: str) -> str:
        for start, end, new in sorted(self.edits, reverse=True):
            text = text[:start] + new + text[end:]
        return text


@cache
def read(file: str) -> str:
    """A file of the tree, as it was when it was first read: offsets of mutants hold for that text."""
    return (ROOT / file).read_text(encoding="utf-8")


@dataclass(frozen=True, slots=True)
class Mistake:
    """In `file` every `old`, which is there once, becomes its `new`."""

    file: str
    name: str
    why: str
    changes: tuple[tuple[str, str], ...]

    def mutant(self) -> Mutant:
        """Raises StaleMutant where the code has moved on."""
        text, edits = read(self.file), []
        for old, new in self.changes:
            if text.count(old) != 1:
                raise StaleMutant(f"{self.file} has {text.count(old)} times, not once: {old!r}")
            edits.append((text.index(old), text.index(old) + len(old), new))
        line = text.count("\n", 0, edits[0][0]) + 1
        return Mutant("deliberate", self.name, self.file, line, tuple(edits), self.why)
