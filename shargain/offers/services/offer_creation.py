"""Creating offers in batches, under the target's quota."""

import json
import logging
import re
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import psycopg
from django.dispatch import Signal

from shargain.logs import fields
from shargain.offers.models import MAX_URL_BYTES
from shargain.offers.services.errors import (
    InvalidBatch,
    ServiceError,
    ServiceUnavailable,
    UnknownTarget,
)
from shargain.offers.services.quota import Permit, QuotaInfo, QuotaService, Spend, Spent

logger = logging.getLogger(__name__)

MAX_BATCH = 1000
MAX_BATCHES = 100
MAX_FAILURES = 3
"""Batches in a row that PostgreSQL may fail for, before the rest of many is not tried."""
MAX_TITLE = 500
MAX_METADATA_BYTES = 16_384
MAX_PRICE = Decimal("9999999999.99")
MAX_DECIMALS = 10
"""Decimals of a price that are read; two are kept."""
MAX_SHOWN = 100

_encode = json.JSONEncoder(allow_nan=False, ensure_ascii=False, separators=(",", ":")).encode
_PLAIN_ADDRESS = re.compile(r"https?://[A-Za-z0-9.:-]+(?:[/?#][!-~]*)?")
"""What nearly all addresses are like: a byte for each character, and urlsplit would find scheme and host."""

offers_created = Signal()
"""Sent once a batch is decided: target_id, batch_id and the created NewOffers. A batch that is delivered
again sends it again for what it made, so that nothing that follows a creation is lost."""
batch_decided = Signal()
"""Sent once a batch is decided, for statistics: target_id, its BatchResult and the seconds it took. A receiver
that fails is logged and holds nothing up."""


@dataclass(frozen=True, slots=True)
class NewOffer:
    """An offer as a scraper found it; price in the marketplace's currency, empty text for unknown."""

    url: str
    title: str
    price: Decimal | None = None
    main_image_url: str = ""
    list_url: str = ""
    metadata: dict[str, Any] = field(default_factory=dict)
    published_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class TargetBatch:
    """A batch, and the target that it is for."""

    target_id: int
    batch_id: UUID
    offers: Sequence[NewOffer]


class Outcome(StrEnum):
    """What became of one offer of a batch."""

    CREATED = "created"
    DUPLICATE = "duplicate"
    DISCARDED = "discarded"


@dataclass(frozen=True, slots=True)
class BatchResult:
    """The outcome of each offer, in the batch's order, and the quota that ruled (None = none was active)."""

    batch_id: UUID
    outcomes: tuple[Outcome, ...]
    quota: QuotaInfo | None

    @property
    def created(self) -> int:
        return self.outcomes.count(Outcome.CREATED)

    @property
    def duplicates(self) -> int:
        return self.outcomes.count(Outcome.DUPLICATE)

    @property
    def discarded(self) -> int:
        return self.outcomes.count(Outcome.DISCARDED)


def create_offers(target_id: int, offers: Sequence[NewOffer], *, batch_id: UUID) -> BatchResult:
    """Create the offers of a batch that are new, as many as the quota allows, in the batch's order.

    The same batch id again answers "created" again for what it made, and decides anew about the rest.
    Raises InvalidBatch, UnknownTarget, InsideTransaction, ServiceUnavailable; none of them loses or counts
    anything that a repeated call would not find.
    """
    return _decided(_Batch(target_id, batch_id, offers), QuotaService().spend)


