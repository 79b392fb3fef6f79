"""Everything that is done to the servers, the network and the processes of a run.

A fault is a function of the world and of its own random numbers; it returns when the fault is over.
"""

import random
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

import psycopg
import redis

from shargain.demo.chaos.proxy import Mode, Proxy
from shargain.demo.chaos.settings import LEASE_SECONDS, VISIBILITY_SECONDS
from shargain.demo.chaos.world import BEATS, CLIENTS, WEB, WORKERS, World, client, send
from shargain.demo.servers import Server, Valkey

Fault: TypeAlias = Callable[[World, random.Random], None]

LINK_SECONDS = 8.0
LOOK_SECONDS = 0.02
CUT_BYTES = 50_000
NAMESPACE_KEYS = "q1:*"


class NotPossible(Exception):  # noqa: N818
    """The fault cannot be done just now."""


def kill_quotas(world: World, drawn: random.Random) -> None:
    with _down(world.servers.quotas, drawn, 3.0):
        pass


def cut_quotas(world: World, drawn: random.Random) -> None:
    """Killed, and what it wrote last has not reached the disk."""
    with _down(world.servers.quotas, drawn, 1.0):
        file = max(_appended(world.servers.quotas).glob("*.incr.aof"), key=_changed)
        size = file.stat().st_size
        with file.open("r+b") as log:
            log.truncate(max(0, size - drawn.randrange(CUT_BYTES)))


def restore_quotas(world: World, drawn: random.Random) -> None:
    """Killed, and started again with the data of some seconds ago."""
    quotas = world.servers.quotas
    with client(quotas) as server:
        _wait(lambda: not server.info("persistence")["aof_rewrite_in_progress"])
    copy = world.servers.folder / "older-copy"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(_appended(quotas), copy)
    time.sleep(drawn.uniform(0.5, 6.0))
    with _down(quotas, drawn, 1.0):
        shutil.rmtree(_appended(quotas))
        copy.rename(_appended(quotas))


def promote_replica(world: World, drawn: random.Random) -> None:
    """A replica that lost touch takes over; sometimes the old server comes back, with what it last knew."""
    servers = world.servers
    replica = servers.spare
    if replica.is_running:
        replica.stop()
    replica.erase()
    replica.start()
    with client(replica) as spare:
        spare.replicaof("127.0.0.1", servers.quotas.port)
        _wait(lambda: spare.info("replication").get("master_link_status") == "up")
        time.sleep(drawn.uniform(0, 2.0))
        spare.replicaof("NO", "ONE")
    time.sleep(drawn.uniform(0, 4.0))
    servers.use(replica)
    for _ in range(drawn.randint(0, 2)):
        time.sleep(drawn.uniform(0.5, 3.0))
        servers.use(servers.spare)


def flush_quotas(world: World, _drawn: random.Random) -> None:
    with client(world.servers.quotas) as server:
        server.flushall()


def delete_keys(world: World, drawn: random.Random) -> None:
    """Some subjects are forgotten, or which subjects have changed."""
    with client(world.servers.quotas) as server:
        keys = sorted(server.scan_iter(NAMESPACE_KEYS, count=1000))
        if not keys:
            raise NotPossible("there are no keys")
        server.delete(*drawn.choices(keys, k=drawn.randint(1, 5)))


def flush_scripts(world: World, _drawn: random.Random) -> None:
    with client(world.servers.quotas) as server:
        server.script_flush()


def fill_memory(world: World, drawn: random.Random) -> None:
    """No write is taken for a while."""
    with client(world.servers.quotas) as server:
        server.config_set("maxmemory", "1")
        try:
            time.sleep(drawn.uniform(0.5, 3.0))
        finally:
            server.config_set("maxmemory", "0")


def pause_quotas(world: World, drawn: random.Random) -> None:
    _pause([world.servers.quotas.pid], drawn.uniform(0.05, 2.0))


def kill_broker(world: World, drawn: random.Random) -> None:
    with _down(world.servers.broker, drawn, 3.0):
        pass


