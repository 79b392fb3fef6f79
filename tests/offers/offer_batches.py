"""What the tests of offers share."""

from datetime import UTC, datetime, timedelta

from shargain.offers.models import Offer, OfferQuota
from shargain.offers.services.offer_creation import NewOffer
from shargain.offers.services.quota import QuotaService

LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)


def offers(*numbers: int) -> list[NewOffer]:
    return [NewOffer(url=f"https://example.org/{n}", title=f"ring {n}") for n in numbers]


def used(quota_id: int) -> dict[str, int]:
    """Every account of what a quota has used: they have to agree."""
    service = QuotaService()
    service.flush()
    service.sync()
    [drifts] = [service.audit(repair=False).drifts]
    assert drifts == ()
    return {
        "offers": Offer.objects.filter(quota_id=quota_id).count(),
        "column": OfferQuota.objects.get(pk=quota_id).used_offers_count,
        "redis": service.describe([quota_id])[quota_id].used,
    }


def all_of(count: int) -> dict[str, int]:
    return {"offers": count, "column": count, "redis": count}
