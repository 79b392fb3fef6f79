"""The API's two operations, under `/api/v1/targets/{id}/`."""

from datetime import datetime
from typing import Annotated
from uuid import UUID, uuid4

from django.http import HttpResponse
from django.utils import timezone
from ninja import Router, Status
from ninja.params.functions import Header
from pydantic import BeforeValidator

from shargain.api.auth import ScraperRequest, check_target
from shargain.api.problems import Problem, invalid
from shargain.api.ratelimit import POLICY, rate_limit_fields, retry_after
from shargain.api.schemas import (
    ActiveQuotaOut,
    BatchIn,
    BatchOut,
    InvalidOut,
    ProblemOut,
    QuotaExceededOut,
    QuotaOut,
)
from shargain.offers.services.offer_creation import BatchResult, create_offers
from shargain.offers.services.quota import QuotaInfo, QuotaService

QUOTA_EXCEEDED = "https://iana.org/assignments/http-problem-types#quota-exceeded"

RATE_LIMIT_HEADERS = {
    name: {"schema": {"type": "string"}, "description": text}
    for name, text in (
        (
            "RateLimit-Policy",
            "The limit q in offers, the period w in seconds, the target's id pk; only if limited.",
        ),
        (
            "RateLimit",
            "The offers r that remain, the seconds t to the end of the period; only if limited.",
        ),
    )
}

router = Router()

IdempotencyKey = Annotated[
    UUID | None,
    # draft-ietf-httpapi-idempotency-key-header writes the key in quotes, most clients do not.
    BeforeValidator(lambda key: key.strip('"') if isinstance(key, str) else key),
]
IDEMPOTENCY_KEY = Header(
    None, alias="Idempotency-Key", description="The batch_id, where the body does not have it."
)


@router.post(
    "/targets/{int:target_id}/offers",
    response={
        200: BatchOut,
        201: BatchOut,
        (400, 401, 404, 411, 413, 415, 503): ProblemOut,
        422: InvalidOut,
        429: QuotaExceededOut,
    },
    by_alias=True,
    operation_id="createBatch",
    summary="Create a batch of offers",
    openapi_extra={
        "responses": {status: {"headers": RATE_LIMIT_HEADERS} for status in (200, 201, 429)}
    },
)
def create_batch(
    request: ScraperRequest,
    response: HttpResponse,
    target_id: int,
    batch: BatchIn,
    idempotency_key: IdempotencyKey = IDEMPOTENCY_KEY,
) -> Status[BatchOut] | HttpResponse:
    """Create the offers that are new and that the target's quota has room for, in their order.

    201: at least one was created. 200: all were there already. 429: the quota refused every
    new one. A batch that is sent again under its `batch_id` answers "created" again for what it
    made. The `RateLimit` fields count offers.
    """
    check_target(request.auth, target_id)
    result = create_offers(
        target_id,
        [offer.to_new_offer() for offer in batch.offers],
        batch_id=_batch_id(batch.batch_id, idempotency_key),
    )
    now = timezone.now()
    if result.discarded and not result.created:
        raise _exceeded(result, now)
    _set_fields(response, result.quota, now)
    return Status(201 if result.created else 200, BatchOut.of(result))


@router.get(
    "/targets/{int:target_id}/quota",
    response={200: ActiveQuotaOut, (401, 404, 503): ProblemOut},
    operation_id="showQuota",
    summary="Show the active quota",
    openapi_extra={"responses": {200: {"headers": RATE_LIMIT_HEADERS}}},
)
def show_quota(request: ScraperRequest, response: HttpResponse, target_id: int) -> ActiveQuotaOut:
    """Return the target's active quota with its live counts, or `null` where none is active."""
    check_target(request.auth, target_id)
    quota = QuotaService().get_active_quota(target_id)
    _set_fields(response, quota, timezone.now())
    return ActiveQuotaOut(quota=QuotaOut.of(quota))


def _batch_id(in_body: UUID | None, in_header: UUID | None) -> UUID:
    if in_body and in_header and in_body != in_header:
        detail = f"{in_header} is not the body's batch_id {in_body}: send one of them."
        raise invalid([{"in": "header", "pointer": "/Idempotency-Key", "detail": detail}])
    return in_body or in_header or uuid4()


def _set_fields(response: HttpResponse, quota: QuotaInfo | None, now: datetime) -> None:
    for name, value in rate_limit_fields(quota, now).items():
        response[name] = value


def _exceeded(result: BatchResult, now: datetime) -> Problem:
    quota = result.quota
    return Problem(
        429,
        f"The target's quota has no room: {result.discarded} new offers were discarded.",
        headers=rate_limit_fields(quota, now) | retry_after(quota, now),
        members={
            "type": QUOTA_EXCEEDED,
            "title": "Quota Exceeded",
            "violated-policies": [POLICY],
            **BatchOut.of(result).model_dump(),
        },
    )
