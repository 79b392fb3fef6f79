"""Offers in the schema.org JSON-LD of a page."""

import json
from collections import Counter
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import httpx

from shargain.scraping.addresses import parse_url
from shargain.scraping.errors import ForbiddenAddress
from shargain.scraping.limits import ScrapeLimits
from shargain.scraping.markup import read_markup
from shargain.scraping.types import Extraction, ScrapedOffer, SkipReason
from shargain.scraping.values import (
    as_list,
    local_name,
    lowest_price,
    to_datetime,
    to_text,
    types_of,
)

MAX_TITLE_CHARS = 500
MAX_METADATA_CHARS = 200
MAX_PROPERTIES = 30

Node = dict[str, Any]

_OFFER_TYPES = frozenset({"Offer", "AggregateOffer"})
_CONTAINERS = ("@graph", "mainEntity")
_DATES = ("datePublished", "datePosted", "validFrom", "releaseDate")
_METADATA = {
    "currency": "priceCurrency",
    "availability": "availability",
    "condition": "itemCondition",
    "sku": "sku",
    "brand": "brand",
    "category": "category",
    "seller": "seller",
}


def extract_offers(html: str, page_url: str, limits: ScrapeLimits | None = None) -> Extraction:
    """The offers of a page, each address once, in their order.

    Reads `Product` (or whatever has `offers`) with `Offer` or `AggregateOffer`, bare `Offer`, and
    `ItemList` of these, inside lists and `@graph`. Where the offers of a product have addresses of
    their own each is a listing, otherwise the product is one, at its lowest price.

    Never raises for what the page holds: what cannot be read is left out and counted in `skipped`.
    Raises ForbiddenAddress if `page_url` is no http(s) address.
    """
    markup = read_markup(html)
    page = parse_url(page_url)
    base = _resolved(markup.base, page) or page
    reader = _Reader(page, base, limits or ScrapeLimits())
    reader.read(markup.json_ld)
    following = _resolved(markup.next_link, base)
    return Extraction(
        offers=tuple(reader.offers.values()),
        skipped=dict(reader.skipped),
        next_url=None if following is None else str(following),
    )


def _resolved(link: str | None, base: httpx.URL) -> httpx.URL | None:
    try:
        return parse_url(link, base) if link else None
    except ForbiddenAddress:
        return None


class _Skip(Exception):  # noqa: N818
    def __init__(self, reason: SkipReason) -> None:
        self.reason = reason


