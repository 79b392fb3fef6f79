"""What goes over the wire. Types and shape are checked here, values by offer creation."""

from datetime import datetime
from decimal import Decimal
from typing import Annotated, Self
from uuid import UUID, uuid4

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, JsonValue, field_validator
from pydantic.config import JsonDict

from shargain.offers.models import MAX_URL_BYTES
from shargain.offers.services.offer_creation import (
    MAX_BATCH,
    MAX_BATCHES,
    MAX_PRICE,
    MAX_TITLE,
    BatchResult,
    NewOffer,
    Outcome,
    TargetBatch,
)
from shargain.offers.services.quota import QuotaInfo


class _Input(BaseModel):
    # A misspelt name must not pass for a field that was left out.
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


# For readers of the document: offer creation is what checks them, by rules that no pattern can hold.
_ADDRESS: JsonDict = {"pattern": "^https?://[^/?#]+", "maxLength": MAX_URL_BYTES}
_ADDRESS_OR_NONE: JsonDict = {**_ADDRESS, "pattern": "^($|https?://[^/?#]+)"}
_PRICE: JsonDict = {
    "anyOf": [
        {"type": "number", "minimum": 0, "maximum": float(MAX_PRICE)},
        {"type": "string", "pattern": r"^[0-9]{1,10}(\.[0-9]{1,2})?$"},
        {"type": "null"},
    ]
}


class OfferIn(_Input):
    """One classified ad."""

    url: str = Field(
        description="Where the ad is; known by it within the target. http or https.",
        json_schema_extra=_ADDRESS,
    )
    title: str = Field(json_schema_extra={"maxLength": MAX_TITLE})
    price: Decimal | None = Field(
        None, description="With at most two decimals.", json_schema_extra=_PRICE
    )
    main_image_url: str = Field("", json_schema_extra=_ADDRESS_OR_NONE)
    list_url: str = Field(
        "",
        description="The listing page that it was found on.",
        json_schema_extra=_ADDRESS_OR_NONE,
    )
    metadata: dict[str, JsonValue] = {}
    published_at: AwareDatetime | None = Field(None, description="With a time zone.")

    @field_validator("published_at", mode="before")
    @classmethod
    def _is_text(cls, value: object) -> object:
        # A number would be taken for a Unix time whose unit is guessed from its size.
        if value is not None and not isinstance(value, str):
            raise ValueError("Input should be text like 2026-01-31T12:00:00Z")
        return value

    def to_new_offer(self) -> NewOffer:
        return NewOffer(**{name: getattr(self, name) for name in type(self).model_fields})


class BatchIn(_Input):
    batch_id: UUID | None = Field(
        None,
        description="Send the same id with the same batch again and it answers for what it made.",
    )
    offers: Annotated[list[OfferIn], Field(min_length=1, max_length=MAX_BATCH)]


class TargetBatchIn(BatchIn):
    target_id: Annotated[int, Field(ge=1, le=2**63 - 1)]

    def to_batch(self) -> TargetBatch:
        offers = [offer.to_new_offer() for offer in self.offers]
        return TargetBatch(self.target_id, self.batch_id or uuid4(), offers)


class BatchesIn(_Input):
    batches: Annotated[list[TargetBatchIn], Field(min_length=1, max_length=MAX_BATCHES)]


class QuotaOut(BaseModel):
    limit: int | None = Field(description="Most offers in the period; null means unlimited.")
    used: int
    held: int = Field(description="Offers that are being created at this moment.")
    remaining: int | None = Field(description="limit - used - held, never below 0.")
    period_start: datetime
    period_end: datetime | None = Field(description="Excluded; null means no end.")
    is_live: bool = Field(description="False: used is the ledger's, held is not known.")

    @classmethod
    def of(cls, quota: QuotaInfo | None) -> Self | None:
        if quota is None:
            return None
        return cls(
            limit=quota.max_offers_per_period,
            used=quota.used,
            held=quota.held,
            remaining=quota.remaining,
            period_start=quota.period_start,
            period_end=quota.period_end,
            is_live=quota.is_live,
        )


class ActiveQuotaOut(BaseModel):
    quota: QuotaOut | None = Field(description="null: no quota is active, nothing is limited.")


class TargetOut(ActiveQuotaOut):
    id: int
    name: str


class TargetsOut(BaseModel):
    targets: list[TargetOut]
    next: int | None = Field(description="Give it as `after` for the targets that follow.")


class UsagePointOut(BaseModel):
    at: datetime
    used: int = Field(description="Offers that were used from then on, until the next point.")


class ActivityOut(BaseModel):
    at: datetime = Field(description="The hour (UTC) that begins then.")
    created: int
    duplicates: int
    discarded: int


class UsageOut(ActiveQuotaOut):
    runs_out_at: datetime | None = Field(
        description="When the limit is reached at the pace of late; null: not before the period ends."
    )
    usage: list[UsagePointOut]
    activity: list[ActivityOut]


class BatchOut(ActiveQuotaOut):
    batch_id: UUID
    outcomes: list[Outcome] = Field(description="One per offer, in the order of the batch.")
    created: int
    duplicates: int
    discarded: int = Field(description="Offers that the quota refused.")

    @classmethod
    def of(cls, result: BatchResult) -> Self:
        return cls(
            batch_id=result.batch_id,
            outcomes=list(result.outcomes),
            created=result.created,
            duplicates=result.duplicates,
            discarded=result.discarded,
            quota=QuotaOut.of(result.quota),
        )


class ProblemOut(BaseModel):
    """A problem document (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str = Field(description="What is wrong and the cure, for people.")


class WrongValue(BaseModel):
    location: str = Field(alias="in", description="body or header")
    pointer: str = Field(description="The place, as a JSON Pointer: /offers/3/price")
    detail: str


class InvalidOut(ProblemOut):
    errors: list[WrongValue]


class QuotaExceededOut(ProblemOut, BatchOut):
    violated_policies: list[str] = Field(alias="violated-policies")


class TargetResultOut(BaseModel):
    target_id: int
    status: int = Field(description="What the batch alone would be answered with.")
    batch: BatchOut | None = Field(description="What became of it, where it was decided.")
    problem: ProblemOut | InvalidOut | None = Field(
        description="Why it was not decided: nothing of it is lost if it is sent again."
    )


class BatchesOut(BaseModel):
    results: list[TargetResultOut] = Field(description="One per batch, in their order.")
