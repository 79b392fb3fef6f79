"""Counts round trips on the wire, with a proxy on the loopback between a client and its server."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit, urlunsplit

HOST = "127.0.0.1"
CHUNK = 65_536
CONNECT_SECONDS = 5.0


class Proxy:
    """Passes bytes on, and counts a turn wherever the client speaks after the server has.

    On a connection that waits for each answer, turns are round trips. Runs until it is closed.

    Args:
        url: the server's address, as `scheme://...@host:port/...`.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._server = (parts.hostname or HOST, parts.port or 0)
        self._listener = socket.create_server((HOST, 0))
        self._lock = threading.Lock()
        self._turns: list[int] = []
        self._sockets: list[socket.socket] = [self._listener]
        port = self._listener.getsockname()[1]
        user, at, _ = parts.netloc.rpartition("@")
        self.url = urlunsplit((*parts[:1], f"{user}{at}{HOST}:{port}", *parts[2:]))
        threading.Thread(target=self._accept, daemon=True).start()

    def turns(self) -> list[int]:
        """Turns of every connection so far, in the order in which they were opened."""
        with self._lock:
            return list(self._turns)

    def close(self) -> None:
        """Break all connections off."""
        with self._lock:
            for each in self._sockets:
                with suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)
                each.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._server, CONNECT_SECONDS)
                server.settimeout(None)
                for each in (client, server):
                    each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                with self._lock:
                    self._turns.append(0)
                    self._sockets += [client, server]
                    link = _Link(self, len(self._turns) - 1)
                for source, sink, is_client in ((client, server, True), (server, client, False)):
                    threading.Thread(
                        target=link.pass_on, args=(source, sink, is_client), daemon=True
                    ).start()

    def count(self, number: int) -> None:
        """A turn on the connection of this number."""
        with self._lock:
            self._turns[number] += 1


class _Link:
    """One connection, both ways."""

    def __init__(self, proxy: Proxy, number: int) -> None:
        self._proxy = proxy
        self._number = number
        self._server_spoke = True

    def pass_on(self, source: socket.socket, sink: socket.socket, is_client: bool) -> None:
        """Copy one direction until it ends."""
        with suppress(OSError):
            while chunk := source.recv(CHUNK):
                if is_client and self._server_spoke:
                    self._proxy.count(self._number)
                self._server_spoke = not is_client
                sink.sendall(chunk)
        with suppress(OSError):
            sink.shutdown(socket.SHUT_RDWR)


@contextmanager
def proxied(url: str) -> Iterator[Proxy]:
    """A proxy in front of the server at this address, for the block."""
    proxy = Proxy(url)
    try:
        yield proxy
    finally:
        proxy.close()
