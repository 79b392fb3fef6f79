"""The book of a process's stocks: every decision about them, without input, output, clock or lock of its own.

Times are seconds of a clock that never goes back.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from quota_redis import ranges
from quota_redis.ranges import Ranges
from quota_redis.types import Denied, Granted, NoQuota, Reservation

SHARE = 8
"""A stock takes at most one part in so many of what the quota has left."""
MAX_SUBJECTS = 10_000
"""Subjects with a stock in one process; those beyond ask Redis each time."""
MAX_OWED = 10_000
"""Holds that could not be given back, and are tried again; those beyond end with their lease."""
MAX_RANGES = 8
"""Ranges of one reservation, as Redis gives them."""
FORGET_SECONDS = 60.0
"""After this long, what was lent or is owed is left to whoever finds the hold's lease ended."""


class Back(NamedTuple):
    """A hold that is over in Redis, and the slots of it that were not used."""

    subject: str
    hold_id: str
    ranges: Ranges


class Stock:
    """Slots of one hold in Redis that are handed out here until the deadline."""

    __slots__ = ("_free", "deadline", "granted", "is_open", "left", "lent", "reservation")

    def __init__(self, reservation: Reservation, deadline: float) -> None:
        self.reservation = reservation
        self.granted = Granted(reservation.usage)
        self.deadline = deadline
        self.left = reservation.amount
        self.lent: dict[str, Reservation] = {}
        self.is_open = True
        self._free = reservation.ranges

    @property
    def taken(self) -> int:
        """Units that were used or lent and have not come back."""
        return self.reservation.amount - self.left

    def use(self, amount: int) -> Granted:
        """Only the count goes down: which slots were used matters only where others are lent or go back."""
        self.left -= amount
        return self.granted

    def lend(self, amount: int, hold_id: str) -> Reservation:
        """The lowest slots as a reservation of their own; fewer where they are in too many ranges."""
        slots, rest = ranges.split(self._unused(), amount)
        if len(slots) > MAX_RANGES:
            slots, rest = slots[:MAX_RANGES], ranges.union(rest, slots[MAX_RANGES:])
        self._free = rest
        amount = ranges.size(slots)
        self.left -= amount
        own = self.reservation
        lent = self.lent[hold_id] = Reservation(
            own.subject, hold_id, slots, amount, own.usage, own.version, own.changes_in_ms
        )
        return lent

    def put_back(self, hold_id: str, used: int) -> None:
        lent = self.lent.pop(hold_id)
        if used < lent.amount:
            _, rest = ranges.split(lent.ranges, used)
            self._free = ranges.union(self._unused(), rest)
            self.left = ranges.size(self._free)

    def rest(self) -> Back:
        """What goes back when all is over."""
        return Back(self.reservation.subject, self.reservation.hold_id, self._unused())

    def _unused(self) -> Ranges:
        used = ranges.size(self._free) - self.left
        return ranges.split(self._free, used)[1] if used else self._free


@dataclass(slots=True)
class _Demand:
    """How much of a subject is asked for. `remaining` is what its quota had left when Redis last told (None =
    unlimited or not known), `until` when its stock is too old."""

    gate: Any
    size: int = 0
    remaining: int | None = None
    until: float = 0.0


