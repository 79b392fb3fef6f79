"""The project's settings, with spans short enough for a run of a minute to meet the end of each."""

from typing import Any

from shargain import settings as _project
from shargain.settings import *  # noqa: F403

LEASE_SECONDS = 2.0
VISIBILITY_SECONDS = 8

QUOTA_REDIS: dict[str, Any] = {  # type: ignore[no-redef]
    **_project.QUOTA_REDIS,
    "LEASE_SECONDS": LEASE_SECONDS,
    "BOUNDARY_SKEW_SECONDS": 0.25,
}
# Shorter than a worker is paused, so that the broker delivers its tasks a second time.
CELERY_BROKER_TRANSPORT_OPTIONS = {"visibility_timeout": VISIBILITY_SECONDS}
