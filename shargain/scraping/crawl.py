"""Follows a listing from page to page."""

from collections.abc import Iterator

import httpx

from shargain.scraping.addresses import effective_port, parse_url
from shargain.scraping.extraction import extract_offers
from shargain.scraping.fetching import Fetcher
from shargain.scraping.limits import Budget, ScrapeLimits
from shargain.scraping.types import Page


def crawl(url: str, *, fetcher: Fetcher, limits: ScrapeLimits | None = None) -> Iterator[Page]:
    """The pages of a listing, in order, as they are fetched.

    Ends with the last page, at the limit on pages, or where the next page is one that was seen or
    belongs to another site. Raises a ScrapeError where a page cannot be had; those before it have
    been yielded. The time limit includes what the caller does between two pages.
    """
    limits = limits or ScrapeLimits()
    budget = Budget(limits)
    following: str | None = str(parse_url(url))
    seen: set[str] = set()
    for _ in range(limits.max_pages):
        if following is None:
            return
        document = fetcher.fetch(following, budget)
        if document.url in seen:
            return
        seen |= {following, document.url}
        found = extract_offers(document.html, document.url, limits)
        following = found.next_url
        if following in seen or not _is_same_site(following, document.url):
            following = None
        yield Page(document.url, found.offers, found.skipped, following)


def _is_same_site(following: str | None, current: str) -> bool:
    """A listing is one site's: a link elsewhere is not the next page of it."""
    return following is not None and _origin(following) == _origin(current)


def _origin(url: str) -> tuple[str, str, int]:
    parsed = httpx.URL(url)
    return parsed.scheme, parsed.host, effective_port(parsed)
