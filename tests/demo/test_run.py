"""The command as a visitor uses it: run after run on the same data, with everything real."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from shargain.demo.servers import Postgres, Valkey
from tests.demo.processes import started, survivors, tree

ROOT = Path(__file__).resolve().parent.parent.parent
SERVERS = ("DATABASE_URL", "REDIS_URL", "CELERY_BROKER_URL")
SECONDS = 90.0


class Run:
    """A run under way, and what it has printed."""

    count = 0

    def __init__(self, state: Path, *arguments: str, **env: str) -> None:
        Run.count += 1
        self.output = state.with_name(f"output-{Run.count}")
        ours = {name: value for name, value in os.environ.items() if name not in SERVERS}
        with self.output.open("w") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "shargain.demo.run", "--state", str(state), *arguments],
                cwd=ROOT,
                env={**ours, **env},
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    @property
    def text(self) -> str:
        return self.output.read_text(encoding="utf-8")

    def wait_for(self, pattern: str) -> None:
        deadline = time.monotonic() + SECONDS
        while not re.search(pattern, self.text):
            assert self.process.poll() is None, self.text
            assert time.monotonic() < deadline, self.text
            time.sleep(0.1)

    def end(self) -> tuple[int, str]:
        status = self.process.wait(SECONDS)
        return status, self.text


@pytest.fixture
def state(home: Path) -> Path:
    return home / "state"


@pytest.fixture
def run(state: Path) -> Iterator[Callable[..., Run]]:
    runs: list[Run] = []

    def start(*arguments: str, **env: str) -> Run:
        runs.append(Run(state, *arguments, **env))
        return runs[-1]

    yield start
    for each in runs:
        family = tree(each.process.pid)
        each.process.kill()
        each.process.wait()
        assert survivors(family) == []


def offers(state: Path) -> dict[str, int]:
    document = json.loads((state / "figures.json").read_text(encoding="utf-8"))
    assert document["after_sync"] is not None
    sums: dict[str, int] = {}
    for account in document["before_sync"]["accounts"]:
        assert account["offers"] == account["ledger"]
        assert account["limit"] is None or account["ledger"] <= account["limit"]
        sums[account["target"]] = sums.get(account["target"], 0) + account["offers"]
    return sums


def smuggle_an_offer(state: Path) -> None:
    with Postgres(state / "postgres") as postgres, psycopg.connect(postgres.url) as connection:
        connection.execute(
            "INSERT INTO offers_offer (target_id, url, title, quota_id, batch_id, metadata,"
            " main_image_url, list_url) SELECT target_id, 'https://a.example/', 'smuggled',"
            " quota_id, batch_id, '{}', '', '' FROM offers_offer WHERE quota_id IS NOT NULL LIMIT 1"
        )


def test_runs_go_on_from_each_other_and_nothing_outlives_them(
    run: Callable[..., Run], state: Path
) -> None:
    killed = run()
    killed.wait_for(r"[1-9][0-9,]* created")
    family = tree(killed.process.pid)
    assert len(family) > 20
    killed.process.kill()
    killed.process.wait()

    second = run()
    second.wait_for(r"[1-9][0-9,]* created")
    assert survivors(family) == []
    family = tree(second.process.pid)
    second.process.send_signal(signal.SIGTERM)
    status, text = second.end()
    assert [pid for pid, began in family.items() if started(pid) == began] == []
    assert (status, text.splitlines()[-1]) == (0, "VERDICT exact")
    before = offers(state)
    assert before["unlimited"] > 0
    assert before["small, hourly"] > 0
    assert (state / "secret-key").stat().st_mode & 0o077 == 0

    smuggle_an_offer(state)
    status, text = run("--for", "1").end()
    assert (status, text.splitlines()[-1]) == (1, "VERDICT 1 disagreements")
    assert re.search(r"Quota \d+ of .+: every offer has a slot .*, but [\d,]+ was expected", text)


def test_before_it_runs_the_first_ctrl_c_ends_it(run: Callable[..., Run]) -> None:
    interrupted = run()
    interrupted.wait_for("Loading")
    family = tree(interrupted.process.pid)
    assert family
    interrupted.process.send_signal(signal.SIGINT)
    status, text = interrupted.end()
    assert (status, text.splitlines()[-1]) == (
        130,
        "Ended at once, without a verdict; the data are kept.",
    )
    assert survivors(family) == []


def test_a_second_run_on_the_same_data_is_refused(run: Callable[..., Run], state: Path) -> None:
    first = run()
    first.wait_for("Loading")
    assert run().end() == (
        1,
        f"{state} is in use by another run (process {first.process.pid}): stop it first.\n",
    )


def test_servers_of_the_visitor_are_used_and_never_erased(
    run: Callable[..., Run], home: Path
) -> None:
    with Valkey(home / "mine", persistent=False) as mine:
        status, text = run("--fresh", REDIS_URL=mine.url).end()
    assert status == 1
    assert text == (
        "--fresh throws away what this command keeps itself, and REDIS_URL names a server of"
        " yours: empty that one yourself, or leave out --fresh.\n"
    )


@pytest.mark.parametrize(
    ("variable", "sentence"),
    [
        ("DATABASE_URL", r"The database cannot be prepared: .*Connection refused"),
        ("REDIS_URL", r"The server at REDIS_URL does not answer: start it first\."),
        ("CELERY_BROKER_URL", r"The server at CELERY_BROKER_URL does not answer: start it first\."),
    ],
)
def test_a_server_that_does_not_answer_is_named(
    run: Callable[..., Run], variable: str, sentence: str
) -> None:
    scheme = "postgresql" if variable == "DATABASE_URL" else "redis"
    servers = {name: os.environ[name] for name in SERVERS}
    servers[variable] = f"{scheme}://user:confidential@127.0.0.1:1/0"
    status, text = run(**servers).end()
    assert status == 1
    assert re.search(sentence, text)
    assert "Traceback" not in text
    assert "confidential" not in text


def test_a_state_folder_that_cannot_be_is_named(home: Path) -> None:
    (home / "file").touch()
    status, text = Run(home / "file").end()
    assert status == 1
    assert text.startswith("The run cannot go on: ")
    assert str(home / "file") in text


@pytest.mark.parametrize("arguments", [["--for", "0"], ["--for", "nan"], ["--for", "1e9"]])
def test_a_span_that_makes_no_run_is_refused(
    capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    from shargain.demo.run import main

    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert "give seconds from 1 to" in capsys.readouterr().err


IMPORTING = """
import os, signal
from shargain.stopping import PatientStop, uninterrupted
class Attribute:
    def __set_name__(self, owner, name):
        os.kill(os.getpid(), signal.SIGINT)
