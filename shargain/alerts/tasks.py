"""The periodic tasks of alerts. Both may run twice at once: what one has taken or raised, the other leaves."""

import logging

from celery import shared_task

from shargain.alerts import deliveries, thresholds

logger = logging.getLogger(__name__)


@shared_task(name="shargain.alerts.evaluate", ignore_result=True, expires=300)
def alerts_evaluate() -> None:
    """Raise what the syncs could not tell, and what is foretold; forget what is old."""
    if raised := thresholds.evaluate():
        logger.info("alerts raised: %d", raised)
    thresholds.forget_old()


@shared_task(name="shargain.alerts.deliver", ignore_result=True, expires=60)
def alerts_deliver() -> None:
    """Attempt the deliveries that are due."""
    if delivered := deliveries.deliver():
        logger.info("alerts delivered: %d", delivered)
