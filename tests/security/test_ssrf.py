"""What a listing may do to lead the scraper into the network that it runs in.

`tests/scraping/test_addresses.py` has the forms that an address hides in. Here the page, the redirects
and the resolver are all the attacker's, and what counts is where a connection was tried to.
"""

import ipaddress
import socket
import threading
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from shargain.scraping import (
    AddressPolicy,
    Budget,
    Fetcher,
    Politeness,
    ScrapeError,
    ScrapeLimits,
    crawl,
)

# The special-purpose registries, written down a second time on purpose.
CLOSED = [
    ipaddress.ip_network(network)
    for network in (
        "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12",
        "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15",
        "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4", "168.63.129.16/32",
        "::/3", "4000::/2", "8000::/1", "2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20",
    )
]  # fmt: skip


def may_be_reached(address: str) -> bool:
    ip = ipaddress.ip_address(address)
    return not any(ip in network for network in CLOSED if network.version == ip.version)


class Attacker(HTTPServer):
    """Answers each path with whatever is in `answers`; where it is, is known and allowed."""

    def __init__(self) -> None:
        self.answers: dict[str, tuple[int, dict[str, str], bytes]] = {}
        super().__init__(("127.0.0.1", 0), _Handler)

    def handle_error(self, *_: object) -> None: ...


class _Handler(BaseHTTPRequestHandler):
    server: Attacker

    def do_GET(self) -> None:
        status, headers, body = self.server.answers.get(self.path, (404, {}, b""))
        self.send_response_only(status)
        for name, value in headers.items():
            # As raw as it comes: http.server would refuse some of it.
            self._headers_buffer.append(f"{name}: {value}\r\n".encode("latin-1", "replace"))
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None: ...


@pytest.fixture(scope="module")
def attacker() -> Iterator[Attacker]:
    with Attacker() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def tried(attacker: Attacker) -> Iterator[list[tuple[str, int]]]:
    """Where connections were tried to, but for those to the attacker; none of them is made."""
    places: list[tuple[str, int]] = []
    real = socket.create_connection

    def create_connection(address: tuple[str, int], *args: Any, **options: Any) -> socket.socket:
        if address == ("127.0.0.1", attacker.server_port):
            return real(address, *args, **options)
        places.append(address)
        raise ConnectionRefusedError(address)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, "create_connection", create_connection)
        yield places


def visit(attacker: Attacker, resolve: Any) -> None:
    """Go through the attacker's listing as a scraper would, whatever becomes of it."""
    here = ("127.0.0.1", attacker.server_port)
    policy = AddressPolicy(allowed_hosts=frozenset({here}))
    limits = ScrapeLimits(max_pages=3, connect_timeout_s=1, read_timeout_s=1)
    with Fetcher(policy=policy, politeness=Politeness(delay_s=0), resolve=resolve) as fetcher:
        for path in ("/listing", "/redirect"):
            try:
                list(crawl(f"http://127.0.0.1:{here[1]}{path}", fetcher=fetcher, limits=limits))
            except ScrapeError:
                continue


def resolver(attacker: Attacker, answers: Sequence[list[str]]) -> Any:
    """Numbers as the system reads them, names as the attacker answers: each time something else."""
    left = iter(answers)

    def resolve(host: str, port: int) -> list[str]:
        if (host, port) == ("127.0.0.1", attacker.server_port):
            return ["127.0.0.1"]
        try:
            found = socket.getaddrinfo(host, port, flags=socket.AI_NUMERICHOST)
        except OSError:
            return next(left, ["127.0.0.1"])
        return [str(place[0]) for *_, place in found]

    return resolve


