"""What no HTTP library sends: bodies in pieces, bodies that never come, fields that lie."""

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shargain.offers.models import Offer
from shargain.usage.models import OfferCount

from .conftest import Party
from .server import HOST, Server, request, serve, statuses

# The server's database is made only for tests that say that they need one.
pytestmark = pytest.mark.django_db

JSON = "application/json"


@pytest.fixture(scope="module")
def server(
    django_db_setup: None, django_db_blocker: Any, tmp_path_factory: Any
) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("web")
    (folder / "tmp").mkdir()
    with django_db_blocker.unblock():
        with serve(folder, TMPDIR=str(folder / "tmp")) as started:
            yield started
        # The server writes these when it ends, after the last test has left the tables empty.
        OfferCount.objects.all().delete()


def batch(number: int) -> bytes:
    return b'{"offers": [{"url": "https://market.test/%d", "title": "Ad"}]}' % number


def post(party: Party, body: bytes = b"", **headers: str) -> bytes:
    path = f"/api/v1/targets/{party.target.pk}/offers"
    fields = {"Authorization": f"Bearer {party.token}", "Content_Type": JSON, **headers}
    return request("POST", path, body, **fields)


def test_a_batch_goes_through(server: Server, party: Party) -> None:
    """The tests below would be worth nothing if no request got past the server."""
    body = batch(1)
    answer = server.send(post(party, body, Content_Length=str(len(body)), Connection="close"))
    assert statuses(answer) == [201]


def test_a_body_in_chunks_is_refused_unread(server: Server, party: Party) -> None:
    answer = server.send(
        post(party, Transfer_Encoding="chunked", Connection="close"), wait_for=b"chunks"
    )
    assert statuses(answer) == [411]


@pytest.mark.parametrize("length", ["99999999999999999999", "2621441"])
def test_a_body_that_is_too_long_is_refused_before_it_comes(
    length: str, server: Server, party: Party
) -> None:
    answer = server.send(post(party, Content_Length=length), wait_for=b"bytes: send fewer")
    assert statuses(answer) == [413]


def test_without_a_token_no_body_is_waited_for(server: Server, party: Party) -> None:
    answer = server.send(
        post(party, Content_Length="1000", Authorization="Bearer shg_"), wait_for=b"valid token"
    )
    assert statuses(answer) == [401]


def test_a_body_that_breaks_off_creates_nothing(server: Server, party: Party) -> None:
    before = Offer.objects.count()
    server.send(post(party, batch(1)[:-9], Content_Length=str(len(batch(1)))))
    assert Offer.objects.count() == before
    assert server.is_alive()


def test_what_follows_a_refused_body_is_no_request(server: Server, party: Party) -> None:
    """The unread body of a refused request must not be taken for the next one."""
    hidden = post(party, batch(7), Content_Length=str(len(batch(7))))
    answer = server.send(
        post(party, hidden, Authorization="Bearer x", Content_Length=str(len(hidden)))
    )
    assert statuses(answer) == [401]
    assert not Offer.objects.filter(url__endswith="/7").exists()


def test_slow_clients_leave_threads_to_others(server: Server, party: Party) -> None:
    """Fewer than there are threads: more than that is for the proxy to hold back."""
    slow = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(3)]
    try:
        slow[0].sendall(b"GET /livez HT")
        slow[1].sendall(request("GET", "/livez")[:-2] + b"X-Slow: ")
        slow[2].sendall(post(party, b"{", Content_Length="1000"))
        assert server.is_alive()
    finally:
        for client in slow:
            client.close()


