"""A cluster of Valkey servers on this machine."""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from shargain.demo.folders import ServerError
from shargain.demo.servers import HOST, Valkey, free_port

SLOTS = 16_384
JOIN_SECONDS = 30.0
LOOK_SECONDS = 0.05


@contextmanager
def valkey_cluster(directory: Path, nodes: int = 3) -> Iterator[str]:
    """So many nodes without replicas, which share all slots; gives the address of the first.

    Raises ServerError where they do not find together.
    """
    directory.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        servers = [
            stack.enter_context(_node(directory / f"node-{number}")) for number in range(nodes)
        ]
        clients = [stack.enter_context(_client(server.url)) for server in servers]
        _share_password(servers, clients)
        _join(servers, clients)
        _wait_until_joined(clients)
        yield servers[0].url


def cluster_client(url: str, timeout: float = 5.0) -> "redis.RedisCluster":
    """A client of the whole cluster that sends nothing twice; `timeout` in seconds."""
    return redis.RedisCluster.from_url(
        url,
        socket_timeout=timeout,
        socket_connect_timeout=timeout,
        retry=Retry(NoBackoff(), 0),
    )


def _node(directory: Path) -> Valkey:
    settings = {"cluster-enabled": "yes", "cluster-port": str(free_port())}
    return Valkey(directory, persistent=False, settings=settings)


def _client(url: str) -> "redis.Redis":
    return redis.Redis.from_url(url, socket_timeout=5.0, retry=Retry(NoBackoff(), 0))


def _share_password(servers: list[Valkey], clients: list["redis.Redis"]) -> None:
    """Each server has a password of its own; a client of the cluster knows one for all."""
    password = urlsplit(servers[0].url).password or ""
    for client in clients[1:]:
        client.config_set("requirepass", password)


def _join(servers: list[Valkey], clients: list["redis.Redis"]) -> None:
    for number, client in enumerate(clients):
        first = SLOTS * number // len(clients)
        last = SLOTS * (number + 1) // len(clients) - 1
        client.execute_command("CLUSTER", "ADDSLOTSRANGE", first, last)
    bus = clients[0].config_get("cluster-port")["cluster-port"]
    for client in clients[1:]:
        client.execute_command("CLUSTER", "MEET", HOST, servers[0].port, bus)


def _wait_until_joined(clients: list["redis.Redis"]) -> None:
    until = time.monotonic() + JOIN_SECONDS
    while time.monotonic() < until:
        seen = [client.execute_command("CLUSTER", "INFO") for client in clients]
        if all(_is_whole(info, len(clients)) for info in seen):
            return
        time.sleep(LOOK_SECONDS)
    raise ServerError(f"{len(clients)} Valkeys made no cluster within {JOIN_SECONDS:.0f} s.")


def _is_whole(info: object, nodes: int) -> bool:
    if isinstance(info, dict):
        return info.get("cluster_state") == "ok" and int(info["cluster_known_nodes"]) == nodes
    lines = info.decode() if isinstance(info, bytes) else str(info)
    return "cluster_state:ok" in lines and f"cluster_known_nodes:{nodes}\r" in lines