def pause_broker(world: World, drawn: random.Random) -> None:
    _pause([world.servers.broker.pid], drawn.uniform(0.1, 3.0))


def kill_postgres(world: World, drawn: random.Random) -> None:
    with _down(world.servers.postgres, drawn, 3.0):
        pass


def kill_backend(world: World, drawn: random.Random) -> None:
    """Kill one of PostgreSQL's processes, which makes it restart all of them."""
    with psycopg.connect(world.servers.postgres.url, autocommit=True) as connection:
        found = connection.execute(
            "SELECT pid FROM pg_stat_activity"
            " WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() ORDER BY pid"
        ).fetchall()
    if not found:
        raise NotPossible("there are no sessions")
    send(drawn.choice(found)[0], signal.SIGKILL)


def end_sessions(world: World, _drawn: random.Random) -> None:
    with psycopg.connect(world.servers.postgres.url, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
        )


def delay_quotas(world: World, drawn: random.Random) -> None:
    world.servers.to_quotas.delay_seconds = drawn.choice([0.005, 0.02, 0.1, 0.5])
    _with_mode(world.servers.to_quotas, Mode.DELAY, drawn.uniform(0.5, 3.0))


def hold_quotas(world: World, drawn: random.Random) -> None:
    _with_mode(world.servers.to_quotas, Mode.HOLD, drawn.uniform(0.1, 4.0))


def cut_quota_replies(world: World, drawn: random.Random) -> None:
    _with_mode(world.servers.to_quotas, Mode.CUT_REPLIES, drawn.uniform(0.05, 1.0))


def drop_quotas(world: World, drawn: random.Random) -> None:
    _with_mode(world.servers.to_quotas, Mode.DROP, drawn.uniform(0.5, 3.0))


def refuse_quotas(world: World, drawn: random.Random) -> None:
    _with_mode(world.servers.to_quotas, Mode.REFUSE, drawn.uniform(0.5, 3.0))


def delay_postgres(world: World, drawn: random.Random) -> None:
    world.servers.to_postgres.delay_seconds = drawn.choice([0.005, 0.02, 0.1])
    _with_mode(world.servers.to_postgres, Mode.DELAY, drawn.uniform(0.5, 3.0))


def hold_postgres(world: World, drawn: random.Random) -> None:
    _with_mode(world.servers.to_postgres, Mode.HOLD, drawn.uniform(0.1, LEASE_SECONDS * 1.5))


def cut_postgres_replies(world: World, drawn: random.Random) -> None:
    """What was committed is not heard of."""
    _with_mode(world.servers.to_postgres, Mode.CUT_REPLIES, drawn.uniform(0.02, 0.3))


def drop_postgres(world: World, drawn: random.Random) -> None:
    _with_mode(world.servers.to_postgres, Mode.DROP, drawn.uniform(0.2, 1.0))


def kill_client(world: World, drawn: random.Random) -> None:
    _kill_child(world, CLIENTS, drawn)


def pause_client(world: World, drawn: random.Random) -> None:
    """For longer than its lease, now and then."""
    _pause(world.children(drawn.choice(CLIENTS)), drawn.uniform(0.1, LEASE_SECONDS * 1.5))


def kill_worker_process(world: World, drawn: random.Random) -> None:
    _kill_child(world, WORKERS, drawn)


def kill_worker(world: World, drawn: random.Random) -> None:
    """Kill a Celery worker with all its processes; its tasks come again once they have been missed."""
    name = drawn.choice(WORKERS)
    world.supervisor.processes[name].kill()
    time.sleep(drawn.uniform(0, 1.0))
    world.revive(name)


def pause_worker(world: World, drawn: random.Random) -> None:
    """Mostly for moments, sometimes until the broker gives its tasks to another worker as well."""
    longest = VISIBILITY_SECONDS * 1.5 if drawn.random() < 0.25 else LEASE_SECONDS * 1.5
    name = drawn.choice(WORKERS)
    world.signal_all(name, signal.SIGSTOP)
    try:
        time.sleep(drawn.uniform(0.1, longest))
    finally:
        world.signal_all(name, signal.SIGCONT)


