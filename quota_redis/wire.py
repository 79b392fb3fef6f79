"""Sockets that redis-py opens and we speak on: it connects (TLS, Sentinel, passwords, cluster), we send and read.

A call by redis-py costs several times what the socket does: a pool with locks, a look at the connection, retries,
metrics and callbacks. What a script needs of that is a connection that works, a timeout, and bytes in and out.
"""

import os
import socket
import struct
import time
import weakref
from collections import defaultdict, deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any, TypeAlias

import hiredis
import redis
from redis.exceptions import InvalidResponse, NoScriptError, RedisError, ResponseError

from quota_redis.scripts import Call, Reply, pack

Sending: TypeAlias = Call[Any]

MAX_UNREAD = 64
"""Posted calls on one socket whose answers nobody has read yet."""
CHUNK = 200
"""Calls that are sent before their answers are read."""
IDLE_SECONDS = 1.0
"""After this long without use it is looked whether the server has closed the connection."""
_RECEIVE = 65_536


class MORE:
    """What the parser says where an answer has not arrived whole."""


def reply_error(message: str) -> Exception:
    """The exception for an error reply; it is a value until somebody raises it."""
    return (NoScriptError if message.startswith("NOSCRIPT") else ResponseError)(message)


def new_parser() -> "hiredis.Reader":
    return hiredis.Reader(protocolError=InvalidResponse, replyError=reply_error, notEnoughData=MORE)


