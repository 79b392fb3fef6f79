"""A small marketplace on this machine, selling real diamonds, for scrapers to try themselves on.

    python -m shargain.demo.marketplace --port 0

serves `/sellers/<n>/` for any n: 300 listings on pages of 20, newest first, and prints its address
as one line. All listings stand in a circle, in an order that never changes; a seller shows a window
of it that moves on with time, so a repeated visit finds known listings and new ones. The windows of
neighbours overlap by half, those of sellers two apart share nothing. `?at=SECONDS` shows a seller
as it is that long after the start.
"""

import argparse
import csv
import gzip
import hashlib
import json
import re
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from html import escape
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

from shargain.scraping import ScrapedOffer
from shargain.scraping.values import to_price

WINDOW = 300
STEP = 151
PAGE_SIZE = 20
NEW_PER_MINUTE = 30.0
PROPERTIES = ("carat", "cut", "color", "clarity", "depth", "table", "x", "y", "z")
ROBOTS = "User-agent: *\nDisallow: /checkout/\n"
PICTURE = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 24 24" fill="none" stroke="#58c">'
    '<path d="M6 4h12l4 6-10 11L2 10zM2 10h20M9 10l3 11 3-11-3-6z"/></svg>'
)

_SELLER = re.compile(r"/sellers/([0-9]{1,6})/")
_LISTING = re.compile(r"/listings/([0-9]{1,6}-[0-9a-f]{12})/")


@dataclass(frozen=True, slots=True)
class Listing:
    """A diamond for sale. The slug is its number in the data set and a hash of all it says."""

    slug: str
    row: dict[str, str]

    @property
    def title(self) -> str:
        return f"{self.row['carat']} ct {self.row['cut']} {self.row['color']} {self.row['clarity']}"

    def json_ld(self) -> dict[str, Any]:
        return {
            "@type": "Product",
            "name": self.title,
            "sku": self.slug,
            "url": f"/listings/{self.slug}/",
            "image": "/diamond.svg",
            "additionalProperty": [
                {"@type": "PropertyValue", "name": name, "value": self.row[name]}
                for name in PROPERTIES
            ],
            "offers": {
                "@type": "Offer",
                "price": self.row["price"],
                "priceCurrency": "USD",
                "availability": "https://schema.org/InStock",
            },
        }

    def offer(self, site: str, list_url: str) -> ScrapedOffer:
        """What a scraper finds when it meets this listing on the page at `list_url`."""
        properties = {name: self.row[name] for name in PROPERTIES}
        return ScrapedOffer(
            url=f"{site}/listings/{self.slug}/",
            title=self.title,
            price=to_price(self.row["price"]),
            main_image_url=f"{site}/diamond.svg",
            list_url=list_url,
            metadata={**properties, "currency": "USD", "availability": "InStock", "sku": self.slug},
        )


@cache
def sample() -> tuple[Listing, ...]:
    """All 3,000 listings, in the order of the circle: that of a hash, so prices come mixed."""
    packed = resources.files("shargain.demo").joinpath("data/diamonds.csv.gz").read_bytes()
    listings = map(_listing, csv.DictReader(gzip.decompress(packed).decode().splitlines()))
    return tuple(sorted(listings, key=lambda listing: listing.slug.partition("-")[2]))


def _listing(row: dict[str, str]) -> Listing:
    digest = hashlib.sha256("|".join(row.values()).encode()).hexdigest()
    return Listing(f"{row['row']}-{digest[:12]}", row)


def sample_offers(site: str = "http://marketplace.example") -> list[ScrapedOffer]:
    """All listings as a scraper would find them, for tests and load."""
    return [listing.offer(site, f"{site}/") for listing in sample()]


def seller_listings(seller: int, arrived: int = 0) -> list[Listing]:
    """What a seller shows after `arrived` new listings came in, newest first."""
    circle = sample()
    newest = seller * STEP + WINDOW - 1 + arrived
    return [circle[(newest - age) % len(circle)] for age in range(WINDOW)]


