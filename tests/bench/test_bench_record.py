"""When a run is worse than the record, and what a record may hold."""

from pathlib import Path

import pytest

from shargain.demo.bench import Bar, record
from shargain.demo.bench.record import RecordError
from tests.bench.bench_records import BAR, CASES, figure
from tests.bench.bench_records import record as a_record


@pytest.mark.parametrize(
    ("better", "now", "is_worse"),
    [
        ("higher", 1.59, True),
        ("higher", 1.61, False),
        ("higher", 9.0, False),
        ("lower", 2.41, True),
        ("lower", 2.39, False),
        ("lower", 0.1, False),
    ],
)
def test_a_figure_may_be_worse_by_its_slack_and_no_more(
    better: str, now: float, *, is_worse: bool
) -> None:
    recorded = a_record(ratio=figure(2.0, better=better))
    sentences = record.worse(recorded, a_record(ratio=figure(now, better=better)))
    assert bool(sentences) == is_worse


def test_what_is_worse_is_named_with_its_numbers() -> None:
    (sentence,) = record.worse(
        a_record(ours_over_theirs=figure(2.0)), a_record(ours_over_theirs=figure(1.0))
    ).values()
    assert "duel: ours over theirs is 1.0 (0.9-1.1), below 1.6" in sentence
    assert "recorded were 2.0, with a slack of 20%" in sentence


def test_what_depends_on_the_machine_is_not_compared() -> None:
    recorded, now = (
        a_record(speed=figure(1000.0, slack=None)),
        a_record(speed=figure(1.0, slack=None)),
    )
    assert record.worse(recorded, now) == {}
    assert record.compared(recorded, now) == 0


def test_a_figure_that_is_gone_is_worse() -> None:
    (sentence,) = record.worse(a_record(ratio=figure(2.0)), a_record()).values()
    assert "ratio was 2.0 and is not measured any more" in sentence


def test_another_mode_may_measure_less() -> None:
    recorded = a_record("full", ratio=figure(2.0), more=figure(3.0))
    now = a_record("quick", ratio=figure(2.0))
    assert record.worse(recorded, now) == {}
    assert record.compared(recorded, now) == 1


def test_a_case_that_is_new_has_nothing_to_be_compared_with() -> None:
    recorded = {**a_record(), "cases": {}}
    assert record.worse(recorded, a_record(ratio=figure(0.1))) == {}


def test_a_part_takes_the_place_of_its_cases() -> None:
    old = a_record(ratio=figure(1.0))
    old["cases"]["other"] = old["cases"]["duel"]
    merged = record.merged(old, a_record(ratio=figure(2.0)))
    assert merged["cases"]["duel"]["figures"]["ratio"]["median"] == 2.0
    assert merged["cases"]["other"]["figures"]["ratio"]["median"] == 1.0


@pytest.mark.parametrize("what", ["machine", "versions"])
def test_a_record_is_of_one_machine_and_of_one_set_of_versions(what: str) -> None:
    with pytest.raises(RecordError, match=f"another {what.rstrip('s')} .*now.*without --only"):
        record.merged({**a_record(), what: {"cores": "64"}}, a_record())


@pytest.mark.parametrize(
    ("bar", "value", "verdict"),
    [
        (BAR, 1.49, "not met"),
        (BAR, 1.5, "met"),
        (BAR, 2.0, "aim met"),
        (Bar("", "", at_most=4, aim=3), 4.1, "not met"),
        (Bar("", "", at_most=4, aim=3), 4.0, "met"),
        (Bar("", "", at_most=4, aim=3), 3.0, "aim met"),
        (Bar("", "", at_most=4), 1.0, "met"),
    ],
)
def test_a_bar_is_met_or_not(bar: Bar, value: float, verdict: str) -> None:
    assert record.verdict(bar, value) == verdict


def test_a_bar_whose_figure_was_not_measured_has_no_verdict() -> None:
    assert list(record.verdicts(CASES, a_record())) == []


@pytest.mark.parametrize("content", [None, "", "[1]", '{"cases": 1}'])
def test_what_is_no_record_is_refused_with_a_cure(tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "benchmarks.json"
    if content is not None:
        file.write_text(content)
    with pytest.raises(RecordError, match="--record"):
        record.read(file)


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    written = a_record(ratio=figure(2.0))
    record.write(tmp_path / "r.json", written)
    assert record.read(tmp_path / "r.json") == written


def test_a_record_tells_where_it_was_made() -> None:
    assert {"processor", "cores", "memory", "system"} <= record.machine().keys()
    assert {"Python", "PostgreSQL", "Valkey", "redis"} <= record.versions().keys()