class Wire:
    """One socket, for one thread at a time. Whatever it raises, it is to be dropped then."""

    __slots__ = ("_connection", "_parser", "_socket", "pool", "unread", "used_at")

    def __init__(self, pool: Any, connection: Any, plain: socket.socket) -> None:
        self.pool = pool
        self._connection = connection
        self._socket = plain
        self._parser = new_parser()
        self.unread: deque[Sending] = deque()
        self.used_at = time.monotonic()
        _leave_timeouts_to_the_kernel(plain, connection.socket_timeout)

    def call(self, sending: Sending) -> Reply:
        """Send a call and read its answer, after those of what was posted before; an error reply is a value."""
        reply = self._exchange(sending.by_hash())
        if isinstance(reply, NoScriptError):
            reply = self._exchange(sending.by_text())
        return reply

    def call_many(self, sendings: Sequence[Sending]) -> list[Reply]:
        """Send calls together and read their answers; an error reply is a value among them."""
        replies = self._exchange_many([sending.by_hash() for sending in sendings])
        missed = [i for i, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
        for text in {sendings[i].script.text for i in missed}:
            self._exchange(pack("SCRIPT", "LOAD", text))
        again = self._exchange_many([sendings[i].by_hash() for i in missed])
        for i, reply in zip(missed, again, strict=True):
            replies[i] = reply
        return replies

    def post(self, sending: Sending) -> None:
        """Send a call whose answer is read later, when it has long arrived."""
        if len(self.unread) >= MAX_UNREAD:
            self.flush()
        self._post(sending, sending.by_hash())

    def flush(self) -> None:
        """Read the answers to everything that was posted."""
        while self.unread:
            self._post_again(self._read_posted())

    def is_stale(self) -> bool:
        """Whether it lay idle for a while and the server has closed it, or says what nobody asked."""
        if time.monotonic() - self.used_at < IDLE_SECONDS:
            return False
        try:
            self.flush()
            return bool(self._connection.can_read(timeout=0))
        except (RedisError, OSError):
            return True

    def drop(self) -> None:
        """Close it and give the connection back to its pool; what was posted and not answered may be lost."""
        if self._connection is None:
            return
        connection, self._connection = self._connection, None
        with suppress(RedisError, OSError):
            connection.disconnect()
        self.pool.release(connection)

    def __del__(self) -> None:
        # Counters that nobody closed must not keep a pool's connections from others.
        with suppress(Exception):
            self.drop()

    def _exchange(self, data: bytes) -> Reply:
        self._send(data)
        lost = self._read_posted() if self.unread else ()
        reply = self._read()
        self.used_at = time.monotonic()
        if lost:
            self._post_again(lost)
        return reply

    def _exchange_many(self, commands: Sequence[bytes]) -> list[Reply]:
        self.flush()
        replies: list[Reply] = []
        for at in range(0, len(commands), CHUNK):
            chunk = commands[at : at + CHUNK]
            self._send(b"".join(chunk))
            replies += [self._read() for _ in chunk]
        self.used_at = time.monotonic()
        return replies

    def _post(self, sending: Sending, data: bytes) -> None:
        self._send(data)
        self.unread.append(sending)

    def _post_again(self, lost: Sequence[Sending]) -> None:
        for sending in lost:
            self._post(sending, sending.by_text())

    def _read_posted(self) -> list[Sending]:
        """Those of the posted calls that the server had forgotten the script for."""
        lost = []
        while self.unread:
            if isinstance(self._read(), NoScriptError):
                lost.append(self.unread[0])
            self.unread.popleft()
        return lost

    def _send(self, data: bytes) -> None:
        try:
            self._socket.sendall(data)
        except (TimeoutError, BlockingIOError):
            raise redis.TimeoutError("the server took nothing within the timeout") from None

    def _read(self) -> Reply:
        reply = self._parser.gets()
        while reply is MORE or type(reply) is hiredis.PushNotification:
            if reply is MORE:
                self._parser.feed(self._receive())
            reply = self._parser.gets()
        return reply

    def _receive(self) -> bytes:
        try:
            received = self._socket.recv(_RECEIVE)
        except (TimeoutError, BlockingIOError):
            raise redis.TimeoutError("the server did not answer within the timeout") from None
        if not received:
            raise redis.ConnectionError("the server closed the connection")
        return received


def _leave_timeouts_to_the_kernel(plain: socket.socket, timeout: float | None) -> None:
    """Where Python keeps a timeout it asks the kernel twice for each call: poll, then the call."""
    # Sockets of TLS, and those that gevent puts in their place, wait in Python.
    if not timeout or type(plain).__module__ != "socket":
        return
    seconds, fraction = divmod(max(timeout, 0.001), 1)
    value = struct.pack("ll", int(seconds), int(fraction * 1_000_000))
    with suppress(OSError):
        for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            plain.setsockopt(socket.SOL_SOCKET, option, value)
        plain.setblocking(True)


class Wires:
    """The idle wires of a redis-py client, by pool; a cluster has a pool for each node.

    Thread-safe: a wire that is in use is on no list. After a fork the child opens its own.
    """

    def __init__(self, client: Any) -> None:
        self._client = client
        self._is_cluster = isinstance(client, redis.RedisCluster)
        self._idle: defaultdict[Any, list[Wire]] = defaultdict(list)
        _all_wires.add(self)
        pool = self._pool = getattr(client, "connection_pool", None)
        # With a cache of redis-py's own, its sockets carry more than commands and their answers.
        has_cache = getattr(pool, "cache", None) is not None
        self.must_learn = False
        """Whether redis-py has to find out first which node of a cluster has what."""
        self._is_possible = self._is_cluster or (pool is not None and not has_cache)

    def pool(self, key: str) -> Any:
        """The pool of the server that has a key."""
        if not self._is_cluster:
            return self._pool
        node = self._client.get_node_from_key(key)
        return self._client.get_redis_connection(node).connection_pool

    def take(self, pool: Any) -> Wire | None:
        """A wire to a server; None where redis-py has connections of another kind. Raises what connecting does."""
        if not self._is_possible or self.must_learn:
            return None
        idle = self._idle[pool]
        while idle:
            try:
                wire = idle.pop()
            except IndexError:
                break
            if not wire.is_stale():
                return wire
            wire.drop()
        connection = pool.get_connection()
        plain = getattr(connection, "_sock", None)
        if isinstance(plain, socket.socket):
            return Wire(pool, connection, plain)
        pool.release(connection)
        self._is_possible = False
        return None

    def drop(self, wire: Wire) -> None:
        wire.drop()
        self.must_learn = self._is_cluster

    def give_back(self, wire: Wire) -> None:
        self._idle[wire.pool].append(wire)

    def take_idle(self) -> Iterator[Wire]:
        """Every idle wire; whoever takes one gives it back or drops it."""
        taken: list[Wire] = []
        for idle in list(self._idle.values()):
            with suppress(IndexError):
                while True:
                    taken.append(idle.pop())
        return iter(taken)

    def forget(self) -> None:
        """Leave the idle wires to the process that opened them."""
        self._idle = defaultdict(list)


_all_wires: "weakref.WeakSet[Wires]" = weakref.WeakSet()


def _after_fork() -> None:
    for wires in list(_all_wires):
        wires.forget()


os.register_at_fork(after_in_child=_after_fork)
