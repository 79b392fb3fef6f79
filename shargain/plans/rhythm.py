"""When periods begin and end: pure arithmetic on calendars, without a database.

A period begins at midnight where its people live, and ends where the next one begins. So one over which clocks
change is an hour longer or shorter, and one that begins on the 31st begins on the last day of a shorter month.
"""

import calendar
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

MAX_DAYS = 366
MAX_PERIODS = 1000
FIRST_YEAR, LAST_YEAR = 1970, 2999


@dataclass(frozen=True, slots=True)
class Period:
    """From `start` (included) to `end` (excluded), in UTC."""

    start: datetime
    end: datetime


@dataclass(frozen=True, slots=True)
class Rhythm:
    """How periods repeat. `anchor` is one of the days on which they begin; there are periods before it too.

    every_days: 1 to 366, or None for calendar months; time_zone: a name as "Europe/Warsaw".
    Raises ValueError for anything else.
    """

    anchor: date
    time_zone: str = "UTC"
    every_days: int | None = None

    def __post_init__(self) -> None:
        zone(self.time_zone)
        if self.every_days is not None and not 1 <= self.every_days <= MAX_DAYS:
            raise ValueError(f"every_days is {self.every_days}: give 1 to {MAX_DAYS}.")
        if not FIRST_YEAR <= self.anchor.year <= LAST_YEAR:
            raise ValueError(
                f"anchor is {self.anchor}: give a day of the years {FIRST_YEAR} to {LAST_YEAR}."
            )


def zone(name: str) -> ZoneInfo:
    """The time zone of this name. Raises ValueError where there is none."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValueError(
            f"time_zone is {name[:60]!r}: give a name as 'Europe/Warsaw' or 'UTC'."
        ) from error


def periods(rhythm: Rhythm, from_: datetime, count: int) -> list[Period]:
    """The period that a moment lies in, and those after it: `count` (1 to 1,000) together, without gap or overlap.

    Raises ValueError for a moment without a time zone, one out of the years 1970 to 2999, and another count.
    """
    if not 1 <= count <= MAX_PERIODS:
        raise ValueError(f"count is {count}: give 1 to {MAX_PERIODS}.")
    _check(from_)
    found: list[Period] = []
    number = _number(rhythm, from_)
    while len(found) < count:
        start, end = _begin(rhythm, number), _begin(rhythm, number + 1)
        # A place that crosses the date line skips a day, whose midnight is that of the next.
        if start < end:
            found.append(Period(start, end))
        number += 1
    return found


def next_begin(rhythm: Rhythm, moment: datetime) -> datetime:
    """Where the first period begins that begins after a moment. Raises ValueError as `periods`."""
    return periods(rhythm, moment, 1)[0].end


def _check(moment: datetime) -> None:
    if moment.utcoffset() is None:
        raise ValueError(f"from_ is {moment!r}: give a datetime with a time zone.")
    if not FIRST_YEAR <= moment.year <= LAST_YEAR:
        raise ValueError(
            f"from_ is {moment}: give a moment of the years {FIRST_YEAR} to {LAST_YEAR}."
        )


def _number(rhythm: Rhythm, moment: datetime) -> int:
    """Which period a moment lies in, counted from the one that begins on the anchor."""
    day = moment.astimezone(ZoneInfo(rhythm.time_zone)).date()
    if rhythm.every_days is None:
        number = (day.year - rhythm.anchor.year) * 12 + day.month - rhythm.anchor.month
    else:
        number = (day - rhythm.anchor).days // rhythm.every_days
    while _begin(rhythm, number) > moment:
        number -= 1
    while _begin(rhythm, number + 1) <= moment:
        number += 1
    return number


def _begin(rhythm: Rhythm, number: int) -> datetime:
    """Where a period begins. Where clocks skip midnight that is the day's first moment; where they repeat it, the
    earlier one."""
    day = _day(rhythm, number)
    local = datetime(day.year, day.month, day.day, tzinfo=ZoneInfo(rhythm.time_zone))
    return local.astimezone(UTC)


def _day(rhythm: Rhythm, number: int) -> date:
    anchor = rhythm.anchor
    if rhythm.every_days is not None:
        return anchor + timedelta(days=number * rhythm.every_days)
    # Always from the anchor, never from the month before: the 31st comes back after February.
    year, month = divmod(anchor.year * 12 + anchor.month - 1 + number, 12)
    last = calendar.monthrange(year, month + 1)[1]
    return date(year, month + 1, min(anchor.day, last))
