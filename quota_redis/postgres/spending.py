"""What a spend does: asks for slots, works with them, goes direct where Redis and ledger disagree.

Written with await once, for callers that await and for those that don't (quota_redis.postgres.queries).
"""

import logging
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum, StrEnum, auto
from typing import Protocol, TypeAlias

from quota_redis.calls import Calls, Reserved, new_hold_id
from quota_redis.errors import (
    Contention,
    InvalidArgument,
    QuotaMoved,
    SlotConflict,
    StateLost,
    Unavailable,
)
from quota_redis.postgres.ledger import Ledger, translated
from quota_redis.postgres.queries import Database
from quota_redis.ranges import Ranges, size
from quota_redis.types import (
    MAX_RESERVE,
    Denied,
    NoQuota,
    Reason,
    Reservation,
    Usage,
)

logger = logging.getLogger(__name__)

BOUNDARY_SKEW = timedelta(seconds=1)

MAX_GRANTS = 4
"""Reservations for one call; what is left then takes the direct road."""
MAX_BUSY = 5
BUSY_PAUSE = 0.003
"""Seconds between two questions while all that is left is held by others."""
MAX_DIRECT = 200
"""Transactions on the direct road, each of which moves or meets somebody who did."""


class AsyncWork(Protocol):
    """Work for AsyncExactQuota: the same, awaited."""

    @property
    def left(self) -> int: ...

    async def with_slots(self, reservation: Reservation) -> int: ...

    async def without_quota(self) -> None: ...

    async def direct(self) -> bool: ...

    async def is_refusal(self, version: int) -> bool: ...


class AsyncSlotSource(Protocol):
    """The same, awaited: AsyncCounters, or AsyncStocks over them."""

    async def reserve(
        self, subject: str, amount: int, *, hold_id: str | None = None
    ) -> Reserved: ...

    async def settle(self, reservation: Reservation, used: int, *, wait: bool = True) -> None: ...

    async def release(self, subject: str, hold_id: str, *, wait: bool = True) -> None: ...


class Outcome(StrEnum):
    """What came of a call."""

    GRANTED = "granted"
    PARTLY = "partly"
    DENIED = "denied"
    NO_QUOTA = "no_quota"
    """No quota was active. On the direct road this is not told apart from GRANTED."""
    FAILED = "failed"
    """It ended with an error; what it had done by then stands."""


class DirectReason(StrEnum):
    """Why a call took the direct road."""

    UNAVAILABLE = "unavailable"
    """Redis did not answer."""
    STATE_LOST = "state_lost"
    """Redis knew nothing of the subject, after an absorb too."""
    STALE = "stale"
    """After an absorb Redis still had expired holds alone, or another version of the definitions."""
    CONFLICT = "conflict"
    """The ledger had a slot that Redis gave out."""
    MOVED = "moved"
    """Another quota ruled by PostgreSQL's clock than Redis named."""
    BUSY = "busy"
    """What was left was held by others, and stayed so."""
    BOUNDARY = "boundary"
    """A period starts or ends within the clock skew."""
    SCATTERED = "scattered"
    """So many reservations gave less than was asked for."""


@dataclass(slots=True)
class Course:
    """What a call met on its way. `wanted` and `left` are units; `seconds` include waiting and transactions."""

    subject: str = ""
    wanted: int = 0
    left: int = 0
    reservation: Reservation | None = None
    settled: int = 0
    denied: Usage | None = None
    is_denied: bool = False
    has_no_quota: bool = False
    has_failed: bool = False
    direct_reason: DirectReason | None = None
    went_direct: bool = False
    conflicts: int = 0
    absorbs: int = 0
    seconds: float = 0.0
    reserve_seconds: float = 0.0

    @property
    def outcome(self) -> Outcome:
        if self.has_failed:
            return Outcome.FAILED
        if self.is_denied:
            return Outcome.PARTLY if self.left < self.wanted else Outcome.DENIED
        return Outcome.NO_QUOTA if self.has_no_quota else Outcome.GRANTED

    @property
    def usage(self) -> Usage | None:
        """The quota's numbers after the call where Redis told them, else None."""
        if self.went_direct:
            return None
        if self.denied is not None or self.reservation is None:
            return self.denied
        seen = self.reservation.usage
        held = max(0, seen.held - self.reservation.amount)
        return Usage(seen.quota_id, seen.limit, seen.used + self.settled, held)


Observer: TypeAlias = Callable[[Course], None]


