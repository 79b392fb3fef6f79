"""What the cases share: the bare script, a raw socket, the CPU of a server, quotas to be used."""

import socket
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import hiredis
import redis

from quota_redis import Counters, Quota

NAMESPACE = "bench"
START = datetime(2020, 1, 1, tzinfo=UTC)
END = datetime(2100, 1, 1, tzinfo=UTC)
FAR = 10**9
"""A limit that nobody reaches."""
TIMEOUT_SECONDS = 5.0
"""So long that a busy machine is no outage."""

BARE = """
local used = tonumber(redis.call('GET', KEYS[1]) or '0')
if used + ARGV[1] > tonumber(ARGV[2]) then return 0 end
redis.call('INCRBY', KEYS[1], ARGV[1])
return 1
"""
"""What somebody in a hurry writes: no period, no idempotency key, no mark of what has changed."""


def counters(url: str, **more: Any) -> Counters:
    """Counters that take a busy machine for no outage."""
    return Counters.from_url(url, namespace=NAMESPACE, timeout=TIMEOUT_SECONDS, **more)


def quota(limit: int | None = FAR) -> Quota:
    """A quota that rules now, of a period that has an end."""
    return Quota(id=1, limit=limit, start=START, end=END)


class RawSocket:
    """A socket to the server, logged in; no reconnects, no errors of the server, nothing but speed."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._socket = socket.create_connection((parts.hostname, parts.port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._reader = hiredis.Reader()
        self.call(pack("AUTH", parts.password or ""))

    def call(self, packed: bytes) -> object:
        """Send one command and wait for its reply."""
        self._socket.sendall(packed)
        return self._reply()

    def call_many(self, packed: Iterable[bytes], count: int) -> None:
        """Send so many commands at once and wait for their replies. Raises where one of them is an error."""
        self._socket.sendall(b"".join(packed))
        for _ in range(count):
            reply = self._reply()
            if isinstance(reply, Exception):
                raise reply

    def close(self) -> None:
        self._socket.close()

    def __del__(self) -> None:
        # A peer is a function that holds its socket: nobody else can close it.
        self._socket.close()

    def _reply(self) -> object:
        while (reply := self._reader.gets()) is False:
            data = self._socket.recv(65536)
            if not data:
                raise ConnectionError("the server closed the connection")
            self._reader.feed(data)
        return reply


def pack(*words: str | int | bytes) -> bytes:
    """A command as it travels."""
    return bytes(hiredis.pack_command(words))  # type: ignore[arg-type]


class ServerMeter:
    """What a server has done since the meter was last read."""

    def __init__(self, client: "redis.Redis") -> None:
        self._client = client
        self.cpu_us()

    def cpu_us(self) -> float:
        """Microseconds of its main thread."""
        info: Any = self._client.info("cpu")
        seconds = info["used_cpu_user_main_thread"] + info["used_cpu_sys_main_thread"]
        return float(seconds) * 1e6


class Load:
    """Commands through a raw socket, and what the server spends on them.

    chunk: so many are sent at once. With many, what a server spends is the commands' own work; with one, also
    what it takes to read from a socket and to write to it.
    """

    def __init__(self, url: str, chunk: int = 100) -> None:
        self._chunk = chunk
        self._socket = RawSocket(url)
        self._client = redis.Redis.from_url(url, decode_responses=True)
        self._meter = ServerMeter(self._client)

    def cpu_us(self, commands: Sequence[bytes]) -> float:
        """Microseconds of the server for all of these commands."""
        before = self._meter.cpu_us()
        self.send(commands)
        return self._meter.cpu_us() - before

    def load_script(self, text: str) -> str:
        """Make the server know a script; returns its hash."""
        return str(self._client.script_load(text))

    def send(self, commands: Sequence[bytes]) -> None:
        for at in range(0, len(commands), self._chunk):
            some = commands[at : at + self._chunk]
            self._socket.call_many(some, len(some))

    def close(self) -> None:
        self._socket.close()
        self._client.close()
