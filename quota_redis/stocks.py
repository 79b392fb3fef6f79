"""Stocks: a process takes many slots at once and hands them out itself, without a round trip.

with Stocks(counters) as stocks:
    decision = stocks.consume("team:7")

A stock is a reservation in Redis under a short lease of its own, handed out for half of it at most; then the rest
goes back. So the limit holds whatever happens to processes and clocks: what one has in stock nobody else has, and
slots of a hold whose lease ended are never handed out again, but counted as used (`Counters.forfeit`) or, with a
ledger, looked up there. A process that dies takes at most one stock per subject with it.

The first call for a subject, calls for more than a stock has, and calls near the limit ask Redis, as Counters do.
"""

import asyncio
import atexit
import logging
import os
import threading
import time
import weakref
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Self, TypeVar

from quota_redis import ranges
from quota_redis.calls import Calls, Consumed, Reserved, new_hold_id
from quota_redis.counters import Counters
from quota_redis.errors import InvalidArgument, StateLost, Unavailable
from quota_redis.keys import check_text
from quota_redis.now import run_now
from quota_redis.stock_book import Back, Book, Stock
from quota_redis.types import (
    MAX_LIMIT,
    MAX_RESERVE,
    Denied,
    Granted,
    NoQuota,
    Reason,
    Reservation,
    check_integer,
)

if TYPE_CHECKING:
    from quota_redis.aio import AsyncCounters

logger = logging.getLogger(__name__)

DEFAULT_SIZE = MAX_RESERVE
DEFAULT_LEASE = timedelta(seconds=2)
MIN_LEASE = timedelta(milliseconds=100)
MAX_LEASE = timedelta(minutes=10)
MAX_TICK = 1.0
"""Seconds between two looks for stocks that are too old, at most."""

T = TypeVar("T")
_everybody: "weakref.WeakSet[_Flow]" = weakref.WeakSet()


