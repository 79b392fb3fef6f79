"""What goes wrong between us and the server: lost scripts, dead ports, threads, forks, decoding clients."""

import os
import socket
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime

import pytest
import redis
from define_quotas import DefineQuota

from quota_redis import (
    Counters,
    Garbled,
    Granted,
    InvalidArgument,
    Quota,
    Reservation,
    Unavailable,
    Usage,
)
from quota_redis.breaker import Breaker
from quota_redis.connection import Connection
from quota_redis.wire import IDLE_SECONDS, MAX_UNREAD, Wire

START = datetime(2020, 1, 1, tzinfo=UTC)
NOBODY = "redis://127.0.0.1:1/0"


class TestScriptsThatTheServerForgot:
    def test_a_call(self, counters: Counters, define: DefineQuota, client: "redis.Redis") -> None:
        subject = define(5)
        client.script_flush()
        assert isinstance(counters.consume(subject), Granted)

    def test_calls_in_one_round_trip(
        self, counters: Counters, define: DefineQuota, client: "redis.Redis"
    ) -> None:
        subjects = [define(limit, subject=f"team:{limit}") for limit in range(20)]
        client.script_flush()
        seen = counters.snapshots(subjects)
        assert [snapshot.quotas[1].usage.limit for snapshot in seen] == list(range(20))

    def test_a_settlement_that_nobody_waits_for(
        self, counters: Counters, define: DefineQuota, client: "redis.Redis"
    ) -> None:
        subject = define(10)
        holds = [counters.reserve(subject, 2) for _ in range(3)]
        client.script_flush()
        for hold in holds:
            assert isinstance(hold, Reservation)
            counters.settle(hold, 1, wait=False)
        counters.flush()
        assert counters.usage(subject)[1] == Usage(1, 10, used=3, held=0)


def idle_wires(counters: Counters) -> list[Wire]:
    return [wire for idle in counters.connection._wires._idle.values() for wire in idle]


def cut(counters: Counters) -> None:
    """Cut the connections of the counters, as a network does that says nothing of it."""
    for wire in idle_wires(counters):
        wire._socket.shutdown(socket.SHUT_RDWR)


def test_a_connection_that_was_cut_costs_one_call(counters: Counters, define: DefineQuota) -> None:
    subject = define(10)
    cut(counters)
    with pytest.raises(Unavailable):
        counters.consume(subject)
    assert isinstance(counters.consume(subject), Granted)


def test_a_connection_that_the_server_closed_while_it_lay_idle_costs_nothing(
    counters: Counters, define: DefineQuota
) -> None:
    subject = define(10)
    for wire in idle_wires(counters):
        here, port = wire._socket.getsockname()
        redis.Redis(connection_pool=wire.pool).client_kill_filter(addr=f"{here}:{port}")
        wire.used_at -= IDLE_SECONDS
    assert isinstance(counters.consume(subject), Granted)


