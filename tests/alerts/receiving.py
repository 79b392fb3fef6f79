"""A receiver of webhooks on loopback, and what the tests of alerts share."""

from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple

Answer = Callable[[BaseHTTPRequestHandler], None]


class Received(NamedTuple):
    path: str
    headers: dict[str, str]
    body: bytes


class Receiver(ThreadingHTTPServer):
    """Takes every POST and answers as `answer` does. `seen` is what came, whole."""

    daemon_threads = True

    def __init__(self) -> None:
        self.seen: list[Received] = []
        self.answer: Answer = status(204)
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def place(self) -> tuple[str, int]:
        return ("127.0.0.1", self.server_port)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/hook"

    def handle_error(self, *_: object) -> None:
        """Senders that leave early are what some tests are about."""


class _Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.seen.append(Received(self.path, dict(self.headers.items()), body))
        self.server.answer(self)

    def do_GET(self) -> None:
        self.server.seen.append(Received(self.path, dict(self.headers.items()), b""))
        self.send_error(404)

    def log_message(self, *_: object) -> None: ...


def status(code: int, **headers: str) -> Answer:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(code)
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return answer
