"""What the scraper finds."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any


class SkipReason(StrEnum):
    """Why something that might have been an offer was left out."""

    BAD_JSON = "JSON-LD that cannot be read"
    TOO_MUCH_JSON = "JSON-LD beyond the size that is read"
    TOO_DEEP = "nested too deeply"
    TOO_MANY = "beyond the number of offers that is read from a page"
    NO_OFFER = "a list entry without an offer in it"
    NO_TITLE = "an offer without a title"
    NO_URL = "a list entry without an address"
    BAD_URL = "an offer whose address is none"
    BAD_PRICE = "an offer with an impossible price"
    DUPLICATE = "an address that was on the page already"


@dataclass(frozen=True, slots=True, kw_only=True)
class ScrapedOffer:
    """One classified ad as a listing page showed it.

    `price` is None where the page names none; `published_at` is aware. Metadata is text
    throughout (`currency`, `condition`, and whatever properties the page gives).
    """

    url: str
    title: str
    list_url: str
    price: Decimal | None = None
    main_image_url: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)
    published_at: datetime | None = None

    def as_json(self) -> dict[str, Any]:
        """Plain JSON values: the price as text, the date in ISO 8601."""
        return {
            "url": self.url,
            "title": self.title,
            "list_url": self.list_url,
            "price": None if self.price is None else str(self.price),
            "main_image_url": self.main_image_url,
            "metadata": dict(self.metadata),
            "published_at": self.published_at and self.published_at.isoformat(),
        }


@dataclass(frozen=True, slots=True)
class Extraction:
    """What one page's markup holds: offers, what was left out and why, and the page after it."""

    offers: tuple[ScrapedOffer, ...]
    skipped: Mapping[SkipReason, int]
    next_url: str | None


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a crawl. On the last one, a `next_url` means that the limit on pages ended it."""

    url: str
    offers: tuple[ScrapedOffer, ...]
    skipped: Mapping[SkipReason, int]
    next_url: str | None

    def batches(self, size: int) -> Iterator[tuple[ScrapedOffer, ...]]:
        """The offers in groups of at most `size`."""
        for start in range(0, len(self.offers), size):
            yield self.offers[start : start + size]
