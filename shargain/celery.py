"""The Celery application: creates batches, and keeps quotas in step."""

import os

from celery import Celery
from celery.signals import worker_init

from quota_redis.celery import beat_schedule

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shargain.settings")

app = Celery("shargain")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
app.conf.beat_schedule = beat_schedule()


@worker_init.connect
def _refuse_to_start_without_limits(**_: object) -> None:
    from shargain.offers.services.quota import QuotaService

    QuotaService().refuse_to_start()