class _Flow:
    """What Stocks and AsyncStocks do, written with await for both.

    size: most slots of one stock, 2 to 1,000. lease: of a stock in Redis, 100 ms to 10 minutes; work under a
    reservation from a stock should end within half of it.
    """

    def __init__(
        self, counters: Any, new_gate: Callable[[], Any], size: int, lease: timedelta
    ) -> None:
        check_integer("size", size, 2, MAX_RESERVE)
        if not isinstance(lease, timedelta) or not MIN_LEASE <= lease <= MAX_LEASE:
            raise InvalidArgument(
                f"lease is {lease!r}: give a timedelta from {MIN_LEASE} to {MAX_LEASE}."
            )
        self.counters = counters
        self._calls = Calls(
            counters.keys.namespace,
            lease=lease,
            boundary_skew=counters.boundary_skew,
            remember_full=timedelta(0),
        )
        self._term = lease.total_seconds() / 2
        self._tick = min(self._term / 4, MAX_TICK)
        self._size = size
        self._new_gate = new_gate
        self._forget()
        _everybody.add(self)

    def _forget(self) -> None:
        """Start with nothing: also in a forked child, where what was in stock is its parent's."""
        self._lock = threading.Lock()
        self._book = Book(self._size, self._term, self._new_gate)
        self._sweeper: Any = None

    async def _make(self, call: Callable[..., Any], *args: Any, **options: Any) -> Any:
        """Make a call that waits for somebody else: of the counters, or to be let in."""
        raise NotImplementedError

    def _take(self, subject: str, amount: int) -> Granted | None:
        if type(amount) is not int or amount < 1:
            return None
        with self._lock:
            return self._book.take(subject, amount, time.monotonic())

    async def _consume(self, subject: str, amount: int) -> Consumed:
        check_integer("amount", amount, 1, MAX_LIMIT)
        answer = await self._fetch(
            subject,
            amount,
            take=lambda now: self._book.take(subject, amount, now),
            serve=lambda stock: stock.use(amount) if stock.left >= amount else None,
        )
        if isinstance(answer, Granted | NoQuota):
            return answer
        asked: Consumed = await self._make(self.counters.consume, subject, amount)
        if isinstance(asked, Denied) and asked.reason is Reason.EXPIRED:
            asked = await self._look(subject, asked)
        self._saw(subject, asked)
        return asked

    def _lend(self, subject: str, amount: int, hold_id: str) -> Reservation | None:
        check_integer("amount", amount, 1, MAX_RESERVE)
        check_text("hold id", hold_id)
        with self._lock:
            return self._book.lend(subject, amount, hold_id, time.monotonic())

    async def _reserve(self, subject: str, amount: int, hold_id: str) -> Reserved:
        answer = await self._fetch(
            subject,
            amount,
            take=lambda now: self._book.lend(subject, amount, hold_id, now),
            serve=lambda stock: self._book.lend_from(stock, min(amount, stock.left), hold_id),
        )
        if answer is None:
            answer = await self._make(self.counters.reserve, subject, amount, hold_id=hold_id)
            self._saw(subject, answer)
        return answer

    def _put_back(self, reservation: Reservation, used: int) -> tuple[bool, Back | None]:
        check_integer("used", used, 0, reservation.amount)
        with self._lock:
            return self._book.put_back(reservation.hold_id, used, time.monotonic())

    async def _release(self, subject: str, hold_id: str, *, wait: bool) -> None:
        with self._lock:
            is_ours, back = self._book.refuse(hold_id, time.monotonic())
        if is_ours:
            await self._give_back(back)
        else:
            await self._make(self.counters.release, subject, hold_id, wait=wait)

    async def _close(self) -> None:
        with self._lock:
            self._book.end(time.monotonic())
        await self._pay()
        with self._lock:
            left = self._book.forgive()
        if left:
            logger.warning("%d stocks could not be given back: their leases end them.", left)

    async def _sweep(self) -> None:
        with self._lock:
            self._book.sweep(time.monotonic())
        await self._pay()

    async def _fetch(
        self,
        subject: str,
        amount: int,
        *,
        take: Callable[[float], T | None],
        serve: Callable[[Stock], T | None],
    ) -> T | Denied | NoQuota | None:
        """What the stock has by now, or a new one; None where Redis is to be asked for the amount alone."""
        with self._lock:
            gate = self._book.gate(subject, time.monotonic())
        if gate is None:
            return None
        await self._make(gate.acquire)
        try:
            with self._lock:
                now = time.monotonic()
                if (taken := take(now)) is not None:
                    return taken
                wanted, back = self._book.plan(subject, amount, now)
            # Whoever asks near the limit is not to be refused for what it had in stock itself.
            await self._give_back(back, wait=not wanted)
            return (await self._open(subject, wanted, serve)) if wanted else None
        finally:
            gate.release()

    async def _open(
        self, subject: str, wanted: int, serve: Callable[[Stock], T | None]
    ) -> T | Denied | NoQuota | None:
        """A new stock, of which the caller is served first: even if all that comes late for others."""
        sent_at, hold_id = time.monotonic(), new_hold_id()
        try:
            answer: Reserved = await self._make(
                self.counters.connection.send, self._calls.reserve(subject, wanted, hold_id)
            )
        except BaseException as error:
            if _may_have_arrived(error):
                with self._lock:
                    self._book.owe(Back(subject, hold_id, ranges.EVERYTHING), sent_at)
            raise
        if not isinstance(answer, Reservation):
            self._saw(subject, answer)
            return answer
        with self._lock:
            now = time.monotonic()
            stock = self._book.open(answer, sent_at, now)
            served = serve(stock)
            back = None if served is not None else self._book.discard(stock, now)
        await self._give_back(back)
        return served

    def _saw(self, subject: str, answer: Consumed | Reserved) -> None:
        with self._lock:
            self._book.saw(subject, answer)

    async def _look(self, subject: str, denied: Denied) -> Denied:
        """EXPIRED says that the earliest lease of all that were held together has ended: that one may be settled
        by now, and the others alive."""
        snapshot = await self._make(self.counters.snapshot, subject)
        return denied if snapshot.expired else replace(denied, reason=Reason.BUSY)

    async def _give_back(self, back: Back | None, *, wait: bool = False) -> None:
        """End a hold. Where slots come back it is waited for; where that fails, the sweeper tries again."""
        if back is not None:
            with suppress(Unavailable):
                await self._pay_one(back, wait=wait or bool(back.ranges))

    async def _pay(self) -> None:
        """Give back what is owed, until Redis fails."""
        with self._lock:
            owed = self._book.owed(time.monotonic())
        try:
            for back in owed:
                await self._pay_one(back)
        except Unavailable as error:
            logger.debug("stocks are given back later: %s", error)

    async def _pay_one(self, back: Back, *, wait: bool = True) -> None:
        await self._make(self.counters.give_back, *back, wait=wait)
        with self._lock:
            self._book.paid(back)

    def _is_done(self) -> bool:
        """Whether the sweeper may end; the next who needs one starts another."""
        with self._lock:
            if self._book.is_idle:
                self._sweeper = None
            return self._book.is_idle


