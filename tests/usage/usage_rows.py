"""What the tests of statistics share."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

from django.db import connection
from django.test.utils import CaptureQueriesContext

from shargain.usage.models import OfferCount, Resolution, UsedCount

MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
TODAY = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
QUOTA = 7


def put(
    at: datetime, used: int, *, quota: int = QUOTA, resolution: Resolution = Resolution.MINUTE
) -> None:
    UsedCount.objects.create(quota_id=quota, at=at, used=used, resolution=resolution)


def put_offers(
    at: datetime,
    *outcomes: int,
    target: int = 1,
    quota: int = QUOTA,
    resolution: Resolution = Resolution.MINUTE,
) -> None:
    """Created, duplicates, discarded."""
    names = ("created", "duplicates", "discarded")
    OfferCount.objects.create(
        quota_id=quota,
        resolution=resolution,
        at=at,
        target_id=target,
        **dict(zip(names, outcomes, strict=True)),
    )


def rows() -> list[tuple[datetime, int, int]]:
    """Used counts of the quota: when, how many, and the resolution."""
    counts = UsedCount.objects.filter(quota_id=QUOTA).order_by("at")
    return list(counts.values_list("at", "used", "resolution"))


@contextmanager
def one_query() -> Iterator[None]:
    with CaptureQueriesContext(connection) as queries:
        yield
    assert len(queries) == 1, queries.captured_queries