def test_an_upload_to_the_login_page_does_not_reach_the_disk(server: Server) -> None:
    """Anybody may post there, and Django's default keeps what comes in a temporary file."""
    begin = (
        b'--x\r\nContent-Disposition: form-data; name="f"; filename="f"\r\n\r\n' + b"a" * 6_000_000
    )
    end = b"\r\n--x--\r\n"
    head = request(
        "POST",
        "/admin/login/",
        Content_Type="multipart/form-data; boundary=x",
        Content_Length=str(len(begin + end)),
        # Without the cookie the body would not be read.
        Cookie=f"csrftoken={'a' * 32}",
        Connection="close",
    )
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as client:
        client.sendall(head + begin)
        # The server has read nearly all of it by now, and waits for the end.
        kept = open_files(server)
        client.sendall(end)
        assert statuses(client.recv(4096)) == [403]
    assert not [name for name in kept if ".upload" in name]


def open_files(server: Server) -> list[str]:
    """The files that the server's processes have open."""
    children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text()
    return [
        str(descriptor.readlink())
        for pid in (server.process.pid, *map(int, children.split()))
        for descriptor in Path(f"/proc/{pid}/fd").iterdir()
        if descriptor.is_symlink()
    ]


LINE = f"GET /livez HTTP/1.1\r\nHost: {HOST}\r\n".encode()


@pytest.mark.parametrize(
    "raw",
    [
        b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\n\r\n",
        LINE + b"X: " + b"a" * 20_000 + b"\r\n\r\n",
        LINE + b"X: y\r\n" * 200 + b"\r\n",
        LINE + b"Bad Name: y\r\n\r\n",
        LINE + b"X: a\r\n folded\r\n\r\n",
        LINE + b"X: a\0b\r\n\r\n",
        LINE + b"X: a\rb\r\n\r\n",
        LINE + b": y\r\n\r\n",
        LINE + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        LINE + b"Content-Length: -1\r\n\r\n",
        LINE + b"Content-Length: 0x1\r\n\r\na",
        LINE + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        LINE + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
        LINE + b"Transfer-Encoding: nonsense\r\n\r\n",
        b"GET /livez HTTP/9.9\r\n\r\n",
        b"GET /livez\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ],
    ids=lambda raw: repr(raw[-24:]),
)
def test_what_is_no_http_is_refused(raw: bytes, server: Server) -> None:
    for status in statuses(server.send(raw)):
        assert 400 <= status < 500 or status in (501, 505)
    assert server.is_alive()


@pytest.mark.parametrize(
    ("path", "host"), [("/livez", "evil.test"), ("/admin/login/", "evil.test"), ("/livez", "a b")]
)
def test_other_host_names_are_refused(path: str, host: str, server: Server) -> None:
    raw = request("GET", path, Connection="close").replace(HOST.encode(), host.encode())
    assert statuses(server.send(raw)) == [400]


FIELDS = ["Authorization", "Content-Length", "Content-Type", "Host", "Idempotency-Key", "Expect",
          "X-Forwarded-Proto", "X-Forwarded-Host", "Cookie", "Accept-Encoding", "Range", "Upgrade"]  # fmt: skip
PATHS = [
    "/api/v1/targets/1/offers",
    "/api/v1/targets/1/quota",
    "/admin/login/",
    "/livez",
    "/readyz",
]


@settings(
    max_examples=80,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
@given(
    method=st.sampled_from(["GET", "POST", "HEAD", "OPTIONS", "PUT", "TRACE", "get", "\xff"]),
    path=st.sampled_from(PATHS)
    | st.binary(max_size=20).map(lambda raw: "/" + raw.decode("latin-1")),
    fields=st.lists(st.tuples(st.sampled_from(FIELDS), st.binary(max_size=30)), max_size=4),
    body=st.binary(max_size=50),
)
def test_no_field_makes_the_service_fail(
    server: Server, method: str, path: str, fields: list[tuple[str, bytes]], body: bytes
) -> None:
    head = f"{method} {path} HTTP/1.1\r\nHost: {HOST}\r\n".encode("latin-1")
    lines = b"".join(name.encode() + b": " + value + b"\r\n" for name, value in fields)
    for status in statuses(server.send(head + lines + b"\r\n" + body)):
        assert status < 500 or status in (501, 505), (method, path, fields)
