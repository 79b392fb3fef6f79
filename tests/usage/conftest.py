from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest

from shargain.offers.models import ScrapingTarget
from shargain.offers.services.offer_creation import BatchResult, NewOffer, create_offers


@pytest.fixture
def target(quota_db: None, django_user_model: Any) -> ScrapingTarget:
    owner = django_user_model.objects.create_user("owner")
    return ScrapingTarget.objects.create(name="diamonds", owner=owner)


@pytest.fixture
def create(target: ScrapingTarget) -> Callable[..., BatchResult]:
    """Create a batch of the offers with these numbers."""

    def make(*numbers: int) -> BatchResult:
        offers = [NewOffer(url=f"https://example.org/{n}", title=f"ring {n}") for n in numbers]
        return create_offers(target.pk, offers, batch_id=uuid4())

    return make
