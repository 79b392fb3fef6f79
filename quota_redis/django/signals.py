"""Edits by instances reach Redis when they commit."""

import logging
from typing import Any

from django.db import transaction
from django.db.models.signals import post_delete, post_save

from quota_redis.django.conf import quota_settings
from quota_redis.django.engine import engine_for
from quota_redis.django.models import QuotaDefinition
from quota_redis.errors import QuotaError
from quota_redis.postgres.absorb import absorb

logger = logging.getLogger(__name__)


def connect() -> None:
    post_save.connect(_edited, dispatch_uid="quota_redis.saved")
    post_delete.connect(_edited, dispatch_uid="quota_redis.deleted")


def _edited(instance: Any, **_: Any) -> None:
    if isinstance(instance, QuotaDefinition):
        model, subject = type(instance), instance.subject

        # Django names what fails by its __qualname__, which a partial has not.
        def push() -> None:
            _push(model, subject)

        transaction.on_commit(push, using=quota_settings().database, robust=True)


def _push(model: type[QuotaDefinition], subject: str) -> None:
    """What fails here is done by the next sync, for the trigger left a mark; until then no limit is exceeded."""
    engine = engine_for(model)
    try:
        absorb(engine.counters, engine.ledger, engine.connection(), [subject])
    except QuotaError as error:
        logger.warning("the edit of %s reaches Redis with the next sync: %s", subject, error)
