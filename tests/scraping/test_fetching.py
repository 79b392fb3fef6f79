"""One page: what is accepted, how much of it, and how considerately it is asked for."""

import gzip
import socket
import ssl
import threading
import time
import zlib
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest
from local_site import Site

from shargain.scraping import (
    AddressPolicy,
    BadResponse,
    Budget,
    Document,
    Fetcher,
    Politeness,
    RobotsDisallowed,
    ScrapeLimits,
    ScrapeTimeout,
    SiteUnavailable,
    TooLarge,
)


def fetch(fetcher: Fetcher, url: str, **limits: Any) -> Document:
    return fetcher.fetch(url, Budget(ScrapeLimits(**limits)))


def test_a_page_is_fetched_under_our_own_name(site: Site, fetcher: Fetcher) -> None:
    url = site.add("/bikes", "<p>zażółć</p>", Set_Cookie="a=1")
    site.add("/robots.txt", kind="text/plain", Set_Cookie="b=1")
    document = fetch(fetcher, url + "#top")
    assert document == Document(url, "<p>zażółć</p>", len("<p>zażółć</p>".encode()))
    fetch(fetcher, url)
    assert site.seen == ["/robots.txt", "/bikes", "/bikes"]
    for headers in site.headers_seen:
        assert headers["User-Agent"].startswith("shargain/")
        assert not {"Cookie", "Authorization"} & headers.keys()


def test_redirects_are_followed_and_end(site: Site, fetcher: Fetcher) -> None:
    site.add("/end", "hello")
    site.redirect("/b", "end")
    start = site.redirect("/a", site.url + "/b")
    assert fetch(fetcher, start, max_redirects=2).url == site.url + "/end"
    with pytest.raises(BadResponse, match="redirects more than 1 times"):
        fetch(fetcher, start, max_redirects=1)
    loop = site.redirect("/loop", "/loop")
    with pytest.raises(BadResponse, match="redirects"):
        fetch(fetcher, loop)


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ({"status": 404}, BadResponse),
        ({"status": 403}, BadResponse),
        ({"status": 204}, BadResponse),
        ({"status": 302}, BadResponse),
        ({"status": 429}, SiteUnavailable),
        ({"status": 500}, SiteUnavailable),
        ({"status": 503}, SiteUnavailable),
        ({"kind": "application/pdf"}, BadResponse),
        ({"kind": "application/json"}, BadResponse),
        ({"kind": "text/htmlx"}, BadResponse),
        ({"kind": None}, BadResponse),
        ({"Content_Encoding": "br"}, BadResponse),
        ({"Content_Encoding": "gzip, gzip"}, BadResponse),
        ({"Content_Encoding": "gzip", "body": b"no gzip"}, BadResponse),
        ({"Content_Encoding": "gzip", "body": gzip.compress(b"x" * 99)[:-9]}, BadResponse),
        ({"Content_Encoding": "gzip"}, BadResponse),
    ],
)
def test_what_is_no_page(
    answer: dict[str, Any], error: type[Exception], site: Site, fetcher: Fetcher
) -> None:
    url = site.add("/page", **answer)
    with pytest.raises(error, match="/page"):
        fetch(fetcher, url)


@pytest.mark.parametrize(
    ("body", "kind", "text"),
    [
        ("ż".encode("iso-8859-2"), "text/html; charset=ISO-8859-2", "ż"),
        ("ż".encode("cp1250"), 'text/html; charset="windows-1250"', "ż"),
        (
            "<meta charset=iso-8859-2>ż".encode("iso-8859-2"),
            "text/html",
            "<meta charset=iso-8859-2>ż",
        ),
        (b"\xef\xbb\xbf" + "ż".encode(), "text/html", "ż"),
        ("ż".encode(), "application/xhtml+xml", "ż"),
        (b"a\xffb", "text/html", "a\ufffdb"),
        (b"+AGE-", "text/html; charset=utf-7", "+AGE-"),
        (b"a", "text/html; charset=zlib", "a"),
        (b"a", "text/html; charset=iso-8859-99", "a"),
    ],
)
def test_the_encoding_of_a_page(
    body: bytes, kind: str, text: str, site: Site, fetcher: Fetcher
) -> None:
    assert fetch(fetcher, site.add("/", body, kind=kind)).html == text


