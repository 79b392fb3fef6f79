"""What a network that fails on demand does to one connection."""

import socket
import threading
from collections.abc import Iterator
from contextlib import suppress

import pytest

from shargain.demo.chaos.proxy import Mode, Network, Proxy

TIMEOUT = 10.0
SILENCE = 0.3


@pytest.fixture
def heard() -> list[bytes]:
    return []


@pytest.fixture
def proxy(heard: list[bytes]) -> Iterator[Proxy]:
    """Before a server that answers every message with the same."""
    with socket.create_server(("127.0.0.1", 0)) as server, Network() as network:
        threading.Thread(target=_echo, args=[server, heard], daemon=True).start()
        yield network.proxy(f"redis://:secret@127.0.0.1:{server.getsockname()[1]}/0")


@pytest.fixture
def connection(proxy: Proxy) -> Iterator[socket.socket]:
    with _connect(proxy) as opened:
        assert _ask(opened) == b"hello"
        yield opened


def test_the_address_differs_in_the_port_alone(proxy: Proxy) -> None:
    assert proxy.url.startswith("redis://:secret@127.0.0.1:")
    assert proxy.url.endswith("/0")


def test_a_cut_reply_ends_the_connection_after_the_request_has_arrived(
    proxy: Proxy, connection: socket.socket, heard: list[bytes]
) -> None:
    proxy.mode = Mode.CUT_REPLIES
    assert _ask(connection, b"once") == b""
    assert heard == [b"hello", b"once"]


def test_what_is_held_arrives_later(
    proxy: Proxy, connection: socket.socket, heard: list[bytes]
) -> None:
    proxy.mode = Mode.HOLD
    # The mode is set by another thread; a connection after it proves that it holds.
    _connect(proxy).close()
    connection.settimeout(SILENCE)
    with pytest.raises(TimeoutError):
        _ask(connection, b"late")
    assert heard == [b"hello"]
    connection.settimeout(TIMEOUT)
    proxy.mode = Mode.PASS
    assert connection.recv(100) == b"late"


def test_a_refusal_ends_old_connections_and_new_ones(
    proxy: Proxy, connection: socket.socket
) -> None:
    proxy.mode = Mode.REFUSE
    assert _is_over(connection)
    with _connect(proxy) as another:
        assert _is_over(another)
    proxy.mode = Mode.PASS
    with _connect(proxy) as another:
        assert _ask(another) == b"hello"


def test_a_cut_ends_what_is_connected(proxy: Proxy, connection: socket.socket) -> None:
    proxy.cut()
    assert _is_over(connection)
    with _connect(proxy) as another:
        assert _ask(another) == b"hello"


def test_another_server_takes_over(proxy: Proxy, connection: socket.socket) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        heard_there: list[bytes] = []
        threading.Thread(target=_echo, args=[other, heard_there], daemon=True).start()
        proxy.upstream = ("127.0.0.1", other.getsockname()[1])
        proxy.cut()
        assert _is_over(connection)
        with _connect(proxy) as another:
            assert _ask(another) == b"hello"
        assert heard_there == [b"hello"]


def _echo(server: socket.socket, heard: list[bytes]) -> None:
    with suppress(OSError):
        while True:
            connection, _ = server.accept()
            threading.Thread(target=_echo_one, args=[connection, heard], daemon=True).start()


def _echo_one(connection: socket.socket, heard: list[bytes]) -> None:
    with connection, suppress(OSError):
        while message := connection.recv(100):
            heard.append(message)
            connection.sendall(message)


def _connect(proxy: Proxy) -> socket.socket:
    port = int(proxy.url.rpartition(":")[2].partition("/")[0])
    return socket.create_connection(("127.0.0.1", port), TIMEOUT)


def _ask(connection: socket.socket, message: bytes = b"hello") -> bytes:
    connection.sendall(message)
    return connection.recv(100)


def _is_over(connection: socket.socket) -> bool:
    try:
        return connection.recv(100) == b""
    except ConnectionResetError:
        return True
