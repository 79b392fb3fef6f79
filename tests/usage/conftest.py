from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import pytest

from shargain.offers.models import ScrapingTarget
from shargain.offers.services.offer_creation import (
    BatchResult,
    NewOffer,
    batch_decided,
    create_offers,
)
from shargain.usage import activity


@pytest.fixture
def target(quota_db: None, django_user_model: Any) -> ScrapingTarget:
    owner = django_user_model.objects.create_user("owner")
    return ScrapingTarget.objects.create(name="diamonds", owner=owner)


@pytest.fixture
def counting() -> Iterator[None]:
    """As in a web process or a worker, which count batches."""
    activity.buffer.forget()
    batch_decided.connect(activity.count_batch, dispatch_uid="shargain.usage")
    yield
    batch_decided.disconnect(dispatch_uid="shargain.usage")
    activity.buffer.forget()


@pytest.fixture
def create(target: ScrapingTarget) -> Callable[..., BatchResult]:
    """Create a batch of the offers with these numbers."""

    def make(*numbers: int) -> BatchResult:
        offers = [NewOffer(url=f"https://example.org/{n}", title=f"ring {n}") for n in numbers]
        return create_offers(target.pk, offers, batch_id=uuid4())

    return make
