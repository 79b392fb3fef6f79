"""The marketplace of the demonstration, seen through the scraper that it is there for."""

import os
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest

from shargain.demo.marketplace import (
    PAGE_SIZE,
    STEP,
    WINDOW,
    Marketplace,
    sample,
    sample_offers,
    seller_listings,
)
from shargain.scraping import (
    AddressPolicy,
    Budget,
    Fetcher,
    Page,
    Politeness,
    RobotsDisallowed,
    ScrapedOffer,
    ScrapeLimits,
    crawl,
    extract_offers,
)

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def market() -> Iterator[Marketplace]:
    with Marketplace() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def fetcher(market: Marketplace) -> Iterator[Fetcher]:
    policy = AddressPolicy(allowed_hosts=frozenset({("127.0.0.1", market.server_port)}))
    with Fetcher(policy=policy, politeness=Politeness(delay_s=0)) as one:
        yield one


def visit(market: Marketplace, fetcher: Fetcher, path: str) -> list[Page]:
    return list(crawl(market.url + path, fetcher=fetcher))


def urls(pages: list[Page]) -> list[str]:
    return [offer.url for page in pages for offer in page.offers]


def without_page(offer: ScrapedOffer) -> dict[str, object]:
    return offer.as_json() | {"list_url": ""}


def test_the_sample_is_of_real_listings_that_differ() -> None:
    offers = sample_offers()
    assert len(offers) == len({offer.url for offer in offers}) == 3_000
    assert all(offer.price and 300 < offer.price < 20_000 for offer in offers)
    known = next(offer for offer in offers if "/11-" in offer.url)
    assert (known.title, known.price) == ("0.23 ct Ideal J VS1", Decimal("340.00"))
    assert known.metadata["depth"] == "62.8"


def test_a_scraper_finds_what_the_helper_promises(market: Marketplace, fetcher: Fetcher) -> None:
    pages = visit(market, fetcher, "/sellers/3/?at=0")
    assert [len(page.offers) for page in pages] == [PAGE_SIZE] * (WINDOW // PAGE_SIZE)
    assert not any(page.skipped for page in pages)
    promised = {offer.url: offer for offer in sample_offers(market.url)}
    for page in pages:
        for offer in page.offers:
            assert without_page(offer) == without_page(promised[offer.url])
            assert offer.list_url == page.url


def test_a_listing_has_a_page_of_its_own(market: Marketplace, fetcher: Fetcher) -> None:
    (offer,) = sample_offers(market.url)[:1]
    (page,) = visit(market, fetcher, offer.url.removeprefix(market.url))
    assert [without_page(found) for found in page.offers] == [without_page(offer)]


def test_neighbours_overlap_and_others_do_not() -> None:
    shown = [{listing.slug for listing in seller_listings(seller)} for seller in range(4)]
    assert all(len(slugs) == WINDOW for slugs in shown)
    assert len(shown[0] & shown[1]) == WINDOW - STEP
    assert not shown[0] & shown[2]
    assert shown[1] != shown[2]


def test_time_brings_new_listings_first(market: Marketplace, fetcher: Fetcher) -> None:
    """30 a minute: after 20 seconds 10 are new, and the 10 oldest are gone."""
    before = urls(visit(market, fetcher, "/sellers/5/?at=0"))
    after = urls(visit(market, fetcher, "/sellers/5/?at=20"))
    assert after[10:] == before[:-10]
    assert not set(after[:10]) & set(before)
    assert urls(visit(market, fetcher, "/sellers/5/?at=20")) == after


def test_the_circle_closes() -> None:
    assert seller_listings(7, arrived=len(sample())) == seller_listings(7)


def test_robots_txt_closes_the_checkout(market: Marketplace, fetcher: Fetcher) -> None:
    with pytest.raises(RobotsDisallowed):
        fetcher.fetch(market.url + "/checkout/", Budget(ScrapeLimits()))


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/nowhere", 404),
        ("/sellers/1/?page=0", 404),
        ("/sellers/1/?page=16", 404),
        ("/sellers/-1/", 404),
        ("/sellers/1/?page=x", 400),
        ("/sellers/1/?at=nan", 400),
        ("/sellers/1/?at=inf", 400),
        ("/listings/11-000000000000/", 404),
        ("/listings/../etc/passwd", 404),
    ],
)
def test_what_is_not_there(path: str, status: int, market: Marketplace) -> None:
    with pytest.raises(urllib.error.HTTPError) as error:
        urllib.request.urlopen(market.url + path, timeout=10)
    with error.value:
        assert error.value.code == status


@pytest.mark.parametrize("path", ["/", "/diamond.svg", "/robots.txt"])
def test_what_a_visitor_looks_at(path: str, market: Marketplace) -> None:
    with urllib.request.urlopen(market.url + path, timeout=10) as answer:
        assert answer.status == 200


def test_a_page_leads_to_the_next_at_the_same_moment(market: Marketplace) -> None:
    """`at` comes back in the links of a page, quoted."""
    url = market.url + "/sellers/1/?at=%20%2B1e0%20"
    with urllib.request.urlopen(url, timeout=10) as answer:
        html = answer.read().decode()
    following = market.url + "/sellers/1/?page=2&at=%20%2B1e0%20"
    assert extract_offers(html, url).next_url == following


def test_other_addresses_of_the_machine_are_not_served(market: Marketplace) -> None:
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.2", market.server_port), timeout=5)


def run_marketplace(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "shargain.demo.marketplace", *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_as_a_program_it_prints_where_it_serves_this_machine_alone() -> None:
    with run_marketplace("--port", "0") as program:
        assert program.stdout is not None
        url = program.stdout.readline().strip()
        assert url.startswith("http://127.0.0.1:")
        with urllib.request.urlopen(url + "/sellers/1/", timeout=10) as answer:
            assert answer.status == 200
        program.terminate()
        program.communicate(timeout=10)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--port", "70000"], "from 0 to 65535"),
        (["--new-per-minute", "-1"], "new listings per minute"),
        (["--new-per-minute", "nan"], "new listings per minute"),
    ],
)
def test_bad_arguments_are_named(arguments: list[str], said: str) -> None:
    with run_marketplace(*arguments) as program:
        _, errors = program.communicate(timeout=10)
    assert program.returncode == 2
    assert said in errors


def test_a_taken_port_is_said_in_a_sentence(market: Marketplace) -> None:
    with run_marketplace("--port", str(market.server_port)) as program:
        _, errors = program.communicate(timeout=10)
    assert program.returncode == 2
    assert f"port {market.server_port} of 127.0.0.1 cannot be had" in errors
