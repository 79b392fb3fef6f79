"""A short run of everything, and the command around it."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest

from shargain.demo.chaos.__main__ import parse
from shargain.demo.chaos.faults import LANES, schedule

ROOT = Path(__file__).resolve().parent.parent.parent
SECONDS = 6
PATIENCE = 300


@pytest.fixture
def state() -> Iterator[Path]:
    """A folder that `nobody` can reach, as PostgreSQL needs where it is started by root."""
    folder = Path(tempfile.mkdtemp(prefix="shargain-chaos-"))
    folder.chmod(0o711)
    yield folder
    shutil.rmtree(folder)


def test_a_short_run_is_exact(state: Path) -> None:
    report = state / "report.md"
    command = [
        sys.executable, "-m", "shargain.demo.chaos", "--for", str(SECONDS), "--seed", "9",
        "--report", str(report), "--state", str(state), "--json",
    ]  # fmt: skip
    done = subprocess.run(
        command, cwd=ROOT, env=dict(os.environ), capture_output=True, text=True, timeout=PATIENCE
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    found = json.loads(done.stdout)
    assert found["violations"] == []
    assert found["faults_in_all"] > 3
    assert found["outcomes"]["created"] > 50
    assert found["outcomes"]["discarded"] > 0
    roads = {name.split()[0] for name in found["answers"]}
    assert {"direct", "http", "queue", "worker"} <= roads
    assert json.loads(report.with_suffix(".json").read_text())["run"] == found
    assert "## Faults at random" in report.read_text()


def test_the_same_seed_draws_the_same_faults() -> None:
    for lane in LANES:
        first, again, other = (
            [
                (pause, fault, drawn.random())
                for pause, fault, drawn in islice(schedule(lane, seed), 50)
            ]
            for seed in (1, 1, 2)
        )
        assert first == again
        assert first != other


@pytest.mark.parametrize(
    "arguments", [["--for", "0"], ["--for", "1e9"], ["--subjects", "5"], ["--seed", "x"]]
)
def test_what_makes_no_run_is_refused(arguments: list[str]) -> None:
    with pytest.raises(SystemExit):
        parse(arguments)
