"""Fetches one page over HTTP, considerately and within limits."""

import ssl
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.cookiejar import CookieJar, DefaultCookiePolicy
from types import TracebackType
from typing import Self

import httpcore
import httpx

from shargain.scraping.addresses import (
    AddressPolicy,
    Resolver,
    parse_url,
    system_resolver,
)
from shargain.scraping.errors import (
    BadResponse,
    RobotsDisallowed,
    ScrapeTimeout,
    SiteUnavailable,
    TooLarge,
)
from shargain.scraping.limits import Budget, Politeness
from shargain.scraping.markup import decode_html
from shargain.scraping.robots import MAX_ROBOTS_BYTES, RobotsRules
from shargain.scraping.transport import GuardedTransport

MAX_HOSTS_REMEMBERED = 1_000
ROBOTS_KEPT_S = 3600.0
HTML_TYPES = ("text/html", "application/xhtml+xml")


@dataclass(frozen=True, slots=True)
class Document:
    """A page as it was fetched: `url` is where the redirects ended, `size` its bytes of HTML."""

    url: str
    html: str
    size: int


@dataclass(slots=True)
class _Host:
    rules: RobotsRules
    rules_until: float
    next_visit: float = 0.0


class Fetcher:
    """Fetches pages one at a time, remembering each host's robots.txt and when it was last visited.

    Not to be shared between threads. `resolve`, `sleep` and `ssl_context` are there to be replaced.
    """

    def __init__(
        self,
        *,
        policy: AddressPolicy | None = None,
        politeness: Politeness | None = None,
        resolve: Resolver = system_resolver,
        sleep: Callable[[float], None] = time.sleep,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self._policy = policy or AddressPolicy()
        self._politeness = politeness or Politeness()
        self._sleep = sleep
        self._hosts: dict[str, _Host] = {}
        self._transport = GuardedTransport(
            self._policy, resolve, ssl_context or httpx.create_ssl_context(trust_env=False)
        )
        self._client = httpx.Client(
            transport=self._transport,
            trust_env=False,
            cookies=CookieJar(policy=DefaultCookiePolicy(allowed_domains=[])),
            headers={
                "User-Agent": self._politeness.user_agent,
                "Accept": ", ".join(HTML_TYPES),
                "Accept-Encoding": "gzip",
            },
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        self._client.close()

    def fetch(self, url: str, budget: Budget) -> Document:
        """The HTML page at this address, charged to the budget.

        Raises a ScrapeError: each of its kinds can happen here.
        """
        with self._visit(url, budget, polite=True) as response:
            _check_is_page(response)
            limit = min(budget.limits.max_page_bytes, budget.bytes_left)
            body = _read(response, limit)
            if len(body) > limit:
                raise TooLarge(
                    f"{response.url} is larger than the {limit} bytes that are left to it"
                )
            budget.bytes_left -= len(body)
            html = decode_html(body, response.charset_encoding)
            return Document(str(response.url), html, len(body))

    @contextmanager
    def _visit(self, address: str, budget: Budget, *, polite: bool) -> Iterator[httpx.Response]:
        """The answer after all redirects, each of which is checked like the first address."""
        url = parse_url(address)
        for _ in range(budget.limits.max_redirects + 1):
            if polite:
                self._take_turn(url, budget)
            with self._request(url, budget) as response:
                if not response.has_redirect_location:
                    yield response
                    return
                url = parse_url(response.headers["Location"], base=url)
        raise BadResponse(f"{address} redirects more than {budget.limits.max_redirects} times")

    @contextmanager
    def _request(self, url: httpx.URL, budget: Budget) -> Iterator[httpx.Response]:
        self._policy.check_port(url)
        self._transport.set_deadline(budget.page_deadline())
        limits = budget.limits
        timeout = httpx.Timeout(limits.read_timeout_s, connect=limits.connect_timeout_s)
        with _translated(url):
            request = self._client.build_request("GET", url, timeout=timeout)
            response = self._client.send(request, stream=True, follow_redirects=False)
            try:
                yield response
            finally:
                response.close()

    def _take_turn(self, url: httpx.URL, budget: Budget) -> None:
        """Waits until the host may be visited again. Raises RobotsDisallowed, ScrapeTimeout."""
        host = self._host(url, budget)
        if not host.rules.allows(str(url)):
            raise RobotsDisallowed(f"{url} is closed by the site's robots.txt")
        wait = host.next_visit - time.monotonic()
        if time.monotonic() + wait >= budget.ends_at:
            raise ScrapeTimeout(f"{url} may not be visited before the crawl's time is up")
        if wait > 0:
            self._sleep(wait)
        polite = self._politeness
        delay = min(max(polite.delay_s, host.rules.delay_s), polite.max_delay_s)
        host.next_visit = time.monotonic() + delay

    def _host(self, url: httpx.URL, budget: Budget) -> _Host:
        origin = f"{url.scheme}://{url.netloc.decode('ascii')}"
        host = self._hosts.get(origin)
        if host is None or host.rules_until < time.monotonic():
            next_visit = host.next_visit if host else 0.0
            rules = self._robots(f"{origin}/robots.txt", budget)
            host = _Host(rules, time.monotonic() + ROBOTS_KEPT_S, next_visit)
            self._remember(origin, host)
        return host

    def _remember(self, origin: str, host: _Host) -> None:
        self._hosts.pop(origin, None)
        if len(self._hosts) >= MAX_HOSTS_REMEMBERED:
            del self._hosts[next(iter(self._hosts))]
        self._hosts[origin] = host

    def _robots(self, address: str, budget: Budget) -> RobotsRules:
        """A robots.txt that is missing opens the site; one that cannot be had closes it.

        It closes it by raising what stood in the way, mostly SiteUnavailable or ScrapeTimeout, so
        that a site that is down for a while is not taken for one that does not want us.
        """
        product = self._politeness.product
        with self._visit(address, budget, polite=False) as response:
            _check_is_available(response)
            if response.is_client_error:
                return RobotsRules.parse("", product)
            if response.status_code != httpx.codes.OK:
                raise BadResponse(f"{address} answered with status {response.status_code}")
            limit = min(MAX_ROBOTS_BYTES, budget.bytes_left)
            body = _read(response, limit)[:limit]
        budget.bytes_left -= len(body)
        return RobotsRules.parse(body.decode("utf-8", "replace"), product)


@contextmanager
def _translated(url: httpx.URL) -> Iterator[None]:
    """The wall at which the errors of the HTTP libraries become ours."""
    try:
        yield
    except httpcore.TimeoutException as error:
        raise ScrapeTimeout(f"{url} took too long: {error}") from error
    except (httpcore.NetworkError, httpcore.RemoteProtocolError) as error:
        raise SiteUnavailable(f"{url} broke off: {error}") from error
    except (httpx.HTTPError, httpx.InvalidURL, httpcore.ProtocolError, zlib.error) as error:
        raise BadResponse(f"{url} sent what cannot be read: {error}") from error


def _check_is_available(response: httpx.Response) -> None:
    status = response.status_code
    if response.is_server_error or status == httpx.codes.TOO_MANY_REQUESTS:
        raise SiteUnavailable(f"{response.url} answered with status {status}: try again later")


def _check_is_page(response: httpx.Response) -> None:
    _check_is_available(response)
    if response.status_code != httpx.codes.OK:
        raise BadResponse(f"{response.url} answered with status {response.status_code}")
    content_type = response.headers.get("Content-Type", "")
    if content_type.partition(";")[0].strip().lower() not in HTML_TYPES:
        raise BadResponse(f"{response.url} is no HTML page but {content_type[:100]!r}")


def _read(response: httpx.Response, limit: int) -> bytes:
    """The decompressed body, or its first `limit + 1` bytes where it is longer.

    Decompresses by itself, for httpx inflates whole chunks and encodings stacked on each other
    before their size can be looked at. Raises BadResponse for an encoding other than gzip.
    """
    encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding == "identity":
        return _take(response.iter_raw(), limit + 1)
    if encoding != "gzip":
        raise BadResponse(f"{response.url} is encoded as {encoding[:100]!r}, we asked for gzip")
    return _inflate(response.iter_raw(), limit + 1)


def _take(chunks: Iterator[bytes], most: int) -> bytes:
    body = bytearray()
    for chunk in chunks:
        body += chunk[: most - len(body)]
        if len(body) == most:
            break
    return bytes(body)


def _inflate(chunks: Iterator[bytes], most: int) -> bytes:
    body = bytearray()
    inflater = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
    for chunk in chunks:
        body += inflater.decompress(chunk, most - len(body))
        if len(body) == most or inflater.eof:
            return bytes(body)
    raise zlib.error("the compressed page ends too early")