async def observed(call: "Spending", observe: Observer | None) -> Course:
    """Run a call to its end and tell the observer of it."""
    began = time.perf_counter()
    try:
        await call.run()
    except BaseException:
        call.course.has_failed = True
        raise
    finally:
        call.course.left = call.work.left
        call.course.seconds = time.perf_counter() - began
        if observe is not None:
            _tell(observe, call.course)
    return call.course


def _tell(observe: Observer, course: Course) -> None:
    """The call has been decided and committed by now: no error may make its caller think otherwise."""
    try:
        observe(course)
    except Exception:
        logger.exception("what came of a call could not be observed")


class _Next(Enum):
    AGAIN = auto()
    DONE = auto()
    DIRECT = auto()


class Spending:
    """One call: asks Redis while it agrees with PostgreSQL, then goes direct.

    Written with await for both kinds of callers; for those of ExactQuota no part of it ever waits.
    """

    def __init__(
        self,
        calls: Calls,
        subject: str,
        work: AsyncWork,
        slots: AsyncSlotSource,
        try_absorb: Callable[[], Awaitable[bool]],
        pause: Callable[[float], Awaitable[None]],
        *,
        refuses: bool,
    ) -> None:
        self.work = work
        self._calls = calls
        self._subject = subject
        self._slots = slots
        self._try_absorb = try_absorb
        self._pause = pause
        self._refuses = refuses
        self._must_absorb = False
        self._doubtful_hold: str | None = None
        self._conflicting_hold: str | None = None
        self._busy = 0
        self._absorbed = 0
        self.course = Course(subject, work.left)

    async def run(self) -> None:
        grants = 0
        step = _Next.AGAIN
        while step is _Next.AGAIN and self.work.left:
            answer = await self._ask()
            if isinstance(answer, _Next):
                step = answer
            elif isinstance(answer, Denied):
                step = await self._denied(answer)
            else:
                grants += 1
                step = await self._use(answer)
                if step is _Next.AGAIN and grants == MAX_GRANTS:
                    step = self._direct_for(DirectReason.SCATTERED)
        if step is _Next.DIRECT and self.work.left:
            await self._direct()
        if self._doubtful_hold:
            await self._slots.release(self._subject, self._doubtful_hold, wait=False)
        if self._must_absorb and await self._absorb_soon() and self._conflicting_hold:
            # Absorb has cut it down to what is really free.
            await self._slots.release(self._subject, self._conflicting_hold, wait=False)

    async def _ask(self) -> Reservation | Denied | NoQuota | _Next:
        known = self._calls.recall(self._subject) or self._calls.recall_without_quota(self._subject)
        if known is not None:
            return known
        hold_id = new_hold_id()
        amount = min(self.work.left, MAX_RESERVE)
        began = time.monotonic()
        try:
            answer = await self._slots.reserve(self._subject, amount, hold_id=hold_id)
        except StateLost:
            return await self._absorb_once(DirectReason.STATE_LOST)
        except Unavailable as error:
            if self._refuses:
                raise
            logger.debug("%s takes the direct road: %s", self._subject, error)
            self._doubtful_hold = hold_id
            self._must_absorb = True
            return self._direct_for(DirectReason.UNAVAILABLE)
        finally:
            self.course.reserve_seconds += time.monotonic() - began
        if isinstance(answer, NoQuota):
            self._calls.note_without_quota(self._subject, answer, at=began)
        return answer

    async def _denied(self, answer: Denied) -> _Next:
        if answer.reason is Reason.BOUNDARY:
            return self._direct_for(DirectReason.BOUNDARY)
        if answer.reason is Reason.BUSY:
            self._busy += 1
            if self._busy > MAX_BUSY:
                return self._direct_for(DirectReason.BUSY)
            await self._pause(BUSY_PAUSE)
            return _Next.AGAIN
        if answer.reason is Reason.FULL and await self.work.is_refusal(answer.version):
            self.course.is_denied, self.course.denied = True, answer.usage
            return _Next.DONE
        self._calls.forget(self._subject)
        return await self._absorb_once(DirectReason.STALE)

    async def _absorb_once(self, reason: DirectReason) -> _Next:
        """Put Redis right and ask again; a second time, the ledger itself is quicker."""
        if self._absorbed:
            self._must_absorb = True
            return self._direct_for(reason)
        self._absorbed += 1
        await self._absorb_soon()
        return _Next.AGAIN

    async def _absorb_soon(self) -> bool:
        is_done = await self._try_absorb()
        self.course.absorbs += is_done
        return is_done

    def _direct_for(self, reason: DirectReason) -> _Next:
        self.course.direct_reason = reason
        return _Next.DIRECT

    async def _use(self, answer: Reservation | NoQuota) -> _Next:
        """One transaction with what Redis gave."""
        try:
            if isinstance(answer, NoQuota):
                await self.work.without_quota()
                self.course.has_no_quota = True
                return _Next.AGAIN
            used = await self.work.with_slots(answer)
        except SlotConflict:
            # Given back now, its taken slots would go out again: absorb has to look at them first.
            self._conflicting_hold = getattr(answer, "hold_id", None)
            return self._disagreed(DirectReason.CONFLICT)
        except QuotaMoved:
            self._calls.forget(self._subject)
            await self._give_back(answer)
            return self._disagreed(DirectReason.MOVED)
        except BaseException:
            await self._give_back(answer)
            raise
        await self._slots.settle(answer, used, wait=False)
        self.course.reservation, self.course.settled = answer, used
        return _Next.AGAIN

    def _disagreed(self, reason: DirectReason) -> _Next:
        self.course.conflicts += 1
        self._must_absorb = True
        return self._direct_for(reason)

    async def _give_back(self, answer: Reservation | NoQuota) -> None:
        if isinstance(answer, Reservation):
            await self._slots.release(answer.subject, answer.hold_id, wait=False)

    async def _direct(self) -> None:
        """Take slots from the ledger itself, gap by gap, until all is done or the ledger is full."""
        self.course.went_direct = True
        for attempt in range(MAX_DIRECT):
            if not self.work.left:
                return
            try:
                if not await self.work.direct():
                    self.course.is_denied = self._must_absorb = True
                    return
            except (SlotConflict, QuotaMoved):
                self.course.conflicts += 1
                await self._pause(random.uniform(0, 0.001 * min(attempt + 1, 20)))  # noqa: S311
        raise Contention(
            f"{self.work.left} units found no slot in {MAX_DIRECT} transactions: try again."
        )


