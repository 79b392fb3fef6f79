"""Bringing alerts to their receivers: each at least once, or given up after some attempts and marked so.

What has to be delivered stands in the database since the alert was raised. An attempt takes a delivery for
LEASE; if its process dies, the next one takes it up when that has passed.
"""

import logging
import smtplib
import time
from collections.abc import Iterator, Sequence
from datetime import timedelta

from django.db import transaction
from django.db.models import F, QuerySet
from django.db.models.functions import Now

from shargain.alerts import emails, webhooks
from shargain.alerts.models import MAX_ERROR, Alert, Delivery, DeliveryState, Endpoint
from shargain.offers.models import ScrapingTarget

logger = logging.getLogger(__name__)

MAX_ATTEMPTS = 8
FIRST_PAUSE = timedelta(seconds=30)
LONGEST_PAUSE = timedelta(hours=6)
LEASE = timedelta(minutes=2)
RUN_SECONDS = 45.0
"""How long one run goes on taking deliveries; each takes webhooks.DEADLINE_SECONDS at the most."""


def prepare(alerts: Sequence[Alert]) -> None:
    """Write down to whom alerts have to go, in the transaction that raises them."""
    if not alerts:
        return
    found = ScrapingTarget.objects.filter(pk__in=[alert.target_id for alert in alerts])
    targets = {target.pk: target for target in found.select_related("owner")}
    endpoints = list(Endpoint.objects.filter(is_active=True))
    Delivery.objects.bulk_create(
        delivery
        for alert in alerts
        if (target := targets.get(alert.target_id))
        for delivery in _deliveries(alert, target, endpoints)
    )


def deliver(*, seconds: float = RUN_SECONDS) -> int:
    """Attempt what is due, until nothing is or the time is up; returns how many were delivered."""
    _give_up()
    ends_at = time.monotonic() + seconds
    done = 0
    while time.monotonic() < ends_at and (delivery := _take()):
        done += _attempt(delivery)
    return done


def _deliveries(
    alert: Alert, target: ScrapingTarget, endpoints: Sequence[Endpoint]
) -> Iterator[Delivery]:
    for endpoint in endpoints:
        if endpoint.owner_id in (None, target.owner_id):
            yield Delivery(alert=alert, endpoint=endpoint, due_at=Now())
    if emails.is_on() and target.owner.is_active and target.owner.email:
        yield Delivery(alert=alert, recipient=target.owner.email, due_at=Now())


def _take() -> Delivery | None:
    """Take the delivery that is due for longest, for so long that nobody else does."""
    with transaction.atomic():
        due = Delivery.objects.select_for_update(skip_locked=True, of=("self",))
        row = (
            due.filter(state=DeliveryState.WAITING, due_at__lte=Now())
            .order_by("due_at")
            .select_related("alert", "endpoint")
            .first()
        )
        if row is not None:
            row.attempts += 1
            mine = Delivery.objects.filter(pk=row.pk)
            mine.update(attempts=F("attempts") + 1, due_at=Now() + LEASE)
    return row


def _give_up() -> None:
    """Those whose last attempt has not come to an end, because its process died."""
    waiting = Delivery.objects.filter(state=DeliveryState.WAITING, due_at__lte=Now())
    spent = waiting.filter(attempts__gte=MAX_ATTEMPTS)
    if given_up := spent.update(state=DeliveryState.FAILED, error="The last attempt never ended."):
        logger.error(
            "alerts: %d deliveries are given up, their last attempts never ended", given_up
        )


def _attempt(delivery: Delivery) -> bool:
    mine = Delivery.objects.filter(pk=delivery.pk)
    try:
        _send(delivery)
    except (webhooks.NotDelivered, OSError, smtplib.SMTPException) as error:
        _put_off(delivery, mine, error)
        return False
    mine.update(state=DeliveryState.DELIVERED, delivered_at=Now(), error="")
    return True


def _send(delivery: Delivery) -> None:
    """Raises NotDelivered, or what the mail backend does."""
    alert, endpoint = delivery.alert, delivery.endpoint
    names = ScrapingTarget.objects.filter(pk=alert.target_id).values_list("name", flat=True)
    name = names.first() or ""
    if endpoint is None:
        emails.send(alert, name, delivery.recipient)
        return
    if not endpoint.is_active:
        raise webhooks.Undeliverable("The endpoint was switched off.")
    webhooks.send(endpoint, str(alert.event_id), webhooks.payload(alert, name))


def _put_off(delivery: Delivery, mine: "QuerySet[Delivery]", error: Exception) -> None:
    said = f"{error}"[:MAX_ERROR]
    is_last = delivery.attempts >= MAX_ATTEMPTS or isinstance(error, webhooks.Undeliverable)
    state = DeliveryState.FAILED if is_last else DeliveryState.WAITING
    mine.update(state=state, error=said, due_at=Now() + pause(delivery.attempts))
    level = logging.ERROR if is_last else logging.WARNING
    logger.log(
        level, "alert %s: attempt %d failed: %s", delivery.alert.event_id, delivery.attempts, said
    )


def pause(attempts: int) -> timedelta:
    """How long to wait after so many attempts: 30 seconds, 2 minutes, 8, 32 and so on, 6 hours at the most."""
    return min(FIRST_PAUSE * 4 ** min(attempts - 1, 10), LONGEST_PAUSE)
