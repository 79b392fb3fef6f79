"""The periodic task that keeps statistics small."""

import logging

from celery import shared_task

from shargain.usage.rollup import roll_up

logger = logging.getLogger(__name__)


@shared_task(name="shargain.usage.roll_up", ignore_result=True, expires=1800)
def usage_roll_up() -> None:
    """Bring the statistics to what is to be kept of them."""
    report = roll_up()
    logger.info("roll-up of statistics: %s", report)
