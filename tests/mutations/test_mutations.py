"""What can be said of the mutants without trying one: that they are there, and are mistakes."""

import ast
from pathlib import Path

import pytest

from tests.mutations import mutant as mutant_module
from tests.mutations.deliberate import MISTAKES, all_deliberate
from tests.mutations.made import FILES, all_made, draw, made_from
from tests.mutations.mutant import ROOT, Mistake, Mutant, StaleMutant, read
from tests.mutations.report import judgements
from tests.mutations.selection import LEFT_OUT, SEARCH, first_of, folders_of


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.name)
def test_a_deliberate_mistake_is_of_the_code_as_it_is(mistake: Mistake) -> None:
    made = mistake.mutant()
    text = made.applied_to(read(mistake.file))
    assert text != read(mistake.file)
    if mistake.file.endswith(".py"):
        ast.parse(text)


def test_a_text_that_is_gone_or_there_twice_is_refused() -> None:
    for old in ("no such line", "return"):
        with pytest.raises(StaleMutant, match="not once"):
            Mistake("quota_redis/breaker.py", "", "", ((old, ""),)).mutant()


def test_names_are_given_once() -> None:
    keys = [mistake.mutant().key for mistake in MISTAKES] + [made.key for made in all_made()]
    assert len(keys) == len(set(keys))


def test_every_file_gives_mutants_that_are_programs() -> None:
    for file in FILES:
        made = made_from(file)
        assert made, file
        for mutant in made:
            text = mutant.applied_to(read(file))
            assert text != read(file), mutant.key
            if file.endswith(".py"):
                ast.parse(text)


def write(monkeypatch: pytest.MonkeyPatch, folder: Path, name: str, text: str) -> list[Mutant]:
    monkeypatch.setattr(mutant_module, "ROOT", folder)
    (folder / name).write_text(text, encoding="utf-8")
    read.cache_clear()
    try:
        return made_from(name)
    finally:
        read.cache_clear()


def test_what_only_speaks_is_left_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    text = '''"""1 + 1 == 2"""
logger = object()


def f(x: "int | None" = None) -> "tuple[1 + 1]":
    """Returns x < 1."""
    logger.warning("%d", x + 1)


def __str__(self):
    return x + 1
'''
    assert write(monkeypatch, tmp_path, "speaks.py", text) == []


@pytest.mark.parametrize(
    ("name", "line", "changes"),
    [
        (
            "a.py",
            "if not a and b <= 1: c.d = min(e, f)",
            {
                "if not (not a and b <= 1): c.d = min(e, f)",
                "if a and b <= 1: c.d = min(e, f)",
                "if not a or b <= 1: c.d = min(e, f)",
                "if not a and b < 1: c.d = min(e, f)",
                "if not a and b <= 2: c.d = min(e, f)",
                "if not a and b <= 1: pass",
                "if not a and b <= 1: c.d = max(e, f)",
            },
        ),
        (
            "a.lua",
            "if not a and b ~= 1 then return '1 == 1' end -- a == b",
            {
                "if a and b ~= 1 then return '1 == 1' end -- a == b",
                "if not a or b ~= 1 then return '1 == 1' end -- a == b",
                "if not a and b == 1 then return '1 == 1' end -- a == b",
                "if not a and b ~= 2 then return '1 == 1' end -- a == b",
            },
        ),
        (
            "a.sql",
            "SELECT least(a, 1) FROM b WHERE c = '1' AND d IS NULL -- e",
            {
                "SELECT greatest(a, 1) FROM b WHERE c = '1' AND d IS NULL -- e",
                "SELECT least(a, 2) FROM b WHERE c = '1' AND d IS NULL -- e",
                "SELECT least(a, 1) FROM b WHERE c <> '1' AND d IS NULL -- e",
                "SELECT least(a, 1) FROM b WHERE c = '1' OR d IS NULL -- e",
                "SELECT least(a, 1) FROM b WHERE c = '1' AND d IS NOT NULL -- e",
            },
        ),
    ],
)
def test_what_is_made_of_a_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, line: str, changes: set[str]
) -> None:
    made = write(monkeypatch, tmp_path, name, f"{line}\n")
    assert {" ".join(mutant.applied_to(line).split()) for mutant in made} == changes


def test_the_same_seed_draws_the_same() -> None:
    mutants = all_made()
    drawn = draw(1, 50, mutants)
    assert drawn == draw(1, 50, list(reversed(mutants)))
    assert drawn == draw(1, 100, mutants)[:50]
    assert drawn != draw(2, 50, mutants)


def test_the_tests_that_are_named_exist() -> None:
    files = {mistake.file for mistake in MISTAKES} | set(FILES)
    named = {name for file in files for name in (*folders_of(file), *first_of(file))}
    for name in {*named, SEARCH, *LEFT_OUT}:
        path, _, test = name.partition("::")
        assert (ROOT / path).exists(), name
        assert not test or f"def {test}(" in read(path), name


def test_every_judgement_is_of_a_mutant_that_can_be_made() -> None:
    possible = {mutant.key for mutant in (*all_made(), *all_deliberate())}
    assert judgements().keys() <= possible