PatientStop().listen()
try:
    with uninterrupted():
        class Owner:
            attribute = Attribute()
        print("imported")
except KeyboardInterrupt:
    print("interrupted")
"""


def test_an_import_is_interrupted_at_its_end() -> None:
    done = subprocess.run(
        [sys.executable, "-c", IMPORTING], cwd=ROOT, capture_output=True, text=True, timeout=30
    )
    assert (done.stdout, done.returncode) == ("imported\ninterrupted\n", 0), done.stderr


PATIENT = """
import sys, time
from shargain.stopping import PatientStop
stop = PatientStop()
stop.listen()
stop.is_patient = True
print("up", flush=True)
try:
    stop.wait(60)
    print("asked", flush=True)
    time.sleep(60)
except KeyboardInterrupt:
    print("interrupted", flush=True)
    time.sleep(0.5)
    print("cleaned up", flush=True)
"""


def test_the_second_signal_interrupts_and_a_third_changes_nothing() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", PATIENT], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    for word, number in (
        ("up", signal.SIGTERM),
        ("asked", signal.SIGINT),
        ("interrupted", signal.SIGTERM),
    ):
        assert process.stdout.readline().strip() == word
        process.send_signal(number)
    assert process.stdout.readline().strip() == "cleaned up"
    assert process.wait(10) == 0
    process.stdout.close()
