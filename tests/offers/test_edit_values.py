"""What the facade refuses of a quota's values, before the database is asked."""

from datetime import datetime, timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from offer_batches import LONG_AGO

from shargain.offers.models import ScrapingTarget
from shargain.offers.services.errors import InvalidQuota
from shargain.offers.services.quota import QuotaService

VALUES = {"max_offers_per_period": 5, "period_start": LONG_AGO, "period_end": None}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("max_offers_per_period", -1),
        ("max_offers_per_period", 10**12 + 1),
        ("max_offers_per_period", True),
        ("max_offers_per_period", 2.5),
        ("period_start", datetime(2020, 1, 1)),  # noqa: DTZ001
        ("period_start", "2020-01-01"),
        ("period_end", datetime(2021, 1, 1)),  # noqa: DTZ001
        ("period_end", LONG_AGO),
        ("period_end", LONG_AGO - timedelta(microseconds=1)),
    ],
)
def test_a_bad_value_is_named(target: ScrapingTarget, field: str, value: object) -> None:
    service = QuotaService()
    quota = service.set_new_quota(target, max_offers_per_period=5, period_start=LONG_AGO)
    values: dict[str, Any] = {**VALUES, field: value}
    with CaptureQueriesContext(connection) as queries:
        for edit in (
            lambda: service.set_new_quota(target, **values),
            lambda: service.update_quota(quota.id, **values),
        ):
            with pytest.raises(InvalidQuota, match=field) as caught:
                edit()
            assert caught.value.field == field
    assert len(queries) == 0
    assert service.get_active_quota(target) == quota
