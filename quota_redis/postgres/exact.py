"""ExactQuota: slots from Redis, work and ledger in one transaction, and the direct road where they disagree."""

import logging
import random
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum, StrEnum, auto
from functools import partial
from typing import Protocol, TypeAlias

from quota_redis.calls import new_hold_id
from quota_redis.counters import Counters
from quota_redis.errors import (
    Contention,
    InvalidArgument,
    QuotaMoved,
    SlotConflict,
    StateLost,
    Unavailable,
)
from quota_redis.postgres.absorb import absorb_soon
from quota_redis.postgres.ledger import Ledger, PgConnection, refuse_transaction, translated
from quota_redis.ranges import Ranges
from quota_redis.types import (
    MAX_RESERVE,
    Denied,
    NoQuota,
    Reason,
    Reservation,
    Usage,
    check_integer,
)

logger = logging.getLogger(__name__)

Transaction: TypeAlias = Callable[[], AbstractContextManager[object]]

BOUNDARY_SKEW = timedelta(seconds=1)

MAX_GRANTS = 4
"""Reservations for one call; what is left then takes the direct road."""
MAX_BUSY = 5
BUSY_PAUSE = 0.003
"""Seconds between two questions while all that is left is held by others."""
MAX_DIRECT = 200
"""Transactions on the direct road, each of which moves or meets somebody who did."""


class Work(Protocol):
    """What a caller wants to have done under a quota, in as many transactions as it takes.

    Each method is one transaction of its own, which raises SlotConflict or QuotaMoved where the ledger says so.
    """

    @property
    def left(self) -> int:
        """Units that are still wanted; 0 ends the call."""

    def with_slots(self, reservation: Reservation) -> int:
        """Do what fits the reservation and record its slots; returns the units used."""

    def without_quota(self) -> None:
        """Do all that is left, where PostgreSQL agrees that no quota is active."""

    def direct(self) -> bool:
        """Do what fits a gap of the ledger; False where the ledger has no slot left."""

    def is_refusal(self, version: int) -> bool:
        """Whether PostgreSQL has this version of the definitions, so that a FULL under it is one."""


class SlotSource(Protocol):
    """Where reservations come from: Counters, or Stocks over them."""

    def reserve(
        self, subject: str, amount: int, *, hold_id: str | None = None
    ) -> Reservation | Denied | NoQuota: ...

    def settle(self, reservation: Reservation, used: int, *, wait: bool = True) -> None: ...

    def release(self, subject: str, hold_id: str, *, wait: bool = True) -> None: ...


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


class ExactQuota:
    """Spends units exactly: never one more than the limit, whatever Redis, workers or tasks do.

    The connection must be READ COMMITTED and outside a transaction; each call commits by itself.
    slots: where reservations come from, if not from the counters: Stocks over them.
    refuse_without_redis: raise Unavailable where Redis does not answer, instead of taking the slower direct road.
    observe: is told of every call once it has ended, for metrics; what it raises is logged and no more.
    """

    def __init__(
        self,
        counters: Counters,
        ledger: Ledger,
        *,
        slots: SlotSource | None = None,
        refuse_without_redis: bool = False,
        observe: Observer | None = None,
    ) -> None:
        self.counters = counters
        self.ledger = ledger
        self.slots: SlotSource = slots or counters
        self.refuse_without_redis = refuse_without_redis
        self._observe = observe

    def spend(
        self,
        connection: PgConnection,
        subject: str,
        amount: int,
        work: Callable[[int], int],
        *,
        transaction: Transaction | None = None,
    ) -> "Spent":
        """Do up to `amount` units of work (1 to 1,000) under the subject's quota.

        `work(allowed)` runs inside a transaction on the connection, does at most `allowed` units and returns
        how many it did; fewer means that there is nothing left to do. It may be called several times, also
        again after a rollback, so what it does must be in the transaction alone. `transaction` opens one on the
        connection, where a framework wants to do that itself; by default it is psycopg's.
        """
        check_integer("amount", amount, 1, MAX_RESERVE)
        units = _Units(self.ledger, connection, subject, amount, work, transaction)
        course = self.run(connection, subject, units)
        return Spent(units.used, units.left if course.is_denied else 0, course.usage)

    def run(self, connection: PgConnection, subject: str, work: Work) -> Course:
        """Drive any Work to its end. Raises Unavailable where PostgreSQL fails, Contention where it gives up."""
        refuse_transaction(connection)
        call = _Call(self, connection, subject, work)
        began = time.perf_counter()
        try:
            call.run()
        except BaseException:
            call.course.has_failed = True
            raise
        finally:
            call.course.left = work.left
            call.course.seconds = time.perf_counter() - began
            self._tell(call.course)
        return call.course

    def _tell(self, course: Course) -> None:
        """The call has been decided and committed by now: no error may make its caller think otherwise."""
        if self._observe is not None:
            try:
                self._observe(course)
            except Exception:
                logger.exception("what came of a call could not be observed")