V4 = st.one_of(
    st.ip_addresses(v=4),
    *(st.ip_addresses(network=network) for network in CLOSED if network.version == 4),
)
V6 = st.one_of(
    st.ip_addresses(v=6),
    *(st.ip_addresses(network=network) for network in CLOSED if network.version == 6),
    V4.map(lambda ip: ipaddress.IPv6Address(f"::ffff:{ip}")),
    V4.map(lambda ip: ipaddress.IPv6Address(int(ipaddress.IPv6Address("64:ff9b::")) + int(ip))),
    V4.map(lambda ip: ipaddress.IPv6Address((0x2002 << 112) + (int(ip) << 80))),
    st.ip_addresses(network="2600::/12"),
)
ADDRESSES = st.one_of(V4, V6).map(str)
SPELT = st.one_of(
    V4.map(str),
    V4.map(lambda ip: str(int(ip))),
    V4.map(lambda ip: hex(int(ip))),
    V4.map(lambda ip: oct(int(ip)).replace("o", "")),
    V4.map(lambda ip: ".".join(hex(part) for part in ip.packed)),
    V4.map(lambda ip: f"{ip.packed[0]}.{int(ip) & 0xFFFFFF}"),
    V4.map(lambda ip: f"{ip}."),
    V6.map(lambda ip: f"[{ip}]"),
    V6.map(lambda ip: f"[{ip.exploded}]"),
    st.sampled_from(["shop.example", "localhost", "metadata", "a.127.0.0.1.example", "①②⑦.0.0.1"]),
)
URLS = st.builds(
    "{}{}{}{}{}".format,
    st.sampled_from(
        ["http://", "https://", "//", "HTTP://", "http:", "ftp://", "http:\\\\", "/\\"]
    ),
    st.sampled_from(["", "", "", "me:pw@", "127.0.0.1:80@", "shop.example\\@", "a%40"]),
    SPELT,
    st.sampled_from(["", "", ":80", ":443", ":6379", ":0", ":65536", ":22"]),
    st.sampled_from(["/", "", "/a?b", "#@127.0.0.1/", "\\..\\", "/%0d%0aHost:x", "?@127.0.0.1"]),
)


@settings(
    max_examples=80,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
@example(url="http:0.0.0.0/", answers=[])
@given(url=URLS, answers=st.lists(st.lists(ADDRESSES, min_size=1, max_size=3), max_size=4))
def test_no_listing_leads_to_a_closed_address(
    attacker: Attacker, tried: list[tuple[str, int]], url: str, answers: list[list[str]]
) -> None:
    html = f'<base href="{url}"><a rel="next" href="{url}">'.encode()
    attacker.answers = {
        "/listing": (200, {"Content-Type": "text/html"}, html),
        "/redirect": (302, {"Location": url}, b""),
        "/robots.txt": (302, {"Location": url}, b"") if len(answers) == 4 else (404, {}, b""),
    }
    tried.clear()
    visit(attacker, resolver(attacker, answers))
    for address, port in tried:
        assert may_be_reached(address), (url, address)
        assert port in (80, 443)


def test_an_open_address_is_tried(attacker: Attacker, tried: list[tuple[str, int]]) -> None:
    """The test above would be worth nothing if no redirect was ever followed."""
    attacker.answers = {"/redirect": (302, {"Location": "http://shop.example/"}, b"")}
    tried.clear()
    visit(attacker, lambda host, _: ["127.0.0.1"] if host == "127.0.0.1" else ["1.1.1.1"])
    assert tried == [("1.1.1.1", 80)]


@pytest.mark.parametrize("name", ["https_proxy", "HTTPS_PROXY", "all_proxy", "http_proxy"])
def test_no_proxy_of_the_environment_is_asked(
    name: str,
    attacker: Attacker,
    tried: list[tuple[str, int]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It would connect to where our check never looks."""
    monkeypatch.setenv(name, "http://10.0.0.1:3128")
    tried.clear()
    with Fetcher(resolve=lambda *_: ["1.1.1.1"]) as fetcher:
        for url in ("https://shop.example/", "http://shop.example/"):
            with pytest.raises(ScrapeError):
                fetcher.fetch(url, Budget(ScrapeLimits()))
    assert set(tried) == {("1.1.1.1", 443), ("1.1.1.1", 80)}