@pytest.mark.parametrize("compressed", [False, True])
def test_size_is_bounded_to_the_byte(compressed: bool, site: Site, fetcher: Fetcher) -> None:
    headers = {"Content_Encoding": "gzip"} if compressed else {}
    body = b"x" * 100_000
    url = site.add("/", gzip.compress(body) if compressed else body, **headers)
    assert fetch(fetcher, url, max_page_bytes=100_000).size == 100_000
    with pytest.raises(TooLarge, match="99999 bytes"):
        fetch(fetcher, url, max_page_bytes=99_999)
    with pytest.raises(TooLarge, match="99999 bytes"):
        fetch(fetcher, url, max_total_bytes=99_999)


def test_pages_share_the_bytes_of_a_budget(site: Site, fetcher: Fetcher) -> None:
    url = site.add("/", "x" * 1000)
    budget = Budget(ScrapeLimits(max_total_bytes=2500))
    fetcher.fetch(url, budget)
    fetcher.fetch(url, budget)
    with pytest.raises(TooLarge):
        fetcher.fetch(url, budget)


def test_a_bomb_does_not_go_off(site: Site, fetcher: Fetcher) -> None:
    """1 GiB of zeros in 1 MiB, and no end: reading stops at the limit, far before the memory."""
    packer = zlib.compressobj(9, wbits=31)
    megabyte = packer.compress(bytes(2**20)) + packer.flush(zlib.Z_FULL_FLUSH)
    sent = []

    def explode(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", "text/html")
        handler.send_header("Content-Encoding", "gzip")
        handler.end_headers()
        handler.wfile.write(megabyte)
        block = megabyte[10:]
        for _ in range(100_000):
            handler.wfile.write(block)
            sent.append(len(block))

    site.routes["/"] = explode
    with pytest.raises(TooLarge):
        fetch(fetcher, site.url)
    assert len(sent) < 100_000


def test_an_endless_page_ends_at_the_limit(site: Site, fetcher: Fetcher) -> None:
    def endless(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", "text/html")
        handler.end_headers()
        while True:
            handler.wfile.write(b"x" * 65536)

    site.routes["/"] = endless
    with pytest.raises(TooLarge):
        fetch(fetcher, site.url)


def drip(status_line: bytes, released: threading.Event) -> Any:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(status_line)
        while not released.wait(0.02):
            handler.wfile.write(b"x")

    return answer


@pytest.mark.parametrize(
    "beginning",
    [b"HTTP/1.1 200 OK\r\nX-Endless: ", b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n"],
    ids=["headers", "body"],
)
def test_a_server_that_drips_is_left(beginning: bytes, site: Site, fetcher: Fetcher) -> None:
    """Each byte comes in time for the read time-out; only the page's own deadline ends it."""
    released = threading.Event()
    site.add("/robots.txt", kind="text/plain")
    site.routes["/"] = drip(beginning, released)
    with pytest.raises(ScrapeTimeout):
        fetch(fetcher, site.url, read_timeout_s=5, page_timeout_s=0.3)
    released.set()


def test_a_server_that_is_silent_is_left(site: Site, fetcher: Fetcher) -> None:
    released = threading.Event()
    site.routes["/robots.txt"] = lambda _handler: released.wait(30) and None
    with pytest.raises(ScrapeTimeout):
        fetch(fetcher, site.url, read_timeout_s=0.2)
    released.set()


def test_silence_is_not_waited_for_beyond_the_time_of_the_page(
    site: Site, fetcher: Fetcher
) -> None:
    released = threading.Event()
    site.routes["/robots.txt"] = lambda _handler: released.wait(30) and None
    started = time.monotonic()
    with pytest.raises(ScrapeTimeout):
        fetch(fetcher, site.url, read_timeout_s=25, page_timeout_s=0.3)
    assert time.monotonic() - started < 15
    released.set()


def test_a_server_that_breaks_off_is_unavailable(site: Site, fetcher: Fetcher) -> None:
    def break_off(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", "text/html")
        handler.send_header("Content-Length", "100")
        handler.end_headers()
        handler.wfile.write(b"half")

    site.routes["/"] = break_off
    with pytest.raises(SiteUnavailable):
        fetch(fetcher, site.url)


def test_a_server_that_is_not_there_is_unavailable(site: Site) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    policy = AddressPolicy(allowed_hosts=frozenset({("127.0.0.1", port)}))
    with Fetcher(policy=policy) as fetcher, pytest.raises(SiteUnavailable, match=str(port)):
        fetch(fetcher, f"http://127.0.0.1:{port}/")


def test_what_is_not_http_is_a_bad_response_or_unavailable(site: Site, fetcher: Fetcher) -> None:
    site.routes["/"] = lambda handler: handler.wfile.write(b"220 mail.example ESMTP\r\n") and None
    with pytest.raises((BadResponse, SiteUnavailable)):
        fetch(fetcher, site.url)


def test_the_next_address_is_tried_when_one_does_not_answer(site: Site) -> None:
    site.add("/", "hello")
    policy = AddressPolicy(allowed_hosts=frozenset({("shop.example", site.server_port)}))
    with Fetcher(policy=policy, resolve=lambda *_: ["127.0.0.9", "127.0.0.1"]) as fetcher:
        assert fetch(fetcher, f"http://shop.example:{site.server_port}/").html == "hello"


def client_hello(listener: socket.socket, received: list[bytes]) -> None:
    connection, _ = listener.accept()
    with connection:
        received.append(connection.recv(4096))


def test_tls_asks_for_the_name_and_trusts_nobody_without_a_certificate() -> None:
    """The connection goes to a checked number, the certificate is demanded for the name."""
    received: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        thread = threading.Thread(target=client_hello, args=(listener, received))
        thread.start()
        policy = AddressPolicy(allowed_hosts=frozenset({("shop.example", port)}))
        with (
            Fetcher(policy=policy, resolve=lambda *_: ["127.0.0.1"]) as fetcher,
            pytest.raises(SiteUnavailable),
        ):
            fetch(fetcher, f"https://shop.example:{port}/")
        thread.join()
    assert b"shop.example" in received[0]


class TestRobots:
    def test_what_it_closes_is_not_fetched(self, site: Site, fetcher: Fetcher) -> None:
        site.add("/robots.txt", "User-agent: *\nDisallow: /private/\n", kind="text/plain")
        site.add("/open", "hello")
        closed = site.add("/private/page", "hello")
        assert fetch(fetcher, site.url + "/open").html == "hello"
        with pytest.raises(RobotsDisallowed, match="/private/page"):
            fetch(fetcher, closed)
        assert site.seen == ["/robots.txt", "/open"]

    def test_our_own_rules_come_before_those_for_all(self, site: Site, fetcher: Fetcher) -> None:
        rules = "User-agent: *\nDisallow: /\n\nUser-agent: Shargain\nDisallow: /private\n"
        site.add("/robots.txt", rules, kind="text/plain")
        assert fetch(fetcher, site.add("/", "hello")).html == "hello"
        with pytest.raises(RobotsDisallowed):
            fetch(fetcher, site.add("/private", "hello"))

    def test_a_redirect_into_what_is_closed_is_not_followed(
        self, site: Site, fetcher: Fetcher
    ) -> None:
        site.add("/robots.txt", "User-agent: *\nDisallow: /private/\n", kind="text/plain")
        start = site.redirect("/start", "/private/")
        with pytest.raises(RobotsDisallowed, match="/private/"):
            fetch(fetcher, start)
        assert site.seen == ["/robots.txt", "/start"]

    @pytest.mark.parametrize("status", [400, 401, 403, 404, 410])
    def test_a_missing_one_opens_the_site(self, status: int, site: Site, fetcher: Fetcher) -> None:
        site.add("/robots.txt", "User-agent: *\nDisallow: /", status=status)
        assert fetch(fetcher, site.add("/", "hello")).html == "hello"

    @pytest.mark.parametrize("status", [429, 500, 503])
    def test_one_that_cannot_be_had_closes_the_site_for_now(
        self, status: int, site: Site, fetcher: Fetcher
    ) -> None:
        site.add("/robots.txt", status=status)
        url = site.add("/", "hello")
        with pytest.raises(SiteUnavailable, match=r"robots\.txt"):
            fetch(fetcher, url)
        assert "/" not in site.seen
        site.add("/robots.txt", kind="text/plain")
        assert fetch(fetcher, url).html == "hello"

    def test_one_that_redirects_is_followed(self, site: Site, fetcher: Fetcher) -> None:
        site.redirect("/robots.txt", "/rules")
        site.add("/rules", "User-agent: *\nDisallow: /", kind="text/plain")
        with pytest.raises(RobotsDisallowed):
            fetch(fetcher, site.add("/", "hello"))

    def test_only_the_beginning_of_a_huge_one_is_read(self, site: Site, fetcher: Fetcher) -> None:
        rules = "User-agent: *\nDisallow: /early\n" + "# filler\n" * 70_000 + "Disallow: /late\n"
        site.add("/robots.txt", rules, kind="text/plain")
        assert fetch(fetcher, site.add("/late", "hello")).html == "hello"
        with pytest.raises(RobotsDisallowed):
            fetch(fetcher, site.add("/early", "hello"))

    @pytest.mark.parametrize(
        "rules", ["\0" * 99, "<html>", "Crawl-delay: nan", "\xff\xfe", "*" * 999]
    )
    def test_nonsense_closes_nothing(self, rules: str, site: Site, fetcher: Fetcher) -> None:
        site.add("/robots.txt", rules.encode("latin-1"), kind="text/plain")
        assert fetch(fetcher, site.add("/", "hello")).html == "hello"


class TestDelay:
    @pytest.mark.parametrize(
        ("asked", "expected"), [("", 2.0), ("Crawl-delay: 3", 3.0), ("Crawl-delay: 1000", 4.0)]
    )
    def test_a_host_is_left_alone_between_two_pages(
        self, asked: str, expected: float, site: Site, policy: AddressPolicy
    ) -> None:
        site.add("/robots.txt", f"User-agent: *\nDisallow: /x\n{asked}", kind="text/plain")
        url = site.add("/", "hello")
        waits: list[float] = []
        politeness = Politeness(delay_s=2, max_delay_s=4)
        with Fetcher(policy=policy, politeness=politeness, sleep=waits.append) as fetcher:
            fetch(fetcher, url)
            assert waits == []
            fetch(fetcher, url)
        assert waits == [pytest.approx(expected, abs=0.9)]
        assert waits[0] <= expected

    def test_the_wait_is_real(self, site: Site, policy: AddressPolicy) -> None:
        url = site.add("/", "hello")
        with Fetcher(policy=policy, politeness=Politeness(delay_s=0.2)) as fetcher:
            fetch(fetcher, url)
            started = time.monotonic()
            fetch(fetcher, url)
        assert time.monotonic() - started >= 0.1

    def test_no_wait_beyond_the_end_of_the_crawl(self, site: Site, policy: AddressPolicy) -> None:
        url = site.add("/", "hello")
        waits: list[float] = []
        politeness = Politeness(delay_s=20)
        with Fetcher(policy=policy, politeness=politeness, sleep=waits.append) as fetcher:
            budget = Budget(ScrapeLimits(total_timeout_s=15))
            fetcher.fetch(url, budget)
            with pytest.raises(ScrapeTimeout, match="may not be visited"):
                fetcher.fetch(url, budget)
        assert waits == []


def test_a_crawl_whose_time_is_up_fetches_nothing(site: Site, fetcher: Fetcher) -> None:
    budget = Budget(ScrapeLimits(total_timeout_s=0.001))
    time.sleep(0.01)
    with pytest.raises(ScrapeTimeout, match=r"0\.001 s"):
        fetcher.fetch(site.url, budget)
    assert site.seen == []


@pytest.mark.parametrize(
    "settings",
    [{"user_agent": ""}, {"user_agent": "/1.0"}, {"user_agent": "a\r\nX: y"}, {"user_agent": "ż/1"},
     {"delay_s": -1}, {"delay_s": 31}, {"max_delay_s": float("inf")}, {"delay_s": float("nan")}],
)  # fmt: skip
def test_bad_politeness_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        Politeness(**settings)


@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf")])
def test_bad_limits_are_refused(value: float) -> None:
    with pytest.raises(ValueError, match="total_timeout_s"):
        ScrapeLimits(total_timeout_s=value)


def test_certificates_are_verified_unless_the_caller_says_otherwise() -> None:
    context = Fetcher()._transport._pool._ssl_context
    assert context is not None
    assert context.check_hostname
    assert context.verify_mode == ssl.CERT_REQUIRED
