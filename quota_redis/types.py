"""What goes into the counters and what comes out of them."""

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple

from quota_redis.errors import InvalidArgument
from quota_redis.ranges import Ranges

MAX_LIMIT = 10**12
MAX_RESERVE = 1000
MAX_QUOTAS = 1000


def check_integer(name: str, value: object, lowest: int, highest: int) -> int:
    """Return `value` where it is an integer within the bounds; raise InvalidArgument where it is not."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidArgument(f"{name} is {value!r}: give an integer from {lowest} to {highest}.")
    if not lowest <= value <= highest:
        raise InvalidArgument(f"{name} is {value}: give an integer from {lowest} to {highest}.")
    return value


def check_moment(name: str, value: object) -> datetime:
    """Return `value` where it is a datetime with a time zone; raise InvalidArgument where it is not."""
    if not isinstance(value, datetime):
        raise InvalidArgument(f"{name} is {value!r}: give a datetime with a time zone.")
    if value.utcoffset() is None:
        raise InvalidArgument(
            f"{name} is {value.isoformat()} without a time zone: give an aware datetime."
        )
    return value


@dataclass(frozen=True, slots=True)
class Quota:
    """An allowance: at most `limit` units (None = unlimited, 0 = nothing) from `start` (included)
    to `end` (excluded, None = no end). Raises InvalidArgument where the values make no quota."""

    id: int
    limit: int | None
    start: datetime
    end: datetime | None = None

    def __post_init__(self) -> None:
        check_integer("quota id", self.id, 0, 2**63 - 1)
        if self.limit is not None:
            check_integer("limit", self.limit, 0, MAX_LIMIT)
        check_moment("start", self.start)
        if self.end is not None and check_moment("end", self.end) <= self.start:
            raise InvalidArgument(
                f"end {self.end.isoformat()} is not after start {self.start.isoformat()}: "
                "a period needs at least one moment."
            )


class Usage(NamedTuple):
    """The numbers of one quota, in units, as Redis had them when it answered."""

    quota_id: int
    limit: int | None
    used: int
    held: int

    @property
    def remaining(self) -> int | None:
        """Units that are neither used nor held; None = unlimited."""
        return None if self.limit is None else max(0, self.limit - self.used - self.held)


class Reason(StrEnum):
    """Why units were denied."""

    FULL = "full"
    """The quota is used up."""
    BUSY = "busy"
    """What is left is held by others: ask again in a moment."""
    EXPIRED = "expired"
    """What is left is held by holds whose lease has ended: absorb (with a ledger) or forfeit them."""
    BOUNDARY = "boundary"
    """So near to the start or end of a period that the servers' clocks may disagree."""


class Granted(NamedTuple):
    """The units were used."""

    usage: Usage


@dataclass(frozen=True, slots=True)
class Denied:
    """No unit was used or held, and none was charged for asking."""

    reason: Reason
    usage: Usage
    version: int = 0
    changes_in_ms: int | None = field(default=None, compare=False)
    """Milliseconds until another quota rules, or none; None = not known to come."""


@dataclass(frozen=True, slots=True)
class NoQuota:
    """No quota is active: nothing limits the subject now, and nothing is counted."""

    version: int = 0
    changes_in_ms: int | None = field(default=None, compare=False)
    """Milliseconds until a quota rules; None = not known to come."""


@dataclass(frozen=True, slots=True)
class Reservation:
    """Slots that are held until they are settled or the lease ends."""

    subject: str
    hold_id: str
    ranges: Ranges
    amount: int
    usage: Usage
    version: int
    changes_in_ms: int | None = field(default=None, compare=False)
    """Milliseconds until another quota rules, or none; None = not known to come."""

    @property
    def quota_id(self) -> int:
        return self.usage.quota_id


@dataclass(frozen=True, slots=True)
class Hold:
    """What Redis keeps of a reservation."""

    id: str
    quota_id: int
    expires_ms: int
    ranges: Ranges
    raw: str


@dataclass(frozen=True, slots=True)
class QuotaState:
    """The free list of a quota and what is held of it, with the text it was read from."""

    usage: Usage
    free: Ranges
    holds: int
    raw: str


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The whole hash of a subject. `document` is None where Redis knows nothing of it, or, with `is_garbled`,
    has something that no script wrote: that is to be forgotten."""

    subject: str
    now_ms: int
    document: str | None
    version: int
    token: str
    quotas: dict[int, QuotaState]
    holds: tuple[Hold, ...]
    is_garbled: bool = False

    @property
    def expired(self) -> tuple[Hold, ...]:
        return tuple(hold for hold in self.holds if hold.expires_ms <= self.now_ms)
