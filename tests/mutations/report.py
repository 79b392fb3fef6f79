"""What became of the mutants: kept between runs as a file of lines, and written as tables."""

import json
import re
import tomllib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path

from tests.mutations.bench_copy import Outcome
from tests.mutations.mutant import Mutant

JUDGEMENTS = Path(__file__).parent / "judgements.toml"
INTRODUCTION = """# Mutations

A test that cannot fail proves nothing. Here mistakes are put into the shipped Lua, SQL and Python, one at a time,
in a copy of the tree; the tests that could see each run on real servers until one fails. A mutant that all of them
let pass has survived, and is judged below.

This page is written by `.venv/bin/python -m tests.mutations --jobs 2 --report docs/mutations.md`, about an hour on
two cores; `--only WORD` tries single ones. The tests are those of `tests/core`, `tests/ledger`, `tests/django_app`
and `tests/offers` but for one dear one, then the short search over interleavings: for each file those that use its
code at all (`tests/mutations/selection.py`). Mutants of the tool are drawn by a seed from all that it can make.
Judgements are in `tests/mutations/judgements.toml`; the command fails where one is missing.
"""


class Results:
    """Outcomes by mutant, appended to a file where one is named; what stands there already counts."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._found: dict[str, Outcome] = {}
        if path and path.exists():
            for line in path.read_text(encoding="utf-8").splitlines():
                entry = json.loads(line)
                key = entry.pop("mutant")
                self._found[key] = Outcome(**entry)

    def add(self, mutant: Mutant, outcome: Outcome) -> None:
        self._found[mutant.key] = outcome
        if self._path:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"mutant": mutant.key, **asdict(outcome)}) + "\n")

    def by(self, mutant: Mutant) -> str:
        return self._found[mutant.key].by if mutant.key in self._found else ""

    def seconds(self, mutant: Mutant) -> float:
        return self._found[mutant.key].seconds if mutant.key in self._found else 0.0

    def verdict(self, mutant: Mutant) -> str:
        """`killed` (a hang counts as one), `survived`, or `untried`."""
        outcome = self._found.get(mutant.key)
        if outcome is None:
            return "untried"
        return "survived" if outcome.verdict == "survived" else "killed"


def judgements() -> dict[str, str]:
    """A sentence on each survivor, now or of an earlier run, by the mutant's key."""
    entries = tomllib.loads(JUDGEMENTS.read_text(encoding="utf-8")).get("survivor", [])
    return {f"{entry['file']}: {entry['change']}": entry["judgement"] for entry in entries}


def write_report(path: Path, mutants: Sequence[Mutant], results: Results, drawn_by: str) -> None:
    tried = [mutant for mutant in mutants if results.verdict(mutant) != "untried"]
    made = [mutant for mutant in tried if mutant.kind == "made"]
    deliberate = [mutant for mutant in tried if mutant.kind == "deliberate"]
    parts = [
        INTRODUCTION,
        _figures(deliberate, made, results, drawn_by),
        _deliberate(deliberate, results),
        _by_file(made, results),
        _survivors(tried, results),
        _killed_since(made, results),
    ]
    path.write_text("\n".join(parts), encoding="utf-8")


def _figures(
    deliberate: Sequence[Mutant], made: Sequence[Mutant], results: Results, drawn_by: str
) -> str:
    rows = [_row("", "mutants", "killed", "survived", "kill rate"), _row(*["---"] * 5)]
    for name, mutants in (("deliberate", deliberate), (f"made by the tool ({drawn_by})", made)):
        survived = sum(results.verdict(m) == "survived" for m in mutants)
        killed = len(mutants) - survived
        rate = f"{100 * killed / len(mutants):.1f} %" if mutants else ""
        rows.append(_row(name, len(mutants), killed, survived, rate))
    killed_ones = [m for m in (*deliberate, *made) if results.verdict(m) == "killed"]
    mean = sum(map(results.seconds, killed_ones)) / max(1, len(killed_ones))
    return _table(rows) + f"\nA killed mutant took {mean:.0f} s on average.\n"


def _deliberate(mutants: Iterable[Mutant], results: Results) -> str:
    rows = [_row("the mistake", "file", "the promise it breaks", "caught by"), _row(*["---"] * 4)]
    for mutant in mutants:
        by = f"`{_short(results.by(mutant))}`" if results.by(mutant) else "**survived**"
        rows.append(_row(mutant.name, f"`{mutant.file}`", mutant.why, by))
    return "## Deliberate mistakes\n\n" + _table(rows)


def _by_file(mutants: Sequence[Mutant], results: Results) -> str:
    made = Counter(mutant.file for mutant in mutants)
    survived = Counter(m.file for m in mutants if results.verdict(m) == "survived")
    rows = [_row("file", "made", "killed", "survived"), _row("---", "--:", "--:", "--:")]
    rows += [
        _row(f"`{file}`", count, count - survived[file], survived[file])
        for file, count in sorted(made.items())
    ]
    return "## Made by the tool, by file\n\n" + _table(rows)


def _survivors(mutants: Sequence[Mutant], results: Results) -> str:
    survivors = [mutant for mutant in mutants if results.verdict(mutant) == "survived"]
    return "## Survivors\n\n" + _judged(survivors, "Nothing survived.")


def _killed_since(mutants: Sequence[Mutant], results: Results) -> str:
    judged = judgements()
    killed = [m for m in mutants if results.verdict(m) == "killed" and m.key in judged]
    intro = "Survivors of an earlier run that a test or a change of the code has caught since.\n\n"
    return "## Killed since\n\n" + intro + _judged(killed, "There is none.")


def _judged(mutants: Iterable[Mutant], otherwise: str) -> str:
    judged = judgements()
    rows = [
        _row(f"`{m.file}:{m.line}`", _code(m.name), judged.get(m.key, "**not judged**"))
        for m in sorted(mutants, key=lambda m: (m.file, m.line))
    ]
    if not rows:
        return otherwise + "\n"
    return _table([_row("where", "the change", "judgement"), _row(*["---"] * 3), *rows])


def _code(change: str) -> str:
    """A change as code; the name of a deliberate mistake is a sentence."""
    # The number that tells equal changes of equal lines apart is no part of the code.
    change = re.sub(r" \(\d+\)$", "", change)
    before, arrow, after = change.replace("|", "\\|").replace("`", "'").partition(" => ")
    return f"`{before}` becomes `{after}`" if arrow else before


def _short(test: str) -> str:
    return test.removeprefix("tests/").partition("[")[0]


def _row(*cells: object) -> str:
    return "| " + " | ".join(map(str, cells)) + " |"


def _table(rows: Sequence[str]) -> str:
    return "\n".join(rows) + "\n"
