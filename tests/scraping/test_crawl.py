"""From page to page, and where that ends."""

import json
import threading
from http.server import BaseHTTPRequestHandler

import pytest
from local_site import Site

from shargain.scraping import (
    BadResponse,
    Fetcher,
    Page,
    ScrapeError,
    ScrapeLimits,
    ScrapeTimeout,
    TooLarge,
    crawl,
)


def listing_page(*names: str, following: str | None = None) -> str:
    products = [{"@type": "Product", "name": n, "url": f"/{n}", "offers": {}} for n in names]
    link = f'<link rel="next" href="{following}">' if following else ""
    return f'{link}<script type="application/ld+json">{json.dumps(products)}</script>'


def titles(pages: list[Page]) -> list[list[str]]:
    return [[offer.title for offer in page.offers] for page in pages]


def until_error(
    url: str, fetcher: Fetcher, limits: ScrapeLimits
) -> tuple[list[Page], ScrapeError | None]:
    pages: list[Page] = []
    try:
        for page in crawl(url, fetcher=fetcher, limits=limits):
            pages.append(page)  # noqa: PERF402  the pages before an error are what is looked for
    except ScrapeError as error:
        return pages, error
    return pages, None


def test_pages_are_followed_to_the_last(site: Site, fetcher: Fetcher) -> None:
    start = site.add("/list", listing_page("a", "b", following="?page=2"))
    site.add("/list?page=2", listing_page("c", following="/list?page=3"))
    site.add("/list?page=3", listing_page())
    pages = list(crawl(start, fetcher=fetcher))
    assert titles(pages) == [["a", "b"], ["c"], []]
    assert [page.url for page in pages] == [start, start + "?page=2", start + "?page=3"]
    assert pages[-1].next_url is None
    assert {offer.list_url for offer in pages[1].offers} == {start + "?page=2"}


def test_pages_come_one_by_one(site: Site, fetcher: Fetcher) -> None:
    start = site.add("/1", listing_page("a", following="/2"))
    site.add("/2", listing_page("b"))
    pages = crawl(start, fetcher=fetcher)
    assert next(pages).offers[0].title == "a"
    assert "/2" not in site.seen


def test_the_limit_on_pages_ends_a_crawl_and_shows(site: Site, fetcher: Fetcher) -> None:
    start = site.add("/1", listing_page("a", following="/2"))
    site.add("/2", listing_page("b", following="/3"))
    pages = list(crawl(start, fetcher=fetcher, limits=ScrapeLimits(max_pages=2)))
    assert titles(pages) == [["a"], ["b"]]
    assert pages[-1].next_url == site.url + "/3"


@pytest.mark.parametrize("back", ["/1", "/1#top", "/2", "/again"])
def test_a_loop_ends(back: str, site: Site, fetcher: Fetcher) -> None:
    start = site.add("/1", listing_page("a", following="/2"))
    site.add("/2", listing_page("b", following=back))
    site.redirect("/again", "/1")
    assert titles(list(crawl(start, fetcher=fetcher))) == [["a"], ["b"]]


@pytest.mark.parametrize("back", ["/1", "/1#top", "/2"])
def test_a_page_that_was_seen_is_not_fetched_again(back: str, site: Site, fetcher: Fetcher) -> None:
    start = site.add("/1", listing_page("a", following="/2"))
    site.add("/2", listing_page("b", following=back))
    *_, last = crawl(start, fetcher=fetcher)
    assert last.next_url is None
    assert site.seen == ["/robots.txt", "/1", "/2"]


def test_the_next_page_is_on_the_same_site(site: Site, fetcher: Fetcher) -> None:
    elsewhere = f"http://localhost:{site.server_port}/2"
    start = site.add("/1", listing_page("a", following=elsewhere))
    (page,) = crawl(start, fetcher=fetcher)
    assert page.next_url is None


@pytest.mark.parametrize("broken", ["/missing", "/pdf"])
def test_an_error_keeps_what_came_before(broken: str, site: Site, fetcher: Fetcher) -> None:
    start = site.add("/1", listing_page("a", following="/2"))
    site.add("/2", listing_page("b", following=broken))
    site.add("/pdf", kind="application/pdf")
    pages, error = until_error(start, fetcher, ScrapeLimits())
    assert titles(pages) == [["a"], ["b"]]
    assert isinstance(error, BadResponse)


def test_all_pages_together_are_bounded(site: Site, fetcher: Fetcher) -> None:
    body = listing_page("a", following="/2") + " " * 1000
    start = site.add("/1", body)
    site.add("/2", listing_page("b", following="/3") + " " * 1000)
    site.add("/3", body)
    pages, error = until_error(start, fetcher, ScrapeLimits(max_total_bytes=3000))
    assert len(pages) == 2
    assert isinstance(error, TooLarge)


def test_the_time_of_a_crawl_is_bounded(site: Site, fetcher: Fetcher) -> None:
    start = site.add("/1", listing_page("a", following="/2"))
    released = threading.Event()

    def hang(_: BaseHTTPRequestHandler) -> None:
        released.wait(30)

    site.routes["/2"] = hang
    pages, error = until_error(start, fetcher, ScrapeLimits(total_timeout_s=1))
    released.set()
    assert titles(pages) == [["a"]]
    assert isinstance(error, ScrapeTimeout)


def test_batches_hold_every_offer_once_in_order(site: Site, fetcher: Fetcher) -> None:
    names = [f"n{number}" for number in range(7)]
    (page,) = crawl(site.add("/", listing_page(*names)), fetcher=fetcher)
    batches = list(page.batches(3))
    assert [len(batch) for batch in batches] == [3, 3, 1]
    assert [offer.title for batch in batches for offer in batch] == names
