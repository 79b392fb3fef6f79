"""Sending one signed webhook: to a public address over https, within a deadline, and never further than that."""

import json
import time
from typing import Any

import httpcore
import httpx
from django.conf import settings

from shargain.alerts.models import Alert, Endpoint
from shargain.alerts.signing import EVENT_HEADER, SIGNATURE_HEADER, signature
from shargain.scraping import AddressPolicy, ForbiddenAddress, ScrapeError
from shargain.scraping.addresses import Resolver, effective_port, parse_url, system_resolver
from shargain.scraping.transport import GuardedTransport

DEADLINE_SECONDS = 10.0
MAX_BODY_BYTES = 16_384
MAX_NAME = 200


class NotDelivered(Exception):  # noqa: N818
    """The receiver did not take it; another attempt may do."""


class Undeliverable(NotDelivered):
    """No other attempt can do: the address is closed."""


def payload(alert: Alert, target_name: str) -> bytes:
    """The body: JSON, the same for every attempt."""
    content: dict[str, Any] = {
        "event_id": str(alert.event_id),
        "type": "quota.threshold_reached",
        "at": alert.at.isoformat(),
        "threshold": alert.threshold,
        "target": {"id": alert.target_id, "name": target_name[:MAX_NAME]},
        "quota": {
            "id": alert.quota_id,
            "limit": alert.limit,
            "used": alert.used,
            "period_start": alert.period_start.isoformat(),
            "period_end": alert.period_end.isoformat() if alert.period_end else None,
            "runs_out_at": alert.runs_out_at.isoformat() if alert.runs_out_at else None,
        },
    }
    body = json.dumps(content, separators=(",", ":")).encode()
    assert len(body) <= MAX_BODY_BYTES
    return body


def check_url(url: str) -> httpx.URL:
    """The address, if webhooks may go there; where its name leads is checked with each connection.

    Raises ForbiddenAddress.
    """
    parsed = parse_url(url)
    _policy().check_port(parsed)
    host = (parsed.raw_host.decode("ascii"), effective_port(parsed))
    if parsed.scheme != "https" and host not in settings.ALERT_WEBHOOK_HOSTS:
        raise ForbiddenAddress(f"{parsed} is not an https address: use one.")
    return parsed


def send(
    endpoint: Endpoint,
    event_id: str,
    body: bytes,
    *,
    resolve: Resolver = system_resolver,
    deadline_seconds: float = DEADLINE_SECONDS,
) -> None:
    """Post a body, once. Raises Undeliverable for a closed address, NotDelivered for everything but a 2xx status.

    Redirects are not followed, proxies are not asked, and of the answer the status alone is read.
    """
    now = int(time.time())
    headers = {
        "Content-Type": "application/json",
        "User-Agent": "shargain-alerts",
        EVENT_HEADER: event_id,
        SIGNATURE_HEADER: signature(endpoint.secret, now, body),
    }
    try:
        url = check_url(endpoint.url)
        status = _post(url, headers, body, resolve, deadline_seconds)
    except ForbiddenAddress as error:
        raise Undeliverable(str(error)) from error
    except (ScrapeError, httpx.HTTPError, httpcore.TimeoutException) as error:
        raise NotDelivered(f"{type(error).__name__}: {error}") from error
    except (httpcore.NetworkError, httpcore.ProtocolError) as error:
        raise NotDelivered(f"{type(error).__name__}: {error}") from error
    if not 200 <= status < 300:
        raise NotDelivered(f"It answered with status {status}, where 2xx was awaited.")


def _post(
    url: httpx.URL, headers: dict[str, str], body: bytes, resolve: Resolver, seconds: float
) -> int:
    transport = GuardedTransport(_policy(), resolve, httpx.create_ssl_context(trust_env=False))
    transport.set_deadline(time.monotonic() + seconds)
    with (
        httpx.Client(transport=transport, trust_env=False, timeout=seconds) as client,
        client.stream("POST", url, headers=headers, content=body, follow_redirects=False) as answer,
    ):
        return answer.status_code


def _policy() -> AddressPolicy:
    return AddressPolicy(
        ports=frozenset({443}), allowed_hosts=frozenset(settings.ALERT_WEBHOOK_HOSTS)
    )