def create_many(batches: Sequence[TargetBatch]) -> list[BatchResult | ServiceError]:
    """Create up to MAX_BATCHES batches, with slots for all of them from one round trip to Redis.

    Each is decided on its own, in their order, as by create_offers: its place has the result, or the error that
    create_offers raises of that one. Where PostgreSQL fails again and again the rest is left undecided. Raises
    InvalidBatch for none or too many batches, and InsideTransaction.
    """
    if not 1 <= len(batches) <= MAX_BATCHES:
        raise InvalidBatch(f"There are {len(batches)} batches: give 1 to {MAX_BATCHES}.")
    checked = [_checked(each) for each in batches]
    wanted = [(each.target_id, each.left) for each in checked if isinstance(each, _Batch)]
    results: list[BatchResult | ServiceError] = []
    failures = 0
    with QuotaService().ahead(wanted) as spend:
        for each in checked:
            result: BatchResult | ServiceError
            if isinstance(each, InvalidBatch):
                result = each
            elif failures == MAX_FAILURES:
                result = ServiceUnavailable("PostgreSQL failed for the batches before this one.")
            else:
                result = _tried(each, spend)
                failures = failures + 1 if isinstance(result, ServiceUnavailable) else 0
            results.append(result)
    return results


def _checked(batch: TargetBatch) -> "_Batch | InvalidBatch":
    try:
        return _Batch(batch.target_id, batch.batch_id, batch.offers)
    except InvalidBatch as error:
        return error


def _tried(batch: "_Batch", spend: Spend) -> BatchResult | ServiceError:
    try:
        return _decided(batch, spend)
    except (UnknownTarget, ServiceUnavailable) as error:
        return error


def _decided(batch: "_Batch", spend: Spend) -> BatchResult:
    began = time.perf_counter()
    with fields(batch_id=str(batch.batch_id), target_id=batch.target_id):
        return _tell(batch, spend(batch.target_id, batch), began)


def _tell(batch: "_Batch", spent: Spent, began: float) -> BatchResult:
    """Log what became of a batch, and tell who listens; `began` is of time.perf_counter()."""
    result = BatchResult(batch.batch_id, batch.outcomes(), batch.quota_info(spent))
    _log(batch.target_id, result, spent)
    made = batch.created()
    if made:
        offers_created.send(
            sender=None, target_id=batch.target_id, batch_id=batch.batch_id, offers=made
        )
    seconds = time.perf_counter() - began
    batch_decided.send_robust(None, target_id=batch.target_id, result=result, seconds=seconds)
    return result


def _log(target_id: int, result: BatchResult, spent: Spent) -> None:
    logger.info(
        "batch %s of target %d: %d created, %d duplicates, %d discarded",
        result.batch_id,
        target_id,
        result.created,
        result.duplicates,
        result.discarded,
        extra={
            "quota_id": result.quota and result.quota.id,
            "road": spent.road,
            "conflicts": spent.conflicts,
        },
    )


def validate_offer(offer: NewOffer, index: int | None = None) -> None:
    """Raise InvalidBatch where an offer cannot be stored, naming the field and the cure."""
    _row(index, offer)


def _row(index: int | None, offer: NewOffer) -> str:
    """A valid offer as JSON, as the statement that creates it reads it."""
    _check_text("title", offer.title, index)
    if len(offer.title) > MAX_TITLE:
        raise _invalid(
            index, "title", f"has {len(offer.title)} characters: give at most {MAX_TITLE}"
        )
    _check_url("url", offer.url, index)
    for name, value in (("main_image_url", offer.main_image_url), ("list_url", offer.list_url)):
        if value != "":
            _check_url(name, value, index)
    _check_price(offer.price, index)
    _check_moment(offer.published_at, index)
    return _as_json(index, offer)


def _as_json(index: int | None, offer: NewOffer) -> str:
    row = {
        "n": index,
        "url": offer.url,
        "title": offer.title,
        "price": None if offer.price is None else str(offer.price),
        "main_image_url": offer.main_image_url,
        "list_url": offer.list_url,
        # In UTC, for PostgreSQL takes no offsets as far from it as Python does.
        "published_at": offer.published_at and offer.published_at.astimezone(UTC).isoformat(),
        "metadata": offer.metadata,
    }
    try:
        text = _encode(row)
        # All but the metadata was checked before, so one look at the whole is enough, but for the few in doubt.
        is_sure = len(text.encode()) <= MAX_METADATA_BYTES and "\\u0000" not in text
    except (TypeError, ValueError, RecursionError) as error:
        _check_metadata(offer.metadata, index)
        raise _invalid(index, "metadata", f"is no JSON: {error}") from None
    if not (is_sure and isinstance(offer.metadata, dict)):
        _check_metadata(offer.metadata, index)
    return text


