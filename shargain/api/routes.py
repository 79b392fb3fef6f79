"""The API's operations on the targets of a token's owner, under `/api/v1/`."""

from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Annotated
from uuid import UUID, uuid4

from django.http import HttpResponse
from django.utils import timezone
from ninja import Query, Router, Status
from ninja.params.functions import Header
from pydantic import BeforeValidator

from shargain.api.auth import ScraperRequest, check_target, own_targets
from shargain.api.problems import Problem, invalid, no_target, of_batch, unavailable
from shargain.api.ratelimit import POLICY, rate_limit_fields, retry_after
from shargain.api.schemas import (
    ActiveQuotaOut,
    ActivityOut,
    BatchesIn,
    BatchesOut,
    BatchIn,
    BatchOut,
    InvalidOut,
    ProblemOut,
    QuotaExceededOut,
    QuotaOut,
    TargetOut,
    TargetResultOut,
    TargetsOut,
    UsageOut,
    UsagePointOut,
)
from shargain.offers.models import ScrapingTarget
from shargain.offers.services.errors import InvalidBatch, ServiceError, ServiceUnavailable
from shargain.offers.services.offer_creation import BatchResult, create_many, create_offers
from shargain.offers.services.quota import QuotaInfo, QuotaService
from shargain.usage.services import activity_series, pace, usage_series

TARGETS_PER_PAGE = 100
MAX_HOURS = 24 * 31
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


@router.post(
    "/batches",
    response={200: BatchesOut, (400, 401, 411, 413, 415, 503): ProblemOut, 422: InvalidOut},
    by_alias=True,
    operation_id="createBatches",
    summary="Create batches of offers of many targets",
)
def create_batches(request: ScraperRequest, body: BatchesIn) -> BatchesOut:
    """Create a batch for each of up to 100 targets, each decided on its own as `createBatch` does.

    200: each result has the status that its batch alone would be answered with. A target may be named again. What
    has a problem of 503 is to be sent again, under its `batch_id`.
    """
    own = own_targets(request.auth, {batch.target_id for batch in body.batches})
    batches = [batch.to_batch() for batch in body.batches]
    known = [batch for batch in batches if batch.target_id in own]
    results = iter(create_many(known) if known else ())
    return BatchesOut(
        results=[
            _result(index, batch.target_id, next(results) if batch.target_id in own else None)
            for index, batch in enumerate(batches)
        ]
    )


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


@router.get(
    "/targets",
    response={200: TargetsOut, (401, 503): ProblemOut, 422: InvalidOut},
    by_alias=True,
    operation_id="listTargets",
    summary="List your targets",
)
def list_targets(
    request: ScraperRequest,
    after: Annotated[int, Query(ge=0, le=2**63 - 1, description="An earlier answer's `next`.")] = 0,
) -> TargetsOut:
    """Return the owner's active targets in the order of their ids, with their active quotas, 100 at a time."""
    own = ScrapingTarget.objects.filter(owner_id=request.auth.owner_id, is_active=True)
    found = list(own.filter(pk__gt=after).order_by("pk")[: TARGETS_PER_PAGE + 1])
    shown = found[:TARGETS_PER_PAGE]
    quotas = QuotaService().active_quotas([target.pk for target in shown])
    return TargetsOut(
        targets=[
            TargetOut(id=target.pk, name=target.name, quota=QuotaOut.of(quotas.get(target.pk)))
            for target in shown
        ],
        next=shown[-1].pk if len(found) > len(shown) else None,
    )


@router.get(
    "/targets/{int:target_id}/usage",
    response={200: UsageOut, (401, 404, 503): ProblemOut, 422: InvalidOut},
    by_alias=True,
    operation_id="showUsage",
    summary="Show usage over time",
)
def show_usage(
    request: ScraperRequest,
    target_id: int,
    hours: Annotated[int, Query(ge=1, le=MAX_HOURS, description="How far back to look.")] = 48,
) -> UsageOut:
    """Return the active quota with its use over time and what became of offers in each hour. Some seconds old."""
    check_target(request.auth, target_id)
    quota = QuotaService().get_active_quota(target_id)
    if quota is None:
        return UsageOut(quota=None, runs_out_at=None, usage=[], activity=[])
    until = timezone.now()
    since = max(until - timedelta(hours=hours), quota.period_start)
    return UsageOut(
        quota=QuotaOut.of(quota),
        runs_out_at=pace(quota).runs_out_at,
        usage=[UsagePointOut(**asdict(p)) for p in usage_series(quota.id, since, until)],
        activity=[ActivityOut(**asdict(a)) for a in activity_series(quota.id, since, until)],
    )


def _result(
    index: int, target_id: int, result: BatchResult | ServiceError | None
) -> TargetResultOut:
    if isinstance(result, BatchResult):
        status = 201 if result.created else 429 if result.discarded else 200
        batch = BatchOut.of(result)
        return TargetResultOut(target_id=target_id, status=status, batch=batch, problem=None)
    if isinstance(result, InvalidBatch):
        problem = of_batch(result, "batches", index)
    else:
        problem = unavailable() if isinstance(result, ServiceUnavailable) else no_target()
    kind = InvalidOut if isinstance(result, InvalidBatch) else ProblemOut
    return TargetResultOut(
        target_id=target_id,
        status=problem.status,
        batch=None,
        problem=kind.model_validate(problem.document()),
    )


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
