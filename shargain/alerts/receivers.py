"""What alerts hear of syncs, in whatever process they run.

Beat's next task delivers what is raised here: a sync must not wait for the broker.
"""

from collections.abc import Mapping
from typing import Any

from quota_redis.django.events import counts_written


def connect() -> None:
    counts_written.connect(_on_counts, dispatch_uid="shargain.alerts")


def _on_counts(counts: Mapping[int, int], **_: Any) -> None:
    from shargain.alerts.thresholds import raise_alerts

    raise_alerts(counts)