def kill_web_process(world: World, drawn: random.Random) -> None:
    _kill_child(world, (WEB,), drawn)


def pause_web_process(world: World, drawn: random.Random) -> None:
    _pause(world.children(WEB)[:1], drawn.uniform(0.1, LEASE_SECONDS * 1.5))


def kill_beat(world: World, drawn: random.Random) -> None:
    name = drawn.choice(BEATS)
    world.supervisor.processes[name].kill()
    world.revive(name)


LANES: dict[str, dict[Fault, int]] = {
    "servers": {
        kill_quotas: 4, cut_quotas: 3, restore_quotas: 4, promote_replica: 4, flush_quotas: 4,
        delete_keys: 4, flush_scripts: 3, fill_memory: 3, pause_quotas: 3, kill_broker: 2,
        pause_broker: 1, kill_postgres: 2, kill_backend: 1, end_sessions: 2,
    },
    "network": {
        delay_quotas: 3, hold_quotas: 3, cut_quota_replies: 4, drop_quotas: 4, refuse_quotas: 2,
        delay_postgres: 1, hold_postgres: 1, cut_postgres_replies: 4, drop_postgres: 2,
    },
    "processes": {
        kill_client: 16, pause_client: 6, kill_worker_process: 5, kill_worker: 1, pause_worker: 2,
        kill_web_process: 2, pause_web_process: 2, kill_beat: 1,
    },
}  # fmt: skip
"""What may happen at the same time, and how often each: a lane has one fault at a time."""

PAUSES = {"servers": 2.0, "network": 1.5, "processes": 0.3}
"""Mean seconds between two faults of a lane."""

LOSSES = {kill_worker, pause_worker, kill_broker, pause_broker}
"""Faults at which the queue's transport may lose what it has popped and not noted yet."""


def schedule(lane: str, seed: int) -> Iterator[tuple[float, Fault, random.Random]]:
    """The faults of a lane: a pause, the fault, its random numbers; the same for the same seed."""
    drawn = random.Random(f"{seed}-{lane}")  # noqa: S311
    faults, weights = zip(*LANES[lane].items(), strict=True)
    while True:
        fault = drawn.choices(faults, weights)[0]
        own = random.Random(drawn.getrandbits(64))  # noqa: S311
        yield drawn.expovariate(1 / PAUSES[lane]), fault, own


@contextmanager
def _down(server: Server, drawn: random.Random, longest: float) -> Iterator[None]:
    server.kill()
    try:
        yield
        time.sleep(drawn.uniform(0, longest))
    finally:
        server.start()


def _with_mode(proxy: Proxy, mode: Mode, seconds: float) -> None:
    proxy.mode = mode
    try:
        time.sleep(seconds)
    finally:
        proxy.mode = Mode.PASS


def _pause(pids: Sequence[int], seconds: float) -> None:
    for pid in pids:
        send(pid, signal.SIGSTOP)
    try:
        time.sleep(seconds)
    finally:
        for pid in pids:
            send(pid, signal.SIGCONT)


def _kill_child(world: World, names: Sequence[str], drawn: random.Random) -> None:
    children = world.children(drawn.choice(names))
    if not children:
        raise NotPossible("it has no process just now")
    send(drawn.choice(children), signal.SIGKILL)


def _wait(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LINK_SECONDS
    while not is_so():
        if time.monotonic() > deadline:
            raise NotPossible(f"it did not come about within {LINK_SECONDS:.0f} s")
        time.sleep(LOOK_SECONDS)


def _appended(server: Valkey) -> Path:
    return server.directory / "data" / "appendonlydir"


def _changed(file: Path) -> float:
    return file.stat().st_mtime


HARMLESS: tuple[type[Exception], ...] = (NotPossible, redis.RedisError, psycopg.Error, OSError)
"""What a fault may fail of, when faults of other lanes are under way."""
