"""Reads listing pages of marketplaces and yields the offers on them. Needs no Django.

    with Fetcher() as fetcher:
        for page in crawl("https://shop.example/bikes", fetcher=fetcher):
            for offers in page.batches(100):
                ...

What goes wrong is a `ScrapeError`; the pages that came before it have been yielded by then.
"""

from shargain.scraping.addresses import AddressPolicy
from shargain.scraping.crawl import crawl
from shargain.scraping.errors import (
    BadResponse,
    ForbiddenAddress,
    RobotsDisallowed,
    ScrapeError,
    ScrapeTimeout,
    SiteUnavailable,
    TooLarge,
)
from shargain.scraping.extraction import extract_offers
from shargain.scraping.fetching import Document, Fetcher
from shargain.scraping.limits import Budget, Politeness, ScrapeLimits
from shargain.scraping.types import Extraction, Page, ScrapedOffer, SkipReason

__all__ = [
    "AddressPolicy",
    "BadResponse",
    "Budget",
    "Document",
    "Extraction",
    "Fetcher",
    "ForbiddenAddress",
    "Page",
    "Politeness",
    "RobotsDisallowed",
    "ScrapeError",
    "ScrapeLimits",
    "ScrapeTimeout",
    "ScrapedOffer",
    "SiteUnavailable",
    "SkipReason",
    "TooLarge",
    "crawl",
    "extract_offers",
]
