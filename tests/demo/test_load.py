"""The measurements measure what they say."""

import json
import os
import socket
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from shargain.demo import load
from shargain.demo.load_process import Batches, Plan
from shargain.demo.wire import proxied
from tests.demo.test_run import ROOT, SERVERS


def measure(home: Path, *arguments: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "shargain.demo.load", "--json", "--state", str(home), *arguments],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if name not in SERVERS},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    # Nothing of the servers' data stays.
    assert not (home / "load" / "postgres" / "data").exists()
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def test_posting_from_many_processes_ends_exactly_at_the_limits(home: Path) -> None:
    report = measure(home, "--processes", "3", "--targets", "2", "--limit", "40", "--seconds", "2")
    assert (report["offers"], report["created"], report["over_admitted"]) == (80, 80, 0)
    assert report["duplicate"] > 0
    assert report["disagreements"] == []
    assert report["batches"] == sum(kind["batches"] for kind in report["milliseconds"].values())


def test_the_naive_form_is_right_as_long_as_it_is_alone(home: Path) -> None:
    report = measure(home, "--naive", "--processes", "1", "--limit", "50", "--seconds", "1")
    assert (report["offers"], report["over_admitted"], report["count_drift"]) == (50, 0, 0)


def test_a_batch_is_one_round_trip_to_each_server(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QUOTA_STOCK_SIZE", "0")
    report = measure(home, "--count-round-trips")
    assert list(report) == ["all new", "all known", "all refused"]
    for case, turns in report.items():
        assert turns["PostgreSQL"] == [1.0]
        # Nobody waits for the answer to a settle, which may share every turn with the next reserve; a refusal is
        # remembered for a moment.
        lowest, highest = (0.0, 1.0) if case == "all refused" else (1.0, 2.0)
        assert lowest <= sum(turns["Redis"]) <= highest
        assert len(turns["Redis"]) <= 1


def test_with_stocks_most_batches_do_not_ask_redis(home: Path) -> None:
    for turns in measure(home, "--count-round-trips").values():
        assert turns["PostgreSQL"] == [1.0]
        assert sum(turns["Redis"]) < 0.5


@pytest.mark.parametrize("overlap", [0.0, 0.25, 1.0])
def test_batches_share_what_the_plan_says(overlap: float) -> None:
    plan = Plan([1], 20, overlap, 1, is_naive=False)
    batches = [Batches(number, plan) for number in (1, 2)]
    for _ in range(3):
        (_, one), (_, other) = (each.next() for each in batches)
        shared = {offer.url for offer in one} & {offer.url for offer in other}
        assert (len(one), len(shared)) == (20, 20 * overlap)


def test_a_process_never_posts_the_same_twice_to_a_target() -> None:
    batches = Batches(1, Plan([1, 2], 20, 0.5, 1, is_naive=False))
    posted = [
        (target, offer.url)
        for _ in range(20)
        for target, offers in [batches.next()]
        for offer in offers
    ]
    assert len(set(posted)) == 400


@pytest.mark.parametrize(
    "arguments",
    [
        ["--processes", "0"],
        ["--targets", "many"],
        ["--limit", "5-1"],
        ["--limit", "-1"],
        ["--batch", "1001"],
        ["--overlap", "1.1"],
        ["--overlap", "nan"],
    ],
)
def test_what_makes_no_measurement_is_refused(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        load.parse(arguments)
    assert "give" in capsys.readouterr().err


class Echo(socketserver.StreamRequestHandler):
    """Answers each line with two."""

    def handle(self) -> None:
        for line in self.rfile:
            self.wfile.write(line + line)


@pytest.fixture
def echo() -> Iterator[str]:
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Echo) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"redis://:secret@127.0.0.1:{server.server_address[1]}/3"
        server.shutdown()


def test_the_proxy_counts_answers_that_were_waited_for(echo: str) -> None:
    with proxied(echo) as proxy:
        assert proxy.url.startswith("redis://:secret@127.0.0.1:")
        assert proxy.url.endswith("/3")
        port = int(proxy.url.rpartition(":")[2].partition("/")[0])
        with socket.create_connection(("127.0.0.1", port), 10) as client:
            answers = client.makefile("rb")
            for _ in range(3):
                client.sendall(b"a\n")
                assert [answers.readline(), answers.readline()] == [b"a\n", b"a\n"]
            client.sendall(b"b\nc\n")
            assert [answers.readline() for _ in range(4)] == [b"b\n", b"b\n", b"c\n", b"c\n"]
            # One question in two pieces: nothing is answered, so nothing is waited for, between them.
            client.sendall(b"d")
            time.sleep(0.2)
            client.sendall(b"\n")
            assert [answers.readline() for _ in range(2)] == [b"d\n", b"d\n"]
            answers.close()
        assert proxy.turns() == [5]
