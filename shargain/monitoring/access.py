"""Who may read the metrics. Needs no settings, for the settings ask it."""

import hmac
import ipaddress

from django.core.exceptions import ImproperlyConfigured

CHALLENGE = 'Bearer realm="metrics"'
MAX_PORT = 65_535


def check_access(address: str, port: int, token: str) -> None:
    """Raise ImproperlyConfigured where the place is none, or anybody on a network could read the metrics."""
    try:
        is_own = ipaddress.ip_address(address).is_loopback
    except ValueError:
        raise ImproperlyConfigured(
            f"METRICS_ADDRESS is {address!r}: give a numeric address, such as 127.0.0.1."
        ) from None
    if not 0 <= port <= MAX_PORT:
        raise ImproperlyConfigured(f"METRICS_PORT is {port}: give 1 to {MAX_PORT}, or 0 for none.")
    if not is_own and not token:
        raise ImproperlyConfigured(
            f"METRICS_ADDRESS is {address} without a METRICS_TOKEN: set one, or stay on 127.0.0.1."
        )


def is_allowed(authorization: str, token: str) -> bool:
    """Whether an Authorization field carries the token; takes as long for a wrong one as for the right one."""
    scheme, _, given = authorization.partition(" ")
    is_right = hmac.compare_digest(given.strip().encode(), token.encode())
    return is_right and scheme.lower() == "bearer"
