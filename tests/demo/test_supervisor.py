import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from shargain.demo.supervisor import Process, ProcessError, Supervisor
from tests.demo.owner import STUBBORN
from tests.demo.processes import WAIT_SECONDS, started, survivors, tree

ROOT = Path(__file__).resolve().parents[2]
STUBBORN_COMMAND = f"{sys.executable}\0-c\0{STUBBORN}".encode()
GUNICORN = [
    "gunicorn", "--bind=127.0.0.1:0", "--workers=2", "--worker-tmp-dir=/tmp", "--no-control-socket",
    "tests.demo.programs:web",
]  # fmt: skip
CELERY = [
    "celery", "--app=tests.demo.programs:tasks", "worker", "--pool=prefork", "--concurrency=2",
    "--loglevel=INFO", "--without-gossip", "--without-mingle",
]  # fmt: skip


@pytest.fixture
def supervisor(home: Path) -> Iterator[Supervisor]:
    # Celery takes the broker of the environment before the program's own, and tasks of other tests from it.
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "CELERY_BROKER_URL": "memory://"}
    with Supervisor(home / "logs", cwd=home, env=environment) as running:
        yield running


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@contextmanager
def owner_of_servers(home: Path) -> Iterator[tuple["subprocess.Popen[str]", dict[int, str]]]:
    with subprocess.Popen(
        [sys.executable, "-m", "tests.demo.owner", str(home)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    ) as owner:
        try:
            assert owner.stdout is not None
            assert owner.stdout.readline() == "ready\n"
            yield owner, tree(owner.pid)
        finally:
            owner.kill()


def test_nothing_survives_the_sigkill_of_its_owner(home: Path) -> None:
    for _ in range(2):
        with owner_of_servers(home) as (owner, family):
            # Three guardians, their commands, the backends of PostgreSQL, two stubborn children.
            assert len(family) > 10
            owner.kill()
            owner.wait()
            assert survivors(family) == []


def test_servers_survive_neither_the_owner_nor_the_guardians(home: Path) -> None:
    with owner_of_servers(home) as (owner, family):
        guardians = [pid for pid in family if b"guardian.py" in cmdline(pid)]
        stubborn = [pid for pid in family if cmdline(pid).startswith(STUBBORN_COMMAND)]
        servers = {pid: family[pid] for pid in family if pid not in (*guardians, *stubborn)}
        assert len(servers) > 4
        assert (len(guardians), len(stubborn)) == (3, 3)
        for pid in (owner.pid, *guardians):
            os.kill(pid, signal.SIGKILL)
        owner.wait()
        try:
            assert survivors(servers) == []
        finally:
            # The kernel ends for us what heeds its stop signal, and these do not.
            for pid in stubborn:
                os.kill(pid, signal.SIGKILL)


def cmdline(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


def test_stop_ends_a_process_that_ignores_it_and_all_its_children(supervisor: Supervisor) -> None:
    others = tree(os.getpid()).keys()
    process = supervisor.start("stubborn", [sys.executable, "-c", STUBBORN], grace=0.3)
    wait_until(lambda: "up" in process.tail())
    family = {pid: began for pid, began in tree(os.getpid()).items() if pid not in others}
    assert len(family) >= 4
    supervisor.stop()
    assert {pid for pid, began in family.items() if started(pid) == began} == set()
    assert not process.is_running
    supervisor.check()
    supervisor.stop()


def test_stop_lets_a_process_end_in_its_own_way(supervisor: Supervisor) -> None:
    polite = "import signal, sys, time\nsignal.signal(15, lambda *_: sys.exit('drained'))\n"
    process = supervisor.start(
        "polite", [sys.executable, "-c", f"{polite}print('up', flush=True)\ntime.sleep(600)"]
    )
    wait_until(lambda: "up" in process.tail())
    supervisor.stop("polite")
    assert "drained" in process.tail()
    assert process.status == 1


def test_a_process_that_ends_by_itself_is_named_with_the_end_of_its_log(
    supervisor: Supervisor,
) -> None:
    supervisor.start("steady", [sys.executable, "-c", "import time; time.sleep(600)"])
    supervisor.check()
    process = supervisor.start("brittle", [sys.executable, "-c", "raise SystemExit('no marbles')"])
    wait_until(lambda: not process.is_running)
    with pytest.raises(ProcessError, match=r"(?s)brittle ended by itself with status 1.*marbles"):
        supervisor.check()


def test_a_killed_process_leaves_no_children(supervisor: Supervisor) -> None:
    process = supervisor.start("stubborn", [sys.executable, "-c", STUBBORN])
    wait_until(lambda: "up" in process.tail())
    family = tree(process.pid)
    assert len(family) == 2
    os.kill(process.pid, signal.SIGKILL)
    assert survivors(family) == []
    wait_until(lambda: process.died)
    assert process.status == 128 + signal.SIGKILL
    with pytest.raises(ProcessError, match="stubborn ended by itself"):
        supervisor.check()


def test_a_process_starts_again_after_a_kill(supervisor: Supervisor) -> None:
    process = supervisor.start("again", [sys.executable, "-c", "import time; time.sleep(600)"])
    first = process.pid
    with pytest.raises(ProcessError, match="already running"):
        process.start()
    process.kill()
    with pytest.raises(ProcessError, match="not running"):
        _ = process.pid
    process.start()
    assert process.pid != first
    supervisor.check()


def test_a_program_that_does_not_exist_is_named(supervisor: Supervisor) -> None:
    with pytest.raises(ProcessError, match=r"(?s)ghost could not be started.*no-such-program"):
        supervisor.start("ghost", ["/no-such-program"])


def test_a_name_is_given_once(supervisor: Supervisor) -> None:
    supervisor.start("one", [sys.executable, "-c", ""])
    with pytest.raises(ProcessError, match="named one"):
        supervisor.start("one", [sys.executable, "-c", ""])


def test_the_guardian_is_out_of_reach_of_ctrl_c(home: Path) -> None:
    process = Process("sleeper", ["sleep", "600"], log=home / "sleeper.log")
    process.start()
    assert os.getsid(process.pid) != os.getsid(0)
    assert os.getpgid(process.pid) == process.pid
    process.stop()


@pytest.mark.parametrize(
    ("command", "sign"), [(GUNICORN, "Booting worker"), (CELERY, "ready.")], ids=["web", "worker"]
)
def test_the_workers_of_real_programs_do_not_survive_their_master(
    supervisor: Supervisor, command: list[str], sign: str
) -> None:
    process = supervisor.start("program", [sys.executable, "-m", *command])
    wait_until(lambda: sign in process.tail() and len(tree(process.pid)) >= 2)
    family = {**tree(process.pid), process.pid: started(process.pid)}
    process.kill()
    assert {pid for pid, began in family.items() if started(pid) == began} == set()
