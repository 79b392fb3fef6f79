from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from shargain.offers.models import ScrapingTarget
from shargain.plans.models import Plan


@pytest.fixture
def new_target(quota_db: None, django_user_model: Any) -> Callable[[], ScrapingTarget]:
    owner = django_user_model.objects.create_user("owner")

    def make() -> ScrapingTarget:
        return ScrapingTarget.objects.create(name="diamonds", owner=owner)

    return make


@pytest.fixture
def target(new_target: Callable[[], ScrapingTarget]) -> ScrapingTarget:
    return new_target()


@pytest.fixture
def plan(quota_db: None) -> Plan:
    """Ten days, three of which have passed: nothing begins or ends while a test runs."""
    anchor: date = (datetime.now(UTC) - timedelta(days=3)).date()
    return Plan.objects.create(
        name="small", max_offers_per_period=400, repeats="days", every_days=10, anchor=anchor
    )
