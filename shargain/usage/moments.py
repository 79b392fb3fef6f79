"""Moments of statistics: checked, and rounded to the resolution in which they are kept."""

from datetime import UTC, datetime, timedelta

from shargain.usage.models import Resolution


def aware(moment: datetime, name: str) -> datetime:
    """The moment in UTC. Raises ValueError where it has no time zone."""
    if moment.utcoffset() is None:
        raise ValueError(f"{name} is {moment!r}: give a datetime with a time zone.")
    return moment.astimezone(UTC)


def begin(moment: datetime, resolution: Resolution) -> datetime:
    """Where the minute, hour or day (UTC) of a moment begins."""
    midnight = moment.replace(hour=0, minute=0, second=0, microsecond=0)
    width = timedelta(minutes=resolution)
    return midnight + (moment - midnight) // width * width
