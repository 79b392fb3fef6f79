"""Metrics of a process that serves no pages, at a port of its own."""

import logging
import threading
from collections.abc import Callable, Iterable
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from django.conf import settings

from shargain.monitoring.access import CHALLENGE, is_allowed

logger = logging.getLogger(__name__)

REQUEST_SECONDS = 10


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Handler(WSGIRequestHandler):
    timeout = REQUEST_SECONDS

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  the base's name
        """Say nothing: a scrape every few seconds is no news."""


def serve() -> WSGIServer | None:
    """Serve `/metrics` at METRICS_ADDRESS and METRICS_PORT from a thread; port 0 means not at all.

    A port that is taken is logged, for it is no reason not to work.
    """
    if not settings.METRICS_PORT:
        return None
    try:
        server = make_server(
            settings.METRICS_ADDRESS, settings.METRICS_PORT, application, _Server, _Handler
        )
    except OSError as error:
        place = f"{settings.METRICS_ADDRESS}:{settings.METRICS_PORT}"
        logger.error(  # noqa: TRY400  the sentence says it all
            "no metrics at %s: %s: each role needs a METRICS_PORT of its own", place, error
        )
        return None
    threading.Thread(target=server.serve_forever, daemon=True, name="metrics").start()
    return server


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """The same answer as the web process's page, without the servers: one process that asks them is enough."""
    from shargain.monitoring import exposition

    if environ["PATH_INFO"] != "/metrics":
        return _plain(start_response, "404 Not Found", b"There is /metrics alone.\n")
    token = settings.METRICS_TOKEN
    if token and not is_allowed(environ.get("HTTP_AUTHORIZATION", ""), token):
        challenge = ("WWW-Authenticate", CHALLENGE)
        return _plain(start_response, "401 Unauthorized", b"Send the metrics token.\n", challenge)
    body = exposition.counts()
    start_response(
        "200 OK", [("Content-Type", exposition.CONTENT_TYPE), ("Content-Length", str(len(body)))]
    )
    return [body]


def _plain(
    start_response: Callable[..., Any], status: str, body: bytes, *headers: tuple[str, str]
) -> Iterable[bytes]:
    length = ("Content-Length", str(len(body)))
    start_response(status, [("Content-Type", "text/plain"), length, *headers])
    return [body]
