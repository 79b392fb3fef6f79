"""The form that a quota is often given, to show what it lets through. Nothing else uses it.

It asks how much is left, creates what fits and adds to the count, all in one transaction. Between the
question and the addition others ask too, and are told the same.
"""

from collections.abc import Sequence
from dataclasses import asdict
from typing import cast
from uuid import UUID

from django.db import transaction
from django.db.models import F, QuerySet

from shargain.offers.models import Offer, OfferQuota
from shargain.offers.services.offer_creation import BatchResult, NewOffer, Outcome


def create_offers(target_id: int, offers: Sequence[NewOffer], *, batch_id: UUID) -> BatchResult:
    """Create the offers that are new while the count is below the limit."""
    with transaction.atomic():
        quota = get_active_quota(target_id)
        known = _known(target_id, offers)
        fresh = [offer for offer in offers if offer.url not in known]
        chosen = fresh if quota is None else fresh[: _room(quota, len(fresh))]
        Offer.objects.bulk_create(
            [
                Offer(target_id=target_id, quota=quota, batch_id=batch_id, **asdict(offer))
                for offer in chosen
            ],
            ignore_conflicts=True,
        )
        if quota is not None:
            count = F("used_offers_count") + len(chosen)
            _quotas(OfferQuota.objects.filter(pk=quota.pk)).update(used_offers_count=count)
    created = {offer.url for offer in chosen}
    return BatchResult(
        batch_id, tuple(_outcome(offer.url, created, known) for offer in offers), None
    )


def get_active_quota(target_id: int) -> OfferQuota | None:
    """The quota that rules, as the table has it."""
    return _quotas(OfferQuota.objects.active()).filter(target_id=target_id).first()


def _quotas(found: object) -> "QuerySet[OfferQuota]":
    """The base of all quota models types its manager for itself."""
    return cast("QuerySet[OfferQuota]", found)


def _known(target_id: int, offers: Sequence[NewOffer]) -> set[str]:
    urls = [offer.url for offer in offers]
    known = Offer.objects.filter(target_id=target_id, url__in=urls)
    return set(known.values_list("url", flat=True))


def _room(quota: OfferQuota, wanted: int) -> int:
    if quota.max_offers_per_period is None:
        return wanted
    return max(0, quota.max_offers_per_period - quota.used_offers_count)


def _outcome(url: str, created: set[str], known: set[str]) -> Outcome:
    if url in created:
        return Outcome.CREATED
    return Outcome.DUPLICATE if url in known else Outcome.DISCARDED