@dataclass(frozen=True, slots=True)
class Spent:
    """What came of a call: units used, units denied, and the quota's numbers where Redis told them."""

    used: int
    denied: int
    usage: Usage | None


class Units:
    """The work of a spend: a caller's function, in transactions with the ledger."""

    def __init__(
        self,
        ledger: Ledger,
        database: Database,
        subject: str,
        amount: int,
        work: Callable[[int], Awaitable[int]],
    ) -> None:
        self._ledger = ledger
        self._database = database
        self._subject = subject
        self._work = work
        self.used = 0
        self.left = amount

    def spent(self, course: Course) -> Spent:
        """What came of it, once the call has ended."""
        return Spent(self.used, self.left if course.is_denied else 0, course.usage)

    async def with_slots(self, reservation: Reservation) -> int:
        # Redis may say more than it was asked for.
        allowed = min(reservation.amount, self.left)
        with translated():
            async with self._database.transaction():
                used = await self._do(allowed)
                await self._record(reservation.quota_id, reservation.ranges, used)
        self._count(used, allowed)
        return used

    async def without_quota(self) -> None:
        with translated():
            async with self._database.transaction():
                if await self._ruling() is not None:
                    raise QuotaMoved(f"a quota of {self._subject!r} is active.")
                used = await self._do(self.left)
        self._count(used, self.left)

    async def direct(self) -> bool:
        with translated():
            async with self._database.transaction():
                quota_id = await self._ruling()
                if quota_id is None:
                    allowed = self.left
                    used = await self._do(allowed)
                else:
                    taking = self._ledger.taking(self._subject, quota_id, self.left)
                    slots = await self._database.ask(taking)
                    if slots is None:
                        if await self._ruling() != quota_id:
                            raise QuotaMoved(f"quota {quota_id} was deleted meanwhile.")
                        return False
                    allowed = size(slots)
                    used = await self._do(allowed)
                    await self._record(quota_id, slots, used)
        self._count(used, allowed)
        return True

    async def is_refusal(self, version: int) -> bool:
        with translated():
            async with self._database.transaction():
                asked = self._ledger.version_of(self._subject)
                return await self._database.ask(asked) == version

    async def _ruling(self) -> int | None:
        return await self._database.ask(self._ledger.ruling(self._subject))

    async def _record(self, quota_id: int, slots: Ranges, used: int) -> None:
        await self._database.ask(self._ledger.recording(self._subject, quota_id, slots, used))

    async def _do(self, allowed: int) -> int:
        used = await self._work(allowed)
        if isinstance(used, bool) or not isinstance(used, int) or not 0 <= used <= allowed:
            raise InvalidArgument(
                f"work returned {used!r} for {allowed} units: return how many it did."
            )
        return used

    def _count(self, used: int, allowed: int) -> None:
        """Only once the transaction has committed."""
        self.used += used
        self.left = self.left - used if used == allowed else 0