class _Reader:
    """Walks the JSON-LD of one page and gathers offers."""

    def __init__(self, page: httpx.URL, base: httpx.URL, limits: ScrapeLimits) -> None:
        self.offers: dict[str, ScrapedOffer] = {}
        self.skipped: Counter[SkipReason] = Counter()
        self._page = page
        self._base = base
        self._limits = limits

    def read(self, texts: list[str]) -> None:
        chars_left = self._limits.max_json_ld_chars
        for text in texts:
            chars_left -= len(text)
            if chars_left < 0:
                self.skipped[SkipReason.TOO_MUCH_JSON] += 1
                continue
            try:
                self._walk(_parse(text), str(self._page), self._limits.max_nesting)
            except _Skip as skip:
                self.skipped[skip.reason] += 1

    def _walk(self, node: Any, own_url: str | None, depth: int) -> None:
        """`own_url` is the address of what has none itself, `depth` how many levels may follow."""
        if depth == 0:
            self.skipped[SkipReason.TOO_DEEP] += 1
        elif isinstance(node, list):
            for child in node:
                self._walk(child, own_url, depth - 1)
        elif isinstance(node, dict):
            self._visit(node, own_url, depth)

    def _visit(self, node: Node, own_url: str | None, depth: int) -> None:
        types = types_of(node)
        if "BreadcrumbList" in types:
            return
        if "itemListElement" in node:
            for entry in as_list(node["itemListElement"]):
                self._entry(entry, depth - 1)
        elif "offers" in node and not types & _OFFER_TYPES:
            self._product(node, own_url)
        elif types & _OFFER_TYPES:
            item = node.get("itemOffered")
            self._product({**(item if isinstance(item, dict) else {}), "offers": node}, own_url)
        else:
            for key in _CONTAINERS:
                self._walk(node.get(key), own_url, depth - 1)

    def _entry(self, entry: Any, depth: int) -> None:
        """One element of a list: a `ListItem` around the item, or the item itself."""
        before = self._tally()
        if isinstance(entry, dict):
            url = entry.get("url")
            self._walk(entry.get("item", entry), url if isinstance(url, str) else None, depth)
        if self._tally() == before:
            self.skipped[SkipReason.NO_OFFER] += 1

    def _tally(self) -> int:
        return len(self.offers) + self.skipped.total()

    def _product(self, item: Node, own_url: str | None) -> None:
        offers = list(_flat(item["offers"]))
        urls = {url for offer in offers if isinstance(url := offer.get("url"), str)}
        groups = [[offer] for offer in offers] if len(urls) > 1 else [offers] if offers else []
        for group in groups:
            try:
                self._add(self._listing(item, group, own_url))
            except _Skip as skip:
                self.skipped[skip.reason] += 1

    def _add(self, offer: ScrapedOffer) -> None:
        if offer.url in self.offers:
            raise _Skip(SkipReason.DUPLICATE)
        if len(self.offers) >= self._limits.max_offers_per_page:
            raise _Skip(SkipReason.TOO_MANY)
        self.offers[offer.url] = offer

    def _listing(self, item: Node, offers: list[Node], own_url: str | None) -> ScrapedOffer:
        offer = offers[0]
        title = to_text(_first("name", offer, item), MAX_TITLE_CHARS)
        if not title:
            raise _Skip(SkipReason.NO_TITLE)
        dates = (to_datetime(_first(key, offer, item)) for key in _DATES)
        return ScrapedOffer(
            url=self._url(_first("url", offer, item) or own_url),
            title=title,
            price=_price(offers),
            main_image_url=self._image(_first("image", offer, item)),
            list_url=str(self._page),
            metadata=_metadata(offer, item),
            published_at=next((date for date in dates if date), None),
        )

    def _url(self, link: Any) -> str:
        if not link:
            raise _Skip(SkipReason.NO_URL)
        url = _resolved(link, self._base) if isinstance(link, str) else None
        if url is None:
            raise _Skip(SkipReason.BAD_URL)
        return str(url)

    def _image(self, value: Any) -> str:
        for image in as_list(value)[:1]:
            link = _first("url", image) or _first("contentUrl", image) or image
            url = _resolved(link, self._base) if isinstance(link, str) else None
            return "" if url is None else str(url)
        return ""


def _parse(text: str) -> Any:
    """Numbers become Decimals, so that no price is rounded on the way."""
    try:
        return json.loads(
            text,
            strict=False,
            parse_int=Decimal,
            parse_float=Decimal,
            parse_constant=lambda _: None,
        )
    except (ValueError, ArithmeticError, RecursionError) as error:
        raise _Skip(SkipReason.BAD_JSON) from error


def _flat(value: Any) -> Iterator[Node]:
    """The single offers: those inside an `AggregateOffer` where it lists them, else itself."""
    for offer in as_list(value):
        if isinstance(offer, dict):
            inner = [one for one in as_list(offer.get("offers")) if isinstance(one, dict)]
            yield from inner or [offer]


def _first(key: str, *nodes: Any) -> Any:
    """The first value that is there: an offer's own before that of the item it offers."""
    values = (node.get(key) for node in nodes if isinstance(node, dict))
    return next((value for value in values if value not in (None, "", [])), None)


def _price(offers: list[Node]) -> Decimal | None:
    specifications = (as_list(offer.get("priceSpecification"))[:1] for offer in offers)
    sources = [*offers, *(spec for specs in specifications for spec in specs)]
    values = (_first("price", node) or _first("lowPrice", node) for node in sources)
    try:
        return lowest_price(values)
    except ValueError as error:
        raise _Skip(SkipReason.BAD_PRICE) from error


def _metadata(offer: Node, item: Node) -> dict[str, str]:
    properties = as_list(_first("additionalProperty", offer, item))[:MAX_PROPERTIES]
    named = {
        to_text(entry.get("name"), MAX_METADATA_CHARS): entry.get("value")
        for entry in properties
        if isinstance(entry, dict)
    }
    fixed = {name: _first(key, offer, item) for name, key in _METADATA.items()}
    texts = {name: to_text(value, MAX_METADATA_CHARS) for name, value in {**named, **fixed}.items()}
    for name in ("availability", "condition"):
        texts[name] = local_name(texts[name])
    return {name: text for name, text in texts.items() if name and text}
