"""The wall between the scripts and redis-py: what the driver raises becomes ours here, and nowhere else."""

import contextlib
import os
import threading
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

import redis
from redis.exceptions import NoScriptError, RedisError, ResponseError

from quota_redis import scripts
from quota_redis.breaker import Breaker
from quota_redis.errors import Garbled, InvalidArgument, Unavailable
from quota_redis.scripts import Script

Value: TypeAlias = str | int
Reply: TypeAlias = Any

MAX_UNREAD = 64
_OWN_ERROR = "QUOTA "


def text(value: bytes | str | int) -> str:
    """A reply's value as text, whether the client decodes or not."""
    return value.decode(errors="backslashreplace") if isinstance(value, bytes) else str(value)


def translate(error: Exception) -> Exception:
    """The package's error for a driver's."""
    if isinstance(error, ResponseError) and _OWN_ERROR in str(error):
        return InvalidArgument(str(error).split(_OWN_ERROR, 1)[1])
    if isinstance(error, ResponseError) and str(error).startswith("WRONGTYPE"):
        return Garbled(f"Redis has a key of another kind where ours should be: {error}")
    return Unavailable(f"Redis failed: {type(error).__name__}: {error}")


class Connection:
    """Runs scripts on a redis-py client: one round trip a call, no retry of its own, behind a breaker.

    Safe to share between threads and to use after a fork.
    """

    def __init__(self, client: "redis.Redis", breaker: Breaker | None = None) -> None:
        self.client = client
        self.breaker = breaker or Breaker()
        self._posts = _Posts(client)

    def run(self, name: str, keys: Sequence[str], args: Sequence[Value]) -> Reply:
        """Run a script and return its reply.

        Raises Unavailable, or InvalidArgument for what the script refused.
        """
        script = scripts.load(name)
        return self._guard(lambda: self._evalsha(script, keys, args))

    def run_many(
        self, name: str, calls: Sequence[tuple[Sequence[str], Sequence[Value]]]
    ) -> list[Reply]:
        """Run one script for many, in one round trip where the client has pipelines over one server.

        An element is the reply, or the exception where that call alone failed.
        """
        if not calls:
            return []
        script = scripts.load(name)
        replies: list[Reply] = self._guard(lambda: self._pipeline(script, calls))
        return replies

    def command(self, *args: Value) -> Reply:
        """Run a plain command."""
        return self._guard(lambda: self.client.execute_command(*args))  # type: ignore[no-untyped-call]

    def post(self, name: str, keys: Sequence[str], args: Sequence[Value]) -> None:
        """Send a script's call without waiting for the answer. Nothing is raised: whoever posts can do without."""
        if self.breaker.is_open:
            return
        if self._posts.is_possible:
            self._posts.send(scripts.load(name), keys, args)
            return
        with contextlib.suppress(Unavailable):
            self.run(name, keys, args)

    def flush(self) -> None:
        """Wait until everything that was posted has been answered."""
        self._posts.flush()

    def close(self) -> None:
        self._posts.close()

    def _guard(self, call: Any) -> Reply:
        if not self.breaker.admit():
            raise Unavailable("Redis failed several times in a row: it is left alone for a moment.")
        try:
            reply = call()
        except (RedisError, OSError) as error:
            translated = translate(error)
            if isinstance(translated, Unavailable) and not isinstance(translated, Garbled):
                # Whoever has waited for Redis once is not to wait a second time in the same call.
                self.breaker.failed(error, at_once=isinstance(error, redis.TimeoutError))
            raise translated from error
        self.breaker.succeeded()
        return reply

    def _evalsha(self, script: Script, keys: Sequence[str], args: Sequence[Value]) -> Reply:
        try:
            return self.client.evalsha(script.sha, len(keys), *keys, *args)
        except NoScriptError:
            return self.client.eval(script.text, len(keys), *keys, *args)

    def _pipeline(
        self, script: Script, calls: Sequence[tuple[Sequence[str], Sequence[Value]]]
    ) -> list[Reply]:
        if isinstance(self.client, redis.RedisCluster):
            return [self._evalsha(script, keys, args) for keys, args in calls]
        replies = self._pipeline_once(script, calls)
        missed = [i for i, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
        if missed:
            self.client.script_load(script.text)
            again = self._pipeline_once(script, [calls[i] for i in missed])
            for i, reply in zip(missed, again, strict=True):
                replies[i] = reply
        return [translate(reply) if isinstance(reply, Exception) else reply for reply in replies]

    def _pipeline_once(
        self, script: Script, calls: Sequence[tuple[Sequence[str], Sequence[Value]]]
    ) -> list[Reply]:
        with self.client.pipeline(transaction=False) as pipeline:
            for keys, args in calls:
                pipeline.evalsha(script.sha, len(keys), *keys, *args)
            return list(pipeline.execute(raise_on_error=False))


class _Posts:
    """A connection of its own for calls whose answers are read later, when they have long arrived."""

    def __init__(self, client: "redis.Redis") -> None:
        self._pool = getattr(client, "connection_pool", None)
        self._lock = threading.Lock()
        self._connection: Any = None
        self._pid = 0
        self._unread: deque[tuple[Script, Sequence[str], Sequence[Value]]] = deque()

    @property
    def is_possible(self) -> bool:
        return self._pool is not None

    def send(self, script: Script, keys: Sequence[str], args: Sequence[Value]) -> None:
        with self._lock:
            try:
                self._open()
                self._read(wait=len(self._unread) >= MAX_UNREAD)
                self._write(script, "EVALSHA", script.sha, keys, args)
            except (RedisError, OSError):
                self._drop()

    def flush(self) -> None:
        with self._lock:
            try:
                self._read(wait=True)
            except (RedisError, OSError):
                self._drop()

    def close(self) -> None:
        self.flush()
        with self._lock:
            self._drop()

    def _open(self) -> None:
        if self._connection is not None and self._pid == os.getpid():
            return
        assert self._pool is not None
        self._unread.clear()
        self._connection = self._pool.make_connection()
        self._pid = os.getpid()

    def _write(
        self, script: Script, command: str, body: str, keys: Sequence[str], args: Iterable[Value]
    ) -> None:
        self._connection.send_command(command, body, len(keys), *keys, *args)
        self._unread.append((script, keys, tuple(args)))

    def _read(self, *, wait: bool) -> None:
        if self._connection is None or self._pid != os.getpid():
            return
        while self._unread and (wait or self._connection.can_read(timeout=0)):
            script, keys, args = self._unread.popleft()
            try:
                self._connection.read_response()
            except NoScriptError:
                self._write(script, "EVAL", script.text, keys, args)
            except ResponseError:
                # The server refused (loading, out of memory): the hold ends with its lease instead.
                continue

    def _drop(self) -> None:
        self._unread.clear()
        if self._connection is not None:
            with contextlib.suppress(RedisError, OSError):
                self._connection.disconnect()
        self._connection = None
