from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import pytest
from offer_batches import offers

from shargain.offers.models import ScrapingTarget
from shargain.offers.services.offer_creation import BatchResult, create_offers


@pytest.fixture
def target(quota_db: None, django_user_model: Any) -> ScrapingTarget:
    owner = django_user_model.objects.create_user("owner")
    return ScrapingTarget.objects.create(name="diamonds", owner=owner)


@pytest.fixture
def create(target: ScrapingTarget) -> Callable[..., BatchResult]:
    """Create a batch of the offers with these numbers, for `target` unless another is named."""

    def make(*numbers: int, batch_id: UUID | None = None, of: int | None = None) -> BatchResult:
        return create_offers(of or target.pk, offers(*numbers), batch_id=batch_id or uuid4())

    return make


@pytest.fixture
def now() -> datetime:
    return datetime.now(UTC)
