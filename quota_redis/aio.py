"""AsyncCounters: the same counters for asyncio, with many calls in flight on one connection.

counters = AsyncCounters.from_url("redis://localhost:6379/0", namespace="api")
decision = await counters.consume("team:7", 3)
await counters.aclose()
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import timedelta
from functools import partial
from typing import Any, Self, TypeVar

import hiredis
import redis
import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, RedisError, ResponseError

from quota_redis import ranges
from quota_redis.breaker import Breaker
from quota_redis.calls import Calls, Consumed, Reserved, snapshot_of
from quota_redis.connection import failure, must_be_let_through, outcome, raise_first
from quota_redis.counters import DEFAULT_LEASE, DEFAULT_REMEMBER, DEFAULT_REMEMBER_FULL
from quota_redis.errors import InvalidArgument, Unavailable
from quota_redis.scripts import Call, Reply, Value
from quota_redis.types import Denied, Quota, Reservation, Snapshot, Usage
from quota_redis.wire import CHUNK, MORE, new_parser

T = TypeVar("T")

MAX_IN_FLIGHT = 10_000
"""Calls on one connection that are not answered yet."""


class Line(asyncio.Protocol):
    """One socket of an event loop: what many tasks send in one turn of it goes out together.

    Answers come in the order of the calls. When the oldest has waited for `timeout` seconds, or the server is
    gone, all that wait fail and the line is done for.
    """

    def __init__(self, transport: asyncio.WriteTransport, timeout: float | None) -> None:
        self._before = transport.get_protocol()
        transport.set_protocol(self)
        self.loop = asyncio.get_running_loop()
        self.is_open = True
        self._transport = transport
        self._timeout = timeout
        self._parser = new_parser()
        self._out: list[bytes] = []
        self._waiting: deque[tuple[asyncio.Future[Reply], float]] = deque()
        self._watch: asyncio.TimerHandle | None = None

    def send(self, data: bytes) -> "asyncio.Future[Reply]":
        """Send one command; the future has its reply, an error reply as an exception that is a value."""
        if not self.is_open:
            raise redis.ConnectionError("the server closed the connection")
        if len(self._waiting) >= MAX_IN_FLIGHT:
            raise redis.ConnectionError(f"{MAX_IN_FLIGHT} calls are in flight: wait for some.")
        future: asyncio.Future[Reply] = self.loop.create_future()
        if not self._out:
            self.loop.call_soon(self._flush)
        self._out.append(data)
        self._waiting.append((future, self.loop.time()))
        if self._watch is None and self._timeout:
            self._watch = self.loop.call_later(self._timeout, self._look)
        return future

    def data_received(self, data: bytes) -> None:
        self._parser.feed(data)
        while (reply := self._parser.gets()) is not MORE:
            if type(reply) is not hiredis.PushNotification:
                future, _ = self._waiting.popleft()
                if not future.done():
                    future.set_result(reply)

    def connection_lost(self, error: Exception | None) -> None:
        self.fail(redis.ConnectionError(f"the server closed the connection: {error or 'end'}"))
        # redis-py closes its end of what it has opened.
        self._before.connection_lost(error)

    def fail(self, error: Exception) -> None:
        """End the line; whoever waits gets the error."""
        self.is_open = False
        self._transport.abort()
        if self._watch:
            self._watch.cancel()
        while self._waiting:
            future, _ = self._waiting.popleft()
            if not future.done():
                future.set_exception(error)

    async def flush(self) -> None:
        """Wait until everything that was sent has been answered."""
        if self._waiting:
            await asyncio.wait([self._waiting[-1][0]])

    def _flush(self) -> None:
        if self.is_open:
            self._transport.write(b"".join(self._out))
        self._out.clear()

    def _look(self) -> None:
        """Whether the oldest call has waited too long; one timer, however many wait."""
        assert self._timeout is not None
        self._watch = None
        if self._waiting:
            left = self._waiting[0][1] + self._timeout - self.loop.time()
            if left <= 0:
                self.fail(redis.TimeoutError("the server did not answer within the timeout"))
            else:
                self._watch = self.loop.call_later(left, self._look)


class AsyncConnection:
    """Runs scripts for a client of redis.asyncio, as Connection does for one of redis-py; in one event loop.

    Calls of all tasks share one socket that redis-py opens. Where its connections are of another kind (a cluster,
    client-side caching), redis-py carries them.
    """

    def __init__(self, client: "redis.asyncio.Redis", breaker: Breaker | None = None) -> None:
        self.client = client
        self.breaker = breaker or Breaker()
        self._line: Line | None = None
        self._connection: Any = None
        self._opening: asyncio.Task[Line | None] | None = None
        pool = getattr(client, "connection_pool", None)
        self._is_possible = pool is not None and getattr(pool, "cache", None) is None

    async def send(self, call: Call[T]) -> T:
        """Make a call and read its answer. Raises Unavailable, Garbled, or InvalidArgument for what it refused."""
        breaker = self.breaker
        if breaker.failed_in_a_row:
            must_be_let_through(breaker)
        try:
            line = self._usable() or await self._open()
            if line is None:
                reply = await self._by_driver(call)
            else:
                reply = await line.send(call.by_hash())
                if isinstance(reply, NoScriptError):
                    reply = await line.send(call.by_text())
            if isinstance(reply, Exception):
                raise reply
        except (RedisError, OSError) as error:
            raise failure(breaker, error) from error
        if breaker.failed_in_a_row:
            breaker.succeeded()
        return call.answer(reply)

    async def send_many(self, calls: Sequence[Call[T]]) -> list[T | Exception]:
        """Make many calls together; an element is the result or the exception of that one alone."""
        replies = await self._guard(self._call_many, calls) if calls else []
        return [outcome(call, reply) for call, reply in zip(calls, replies, strict=True)]

    async def send_unanswered(self, call: Call[Any]) -> None:
        """Make a call without waiting for its answer. Nothing is raised: whoever posts can do without."""
        if not self.breaker.is_open:
            with contextlib.suppress(Unavailable, InvalidArgument):
                await self._guard(self._post, call)

    async def command(self, *args: Value) -> Reply:
        """Run a plain command, by redis-py."""
        return await self._guard(lambda values: self.client.execute_command(*values), args)  # type: ignore[no-untyped-call]

    async def flush(self) -> None:
        """Wait until everything that was sent unanswered has been answered."""
        if line := self._usable():
            await line.flush()

    async def aclose(self) -> None:
        """Close the socket; the next call opens a new one."""
        await self.flush()
        if self._line:
            self._line.fail(redis.ConnectionError("it was closed here"))
        await self._release()

    async def _guard(self, call: Callable[[Any], Awaitable[T]], value: Any) -> T:
        must_be_let_through(self.breaker)
        try:
            reply = await call(value)
        except (RedisError, OSError) as error:
            raise failure(self.breaker, error) from error
        self.breaker.succeeded()
        return reply

    async def _call_many(self, calls: Sequence[Call[Any]]) -> list[Reply]:
        line = self._usable() or await self._open()
        if line is None:
            return [await self._by_driver(call) for call in calls]
        replies: list[Reply] = []
        for at in range(0, len(calls), CHUNK):
            sent = [line.send(call.by_hash()) for call in calls[at : at + CHUNK]]
            replies += await asyncio.gather(*sent)
        missed = [i for i, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
        for i in missed:
            replies[i] = await line.send(calls[i].by_text())
        return replies

    async def _post(self, call: Call[Any]) -> None:
        line = self._usable() or await self._open()
        if line is None:
            await self._by_driver(call)
        else:
            line.send(call.by_hash()).add_done_callback(partial(_send_again, line, call))

    def _usable(self) -> Line | None:
        line = self._line
        if line is not None and line.is_open and line.loop is asyncio.get_running_loop():
            return line
        return None

    async def _open(self) -> Line | None:
        """A new line, the same for all that ask meanwhile; None where redis-py has to carry the calls."""
        if not self._is_possible:
            return None
        task = self._opening
        if task is None or task.done() or task.get_loop() is not asyncio.get_running_loop():
            task = self._opening = asyncio.create_task(self._connect())
        # Whoever gives up waiting must not take the connection from the others.
        return await asyncio.shield(task)

    async def _connect(self) -> Line | None:
        await self._release()
        pool: Any = self.client.connection_pool
        connection = await pool.get_connection()
        self._connection = connection
        writer = getattr(connection, "_writer", None)
        if not isinstance(writer, asyncio.StreamWriter):
            self._is_possible = False
            await self._release()
            return None
        self._line = Line(writer.transport, connection.socket_timeout)
        return self._line

    async def _release(self) -> None:
        connection, self._connection, self._line = self._connection, None, None
        if connection is not None:
            # Its event loop may have ended with it.
            with contextlib.suppress(RedisError, OSError, RuntimeError):
                await connection.disconnect()
            await self.client.connection_pool.release(connection)

    async def _by_driver(self, call: Call[Any]) -> Reply:
        script, keys, args = call[:3]
        try:
            try:
                return await self.client.evalsha(script.sha, len(keys), *keys, *args)
            except NoScriptError:
                return await self.client.eval(script.text, len(keys), *keys, *args)
        except ResponseError as error:
            return error


def _send_again(line: Line, call: Call[Any], future: "asyncio.Future[Reply]") -> None:
    """A posted call whose script the server had forgotten."""
    is_lost = future.cancelled() or future.exception() is not None
    if not is_lost and line.is_open and isinstance(future.result(), NoScriptError):
        line.send(call.by_text()).add_done_callback(_ignore)


def _ignore(future: "asyncio.Future[Reply]") -> None:
    """Take note of an exception, so that nobody reports it as forgotten."""
    if not future.cancelled():
        future.exception()


class AsyncCounters:
    """Counters for asyncio: each method does what the one of the same name of Counters does.

    Use one in each event loop; calls of all its tasks share a connection. `client` is one of redis.asyncio.
    """

    def __init__(
        self,
        client: "redis.asyncio.Redis",
        *,
        namespace: str,
        lease: timedelta = DEFAULT_LEASE,
        boundary_skew: timedelta = timedelta(0),
        remember_full: timedelta = DEFAULT_REMEMBER_FULL,
    ) -> None:
        self.calls = Calls(
            namespace, lease=lease, boundary_skew=boundary_skew, remember_full=remember_full
        )
        self.keys = self.calls.keys
        self.boundary_skew = boundary_skew
        self.connection = AsyncConnection(client)
        self._owns_client = False

    @classmethod
    def from_url(
        cls,
        url: str,
        *,
        namespace: str,
        timeout: float = 0.05,
        lease: timedelta = DEFAULT_LEASE,
        boundary_skew: timedelta = timedelta(0),
        remember_full: timedelta = DEFAULT_REMEMBER_FULL,
    ) -> Self:
        """Counters on the server at a redis://, rediss:// or unix:// address; `timeout` in seconds."""
        try:
            client = redis.asyncio.Redis.from_url(
                url,
                socket_timeout=timeout,
                socket_connect_timeout=timeout,
                retry=Retry(NoBackoff(), 0),
            )
        except ValueError as error:
            raise InvalidArgument(f"the address of Redis cannot be used: {error}") from error
        counters = cls(
            client,
            namespace=namespace,
            lease=lease,
            boundary_skew=boundary_skew,
            remember_full=remember_full,
        )
        counters._owns_client = True
        return counters

    async def define(self, subject: str, *quotas: Quota) -> int:
        """As Counters.define."""
        return await self.connection.send(self.calls.define(subject, quotas))

    async def consume(
        self,
        subject: str,
        amount: int = 1,
        *,
        key: str | None = None,
        remember: timedelta = DEFAULT_REMEMBER,
    ) -> Consumed:
        """As Counters.consume."""
        call = self.calls.consume(subject, amount, key, remember)
        if key is None and (denied := self.calls.recall(subject)):
            return denied
        return await self.connection.send(call)

    async def reserve(self, subject: str, amount: int, *, hold_id: str | None = None) -> Reserved:
        """As Counters.reserve."""
        call = self.calls.reserve(subject, amount, hold_id)
        if hold_id is None and (denied := self.calls.recall(subject)):
            return denied
        return await self.connection.send(call)

    async def reserve_many(self, wanted: Iterable[tuple[str, int]]) -> list[Reserved | Exception]:
        """As Counters.reserve_many."""
        return await self.connection.send_many(
            [self.calls.reserve(subject, amount, None) for subject, amount in wanted]
        )

    async def consume_many(self, wanted: Iterable[tuple[str, int]]) -> list[Consumed | Exception]:
        """As Counters.consume_many."""
        return await self.connection.send_many(
            [
                self.calls.consume(subject, amount, None, DEFAULT_REMEMBER)
                for subject, amount in wanted
            ]
        )

    async def settle(self, reservation: Reservation, used: int, *, wait: bool = True) -> None:
        """As Counters.settle."""
        await self._settle(self.calls.settle(reservation, used), wait=wait)

    async def settle_many(self, settled: Iterable[tuple[Reservation, int]]) -> None:
        """As Counters.settle_many."""
        calls = [self.calls.settle(*each) for each in settled]
        raise_first(await self.connection.send_many(calls))

    async def release(self, subject: str, hold_id: str, *, wait: bool = True) -> None:
        """As Counters.release."""
        await self._settle(self.calls.release(subject, hold_id), wait=wait)

    async def give_back(
        self, subject: str, hold_id: str, back: ranges.Ranges, *, wait: bool = True
    ) -> None:
        """As Counters.give_back."""
        await self._settle(self.calls.give_back(subject, hold_id, back), wait=wait)

    async def forfeit(self, subject: str) -> int:
        """As Counters.forfeit."""
        expired = (await self.snapshot(subject)).expired
        for hold in expired:
            await self.connection.send(self.calls.give_back(subject, hold.id, ()))
        return len(expired)

    def recall(self, subject: str) -> Denied | None:
        """As Counters.recall."""
        return self.calls.recall(subject)

    def forget(self, subject: str) -> None:
        """As Counters.forget."""
        self.calls.forget(subject)

    async def usage(self, subject: str) -> dict[int, Usage]:
        """As Counters.usage."""
        return self.calls.usage_of(await self.snapshot(subject))

    async def snapshot(self, subject: str) -> Snapshot:
        """As Counters.snapshot."""
        return await self.connection.send(self.calls.snapshot(subject))

    async def snapshots(self, subjects: Iterable[str]) -> list[Snapshot]:
        """As Counters.snapshots."""
        calls = [self.calls.snapshot(subject) for subject in subjects]
        outcomes = await self.connection.send_many(calls)
        return [snapshot_of(call, each) for call, each in zip(calls, outcomes, strict=True)]

    async def flush(self) -> None:
        """As Counters.flush."""
        await self.connection.flush()

    async def aclose(self) -> None:
        """Close what the counters opened; a client that was given is its owner's."""
        await self.connection.aclose()
        if self._owns_client:
            await self.connection.client.aclose()

    async def _settle(self, call: Call[None], *, wait: bool) -> None:
        if wait:
            await self.connection.send(call)
        else:
            await self.connection.send_unanswered(call)
