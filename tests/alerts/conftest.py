import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from receiving import Receiver

from shargain.alerts.models import Alert, Endpoint
from shargain.alerts.signals import threshold_reached
from shargain.offers.models import ScrapingTarget
from shargain.offers.services.offer_creation import NewOffer, create_offers
from shargain.offers.services.quota import QuotaInfo, QuotaService


@pytest.fixture
def target(quota_db: None, django_user_model: Any) -> ScrapingTarget:
    owner = django_user_model.objects.create_user("owner", email="owner@example.org")
    return ScrapingTarget.objects.create(name="diamonds", owner=owner)


@pytest.fixture
def new_quota(target: ScrapingTarget) -> Callable[..., QuotaInfo]:
    """A quota that began some days ago and ends in some."""

    def make(limit: int | None = 10, *, began: float = 2, ends: float | None = 8) -> QuotaInfo:
        now = datetime.now(UTC)
        return QuotaService().set_new_quota(
            target,
            max_offers_per_period=limit,
            period_start=now - timedelta(days=began),
            period_end=None if ends is None else now + timedelta(days=ends),
        )

    return make


@pytest.fixture
def spend(target: ScrapingTarget) -> Callable[[int], None]:
    """Create that many new offers and sync."""

    def make(count: int) -> None:
        batch = uuid4()
        offers = [
            NewOffer(url=f"https://example.org/{batch}/{n}", title=f"ring {n}")
            for n in range(count)
        ]
        create_offers(target.pk, offers, batch_id=batch)
        QuotaService().flush()
        QuotaService().sync()

    return make


@pytest.fixture
def heard() -> Iterator[list[Alert]]:
    """The alerts that the signal has told."""
    alerts: list[Alert] = []

    def hear(alert: Alert, **_: Any) -> None:
        alerts.append(alert)

    threshold_reached.connect(hear)
    yield alerts
    threshold_reached.disconnect(hear)


@pytest.fixture
def receiver(settings: Any) -> Iterator[Receiver]:
    with Receiver() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        settings.ALERT_WEBHOOK_HOSTS = [server.place]
        yield server
        server.shutdown()
        thread.join(10)


@pytest.fixture
def endpoint(quota_db: None, receiver: Receiver) -> Endpoint:
    return Endpoint.objects.create(name="pager", url=receiver.url)
