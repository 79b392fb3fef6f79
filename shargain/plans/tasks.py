"""The periodic task that keeps periods armed."""

import logging

from celery import shared_task

from shargain.plans.renewal import renew

logger = logging.getLogger(__name__)


@shared_task(name="shargain.plans.renew", ignore_result=True, expires=300)
def plans_renew() -> None:
    """Arm what is due, and look for gaps."""
    report = renew()
    if report.changed or report.failed or report.gaps:
        logger.info("renewal of quotas: %s", report)
