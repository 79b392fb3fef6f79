"""Corrections: units granted with a reason. They raise the limit; a count is never lowered."""

from uuid import UUID, uuid4

from django.db import IntegrityError, transaction
from django.db.models.functions import Now

from shargain.offers.models import MAX_LIMIT, OfferQuota
from shargain.offers.services.edits import recorded
from shargain.offers.services.errors import ServiceError, UnknownQuota
from shargain.offers.services.quota import QuotaService
from shargain.plans.models import MAX_REASON, Correction

__all__ = ["InvalidCorrection", "grant"]


class InvalidCorrection(ServiceError, ValueError):  # noqa: N818
    """Units that cannot be granted; `field` names the value at fault."""

    def __init__(self, message: str, *, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field


def grant(
    quota_id: int, units: int, reason: str, who: str, *, key: UUID | None = None
) -> Correction:
    """Raise a quota's limit by so many units, once for a key, and write down why.

    units: 1 to 10^12; reason: 1 to 500 characters; who: as "admin alice"; key: the same again, with the same quota
    and units, returns what was granted before and grants nothing.
    Raises InvalidCorrection, UnknownQuota, ServiceUnavailable.
    """
    reason = _checked_reason(reason)
    if not 1 <= units <= MAX_LIMIT:
        raise InvalidCorrection(f"units is {units}: give 1 to {MAX_LIMIT:,}.", field="units")
    key = key or uuid4()
    try:
        with recorded(who, f"{units:,} granted: {reason}"):
            return _grant(quota_id, units, reason, who, key)
    except IntegrityError as error:
        # Another quota was granted units under the same key at the same moment.
        raise _other_use(key) from error


def _grant(quota_id: int, units: int, reason: str, who: str, key: UUID) -> Correction:
    """Whoever holds the quota's row decides: the second of two equal calls sees what the first has written."""
    quota = OfferQuota.objects.select_for_update(no_key=True).filter(pk=quota_id).first()
    if quota is None:
        raise UnknownQuota(f"There is no quota {quota_id}.")
    if before := Correction.objects.filter(key=key).first():
        if (before.quota_id, before.units) != (quota_id, units):
            raise _other_use(key)
        return before
    assert isinstance(quota, OfferQuota)
    limit = _checked_limit(quota, units)
    QuotaService().update_quota(
        quota_id,
        max_offers_per_period=limit + units,
        period_start=quota.period_start,
        period_end=quota.period_end,
    )
    with transaction.atomic():
        return Correction.objects.create(
            key=key,
            quota_id=quota_id,
            target_id=quota.target_id,
            units=units,
            limit_before=limit,
            reason=reason,
            who=who,
        )


def _checked_limit(quota: OfferQuota, units: int) -> int:
    """The quota's limit, where it can be raised."""
    limit = quota.max_offers_per_period
    if limit is None:
        raise InvalidCorrection("The quota is unlimited: there is nothing to grant.")
    if limit + units > MAX_LIMIT:
        most = MAX_LIMIT - limit
        raise InvalidCorrection(
            f"units is {units:,}: the limit is {limit:,} and {MAX_LIMIT:,} at the most, so give up to {most:,}.",
            field="units",
        )
    if OfferQuota.objects.filter(pk=quota.pk, period_end__lte=Now()).exists():
        raise InvalidCorrection(
            f"The quota's period has ended, {quota.period_end:%Y-%m-%d %H:%M} UTC: grant units of a later one."
        )
    return limit


def _checked_reason(reason: str) -> str:
    reason = reason.strip()
    if not 1 <= len(reason) <= MAX_REASON or "\0" in reason:
        raise InvalidCorrection(
            f"The reason has {len(reason)} characters: give 1 to {MAX_REASON}, without NUL.",
            field="reason",
        )
    return reason


def _other_use(key: UUID) -> InvalidCorrection:
    return InvalidCorrection(
        f"The key {key} was used for another correction: take a new one.", field="key"
    )
