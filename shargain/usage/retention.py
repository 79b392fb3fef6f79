"""How long statistics are kept at which resolution. Needs no settings, for the settings ask it."""

from dataclasses import dataclass
from datetime import timedelta

from django.core.exceptions import ImproperlyConfigured

_BOUNDS = {"MINUTES": (2, 14), "HOURS": (7, 730), "DAYS": (90, 7305)}


@dataclass(frozen=True, slots=True)
class Retention:
    """How long values per minute, per hour and per day are kept."""

    minutes: timedelta
    hours: timedelta
    days: timedelta


def retention(*, minutes: int, hours: int, days: int) -> Retention:
    """The retention of so many days each. Raises ImproperlyConfigured where one is out of bounds, or a coarse
    resolution is kept for less time than a finer one."""
    given = {"MINUTES": minutes, "HOURS": hours, "DAYS": days}
    for name, value in given.items():
        lowest, highest = _BOUNDS[name]
        if not lowest <= value <= highest:
            raise ImproperlyConfigured(
                f"USAGE_{name}_KEPT_DAYS is {value}: give days from {lowest} to {highest}."
            )
    if not minutes <= hours <= days:
        raise ImproperlyConfigured(
            f"USAGE_MINUTES_KEPT_DAYS, USAGE_HOURS_KEPT_DAYS and USAGE_DAYS_KEPT_DAYS are {minutes}, {hours} and"
            f" {days}: give each at least as many days as the one before."
        )
    return Retention(timedelta(minutes), timedelta(hours), timedelta(days))