def _invalid(index: int | None, name: str, what: str) -> InvalidBatch:
    where = "The offer" if index is None else f"Offer {index}"
    return InvalidBatch(f"{where}: {name} {what}.", index=index, field=name)


def _check_text(name: str, value: object, index: int | None) -> bytes:
    if not isinstance(value, str):
        raise _invalid(index, name, f"is {value!r}: give text")
    if "\0" in value:
        raise _invalid(index, name, "has a NUL byte: remove it")
    try:
        return value.encode()
    except UnicodeEncodeError:
        raise _invalid(index, name, "has half of a surrogate pair: give valid text") from None


def _check_url(name: str, value: str, index: int | None) -> None:
    if isinstance(value, str) and len(value) <= MAX_URL_BYTES and _PLAIN_ADDRESS.fullmatch(value):
        return
    size = len(_check_text(name, value, index))
    if size > MAX_URL_BYTES:
        raise _invalid(index, name, f"has {size} bytes: give at most {MAX_URL_BYTES}")
    if not _is_address(value):
        raise _invalid(index, name, f"is {value[:100]!r}: give an address with http or https")


def _is_address(value: str) -> bool:
    try:
        parts = urlsplit(value)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.netloc)


def _check_price(price: object, index: int | None) -> None:
    if price is None:
        return
    if not isinstance(price, Decimal) or not price.is_finite() or not 0 <= price <= MAX_PRICE:
        raise _invalid(index, "price", f"is {_shown(price)}: give a decimal from 0 to {MAX_PRICE}")
    if -int(price.as_tuple().exponent) > MAX_DECIMALS:
        raise _invalid(index, "price", f"is {_shown(price)}: give at most {MAX_DECIMALS} decimals")


def _shown(value: object) -> str:
    """A value for an error message: a million digits are no help to anybody."""
    text = str(value)
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}..."


def _check_moment(moment: object, index: int | None) -> None:
    if moment is None:
        return
    if not isinstance(moment, datetime) or moment.utcoffset() is None:
        raise _invalid(index, "published_at", f"is {moment!r}: give a datetime with a time zone")
    try:
        moment.astimezone(UTC)
    except OverflowError:
        raise _invalid(
            index, "published_at", f"is {moment}: give a year from 1 to 9999 UTC"
        ) from None


def _check_metadata(metadata: object, index: int | None) -> None:
    if not isinstance(metadata, dict):
        raise _invalid(index, "metadata", f"is {type(metadata).__name__}: give an object")
    try:
        size = len(_encode(metadata).encode())
    except (TypeError, ValueError, RecursionError) as error:
        raise _invalid(index, "metadata", f"is no JSON: {error}") from None
    if size > MAX_METADATA_BYTES:
        raise _invalid(index, "metadata", f"has {size} bytes: give at most {MAX_METADATA_BYTES}")
    if _has_nul(metadata):
        raise _invalid(index, "metadata", "has a NUL character: remove it")


def _has_nul(value: object) -> bool:
    if isinstance(value, dict):
        return any(map(_has_nul, value)) or any(map(_has_nul, value.values()))
    if isinstance(value, (list, tuple)):
        return any(map(_has_nul, value))
    return isinstance(value, str) and "\0" in value


def _array(values: Iterable[str]) -> str:
    """An array as PostgreSQL reads it; psycopg looks at every element, which takes it several times as long."""
    escaped = (value.replace("\\", "\\\\").replace('"', '\\"') for value in values)
    return "{" + ",".join(f'"{value}"' for value in escaped) + "}"


