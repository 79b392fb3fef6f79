"""Only the public internet may be fetched, whatever form an address hides in."""

from collections.abc import Callable

import httpx
import pytest
from local_site import Site

from shargain.scraping import (
    AddressPolicy,
    Budget,
    Fetcher,
    ForbiddenAddress,
    Politeness,
    ScrapeLimits,
    SiteUnavailable,
)
from shargain.scraping.addresses import is_public, parse_url

PRIVATE = [
    "0.0.0.0", "0.1.2.3", "10.0.0.1", "100.64.0.1", "100.100.100.200", "127.0.0.1", "127.255.0.1",
    "168.63.129.16", "169.254.169.254", "172.16.0.1", "172.31.255.255", "192.0.0.1", "192.0.0.192",
    "192.0.2.1", "192.88.99.1", "192.168.1.1", "198.18.0.1", "198.51.100.1", "203.0.113.1",
    "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255",
    "::", "::1", "::7f00:1", "::8.8.8.8", "::ffff:127.0.0.1", "::ffff:8.8.8.8",
    "::ffff:0:127.0.0.1",
    "64:ff9b::7f00:1", "64:ff9b::808:808", "64:ff9b:1::1", "100::1", "2001::1", "2001:10::1",
    "2001:20::1", "2001:db8::1", "2002:7f00:1::", "2002:808:808::1", "3fff::1", "5f00::1",
    "fc00::1", "fd00:ec2::254", "fe80::1", "fe80::1%eth0", "fec0::1", "ff02::1", "ff0e::1",
    "localhost", "", "1", "0x7f000001",
]  # fmt: skip
PUBLIC = ["1.1.1.1", "8.8.8.8", "172.32.0.1", "100.128.0.1", "2606:4700:4700::1111", "2a00::1"]

# Ways to write 127.0.0.1 (or a name of it) that a resolver may understand.
DISGUISES = [
    "127.0.0.1", "2130706433", "0x7f000001", "0x7f.1", "0177.0.0.1", "017700000001", "127.1", "0",
    "127.0.0.1.", "localhost", "[::1]", "[::]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]",
    "[0:0:0:0:0:0:0:1]", "127。0。0。1", "169.254.169.254", "[fe80::1]", "[64:ff9b::7f00:1]",
]  # fmt: skip


@pytest.fixture
def closed_fetcher(site: Site) -> Fetcher:
    """May use the site's port: only the address stands in the way."""
    policy = AddressPolicy(ports=frozenset({site.server_port}))
    return Fetcher(policy=policy, politeness=Politeness(delay_s=0))


@pytest.fixture
def budget() -> Budget:
    return Budget(ScrapeLimits())


