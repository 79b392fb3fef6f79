"""The commands of quota_redis as they travel, made before they are measured, and what they cost the server."""

from collections.abc import Callable, Sequence
from datetime import timedelta
from itertools import count, cycle, islice
from typing import Any

from quota_redis import Counters, Reservation, scripts
from shargain.demo.bench.redis_tools import BARE, FAR, Load, pack

AMOUNT = 20
"""Slots of a reservation: a batch of offers."""
REMEMBER = timedelta(hours=1)


class Commands:
    """Turns that measure the server's CPU for a call, in microseconds, on the subjects one after the other.

    subjects: defined, with a limit that is not reached; of each at most one hold is added at a time.
    """

    def __init__(self, counters: Counters, load: Load, subjects: Sequence[str]) -> None:
        self._counters = counters
        self._load = load
        self._subjects = subjects
        self._turning = cycle(subjects)
        self._ids = count()
        self._bare = load.load_script(BARE)
        for name in scripts.NAMES:
            load.load_script(scripts.load(name).text)

    def incr(self, calls: int) -> float:
        return self._cost([pack("INCR", f"plain:{name}") for name in self._next(calls)])

    def nothing(self, calls: int) -> float:
        sha = self._load.load_script("return 1")
        return self._cost([pack("EVALSHA", sha, 1, f"plain:{name}") for name in self._next(calls)])

    def bare(self, calls: int) -> float:
        """The check-and-increment in its barest form."""
        names = self._next(calls)
        return self._cost([pack("EVALSHA", self._bare, 1, f"plain:{n}", 1, FAR) for n in names])

    def consume(self, calls: int) -> float:
        consume = self._counters.calls.consume
        return self._cost([consume(n, 1, None, REMEMBER).by_hash() for n in self._next(calls)])

    def consume_with_key(self, calls: int) -> float:
        consume = self._counters.calls.consume
        names = self._next(calls)
        return self._cost(
            [consume(n, 1, f"key-{next(self._ids)}", REMEMBER).by_hash() for n in names]
        )

    def reserve(self, calls: int) -> float:
        return self._in_blocks(calls, self._reserve)

    def settle(self, calls: int) -> float:
        """All that was reserved counts as used."""
        return self._in_blocks(calls, self._settle)

    def settle_half(self, calls: int) -> float:
        """Half of it does, and the rest is free again."""
        return self._in_blocks(calls, self._settle_half)

    def pair(self, calls: int) -> float:
        """A reserve and the settle of all of it."""
        pairs = [self._pair(name) for name in self._next(calls)]
        return 2 * self._cost([command for pair in pairs for command in pair])

    def pair_back(self, calls: int) -> float:
        """A reserve, and a settle that gives all of it back."""
        made = self._counters.calls
        commands = []
        for name in self._next(calls):
            hold = f"hold-{next(self._ids)}"
            commands.append(made.reserve(name, AMOUNT, hold).by_hash())
            commands.append(made.release(name, hold).by_hash())
        return 2 * self._cost(commands)

    def _in_blocks(self, calls: int, block: Callable[[Sequence[str]], float]) -> float:
        """Microseconds a call, where a subject has but one hold at a time."""
        size = min(calls, len(self._subjects))
        blocks = max(1, calls // size)
        return sum(block(self._next(size)) for _ in range(blocks)) / (blocks * size)

    def _reserve(self, names: Sequence[str]) -> float:
        pairs = [self._pair(name) for name in names]
        spent = self._load.cpu_us([reserve for reserve, _ in pairs])
        self._load.send([settle for _, settle in pairs])
        return spent

    def _settle(self, names: Sequence[str]) -> float:
        pairs = [self._pair(name) for name in names]
        self._load.send([reserve for reserve, _ in pairs])
        return self._load.cpu_us([settle for _, settle in pairs])

    def _settle_half(self, names: Sequence[str]) -> float:
        held = self._counters.reserve_many([(name, AMOUNT) for name in names])
        return self._load.cpu_us(
            [
                self._counters.calls.settle(_reservation(each), AMOUNT // 2).by_hash()
                for each in held
            ]
        )

    def _pair(self, name: str) -> tuple[bytes, bytes]:
        calls, hold = self._counters.calls, f"hold-{next(self._ids)}"
        return calls.reserve(name, AMOUNT, hold).by_hash(), calls.give_back(
            name, hold, ()
        ).by_hash()

    def _cost(self, commands: Sequence[bytes]) -> float:
        return self._load.cpu_us(commands) / len(commands)

    def _next(self, calls: int) -> list[str]:
        return list(islice(self._turning, calls))


def _reservation(answer: Any) -> Reservation:
    assert isinstance(answer, Reservation), answer
    return answer