class _Batch:
    """A batch on its way: what is decided, and the statements that decide the rest. Raises InvalidBatch."""

    def __init__(self, target_id: int, batch_id: UUID, offers: Sequence[NewOffer]) -> None:
        if not 1 <= len(offers) <= MAX_BATCH:
            raise InvalidBatch(f"The batch has {len(offers)} offers: give 1 to {MAX_BATCH}.")
        self.target_id = target_id
        self.batch_id = batch_id
        self._offers = offers
        self._outcomes: list[Outcome | None] = [None] * len(offers)
        self._pending: dict[int, str] = {}
        self._quota: tuple[int, int | None, datetime, datetime | None] | None = None
        seen: set[str] = set()
        for index, offer in enumerate(offers):
            row = _row(index, offer)
            if offer.url in seen:
                self._outcomes[index] = Outcome.DUPLICATE
            else:
                seen.add(offer.url)
                self._pending[index] = row

    @property
    def left(self) -> int:
        return len(self._pending)

    def outcomes(self) -> tuple[Outcome, ...]:
        return tuple(outcome or Outcome.DISCARDED for outcome in self._outcomes)

    def created(self) -> list[NewOffer]:
        pairs = zip(self._offers, self._outcomes, strict=True)
        return [offer for offer, outcome in pairs if outcome is Outcome.CREATED]

    def insert(self, connection: "psycopg.Connection[Any]", permit: Permit) -> int | None:
        row = self._execute(
            connection,
            """SELECT * FROM shargain_create_offers_v2(
                %s::bigint, %s::uuid, %s::text, %s::bigint, %s::int8multirange, %s::bigint, %s::jsonb)""",
            (
                self.target_id,
                self.batch_id,
                permit.road,
                permit.quota_id,
                permit.slots,
                permit.room,
                f"[{','.join(self._pending.values())}]",
            ),
        )
        created, duplicates, used, quota_id, limit, start, end = row
        self._decide(created, duplicates)
        self._quota = None if quota_id is None else (quota_id, limit, start, end)
        return None if used is None else int(used)

    def read_known(self, connection: "psycopg.Connection[Any]") -> int:
        urls = [self._offers[index].url for index in self._pending]
        row = self._execute(
            connection,
            """SELECT * FROM shargain_known_offers_v2(
                %s::bigint, %s::uuid, %s::integer[], %s::text[])""",
            (self.target_id, self.batch_id, _array(map(str, self._pending)), _array(urls)),
        )
        created, duplicates, version, quota_id, limit, start, end = row
        self._decide(created, duplicates)
        self._quota = None if quota_id is None else (quota_id, limit, start, end)
        return int(version)

    def quota_info(self, spent: Spent) -> QuotaInfo | None:
        """The quota that ruled, with Redis's numbers; the direct road has to ask for them."""
        if self._quota is None:
            return None
        quota_id, limit, start, end = self._quota
        if not spent.is_live or spent.quota_id != quota_id:
            return QuotaService().describe([quota_id]).get(quota_id)
        return QuotaInfo(
            quota_id, self.target_id, limit, start, end, spent.used, spent.held, is_live=True
        )

    def _execute(
        self, connection: "psycopg.Connection[Any]", query: str, values: Sequence[Any]
    ) -> Any:
        try:
            # Django's own cursors write parameters into the statement; a batch is too large for that.
            with psycopg.Cursor(connection) as cursor:
                return cursor.execute(query.encode(), values, binary=True).fetchone()
        except psycopg.DatabaseError as error:
            if error.sqlstate == "SH001":
                raise UnknownTarget(f"There is no active target {self.target_id}.") from error
            raise

    def _decide(self, created: list[int] | None, duplicates: list[int] | None) -> None:
        for indexes, outcome in ((created, Outcome.CREATED), (duplicates, Outcome.DUPLICATE)):
            for index in indexes or ():
                self._outcomes[index] = outcome
                self._pending.pop(index, None)
