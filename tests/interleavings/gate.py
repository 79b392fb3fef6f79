"""Actors: the real code, each in a thread that stops before every call to a server until it may go on.

Between two calls an actor touches nothing that others see, so one stop for each call is enough: it stands after
the call before it as well. What a fault does to a call is decided when the actor is let go.
"""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any, TypeVar

import psycopg
import redis

from quota_redis.breaker import Breaker
from quota_redis.connection import Connection
from quota_redis.scripts import Call, Reply, Script, Value

T = TypeVar("T")


class Fault(Enum):
    """What happens to one call."""

    NOT_SENT = auto()
    """The server is gone before the call reaches it."""
    REPLY_LOST = auto()
    """The server does it and the caller never hears of it."""
    KILLED_BEFORE = auto()
    """The calling process is killed, and its call was never made."""
    KILLED_AFTER = auto()
    """The calling process is killed once the server has done it."""


class Killed(BaseException):
    """Ends the thread of an actor whose process is no more; nothing it does on the way out reaches a server."""


@dataclass(frozen=True)
class Post:
    """A call that was sent unanswered and is still on its way."""

    hold_id: str
    is_late: bool
    """Whether others may go on before it arrives."""
    script: Script
    keys: Sequence[str]
    args: Sequence[Value]


@dataclass(eq=False)
class Actor:
    """One process of the service, doing one thing."""

    name: str
    program: "Callable[[Actor], Any]"
    began: int
    """Index into the history of observations at which it was started."""
    posts_late: bool = False
    at: str = "start"
    result: Any = None
    error: Exception | None = None
    is_dead: bool = False
    is_done: bool = False
    was_hurt: bool = False
    """Whether a fault has met one of its calls."""
    hold_ids: set[str] = field(default_factory=set)
    stopped: threading.Event = field(default_factory=threading.Event)
    _turn: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    _fault: Fault | None = None
    connection: Any = None
    counters: Any = None
    ledger: Any = None

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, name=self.name, daemon=True)
        self._thread.start()

    def resume(self, fault: Fault | None = None) -> None:
        """Let it make the call it stands before, and go on to the next."""
        self._fault = fault
        self.was_hurt = self.was_hurt or fault is not None
        self.stopped.clear()
        self._turn.release()

    def join(self) -> None:
        self._thread.join(timeout=30)
        assert not self._thread.is_alive(), f"{self.name} does not end"

    def call(self, label: str, do: Callable[[], T], lost: Callable[[], Exception]) -> T:
        """Stop, then make the call as the machine wishes. `lost` makes the driver's error for a lost server."""
        fault = self._stop(label)
        if fault is Fault.NOT_SENT:
            raise lost()
        try:
            reply = do()
        except Exception:
            if self.is_dead:
                raise Killed from None
            raise
        self.is_dead = self.is_dead or fault is Fault.KILLED_AFTER
        if self.is_dead:
            raise Killed
        if fault is Fault.REPLY_LOST:
            raise lost()
        return reply

    def _stop(self, label: str) -> Fault | None:
        if self.is_dead:
            raise Killed
        self.at = label
        self.stopped.set()
        self._turn.acquire()
        self.is_dead = self.is_dead or self._fault is Fault.KILLED_BEFORE
        if self.is_dead:
            raise Killed
        return self._fault

    def _run(self) -> None:
        try:
            self.result = self.program(self)
        except Killed:
            self.is_dead = True
        except Exception as error:  # noqa: BLE001  the machine judges it
            self.error = error
        self.is_done = True
        self.stopped.set()


class GatedRedis(Connection):
    """The connection to Redis of one actor."""

    def __init__(self, client: "redis.Redis", actor: Actor, world: Any) -> None:
        super().__init__(client, Breaker(clock=lambda: world.seconds))
        self._actor = actor
        self._world = world
        self._label = ""
        # Actors come and go by the thousand; their sockets stay.
        self._wires = world.wires

    def send(self, call: Call[T]) -> T:
        self._label = call.script.name
        if self._label == "reserve":
            self._actor.hold_ids.add(str(call.args[2]))
        return super().send(call)

    def send_many(self, calls: Sequence[Call[T]]) -> list[T | Exception]:
        self._label = calls[0].script.name if calls else ""
        return super().send_many(calls)

    def send_unanswered(self, call: Call[Any]) -> None:
        """Where it waits until the machine delivers or loses it."""
        if not self._actor.is_dead and not self.breaker.is_open:
            late = self._actor.posts_late
            self._world.posts.append(Post(str(call.args[0]), late, *call[:3]))

    def flush(self) -> None:
        """Nobody waits for posts here: that they come late is the point."""

    def close(self) -> None:
        """Posts on their way stay on their way."""

    def command(self, *args: Value) -> Reply:
        self._label = str(args[0])
        if "PX" in args:
            at = args.index("PX")
            self._world.expire_later(str(args[1]), int(args[at + 1]))
            args = args[:at] + args[at + 2 :]
        return super().command(*args)

    def _guard(self, call: Callable[[Any], T], value: Any) -> T:
        def gated(passed: Any) -> T:
            return self._actor.call(f"redis {self._label}", lambda: call(passed), _no_redis)

        return super()._guard(gated, value)


def _no_redis() -> Exception:
    return redis.exceptions.TimeoutError("no answer")


class GatedPostgres(psycopg.Connection[Any]):
    """A connection to PostgreSQL; all that psycopg does with a server goes through `wait`."""

    actor: Actor | None = None
    sever: Callable[["GatedPostgres"], None]

    def wait(self, gen: Any, *args: Any, **options: Any) -> Any:
        if self.actor is None:
            return super().wait(gen, *args, **options)
        return self.actor.call(
            f"sql {_what(gen)}",
            lambda: super(GatedPostgres, self).wait(gen, *args, **options),
            self._lost,
        )

    def _lost(self) -> Exception:
        self.sever(self)
        return psycopg.OperationalError("the server closed the connection")


def _what(gen: Any) -> str:
    """What a generator of psycopg is about to do, for people who read a failure."""
    frame = getattr(gen, "gi_frame", None)
    query = frame.f_locals.get("query") if frame else None
    if isinstance(query, bytes):
        return " ".join(query.decode().split())[:60]
    name: str = getattr(gen, "__name__", "call")
    return {"_enter_gen": "BEGIN", "_exit_gen": "COMMIT or ROLLBACK"}.get(name, name)
