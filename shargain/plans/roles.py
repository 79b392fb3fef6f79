"""What beat has to send."""

from datetime import timedelta
from typing import Any


def beat_schedule(*, renew_every: timedelta = timedelta(minutes=5)) -> dict[str, dict[str, Any]]:
    """Entries for Celery's beat_schedule."""
    return {"shargain.plans.renew": {"task": "shargain.plans.renew", "schedule": renew_every}}
