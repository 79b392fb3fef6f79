"""The Celery application: creates batches, and keeps quotas in step."""

import os
import sys
from typing import Any

from celery import Celery
from celery.signals import worker_init
from django.core.exceptions import ImproperlyConfigured

from quota_redis.celery import beat_schedule
from shargain.alerts import roles as alerts_roles
from shargain.monitoring import roles
from shargain.plans import roles as plans_roles
from shargain.usage import roles as usage_roles

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shargain.settings")

app = Celery("shargain")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
app.conf.beat_schedule = {
    **beat_schedule(),
    **usage_roles.beat_schedule(),
    **plans_roles.beat_schedule(),
    **alerts_roles.beat_schedule(),
}
roles.connect()
usage_roles.connect()


@worker_init.connect
def _refuse_to_start_without_limits(sender: Any, **_: object) -> None:
    if sender.app is not app:
        return
    from shargain.offers.services.quota import QuotaService

    try:
        QuotaService().refuse_to_start()
    except ImproperlyConfigured as error:
        # Celery logs what receivers raise and goes on, unless it is this.
        sys.exit(f"The worker does not start: {error}")
