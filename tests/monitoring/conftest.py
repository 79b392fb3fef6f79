from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from shargain.monitoring import metrics
from shargain.offers.models import ScrapingTarget
from shargain.offers.services.offer_creation import BatchResult, NewOffer, create_offers


@pytest.fixture(autouse=True)
def counting() -> None:
    """As in a web process, whose metrics are those of this process."""
    metrics.connect()


@pytest.fixture
def target(quota_db: None, django_user_model: Any) -> ScrapingTarget:
    owner = django_user_model.objects.create_user("owner")
    return ScrapingTarget.objects.create(name="diamonds", owner=owner)


@pytest.fixture
def create(target: ScrapingTarget) -> Callable[..., BatchResult]:
    def make(*numbers: int) -> BatchResult:
        offers = [NewOffer(url=f"https://example.org/{n}", title=f"ring {n}") for n in numbers]
        return create_offers(target.pk, offers, batch_id=uuid4())

    return make


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A folder that the account of a server can reach."""
    tmp_path.chmod(0o711)
    return tmp_path
