"""The wall between the scripts and the driver: what that raises becomes ours here, and nowhere else."""

import contextlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import redis
from redis.exceptions import NoScriptError, RedisError, ResponseError

from quota_redis import scripts
from quota_redis.breaker import Breaker
from quota_redis.errors import Garbled, InvalidArgument, QuotaError, Unavailable
from quota_redis.scripts import Call, Reply, Value
from quota_redis.wire import Sending, Wire, Wires

T = TypeVar("T")

_OWN_ERROR = "QUOTA "
_ELSEWHERE = ("MOVED ", "ASK ", "TRYAGAIN", "CLUSTERDOWN")
"""How a node of a cluster says that it has not done what was asked."""


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


def must_be_let_through(breaker: Breaker) -> None:
    """Raise Unavailable where calls are being kept away from the server."""
    if not breaker.admit():
        raise Unavailable("Redis failed several times in a row: it is left alone for a moment.")


def failure(breaker: Breaker, error: Exception) -> Exception:
    """The package's error for a call that failed; the breaker hears of it where the server is to blame."""
    translated = translate(error)
    if isinstance(translated, Unavailable) and not isinstance(translated, Garbled):
        # Whoever has waited for Redis once is not to wait a second time in the same call.
        breaker.failed(error, at_once=isinstance(error, redis.TimeoutError))
    return translated


def _as_it_is(reply: Reply) -> Reply:
    return reply


def outcome(call: Call[T], reply: Reply) -> T | Exception:
    """The result of one of many calls, or the exception where that call alone failed."""
    if isinstance(reply, Exception):
        return translate(reply)
    try:
        return call.answer(reply)
    except QuotaError as error:
        return error


def raise_first(outcomes: Iterable[object]) -> None:
    """Raise the first exception among outcomes, where there is one."""
    for each in outcomes:
        if isinstance(each, Exception):
            raise each


class Connection:
    """Runs scripts for a redis-py client: one round trip a call, no retry of its own, behind a breaker.

    Safe to share between threads and to use after a fork. Scripts travel on sockets that redis-py opens and that
    are ours alone; where its connections are of another kind (client-side caching, an imitation in memory),
    redis-py carries them.
    """

    def __init__(self, client: "redis.Redis", breaker: Breaker | None = None) -> None:
        self.client = client
        self.breaker = breaker or Breaker()
        self._wires = Wires(client)

    def run(self, name: str, keys: Sequence[str], args: Sequence[Value]) -> Reply:
        """Run a script and return its reply.

        Raises Unavailable, or InvalidArgument for what the script refused.
        """
        return self.send(Call(scripts.load(name), keys, args, _as_it_is))

    def send(self, call: Call[T]) -> T:
        """Make a call, as `run` does, and read its answer. Raises Garbled for one that no script gives."""
        return call.answer(self._guard(self._call, call))

    def run_many(
        self, name: str, calls: Sequence[tuple[Sequence[str], Sequence[Value]]]
    ) -> list[Reply]:
        """Run one script for many, in one round trip to each server.

        An element is the reply, or the exception where that call alone failed.
        """
        if not calls:
            return []
        script = scripts.load(name)
        return self.send_many([Call(script, *call, _as_it_is) for call in calls])

    def send_many(self, calls: Sequence[Call[T]]) -> list[T | Exception]:
        """Make many calls, as `run_many` does; an element is the result or the exception of that one alone."""
        replies = self._guard(self._call_many, calls) if calls else []
        return [outcome(call, reply) for call, reply in zip(calls, replies, strict=True)]

    def command(self, *args: Value) -> Reply:
        """Run a plain command, by redis-py."""
        return self._guard(lambda values: self.client.execute_command(*values), args)  # type: ignore[no-untyped-call]

    def post(self, name: str, keys: Sequence[str], args: Sequence[Value]) -> None:
        """Send a script's call without waiting for the answer. Nothing is raised: whoever posts can do without."""
        self.send_unanswered(Call(scripts.load(name), keys, args, _as_it_is))

    def send_unanswered(self, call: Sending) -> None:
        """Make a call, as `post` does."""
        if not self.breaker.is_open:
            with contextlib.suppress(Unavailable, InvalidArgument):
                self._guard(self._post, call)

    def flush(self) -> None:
        """Wait until everything that was posted has been answered."""
        for wire in self._wires.take_idle():
            with contextlib.suppress(RedisError, OSError):
                self._use(wire, Wire.flush)

    def close(self) -> None:
        """Close the sockets; the next call opens new ones."""
        self.flush()
        for wire in self._wires.take_idle():
            wire.drop()

    def _guard(self, call: Callable[[Any], T], value: Any) -> T:
        breaker = self.breaker
        if breaker.failed_in_a_row:
            must_be_let_through(breaker)
        try:
            reply = call(value)
        except (RedisError, OSError) as error:
            raise failure(breaker, error) from error
        if breaker.failed_in_a_row:
            breaker.succeeded()
        return reply

    def _call(self, sending: Sending) -> Reply:
        wire = self._wires.take(self._wires.pool(sending.keys[0]))
        if wire is None:
            return self._by_driver(sending)
        reply = self._use(wire, Wire.call, sending)
        if isinstance(reply, ResponseError):
            if str(reply).startswith(_ELSEWHERE):
                return self._by_driver(sending)
            raise reply
        return reply

    def _call_many(self, sendings: Sequence[Sending]) -> list[Reply]:
        by_pool: dict[Any, list[int]] = defaultdict(list)
        for i, sending in enumerate(sendings):
            by_pool[self._wires.pool(sending.keys[0])].append(i)
        replies: list[Reply] = [None] * len(sendings)
        for pool, indexes in by_pool.items():
            wire = self._wires.take(pool)
            chosen = [sendings[i] for i in indexes]
            some = self._use(wire, Wire.call_many, chosen) if wire else map(self._try, chosen)
            for i, reply in zip(indexes, some, strict=True):
                is_elsewhere = isinstance(reply, ResponseError) and str(reply).startswith(
                    _ELSEWHERE
                )
                replies[i] = self._try(sendings[i]) if is_elsewhere else reply
        return replies

    def _post(self, sending: Sending) -> None:
        wire = self._wires.take(self._wires.pool(sending.keys[0]))
        if wire is None:
            self._by_driver(sending)
        else:
            self._use(wire, Wire.post, sending)

    def _use(self, wire: Wire, action: Callable[..., T], *args: Any) -> T:
        """Let a wire do something; one that failed half-way is not used again."""
        try:
            result = action(wire, *args)
        except BaseException:
            self._wires.drop(wire)
            raise
        self._wires.give_back(wire)
        return result

    def _try(self, sending: Sending) -> Reply:
        try:
            return self._by_driver(sending)
        except ResponseError as error:
            return error

    def _by_driver(self, sending: Sending) -> Reply:
        """One call by redis-py, which in a cluster asks the node that the key has moved to."""
        script, keys, args = sending[:3]
        try:
            reply = self.client.evalsha(script.sha, len(keys), *keys, *args)
        except NoScriptError:
            reply = self.client.eval(script.text, len(keys), *keys, *args)
        self._wires.must_learn = False
        return reply
