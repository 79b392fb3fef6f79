"""Batches as JSON, for the task queue and for the table of failed ones."""

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal, InvalidOperation
from typing import Any
from uuid import UUID

from shargain.offers.services.errors import InvalidBatch
from shargain.offers.services.offer_creation import MAX_BATCH, NewOffer

_FIELDS = frozenset(NewOffer.__dataclass_fields__)


def batch_to_json(target_id: int, batch_id: UUID, offers: Sequence[NewOffer]) -> dict[str, Any]:
    """The payload of one batch."""
    return {
        "batch_id": str(batch_id),
        "target_id": target_id,
        "offers": [offer_to_json(offer) for offer in offers],
    }


def batch_from_json(payload: Any) -> tuple[int, UUID, list[NewOffer]]:
    """Target, batch id and offers of a payload. Raises InvalidBatch where it is none."""
    if not isinstance(payload, dict):
        raise InvalidBatch(f"The payload is {type(payload).__name__}: give an object.")
    target_id, listed = payload.get("target_id"), payload.get("offers")
    if isinstance(target_id, bool) or not isinstance(target_id, int) or not 0 < target_id < 2**63:
        raise InvalidBatch(
            f"target_id is {target_id!r}: give a target's number.", field="target_id"
        )
    try:
        batch_id = UUID(str(payload.get("batch_id")))
    except ValueError:
        raise InvalidBatch(
            f"batch_id is {payload.get('batch_id')!r}: give a UUID.", field="batch_id"
        ) from None
    if not isinstance(listed, list) or not 1 <= len(listed) <= MAX_BATCH:
        raise InvalidBatch(f"offers is no list of 1 to {MAX_BATCH} offers.", field="offers")
    return target_id, batch_id, [offer_from_json(o, index) for index, o in enumerate(listed)]


def offer_to_json(offer: NewOffer) -> dict[str, Any]:
    """An offer as JSON values; the price as text, so that no digit is lost."""
    return {
        "url": offer.url,
        "title": offer.title,
        "price": None if offer.price is None else str(offer.price),
        "main_image_url": offer.main_image_url,
        "list_url": offer.list_url,
        "metadata": offer.metadata,
        "published_at": None if offer.published_at is None else offer.published_at.isoformat(),
    }


def offer_from_json(value: Any, index: int | None = None) -> NewOffer:
    """An offer from JSON values. Raises InvalidBatch where they make none."""
    if not isinstance(value, dict):
        raise InvalidBatch(f"Offer {index} is {type(value).__name__}: give an object.", index=index)
    if unknown := value.keys() - _FIELDS:
        name = min(map(str, unknown))
        raise InvalidBatch(
            f"Offer {index} has an unknown field {name[:50]!r}: use {', '.join(sorted(_FIELDS))}.",
            index=index,
            field=name[:50],
        )
    if missing := {"url", "title"} - value.keys():
        name = min(missing)
        raise InvalidBatch(f"Offer {index} has no {name}.", index=index, field=name)
    return NewOffer(
        **{
            **value,
            "price": _price(value.get("price"), index),
            "published_at": _moment(value.get("published_at"), index),
        }
    )


def _price(value: Any, index: int | None) -> Decimal | None:
    if value is None:
        return None
    try:
        return Decimal(value if isinstance(value, str) else str(value))
    except InvalidOperation:
        raise InvalidBatch(
            f"Offer {index}: price is {value!r}: give a decimal.", index=index, field="price"
        ) from None


def _moment(value: Any, index: int | None) -> datetime | None:
    if value is None:
        return None
    try:
        return datetime.fromisoformat(value)
    except (TypeError, ValueError):
        raise InvalidBatch(
            f"Offer {index}: published_at is {value!r}: give an ISO 8601 moment.",
            index=index,
            field="published_at",
        ) from None
