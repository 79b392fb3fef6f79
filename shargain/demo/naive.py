"""The form that a quota is often given, to show what it lets through. Nothing else uses it.

It asks how much is left, creates what fits and adds to the count, all in one transaction. Between the
question and the addition others ask too, and are told the same.
"""

from collections.abc import Sequence
from dataclasses import asdict
from uuid import UUID

from django.db import transaction
from django.db.models import F

from shargain.offers.models import Offer, OfferQuota
from shargain.offers.services.offer_creation import BatchResult, NewOffer, Outcome


def create_offers(target_id: int, offers: Sequence[NewOffer], *, batch_id: UUID) -> BatchResult:
    """Create the offers that are new while the count is below the limit."""
    with transaction.atomic():
        quota = OfferQuota.objects.active().filter(target_id=target_id).first()
        known = set(
            Offer.objects.filter(
                target_id=target_id, url__in=[offer.url for offer in offers]
            ).values_list("url", flat=True)
        )
        fresh = [offer for offer in offers if offer.url not in known]
        chosen = fresh[: _room(quota, len(fresh))]  # type: ignore[arg-type]
        Offer.objects.bulk_create(
            [
                Offer(
                    target_id=target_id,
                    quota_id=quota.pk if quota else None,
                    batch_id=batch_id,
                    **asdict(offer),
                )
                for offer in chosen
            ],
            ignore_conflicts=True,
        )
        if quota:
            OfferQuota.objects.filter(pk=quota.pk).update(
                used_offers_count=F("used_offers_count") + len(chosen)
            )
    created = {offer.url for offer in chosen}
    outcomes = [
        Outcome.CREATED
        if offer.url in created
        else Outcome.DUPLICATE
        if offer.url in known
        else Outcome.DISCARDED
        for offer in offers
    ]
    return BatchResult(batch_id, tuple(outcomes), None)


def _room(quota: OfferQuota | None, wanted: int) -> int:
    if quota is None or quota.max_offers_per_period is None:
        return wanted
    return max(0, quota.max_offers_per_period - quota.used_offers_count)