class _Next(Enum):
    AGAIN = auto()
    DONE = auto()
    DIRECT = auto()


class _Call:
    """One run of ExactQuota: asks Redis while it agrees with PostgreSQL, then goes direct."""

    def __init__(
        self,
        exact: ExactQuota,
        connection: PgConnection,
        subject: str,
        work: Work,
    ) -> None:
        self._counters = exact.counters
        self._slots = exact.slots
        self._refuses = exact.refuse_without_redis
        self._subject = subject
        self._work = work
        self._try_absorb = partial(absorb_soon, exact.counters, exact.ledger, connection, subject)
        self._must_absorb = False
        self._doubtful_hold: str | None = None
        self._conflicting_hold: str | None = None
        self._busy = 0
        self._absorbed = 0
        self.course = Course(subject, work.left)

    def run(self) -> None:
        grants = 0
        step = _Next.AGAIN
        while step is _Next.AGAIN and self._work.left:
            answer = self._ask()
            if isinstance(answer, _Next):
                step = answer
            elif isinstance(answer, Denied):
                step = self._denied(answer)
            else:
                grants += 1
                step = self._use(answer)
                if step is _Next.AGAIN and grants == MAX_GRANTS:
                    step = self._direct_for(DirectReason.SCATTERED)
        if step is _Next.DIRECT and self._work.left:
            self._direct()
        if self._doubtful_hold:
            self._slots.release(self._subject, self._doubtful_hold, wait=False)
        if self._must_absorb and self._absorb_soon() and self._conflicting_hold:
            # Absorb has cut it down to what is really free.
            self._slots.release(self._subject, self._conflicting_hold, wait=False)

    def _ask(self) -> Reservation | Denied | NoQuota | _Next:
        if denied := self._counters.recall(self._subject):
            return denied
        hold_id = new_hold_id()
        amount = min(self._work.left, MAX_RESERVE)
        began = time.perf_counter()
        try:
            return self._slots.reserve(self._subject, amount, hold_id=hold_id)
        except StateLost:
            return self._absorb_once(DirectReason.STATE_LOST)
        except Unavailable as error:
            if self._refuses:
                raise
            logger.debug("%s takes the direct road: %s", self._subject, error)
            self._doubtful_hold = hold_id
            self._must_absorb = True
            return self._direct_for(DirectReason.UNAVAILABLE)
        finally:
            self.course.reserve_seconds += time.perf_counter() - began

    def _denied(self, answer: Denied) -> _Next:
        if answer.reason is Reason.BOUNDARY:
            return self._direct_for(DirectReason.BOUNDARY)
        if answer.reason is Reason.BUSY:
            self._busy += 1
            if self._busy > MAX_BUSY:
                return self._direct_for(DirectReason.BUSY)
            time.sleep(BUSY_PAUSE)
            return _Next.AGAIN
        if answer.reason is Reason.FULL and self._work.is_refusal(answer.version):
            self.course.is_denied, self.course.denied = True, answer.usage
            return _Next.DONE
        self._counters.forget(self._subject)
        return self._absorb_once(DirectReason.STALE)

    def _absorb_once(self, reason: DirectReason) -> _Next:
        """Put Redis right and ask again; a second time, the ledger itself is quicker."""
        if self._absorbed:
            self._must_absorb = True
            return self._direct_for(reason)
        self._absorbed += 1
        self._absorb_soon()
        return _Next.AGAIN

    def _absorb_soon(self) -> bool:
        is_done = self._try_absorb()
        self.course.absorbs += is_done
        return is_done

    def _direct_for(self, reason: DirectReason) -> _Next:
        self.course.direct_reason = reason
        return _Next.DIRECT

    def _use(self, answer: Reservation | NoQuota) -> _Next:
        """One transaction with what Redis gave."""
        try:
            if isinstance(answer, NoQuota):
                self._work.without_quota()
                self.course.has_no_quota = True
                return _Next.AGAIN
            used = self._work.with_slots(answer)
        except SlotConflict:
            # Given back now, its taken slots would go out again: absorb has to look at them first.
            self._conflicting_hold = getattr(answer, "hold_id", None)
            return self._disagreed(DirectReason.CONFLICT)
        except QuotaMoved:
            self._give_back(answer)
            return self._disagreed(DirectReason.MOVED)
        except BaseException:
            self._give_back(answer)
            raise
        self._slots.settle(answer, used, wait=False)
        self.course.reservation, self.course.settled = answer, used
        return _Next.AGAIN

    def _disagreed(self, reason: DirectReason) -> _Next:
        self.course.conflicts += 1
        self._must_absorb = True
        return self._direct_for(reason)

    def _give_back(self, answer: Reservation | NoQuota) -> None:
        if isinstance(answer, Reservation):
            self._slots.release(answer.subject, answer.hold_id, wait=False)

    def _direct(self) -> None:
        """Take slots from the ledger itself, gap by gap, until all is done or the ledger is full."""
        self.course.went_direct = True
        for attempt in range(MAX_DIRECT):
            if not self._work.left:
                return
            try:
                if not self._work.direct():
                    self.course.is_denied = self._must_absorb = True
                    return
            except (SlotConflict, QuotaMoved):
                self.course.conflicts += 1
                time.sleep(random.uniform(0, 0.001 * min(attempt + 1, 20)))  # noqa: S311
        raise Contention(
            f"{self._work.left} units found no slot in {MAX_DIRECT} transactions: try again."
        )


