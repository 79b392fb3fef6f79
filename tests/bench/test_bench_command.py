"""The command: what it prints, compares and keeps, and its exit status; with what a run would have found."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from shargain.demo.bench import __main__ as command
from shargain.demo.bench import record as records
from shargain.demo.bench.process import load
from tests.bench.bench_records import figure, record

CASE = "server-cpu"
FIGURE = load()[CASE].bars[0].figure
Run = Callable[..., int]


def found(median: float) -> dict[str, Any]:
    case = record()["cases"]["duel"]
    return {CASE: {**case, "figures": {FIGURE: figure(median, better="lower")}}}


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """The command on a folder of documents of its own, where measuring finds numbers that are given."""
    monkeypatch.setattr("shargain.stopping.PatientStop.listen", lambda _self: None)

    def run(*arguments: str, finds: float, then: float | None = None) -> int:
        medians = iter([finds, finds if then is None else then])
        monkeypatch.setattr(command, "run_cases", lambda *_: found(next(medians)))
        return command.main([*arguments, "--docs", str(tmp_path)])

    return run


def test_a_record_is_kept_and_a_run_like_it_passes(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--record", finds=3.5) == 0
    assert "| 3.5 x |" in (tmp_path / "benchmarks.md").read_text()
    assert run("--check", finds=3.6) == 0
    assert "1 figures were compared with the record.\nNone is worse." in capsys.readouterr().out


def test_a_run_that_is_worse_than_the_record_fails_and_says_by_what(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    run("--record", finds=3.5)
    assert run("--check", finds=4.3, then=4.4) == 1
    assert f"WORSE {CASE}: {FIGURE} is 4.4" in capsys.readouterr().out


def test_what_is_worse_once_and_not_when_it_is_measured_again_passes_and_is_told(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    run("--record", finds=3.5)
    assert run("--check", finds=4.3, then=3.5) == 0
    said = capsys.readouterr().out
    assert f"Worse, and measured again: {CASE}: {FIGURE} is 4.3" in said
    assert said.endswith("None is worse.\n")


def test_a_check_without_a_record_measures_nothing(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--check", finds=3.5) == 1
    assert "make it with --record" in capsys.readouterr().err


def test_what_was_found_is_written_as_json(run: Run, tmp_path: Path) -> None:
    assert run("--json", str(tmp_path / "x.json"), finds=3.5) == 0
    assert records.read(tmp_path / "x.json")["cases"] == found(3.5)
    assert not (tmp_path / "benchmarks.json").exists()


def test_a_case_nobody_knows_is_refused(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run("--only", "nothing", finds=1)
    assert "server-cpu" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--docs", "--json"])
def test_a_folder_that_is_not_there_is_said_before_anything_is_measured(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str
) -> None:
    with pytest.raises(SystemExit):
        command.main([option, str(tmp_path / "none" / "x")])
    assert f"{tmp_path / 'none'}" in capsys.readouterr().err


def test_every_case_has_a_name_of_its_own_and_bars_that_can_be_judged() -> None:
    cases = load()
    assert len(cases) >= 12
    for case in cases.values():
        assert all((bar.at_least is None) != (bar.at_most is None) for bar in case.bars), case.name
