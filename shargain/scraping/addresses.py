"""Which addresses may be fetched: the public internet, and exceptions named one by one."""

import ipaddress
import re
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import httpx

from shargain.scraping.errors import ForbiddenAddress, SiteUnavailable

MAX_URL_BYTES = 2048
_HOST = re.compile(rb"[a-z0-9._-]{1,253}|[0-9a-f:.]{2,45}")

Resolver = Callable[[str, int], Sequence[str]]

# `is_global` alone is not enough: Python versions disagree on what it covers, and it passes
# multicast. 192.0.0.0/24 and 168.63.129.16 are where clouds put services of their own machines.
_CLOSED_IPV4 = [
    ipaddress.IPv4Network(network)
    for network in ("192.0.0.0/24", "192.88.99.0/24", "168.63.129.16/32")
]
# All global unicast lies in 2000::/3. Staying inside it refuses every form that carries an IPv4
# address in its low bits (mapped, compatible, translated, NAT64) without taking it apart; the
# networks below are the tunnels and documentation ranges within (Teredo, 6to4).
_OPEN_IPV6 = ipaddress.IPv6Network("2000::/3")
_CLOSED_IPV6 = [
    ipaddress.IPv6Network(network)
    for network in ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")
]


def is_public(address: str) -> bool:
    """Whether this numeric IP address is one that strangers may be reached at."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return False
    if isinstance(ip, ipaddress.IPv4Address):
        closed = ip.is_multicast or ip.is_reserved or any(ip in net for net in _CLOSED_IPV4)
        return ip.is_global and not closed
    return ip.is_global and ip in _OPEN_IPV6 and not any(ip in net for net in _CLOSED_IPV6)


def system_resolver(host: str, port: int) -> list[str]:
    """The numeric addresses of a host, by the system's resolver, which keeps its own time limit.

    Raises SiteUnavailable where there are none.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise SiteUnavailable(f"the host {host!r} has no address: {error}") from error
    return list(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in found))


@dataclass(frozen=True, slots=True, kw_only=True)
class AddressPolicy:
    """What may be fetched.

    `allowed_hosts` are exact (host, port) pairs that are fetched wherever they lead, such as
    `("127.0.0.1", 8080)`; all else must be public and on one of `ports`.
    """

    ports: frozenset[int] = frozenset({80, 443})
    allowed_hosts: frozenset[tuple[str, int]] = frozenset()

    def check_port(self, url: httpx.URL) -> None:
        """Raises ForbiddenAddress for a port that is neither open nor that of an allowed host."""
        host, port = url.raw_host.decode("ascii"), effective_port(url)
        if port not in self.ports and (host, port) not in self.allowed_hosts:
            raise ForbiddenAddress(f"{url}: port {port} is not one of {sorted(self.ports)}")

    def check_addresses(self, host: str, port: int, addresses: Sequence[str]) -> None:
        """Raises ForbiddenAddress if any of the addresses a host resolved to is not public.

        One is enough: a public name with a private address beside it is a trap or a mistake.
        """
        if (host, port) in self.allowed_hosts:
            return
        for address in addresses:
            if not is_public(address):
                raise ForbiddenAddress(f"the host {host!r} leads to {address}, which is not public")


def effective_port(url: httpx.URL) -> int:
    if url.port is None:
        return 443 if url.scheme == "https" else 80
    return url.port


def parse_url(text: str, base: httpx.URL | None = None) -> httpx.URL:
    """An http(s) address, resolved against `base`, without its fragment.

    Raises ForbiddenAddress if it is none, holds a user name, or is longer than 2,048 bytes.
    """
    if len(text) > MAX_URL_BYTES:
        raise ForbiddenAddress(f"{_shown(text)}... is longer than {MAX_URL_BYTES} bytes")
    try:
        url = (base.join(text) if base else httpx.URL(text)).copy_with(fragment=None)
    except (httpx.InvalidURL, ValueError) as error:
        raise ForbiddenAddress(f"{_shown(text)} is not an address") from error
    if url.scheme not in ("http", "https") or not _HOST.fullmatch(url.raw_host):
        raise ForbiddenAddress(f"{_shown(text)} is not an http(s) address with a host")
    if url.userinfo:
        raise ForbiddenAddress(f"{_shown(text)} holds a user name: leave it out")
    if len(str(url)) > MAX_URL_BYTES:
        raise ForbiddenAddress(f"{_shown(text)}... is longer than {MAX_URL_BYTES} bytes")
    return url


def _shown(text: str) -> str:
    """The address for an error message: a password never gets into a log."""
    return repr(re.sub(r"//[^/]*@", "//...@", text[:200]))
