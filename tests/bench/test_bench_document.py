"""What is written of a record."""

import pytest

from shargain.demo.bench import document
from shargain.demo.bench.process import load
from shargain.demo.bench.record import read
from shargain.demo.bench.runner import ROOT
from tests.bench.bench_records import CASES, figure, record

RECORD = record(ours_over_theirs=figure(1.75))


def test_the_document_has_bars_tables_notes_and_where_it_was_measured() -> None:
    text = document.markdown(CASES, RECORD)
    assert "| ours against theirs | >= 1.5, aim 2 x | 1.75 x |" in text
    assert "| met |" in text
    assert "## Ours against theirs\n\nTheirs charges refusals.\n\n### Speeds" in text
    assert "| a\\|b | 12,345 |\n| theirs | 2.5 |" in text
    assert "- cores: 2" in text
    assert "Python 3." in text
    assert "`scripts/bench full --only duel`, 2026-01-02" in text


def test_a_curve_is_shown_as_its_plot() -> None:
    drawn = record()
    drawn["cases"]["duel"]["curves"] = [{"name": "cost", "title": "Cost over size"}]
    assert "![Cost over size](images/bench-cost.svg)" in document.markdown(CASES, drawn)


def test_the_terminal_has_the_same_bars() -> None:
    text = document.terminal(CASES, RECORD)
    assert "ours against theirs" in text
    assert text.rstrip().endswith("met")


@pytest.mark.parametrize(
    ("value", "shown"),
    [(None, ""), ("x", "x"), (1234567, "1,234,567"), (0.5, "0.5"), (12345.6, "12,346")],
)
def test_cells_are_shown_to_be_read(value: object, shown: str) -> None:
    assert document.shown(value) == shown


def test_the_document_in_the_tree_says_what_its_record_says() -> None:
    docs = ROOT / "docs"
    if not (docs / "benchmarks.json").exists():
        pytest.skip("nothing has been recorded yet")
    kept = read(docs / "benchmarks.json")
    assert (docs / "benchmarks.md").read_text(encoding="utf-8") == document.markdown(load(), kept)
    for found in kept["cases"].values():
        for curve in found["curves"]:
            assert (docs / "images" / f"bench-{curve['name']}.svg").exists()