@pytest.mark.parametrize("address", PRIVATE)
def test_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", PUBLIC)
def test_public(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize("host", DISGUISES)
def test_no_disguise_reaches_this_machine(
    host: str, site: Site, closed_fetcher: Fetcher, budget: Budget
) -> None:
    with closed_fetcher, pytest.raises((ForbiddenAddress, SiteUnavailable)):
        closed_fetcher.fetch(f"http://{host}:{site.server_port}/", budget)
    assert site.seen == []


def test_without_the_check_the_disguises_do_reach_this_machine(
    site: Site, budget: Budget, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The test above would be worth nothing if the addresses led nowhere."""
    monkeypatch.setattr("shargain.scraping.addresses.is_public", lambda _: True)
    site.add("/", "hello")
    policy = AddressPolicy(ports=frozenset({site.server_port}))
    with Fetcher(policy=policy, politeness=Politeness(delay_s=0)) as fetcher:
        for host in ("127.0.0.1", "2130706433", "0x7f.1", "127.1", "localhost"):
            assert fetcher.fetch(f"http://{host}:{site.server_port}/", budget).html == "hello"


@pytest.mark.parametrize(
    "target",
    [
        "http://127.0.0.1:{closed}/",
        "http://localhost:{open}/",
        "http://2130706433:{open}/",
        "http://127.0.0.1/",
        "//169.254.169.254/latest/meta-data/",
        "http://[::1]/",
        "http://[::ffff:127.0.0.1]:{open}/",
        "ftp://127.0.0.1:{open}/",
        "file:///etc/passwd",
        "gopher://127.0.0.1:{open}/",
        "http://user:secret@127.0.0.1:{open}/",
        "http://127.0.0.1:6379/",
        "http://[",
    ],
)
def test_no_redirect_leads_where_a_link_may_not(
    target: str, site: Site, fetcher: Fetcher, budget: Budget
) -> None:
    other = Site()
    with other:
        to = target.format(closed=other.server_port, open=site.server_port)
        start = site.redirect("/start", to)
        with pytest.raises(ForbiddenAddress) as error:
            fetcher.fetch(start, budget)
    assert "secret" not in str(error.value)
    assert site.seen == ["/robots.txt", "/start"]


def test_a_redirect_of_robots_txt_is_checked_too(
    site: Site, fetcher: Fetcher, budget: Budget
) -> None:
    site.redirect("/robots.txt", "http://169.254.169.254/")
    with pytest.raises(ForbiddenAddress, match=r"169\.254"):
        fetcher.fetch(site.url + "/", budget)


def resolver(*answers: list[str]) -> Callable[[str, int], list[str]]:
    """Gives each answer in turn, then the last one for good."""
    left = list(answers)
    return lambda _host, _port: left.pop(0) if len(left) > 1 else left[0]


def test_an_answer_that_changes_between_look_ups_gains_nothing(site: Site, budget: Budget) -> None:
    """Every look-up is followed by a check of its answer and a connection to that very address."""
    policy = AddressPolicy(ports=frozenset({site.server_port}))
    rebinding = resolver(["127.0.0.1"], ["1.1.1.1"], ["127.0.0.1"])
    with Fetcher(policy=policy, resolve=rebinding) as fetcher:
        for _ in range(2):
            with pytest.raises(ForbiddenAddress, match=r"shop\.example.*127\.0\.0\.1"):
                fetcher.fetch(f"http://shop.example:{site.server_port}/", budget)
            rebinding("", 0)
    assert site.seen == []


def test_each_page_is_looked_up_and_checked_anew(site: Site, budget: Budget) -> None:
    """A host that was let in once is not let in for good."""
    site.add("/", "hello")
    host = "shop.example"
    answers = resolver(["127.0.0.1"], ["127.0.0.1"], ["10.0.0.1"])
    looked_up = []

    def resolve(name: str, port: int) -> list[str]:
        looked_up.append((name, port))
        return answers(name, port)

    policy = AddressPolicy(allowed_hosts=frozenset({(host, site.server_port)}))
    with Fetcher(policy=policy, resolve=resolve, politeness=Politeness(delay_s=0)) as fetcher:
        assert fetcher.fetch(f"http://{host}:{site.server_port}/", budget).html == "hello"
    assert looked_up == [(host, site.server_port)] * 2


def test_one_private_address_among_public_ones_closes_a_host(site: Site, budget: Budget) -> None:
    policy = AddressPolicy(ports=frozenset({site.server_port}))
    with (
        Fetcher(policy=policy, resolve=resolver(["1.1.1.1", "127.0.0.1"])) as fetcher,
        pytest.raises(ForbiddenAddress, match=r"127\.0\.0\.1"),
    ):
        fetcher.fetch(f"http://shop.example:{site.server_port}/", budget)


def test_an_exception_is_for_one_host_and_one_port(site: Site, fetcher: Fetcher) -> None:
    site.add("/", "hello")
    budget = Budget(ScrapeLimits())
    assert fetcher.fetch(site.url, budget).html == "hello"
    for other in (f"localhost:{site.server_port}", f"127.0.0.1:{site.server_port + 1}"):
        with pytest.raises(ForbiddenAddress):
            fetcher.fetch(f"http://{other}/", budget)


def test_proxies_of_the_environment_are_not_used(
    site: Site, policy: AddressPolicy, budget: Budget, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    site.add("/", "hello")
    with Fetcher(policy=policy) as fetcher:
        assert fetcher.fetch(site.url, budget).html == "hello"


@pytest.mark.parametrize(
    "text",
    ["", "shop.example", "/path", "ftp://shop.example/", "javascript:alert(1)", "http://", "http:///x",
     "http://a b/", "http://a%00b/", "http://%31/", "http://[", "http://[fe80::1%25lo]/",
     "http://me@shop.example/", "http://:pw@shop.example/", "http://shop.example/" + "x" * 2048,
     "http://shop.example/" + "ż" * 700],
)  # fmt: skip
def test_what_is_no_address_to_fetch(text: str) -> None:
    with pytest.raises(ForbiddenAddress):
        parse_url(text)


def test_a_password_is_not_repeated() -> None:
    for text in ("http://me:secret@shop.example/", "http://me:secret@shop.example:x/"):
        with pytest.raises(ForbiddenAddress) as error:
            parse_url(text)
        assert "secret" not in str(error.value)


@pytest.mark.parametrize(
    "url", ["http://h:0/", "http://h:22/", "https://h:6379/", "http://h:8080/"]
)
def test_other_ports_are_closed(url: str) -> None:
    with pytest.raises(ForbiddenAddress, match=r"port \d+ is not one of \[80, 443\]"):
        AddressPolicy().check_port(httpx.URL(url))


def test_a_closed_port_is_not_connected_to(
    site: Site, budget: Budget, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shargain.scraping.addresses.is_public", lambda _: True)
    with Fetcher() as fetcher, pytest.raises(ForbiddenAddress, match=f"port {site.server_port}"):
        fetcher.fetch(site.url, budget)
    assert site.seen == []


@pytest.mark.parametrize("url", ["http://h/", "https://h/", "http://h:443/", "https://h:80/"])
def test_the_ports_of_the_web_are_open(url: str) -> None:
    AddressPolicy().check_port(httpx.URL(url))
