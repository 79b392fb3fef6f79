"""A web site of the test's own on loopback."""

from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Route = Callable[[BaseHTTPRequestHandler], None]
HTML = "text/html; charset=utf-8"


class Site(ThreadingHTTPServer):
    """Serves what is in `routes` by path; answers 404 to all else. `seen` are the visited paths."""

    daemon_threads = True

    def __init__(self) -> None:
        self.routes: dict[str, Route] = {}
        self.seen: list[str] = []
        self.headers_seen: list[dict[str, str]] = []
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def add(
        self,
        path: str,
        body: str | bytes = "",
        *,
        status: int = 200,
        kind: str | None = HTML,
        **headers: str,
    ) -> str:
        """`headers` are written with underscores: `Content_Encoding="gzip"`."""
        content = body.encode() if isinstance(body, str) else body

        def answer(handler: BaseHTTPRequestHandler) -> None:
            handler.send_response(status)
            if kind is not None:
                handler.send_header("Content-Type", kind)
            for name, value in headers.items():
                handler.send_header(name.replace("_", "-"), value)
            handler.send_header("Content-Length", str(len(content)))
            handler.end_headers()
            handler.wfile.write(content)

        self.routes[path] = answer
        return self.url + path

    def redirect(self, path: str, to: str) -> str:
        return self.add(path, status=302, Location=to)

    def handle_error(self, *_: object) -> None:
        """Clients that leave early are what many tests are about."""


class _Handler(BaseHTTPRequestHandler):
    server: Site

    def do_GET(self) -> None:
        self.server.seen.append(self.path)
        self.server.headers_seen.append(dict(self.headers.items()))
        route = self.server.routes.get(self.path)
        if route is None:
            self.send_error(404)
        else:
            route(self)

    def log_message(self, *_: object) -> None: ...