class Stocks(_Flow):
    """Counters of which a process hands out what it has in stock. Safe to share between threads, and to use in a
    forked child, which has none of its parent's stock.

    Close it, also by `with`, before the process ends: what is in stock goes back. An interpreter that ends in
    order does so by itself.
    """

    counters: Counters

    def __init__(
        self, counters: Counters, *, size: int = DEFAULT_SIZE, lease: timedelta = DEFAULT_LEASE
    ) -> None:
        super().__init__(counters, threading.Lock, size, lease)

    def consume(self, subject: str, amount: int = 1) -> Consumed:
        """Use `amount` units, all or none.

        The numbers of a grant from stock are of the moment when the stock was taken, all of which counts as held
        there. BUSY says that others have what is left, perhaps in stock: ask again. Raises what Counters.consume
        raises, but never from stock.
        """
        granted = self._take(subject, amount)
        return granted if granted is not None else self._run(self._consume(subject, amount))

    def reserve(self, subject: str, amount: int, *, hold_id: str | None = None) -> Reserved:
        """As Counters.reserve; what comes from stock ends with the stock's lease."""
        own = new_hold_id() if hold_id is None else hold_id
        lent = self._lend(subject, amount, own)
        return lent if lent is not None else self._run(self._reserve(subject, amount, own))

    def settle(self, reservation: Reservation, used: int, *, wait: bool = True) -> None:
        """As Counters.settle; where it came from stock, the rest goes back there."""
        is_ours, back = self._put_back(reservation, used)
        if not is_ours:
            self.counters.settle(reservation, used, wait=wait)
        elif back is not None:
            self._run(self._give_back(back))

    def release(self, subject: str, hold_id: str, *, wait: bool = True) -> None:
        """As Counters.release; where it came from stock, that stock ends: it may be no good."""
        self._run(self._release(subject, hold_id, wait=wait))

    def close(self) -> None:
        """Give back everything that is in stock; where Redis does not answer, the leases end it."""
        self._run(self._close())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    async def _make(self, call: Callable[..., Any], *args: Any, **options: Any) -> Any:
        return call(*args, **options)

    def _run(self, doing: Coroutine[Any, Any, T]) -> T:
        try:
            return run_now(doing)
        finally:
            self._watch()

    def _watch(self) -> None:
        with self._lock:
            if self._sweeper is not None or self._book.is_idle:
                return
            self._sweeper = threading.Thread(
                target=self._keep_sweeping, name="quota-stocks", daemon=True
            )
            self._sweeper.start()

    def _keep_sweeping(self) -> None:
        while not self._is_done():
            time.sleep(self._tick)
            try:
                run_now(self._sweep())
            except Exception:
                logger.exception("stocks could not be looked after")


class AsyncStocks(_Flow):
    """Stocks for asyncio. Use one in each event loop, and close it before the loop ends."""

    counters: "AsyncCounters"

    def __init__(
        self,
        counters: "AsyncCounters",
        *,
        size: int = DEFAULT_SIZE,
        lease: timedelta = DEFAULT_LEASE,
    ) -> None:
        super().__init__(counters, asyncio.Lock, size, lease)

    async def consume(self, subject: str, amount: int = 1) -> Consumed:
        """As Stocks.consume."""
        granted = self._take(subject, amount)
        return granted if granted is not None else await self._run(self._consume(subject, amount))

    async def reserve(self, subject: str, amount: int, *, hold_id: str | None = None) -> Reserved:
        """As Stocks.reserve."""
        own = new_hold_id() if hold_id is None else hold_id
        lent = self._lend(subject, amount, own)
        return lent if lent is not None else await self._run(self._reserve(subject, amount, own))

    async def settle(self, reservation: Reservation, used: int, *, wait: bool = True) -> None:
        """As Stocks.settle."""
        is_ours, back = self._put_back(reservation, used)
        if not is_ours:
            await self.counters.settle(reservation, used, wait=wait)
        elif back is not None:
            await self._run(self._give_back(back))

    async def release(self, subject: str, hold_id: str, *, wait: bool = True) -> None:
        """As Stocks.release."""
        await self._run(self._release(subject, hold_id, wait=wait))

    async def aclose(self) -> None:
        """As Stocks.close."""
        sweeper, self._sweeper = self._sweeper, None
        if sweeper is not None:
            sweeper.cancel()
        await self._close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self.aclose()

    async def _make(self, call: Callable[..., Any], *args: Any, **options: Any) -> Any:
        return await call(*args, **options)

    async def _run(self, doing: Coroutine[Any, Any, T]) -> T:
        try:
            return await doing
        finally:
            self._watch()

    def _watch(self) -> None:
        is_running = self._sweeper is not None and not self._sweeper.done()
        if not (is_running or self._book.is_idle):
            self._sweeper = asyncio.create_task(self._keep_sweeping(), name="quota-stocks")

    async def _keep_sweeping(self) -> None:
        while not self._is_done():
            await asyncio.sleep(self._tick)
            try:
                await self._sweep()
            except Exception:
                logger.exception("stocks could not be looked after")


def _may_have_arrived(error: BaseException) -> bool:
    """Whether Redis may have done what it was asked, although no answer came. Without a cause nothing was sent."""
    if isinstance(error, StateLost | InvalidArgument):
        return False
    return not isinstance(error, Unavailable) or error.__cause__ is not None


def _after_fork() -> None:
    for stocks in _everybody:
        stocks._forget()  # noqa: SLF001


def _at_exit() -> None:
    for stocks in list(_everybody):
        if isinstance(stocks, Stocks):
            run_now(stocks._close())  # noqa: SLF001


os.register_at_fork(after_in_child=_after_fork)
atexit.register(_at_exit)
