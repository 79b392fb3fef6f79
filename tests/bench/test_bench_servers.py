"""Cases on real servers, small; and that nothing of a run stays."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest
import redis

from shargain.demo.bench.consume import run as run_consume
from shargain.demo.bench.peers import BARE_SCRIPT, FLOOR, OURS, PEERS
from shargain.demo.bench.process import OwnBench
from shargain.demo.bench.runner import ROOT, CaseError, run_cases
from tests.demo.processes import survivors, tree

WAIT_SECONDS = 60
OVER_ADMITS = next(peer for peer in PEERS if peer.note == "over-admits")


def test_a_case_runs_in_a_process_of_its_own_and_leaves_nothing(home: Path) -> None:
    said: list[str] = []
    found = run_cases(["server-cpu"], "smoke", home, said.append)["server-cpu"]
    times = found["figures"]["reserve + settle over bare check-and-increment"]
    assert 1 < times["low"] <= times["median"] <= times["high"] < 50
    assert found["tables"][0]["rows"][0][0] == "INCR"
    assert said[0] == "-- server-cpu"
    assert list(home.iterdir()) == []


def test_a_case_that_fails_is_said_and_leaves_nothing(home: Path) -> None:
    said: list[str] = []
    with pytest.raises(CaseError, match="nothing ended with status 1"):
        run_cases(["nothing"], "smoke", home, said.append)
    assert "KeyError: 'nothing'" in "\n".join(said)
    assert list(home.iterdir()) == []


def test_what_counters_get_wrong_is_seen(home: Path) -> None:
    with OwnBench("smoke", home) as bench:
        peers = (OURS, BARE_SCRIPT, OVER_ADMITS, FLOOR)
        (table,) = run_consume(bench, peers).tables
    seen = {row[0]: dict(zip(table.columns, row, strict=True)) for row in table.rows}
    for peer in (OURS, BARE_SCRIPT, FLOOR):
        assert seen[peer.name]["granted of 3+3+3+3+1"] == 10
        assert seen[peer.name]["granted in a race for 100"] == 100
        assert seen[peer.name]["round trips"] == 1
    assert seen[OVER_ADMITS.name]["round trips"] == 2
    assert [seen[peer.name]["retry counts once"] for peer in (OURS, FLOOR)] == ["yes", "no"]


def test_servers_end_with_the_case(home: Path) -> None:
    with OwnBench("smoke", home) as bench:
        url = bench.valkey(maxmemory="64mb").url
        with redis.Redis.from_url(url) as client:
            assert client.config_get("maxmemory") == {"maxmemory": str(64 * 2**20)}
    with redis.Redis.from_url(url) as client, pytest.raises(redis.ConnectionError):
        client.ping()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_leaves_nothing(home: Path, number: signal.Signals) -> None:
    command = [sys.executable, "-m", "shargain.demo.bench", "--only", "sizes", "--state", str(home)]
    with subprocess.Popen(
        command, cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stderr is not None
        line = ""
        while "defining" not in line:
            line = process.stderr.readline()
            assert line, "it ended before it was interrupted"
        family = tree(process.pid)
        assert any("valkey" in Path(f"/proc/{pid}/comm").read_text() for pid in family)
        process.send_signal(number)
        process.stderr.read()
        assert process.wait(WAIT_SECONDS) == 130
    assert survivors(family) == []
    assert list(home.iterdir()) == []