@dataclass(slots=True)
class Book:
    """Stocks by subject, what was lent from them, and what Redis is still to get back.

    size: most slots of one stock. term: seconds for which one is handed out. new_gate makes the lock that
    whoever fetches a stock of a subject holds meanwhile.
    """

    size: int
    term: float
    new_gate: Callable[[], Any]
    _stocks: dict[str, Stock] = field(default_factory=dict)
    _demands: dict[str, _Demand] = field(default_factory=dict)
    _lent: dict[str, Stock] = field(default_factory=dict)
    _lingering: dict[str, tuple[float, Stock]] = field(default_factory=dict)
    _owed: dict[str, tuple[float, Back]] = field(default_factory=dict)

    @property
    def is_idle(self) -> bool:
        """Whether nothing has to be done by the clock."""
        return not (self._stocks or self._lingering or self._owed)

    def take(self, subject: str, amount: int, now: float) -> Granted | None:
        """Use units of the stock; None where it has too few or is too old."""
        stock = self._stocks.get(subject)
        if stock is None or stock.left < amount or now >= stock.deadline:
            return None
        stock.left -= amount
        return stock.granted

    def lend(self, subject: str, amount: int, hold_id: str, now: float) -> Reservation | None:
        """A reservation of the stock's slots; None where it has too few or is too old."""
        stock = self._lent.get(hold_id)
        if stock is not None:
            return stock.lent[hold_id]
        stock = self._stocks.get(subject)
        if stock is None or stock.left < amount or now >= stock.deadline:
            return None
        return self.lend_from(stock, amount, hold_id)

    def lend_from(self, stock: Stock, amount: int, hold_id: str) -> Reservation:
        self._lent[hold_id] = stock
        return stock.lend(amount, hold_id)

    def gate(self, subject: str, now: float) -> Any | None:
        """The lock for fetching a stock of the subject; None where it is not to have one."""
        demand = self._demands.get(subject)
        if demand is None:
            if len(self._demands) >= MAX_SUBJECTS:
                self.sweep(now)
            if len(self._demands) >= MAX_SUBJECTS:
                return None
            demand = self._demands[subject] = _Demand(self.new_gate())
        return demand.gate

    def plan(self, subject: str, amount: int, now: float) -> tuple[int, Back | None]:
        """How many slots to fetch as a new stock, 0 where Redis is to be asked for the amount alone, and what
        goes back first.

        Whoever asks again within the term is given twice as much, up to a share of what the quota has left.
        """
        demand = self._demands.pop(subject, None) or _Demand(self.new_gate())
        stock = self._stocks.pop(subject, None)
        if now >= demand.until:
            demand.size = stock.taken if stock else 0
        demand.size = min(self.size, 2 * demand.size or amount)
        demand.until = now + self.term
        # To the end: the first are those that nobody has asked for longest.
        self._demands[subject] = demand
        share = demand.size
        if demand.remaining is not None:
            share = min(share, demand.remaining // SHARE)
        return share if share > amount else 0, self._close(stock, now) if stock else None

    def saw(self, subject: str, answer: Granted | Reservation | Denied | NoQuota) -> None:
        """Redis answered: what the quota has left bounds the next stock."""
        demand = self._demands.get(subject)
        if demand is None:
            return
        if isinstance(answer, NoQuota):
            demand.size = 0
        else:
            demand.remaining = answer.usage.remaining

    def open(self, reservation: Reservation, sent_at: float, now: float) -> Stock:
        """A stock that was asked for at `sent_at`: no later than then began its lease, and the time in which its
        quota still rules."""
        term = self.term
        if reservation.changes_in_ms is not None:
            term = min(term, reservation.changes_in_ms / 1000)
        stock = Stock(reservation, sent_at + term)
        subject = reservation.subject
        before = self._stocks.pop(subject, None)
        if before is not None:
            self._close(before, now)
        if subject not in self._demands:
            # The answer was so long on its way that the demand for it was forgotten.
            self._demands[subject] = _Demand(self.new_gate(), until=now + self.term)
        self._stocks[subject] = stock
        self.saw(subject, reservation)
        return stock

    def discard(self, stock: Stock, now: float) -> Back | None:
        """Hand out no more of it; returns what goes back now, where all that was lent is back."""
        if self._stocks.get(stock.reservation.subject) is stock:
            del self._stocks[stock.reservation.subject]
        return self._close(stock, now)

    def put_back(self, hold_id: str, used: int, now: float) -> tuple[bool, Back | None]:
        """What was lent comes back; whether it was known, and what goes back to Redis."""
        stock = self._lent.pop(hold_id, None)
        if stock is None:
            return False, None
        stock.put_back(hold_id, used)
        if stock.is_open or stock.lent:
            return True, None
        self._lingering.pop(stock.reservation.hold_id, None)
        return True, self.owe(stock.rest(), now)

    def refuse(self, hold_id: str, now: float) -> tuple[bool, Back | None]:
        """What was lent comes back whole because it was no good, and the stock it is from ends with it."""
        stock = self._lent.get(hold_id)
        if stock is not None and stock.is_open:
            self.discard(stock, now)
        return self.put_back(hold_id, 0, now)

    def owe(self, back: Back, now: float) -> Back:
        """Note what is to be given back: until it is paid it is tried again."""
        if len(self._owed) < MAX_OWED:
            self._owed[back.hold_id] = (now + FORGET_SECONDS, back)
        return back

    def paid(self, back: Back) -> None:
        self._owed.pop(back.hold_id, None)

    def owed(self, now: float) -> list[Back]:
        """Everything that is to be given back and is not too old for it."""
        for hold_id, (until, _) in list(self._owed.items()):
            if now >= until:
                del self._owed[hold_id]
        return [back for _, back in self._owed.values()]

    def forgive(self) -> int:
        """Leave what could not be given back to the end of its lease; returns how many holds."""
        left = len(self._owed)
        self._owed.clear()
        return left

    def sweep(self, now: float) -> None:
        """End the stocks that are too old, and forget what nobody brought back."""
        while self._demands:
            subject, demand = next(iter(self._demands.items()))
            if now < demand.until:
                break
            self._age(subject, demand, now)
        while self._lingering:
            until, stock = next(iter(self._lingering.values()))
            if now < until:
                break
            del self._lingering[stock.reservation.hold_id]
            for hold_id in stock.lent:
                del self._lent[hold_id]

    def end(self, now: float) -> None:
        """End all stocks."""
        while self._stocks:
            _, stock = self._stocks.popitem()
            self._close(stock, now)
        self._demands.clear()

    def _age(self, subject: str, demand: _Demand, now: float) -> None:
        """The next stock will have what was taken of this one; nothing, where nobody asks."""
        del self._demands[subject]
        stock = self._stocks.pop(subject, None)
        if stock is None:
            return
        self._close(stock, now)
        if stock.taken:
            demand.size, demand.until = stock.taken, now + self.term
            self._demands[subject] = demand

    def _close(self, stock: Stock, now: float) -> Back | None:
        stock.is_open = False
        if stock.lent:
            self._lingering[stock.reservation.hold_id] = (now + FORGET_SECONDS, stock)
            return None
        return self.owe(stock.rest(), now)