class Marketplace(ThreadingHTTPServer):
    """Serves on 127.0.0.1 alone; `url` is where. Port 0 takes a free one."""

    daemon_threads = True

    def __init__(self, port: int = 0, *, new_per_minute: float = NEW_PER_MINUTE) -> None:
        self.new_per_minute = new_per_minute
        self.started_at = time.monotonic()
        super().__init__(("127.0.0.1", port), _Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def arrived(self, at_s: float | None) -> int:
        """How many new listings came in, by now or `at_s` seconds after the start."""
        elapsed_s = time.monotonic() - self.started_at if at_s is None else at_s
        return int(elapsed_s * self.new_per_minute / 60)


class _Handler(BaseHTTPRequestHandler):
    server: Marketplace
    protocol_version = "HTTP/1.1"
    timeout = 10.0

    def do_GET(self) -> None:
        address = urlsplit(self.path)
        if address.path == "/robots.txt":
            self._send(ROBOTS, "text/plain")
        elif address.path == "/diamond.svg":
            self._send(PICTURE, "image/svg+xml")
        elif address.path == "/":
            self._send(_front_page())
        elif found := _SELLER.fullmatch(address.path):
            self._send_seller(int(found.group(1)), parse_qs(address.query))
        elif found := _LISTING.fullmatch(address.path):
            self._send_listing(found.group(1))
        else:
            self._send("No such page.", "text/plain", HTTPStatus.NOT_FOUND)

    def _send_seller(self, seller: int, query: dict[str, list[str]]) -> None:
        try:
            page = int(query.get("page", ["1"])[0])
            at_s = float(query["at"][0]) if "at" in query else None
            shown = seller_listings(seller, self.server.arrived(at_s))
        except (ValueError, OverflowError):
            self._send("page and at are numbers.", "text/plain", HTTPStatus.BAD_REQUEST)
            return
        if not 1 <= page <= WINDOW // PAGE_SIZE:
            self._send("No such page.", "text/plain", HTTPStatus.NOT_FOUND)
            return
        at = f"&at={quote(query['at'][0])}" if "at" in query else ""
        self._send(_seller_page(seller, page, at, shown[(page - 1) * PAGE_SIZE :][:PAGE_SIZE]))

    def _send_listing(self, slug: str) -> None:
        for listing in sample():
            if listing.slug == slug:
                self._send(_document(listing.title, _card(listing), listing.json_ld()))
                return
        self._send("This diamond is not for sale.", "text/plain", HTTPStatus.NOT_FOUND)

    def _send(self, text: str, kind: str = "text/html", status: HTTPStatus = HTTPStatus.OK) -> None:
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """The scrapers report what they fetch."""


def _seller_page(seller: int, page: int, at: str, shown: list[Listing]) -> str:
    items = {
        "@type": "ItemList",
        "itemListElement": [
            {"@type": "ListItem", "position": position, "item": listing.json_ld()}
            for position, listing in enumerate(shown, start=(page - 1) * PAGE_SIZE + 1)
        ],
    }
    cards = "".join(map(_card, shown))
    links = "".join(_links(page, at))
    return _document(f"Diamonds of seller {seller}, page {page}", f"<ul>{cards}</ul>{links}", items)


def _links(page: int, at: str) -> Iterator[str]:
    if page > 1:
        yield f'<a rel="prev" href="?page={page - 1}{escape(at)}">Newer</a> '
    if page < WINDOW // PAGE_SIZE:
        yield f'<a rel="next" href="?page={page + 1}{escape(at)}">Older</a>'


def _card(listing: Listing) -> str:
    return (
        f'<li><img src="/diamond.svg" width="24" alt=""> '
        f'<a href="/listings/{listing.slug}/">{escape(listing.title)}</a>: '
        f"${escape(listing.row['price'])}</li>"
    )


def _front_page() -> str:
    links = "".join(f'<li><a href="/sellers/{n}/">Seller {n}</a></li>' for n in range(20))
    return _document("Diamonds", f"<ul>{links}</ul>")


def _document(title: str, body: str, data: dict[str, Any] | None = None) -> str:
    # A "<" inside a script could end it, so JSON spells it another way.
    json_ld = json.dumps({"@context": "https://schema.org", **(data or {})}).replace("<", "\\u003c")
    script = f'<script type="application/ld+json">{json_ld}</script>' if data else ""
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f"{script}</head><body><h1>{escape(title)}</h1>{body}</body></html>\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Serve the demonstration marketplace.")
    parser.add_argument("--port", type=int, default=0, help="on 127.0.0.1; 0 takes a free one")
    parser.add_argument("--new-per-minute", type=float, default=NEW_PER_MINUTE)
    arguments = parser.parse_args()
    if not 0 <= arguments.port < 2**16 or not 0 <= arguments.new_per_minute < 1e6:
        parser.error("give a port from 0 to 65535 and from 0 to 1,000,000 new listings per minute")
    try:
        server = Marketplace(arguments.port, new_per_minute=arguments.new_per_minute)
    except OSError as error:
        parser.error(f"port {arguments.port} of 127.0.0.1 cannot be had: {error.strerror}")
    with server, suppress(KeyboardInterrupt):
        print(server.url, flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()