@dataclass(frozen=True, slots=True)
class Spent:
    """What came of a call: units used, units denied, and the quota's numbers where Redis told them."""

    used: int
    denied: int
    usage: Usage | None


class _Units:
    """The Work of ExactQuota.spend: a caller's function, in transactions with the ledger."""

    def __init__(
        self,
        ledger: Ledger,
        connection: PgConnection,
        subject: str,
        amount: int,
        work: Callable[[int], int],
        transaction: Transaction | None,
    ) -> None:
        self._transaction = transaction or connection.transaction
        self._ledger = ledger
        self._connection = connection
        self._subject = subject
        self._work = work
        self.used = 0
        self.left = amount

    def with_slots(self, reservation: Reservation) -> int:
        # Redis may say more than it was asked for.
        allowed = min(reservation.amount, self.left)
        return self._spend(reservation.quota_id, reservation.ranges, allowed)

    def without_quota(self) -> None:
        with translated(), self._transaction():
            if self._ledger.active_quota(self._connection, self._subject) is not None:
                raise QuotaMoved(f"a quota of {self._subject!r} is active.")
            used = self._do(self.left)
        self._count(used, self.left)

    def direct(self) -> bool:
        with translated(), self._transaction():
            quota_id = self._ledger.active_quota(self._connection, self._subject)
            if quota_id is None:
                allowed = self.left
                used = self._do(allowed)
            else:
                slots = self._ledger.take(self._connection, self._subject, quota_id, self.left)
                if slots is None:
                    if self._ledger.active_quota(self._connection, self._subject) != quota_id:
                        raise QuotaMoved(f"quota {quota_id} was deleted meanwhile.")
                    return False
                allowed = sum(hi - lo + 1 for lo, hi in slots)
                used = self._do(allowed)
                self._ledger.record_slots(self._connection, self._subject, quota_id, slots, used)
        self._count(used, allowed)
        return True

    def is_refusal(self, version: int) -> bool:
        with translated(), self._transaction():
            return self._ledger.version(self._connection, self._subject) == version

    def _spend(self, quota_id: int, slots: Ranges, allowed: int) -> int:
        with translated(), self._transaction():
            used = self._do(allowed)
            self._ledger.record_slots(self._connection, self._subject, quota_id, slots, used)
        self._count(used, allowed)
        return used

    def _do(self, allowed: int) -> int:
        used = self._work(allowed)
        if isinstance(used, bool) or not isinstance(used, int) or not 0 <= used <= allowed:
            raise InvalidArgument(
                f"work returned {used!r} for {allowed} units: return how many it did."
            )
        return used

    def _count(self, used: int, allowed: int) -> None:
        """Only once the transaction has committed."""
        self.used += used
        self.left = self.left - used if used == allowed else 0