def test_a_call_that_ends_half_way_leaves_no_answer_to_the_next(
    counters: Counters, define: DefineQuota, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever interrupts a call (a time limit, ctrl-C) must not make the next one read its answer."""
    subject = define(10)
    counters.consume(subject)

    def interrupted(_: Wire) -> bytes:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Wire, "_receive", interrupted)
        with pytest.raises(KeyboardInterrupt):
            counters.consume(subject, 7)
    for _ in range(500):
        if counters.usage(subject)[1].used > 1:
            break
        time.sleep(0.01)
    assert counters.usage(subject)[1].used == 8


def test_a_silent_server_is_waited_for_no_longer_than_the_timeout() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"redis://127.0.0.1:{silent.getsockname()[1]}/0?protocol=2&lib_name="
        counters = Counters.from_url(url, namespace="silent", timeout=0.2)
        with pytest.raises(Unavailable, match=r"[Tt]imeout"):
            counters.consume("team:7")


def test_a_slow_server_is_waited_for() -> None:
    """So long that a timeout of milliseconds would have ended before."""
    with socket.create_server(("127.0.0.1", 0)) as slow:

        def answer() -> None:
            asking, _ = slow.accept()
            with asking:
                while b"EVALSHA" not in asking.recv(65_536):
                    asking.sendall(b"+OK\r\n")
                time.sleep(0.1)
                asking.sendall(b"+GRANTED:1:9:3:0\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        url = f"redis://127.0.0.1:{slow.getsockname()[1]}/0?protocol=2&lib_name="
        counters = Counters.from_url(url, namespace="slow", timeout=10)
        assert counters.consume("team:7") == Granted(Usage(1, 9, used=3, held=0))
        thread.join()


def test_the_pool_gets_its_connections_back(redis_url: str) -> None:
    client = redis.Redis.from_url(redis_url, max_connections=2)
    counters = Counters(client, namespace=f"pool-{os.getpid()}")
    counters.define("team:7", Quota(id=1, limit=900, start=START))
    for _ in range(10):
        cut(counters)
        with pytest.raises(Unavailable):
            counters.consume("team:7")
        assert isinstance(counters.consume("team:7"), Granted)
    counters.close()
    assert not client.connection_pool._in_use_connections


def test_counters_that_nobody_closed_give_their_connections_back(redis_url: str) -> None:
    client = redis.Redis.from_url(redis_url, max_connections=2)
    for _ in range(5):
        counters = Counters(client, namespace=f"left-{os.getpid()}")
        counters.define("team:7", Quota(id=1, limit=9, start=START))
        del counters
    client.close()


def test_many_settlements_without_waiting(counters: Counters, define: DefineQuota) -> None:
    subject, many = define(1000), 3 * MAX_UNREAD
    for _ in range(many):
        hold = counters.reserve(subject, 2)
        assert isinstance(hold, Reservation)
        counters.settle(hold, 1, wait=False)
    counters.flush()
    assert counters.usage(subject)[1] == Usage(1, 1000, used=many, held=0)


def test_what_is_posted_is_not_waited_for(counters: Counters, define: DefineQuota) -> None:
    subject = define(10)
    holds = [counters.reserve(subject, 1) for _ in range(5)]
    for hold in holds:
        assert isinstance(hold, Reservation)
        counters.settle(hold, 1, wait=False)
    assert sum(len(wire.unread) for wire in idle_wires(counters)) == 5


def test_a_posted_call_that_the_server_refuses_leaves_the_others_alone(
    counters: Counters, define: DefineQuota
) -> None:
    subject = define(10)
    hold = counters.reserve(subject, 5)
    assert isinstance(hold, Reservation)
    key = counters.keys.subject(subject)
    counters.connection.post("settle", [key], [hold.hold_id, "1-1," * 5000])
    counters.settle(hold, 2, wait=False)
    counters.flush()
    assert counters.usage(subject)[1] == Usage(1, 10, used=2, held=0)


def test_answers_to_what_is_posted_do_not_pile_up(counters: Counters, define: DefineQuota) -> None:
    subject = define(1000)
    for _ in range(3 * MAX_UNREAD):
        hold = counters.reserve(subject, 1)
        assert isinstance(hold, Reservation)
        counters.settle(hold, 1, wait=False)
        assert sum(len(wire.unread) for wire in idle_wires(counters)) <= MAX_UNREAD
    counters.flush()
    assert counters.usage(subject)[1].used == 3 * MAX_UNREAD


def test_posting_goes_on_after_its_connection_was_cut(
    counters: Counters, define: DefineQuota, client: "redis.Redis"
) -> None:
    subject = define(10)
    first, second, third = (counters.reserve(subject, 2) for _ in range(3))
    assert isinstance(first, Reservation)
    assert isinstance(second, Reservation)
    assert isinstance(third, Reservation)
    counters.settle(first, 2, wait=False)
    counters.flush()
    cut(counters)
    counters.settle(second, 2, wait=False)
    counters.settle(third, 2, wait=False)
    counters.flush()
    assert counters.usage(subject)[1] == Usage(1, 10, used=4, held=2)


@pytest.mark.parametrize("decodes", [False, True])
@pytest.mark.parametrize("protocol", [2, 3])
def test_any_client_will_do(redis_url: str, decodes: bool, protocol: int) -> None:
    client = redis.Redis.from_url(redis_url, decode_responses=decodes, protocol=protocol)
    counters = Counters(client, namespace=f"any-{decodes}-{protocol}-{os.getpid()}")
    counters.define("größe", Quota(id=1, limit=9, start=START))
    assert counters.consume("größe", 2, key="ключ") == counters.consume("größe", 2, key="ключ")
    hold = counters.reserve("größe", 3)
    assert isinstance(hold, Reservation)
    assert hold.ranges == ((3, 5),)
    counters.settle(hold, 1, wait=False)
    counters.flush()
    assert counters.usage("größe")[1] == Usage(1, 9, used=3, held=0)
    counters.close()
    client.close()


class TestOutage:
    def test_a_dead_port_is_unavailable_and_keeps_its_cause(self) -> None:
        counters = Counters.from_url(NOBODY, namespace="api")
        with pytest.raises(Unavailable, match="Redis failed") as raised:
            counters.consume("team:7")
        assert isinstance(raised.value.__cause__, redis.ConnectionError)

    def test_every_call_says_so(self) -> None:
        counters = Counters.from_url(NOBODY, namespace="api")
        hold = Reservation("team:7", "h", ((1, 1),), 1, Usage(1, 1, 0, 1), 1)
        for call in (
            lambda: counters.define("team:7"),
            lambda: counters.reserve("team:7", 1),
            lambda: counters.settle(hold, 1),
            lambda: counters.release("team:7", "h"),
            lambda: counters.usage("team:7"),
            lambda: counters.snapshots(["team:7"]),
            lambda: counters.forfeit("team:7"),
        ):
            with pytest.raises(Unavailable):
                call()

    def test_after_some_failures_the_server_is_left_alone(self) -> None:
        client = CountingClient()
        counters = Counters(client, namespace="api")  # type: ignore[arg-type]
        for _ in range(10):
            with pytest.raises(Unavailable):
                counters.consume("team:7")
        assert client.calls == 3
        counters.release("team:7", "h", wait=False)
        assert client.calls == 3

    def test_what_a_script_refuses_is_no_outage(
        self, counters: Counters, define: DefineQuota
    ) -> None:
        subject = define(5)
        keys = [counters.keys.subject(subject), counters.keys.changed(subject)]
        for _ in range(10):
            with pytest.raises(InvalidArgument):
                counters.connection.run("reserve", keys, [subject, 0, "h", 1000, 0])
        assert isinstance(counters.consume(subject), Granted)

    def test_nothing_is_raised_by_what_is_posted(self) -> None:
        counters = Counters.from_url(NOBODY, namespace="api")
        counters.release("team:7", "h", wait=False)
        counters.flush()
        counters.close()

    def test_a_wrong_kind_of_key_is_an_outage_and_no_denial(
        self, counters: Counters, client: "redis.Redis"
    ) -> None:
        client.set(counters.keys.subject("team:7"), "no hash")
        with pytest.raises(Unavailable, match="WRONGTYPE"):
            counters.reserve("team:7", 1)

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("d", "one|"),
            ("d", "1|1:2:3"),
            ("q1", "5:0:0:0:x-y"),
            ("q1", "5:0:0:0:3-1"),
            ("q1", "5:0:0:0:1-2,2-5"),
            ("q1", "5"),
            ("h1", "1:soon:1-2"),
            ("h1", "1:99"),
        ],
    )
    def test_what_no_script_wrote_is_seen(
        self,
        counters: Counters,
        client: "redis.Redis",
        define: DefineQuota,
        field: str,
        value: str,
    ) -> None:
        client.hset(counters.keys.subject(define(5, subject="bad")), field, value)
        with pytest.raises(Garbled, match="no script wrote"):
            counters.snapshot("bad")
        seen = counters.snapshots([define(5), "bad"])
        assert [snapshot.is_garbled for snapshot in seen] == [False, True]

    def test_one_key_of_another_kind_does_not_fail_a_read_of_many(
        self, counters: Counters, client: "redis.Redis", define: DefineQuota
    ) -> None:
        good = define(5)
        client.set(counters.keys.subject("bad"), "no hash")
        seen = counters.snapshots([good, "bad"])
        assert [snapshot.is_garbled for snapshot in seen] == [False, True]

    @pytest.mark.parametrize(
        "reply",
        [
            None,
            7,
            [],
            b"",
            b"GRANTED",
            b"GRANTED:1:9:0",
            b"GRANTED:1:9:0:0:0",
            b"FULL:1:9",
            b"MAYBE:1:1::0:0:",
            b"MAYBE:1:1:9:0:0:0:",
            b"SLOTS:1:1:9:0:0::0-3",
            b"SLOTS:1:1:9:0:0::1-1001",
            b"SLOTS:1:1:9:0:0::3-1",
            b"SLOTS:1:1:9:0:0::",
            b"SLOTS:1:1:9:0:0::4503599627370496-4503599627370496",
            b"SLOTS:" + b"9" * 30 + b":1:9:0:0::1-3",
            b"SLOTS:1:x:9:0:0::1-3",
            b"SLOTS:1:1:9:0:0::1-3:1",
            [b"SLOTS", b"1", b"1", b"9", 0, 0, b"", b"1-3"],
            {b"SLOTS": 1},
            b"\xff\xfe",
        ],
    )
    def test_an_answer_that_no_script_gives_is_an_outage(self, reply: object) -> None:
        counters = Counters(AnsweringClient(reply), namespace="api")  # type: ignore[arg-type]
        for ask in (counters.reserve, counters.consume):
            with pytest.raises(Garbled):
                ask("team:7", 3)


class AnsweringClient:
    """A client whose server always gives the same answer."""

    connection_pool = None

    def __init__(self, reply: object) -> None:
        self.reply = reply

    def evalsha(self, *_: object) -> object:
        return self.reply


class CountingClient:
    """A client whose server is gone."""

    connection_pool = None

    def __init__(self) -> None:
        self.calls = 0

    def evalsha(self, *_: object) -> None:
        self.calls += 1
        raise redis.ConnectionError("gone")


class RefusingClient:
    """A client whose server refuses every call."""

    connection_pool = None

    def evalsha(self, *_: object) -> None:
        raise redis.ResponseError("no permission")


def test_each_of_many_says_what_the_driver_met() -> None:
    connection = Connection(RefusingClient())  # type: ignore[arg-type]
    outcomes = connection.run_many("snapshot", [(["a"], []), (["b"], [])])
    assert [type(outcome) for outcome in outcomes] == [Unavailable] * 2
    assert all("no permission" in str(outcome) for outcome in outcomes)


def test_threads_share_counters(counters: Counters, define: DefineQuota) -> None:
    subject, granted = define(1000), []

    def work() -> None:
        for _ in range(50):
            hold = counters.reserve(subject, 7)
            if isinstance(hold, Reservation):
                counters.settle(hold, 3, wait=False)
                granted.append(hold)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    counters.flush()
    assert len(granted) == 300
    assert counters.usage(subject)[1] == Usage(1, 1000, used=900, held=0)
    assert not counters.snapshot(subject).holds


def test_a_forked_process_uses_connections_of_its_own(
    counters: Counters, define: DefineQuota
) -> None:
    subject = define(1000)
    _spend(counters, subject, 10)
    child = os.fork()
    if child == 0:
        try:
            _spend(counters, subject, 39)
            hold = counters.reserve(subject, 2)
            # Whose answer says that the script is gone must be read by whoever sent the call.
            counters.connection.client.script_flush()
            counters.settle(hold, 1, wait=False)  # type: ignore[arg-type]
            counters.flush()
            os._exit(0)
        finally:
            os._exit(1)
    _spend(counters, subject, 40)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    counters.flush()
    assert counters.usage(subject)[1] == Usage(1, 1000, used=90, held=0)


def _spend(counters: Counters, subject: str, times: int) -> None:
    for _ in range(times):
        hold = counters.reserve(subject, 2)
        assert isinstance(hold, Reservation)
        counters.settle(hold, 1, wait=False)


def test_what_is_closed_opens_again(counters: Counters, define: DefineQuota) -> None:
    subject = define(10)
    for used in (1, 2):
        hold = counters.reserve(subject, 2)
        assert isinstance(hold, Reservation)
        counters.settle(hold, 1, wait=False)
        counters.close()
        assert counters.usage(subject)[1].used == used


def test_reading_nothing_asks_nobody() -> None:
    assert Counters.from_url(NOBODY, namespace="api").snapshots([]) == []


def test_a_breaker_can_be_given(redis_url: str) -> None:
    breaker = Breaker(failures=1)
    connection = Connection(redis.Redis.from_url(NOBODY), breaker)
    with pytest.raises(Unavailable):
        connection.command("PING")
    assert breaker.is_open


def test_a_server_that_never_answers_is_waited_for_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(0)
        url = f"redis://127.0.0.1:{silent.getsockname()[1]}/0"
        counters = Counters.from_url(url, namespace="api", timeout=0.1)
        for _ in range(3):
            with pytest.raises(Unavailable):
                counters.reserve("team:7", 1)
            counters.release("team:7", "some hold", wait=False)
        silent.accept()[0].close()
        with pytest.raises(BlockingIOError):
            silent.accept()


def test_counters_can_be_made_by_many(new_counters: Callable[..., Counters]) -> None:
    """Two processes' counters in one namespace see the same quota."""
    one = new_counters(namespace=f"shared-{os.getpid()}")
    two = new_counters(namespace=f"shared-{os.getpid()}")
    one.define("team:7", Quota(id=1, limit=5, start=START))
    two.consume("team:7", 3)
    assert one.usage("team:7")[1].used == 3
