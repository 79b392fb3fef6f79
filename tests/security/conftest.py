"""Two owners who must never see anything of each other."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest

from shargain.api.models import ScraperToken
from shargain.offers.models import ScrapingTarget
from shargain.offers.services.offer_creation import NewOffer, create_offers
from shargain.offers.services.quota import QuotaService

LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Party:
    """An owner with a target, an offer, a quota and a token. `limit` is found nowhere else."""

    owner: Any
    target: ScrapingTarget
    token: str
    limit: int

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}


def make_party(users: Any, name: str, limit: int) -> Party:
    owner = users.objects.create_user(name)
    target = ScrapingTarget.objects.create(name=f"Target of {name}", owner=owner)
    QuotaService().set_new_quota(target, max_offers_per_period=limit, period_start=LONG_AGO)
    offer = NewOffer(url=f"https://market.test/{name}", title=f"Ad of {name}")
    create_offers(target.pk, [offer], batch_id=uuid4())
    QuotaService().flush()
    return Party(owner, target, ScraperToken.issue(owner, name)[1], limit)


@pytest.fixture
def party(quota_db: None, django_user_model: Any) -> Party:
    return make_party(django_user_model, "owner", 100_019)


@pytest.fixture
def stranger(quota_db: None, django_user_model: Any) -> Party:
    return make_party(django_user_model, "stranger", 700_027)
