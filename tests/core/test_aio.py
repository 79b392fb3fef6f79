"""AsyncCounters: the same answers as Counters, with many calls in flight on one connection."""

import asyncio
import inspect
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
import redis
import redis.asyncio

from quota_redis import (
    Counters,
    Denied,
    Garbled,
    Granted,
    InvalidArgument,
    KeyReused,
    NoQuota,
    Quota,
    Reason,
    Reservation,
    StateLost,
    Unavailable,
    Usage,
)
from quota_redis.aio import MAX_IN_FLIGHT, AsyncCounters

START = datetime(2020, 1, 1, tzinfo=UTC)
NOBODY = "redis://127.0.0.1:1/0"


def run(
    redis_url: str, test: Callable[[AsyncCounters], Awaitable[None]], **options: object
) -> None:
    """Run a test in an event loop of its own, with counters that are closed after it."""

    async def go() -> None:
        given = {"namespace": f"a{uuid4().hex[:20]}", "timeout": 5.0, **options}
        counters = AsyncCounters.from_url(redis_url, **given)  # type: ignore[arg-type]
        try:
            await test(counters)
        finally:
            await counters.aclose()

    asyncio.run(go())


@pytest.fixture
def server_client(redis_url: str) -> Iterator["redis.Redis"]:
    client = redis.Redis.from_url(redis_url)
    yield client
    client.close()


def test_both_faces_have_the_same_operations() -> None:
    def operations(face: type) -> dict[str, list[str]]:
        found = inspect.getmembers(face, inspect.isfunction)
        return {
            name: list(inspect.signature(function).parameters)
            for name, function in found
            if not name.startswith("_") and "close" not in name
        }

    assert operations(AsyncCounters) == operations(Counters)
    for name in ("__init__", "from_url"):
        ours, theirs = (
            inspect.signature(getattr(face, name)) for face in (AsyncCounters, Counters)
        )
        assert list(ours.parameters) == list(theirs.parameters)


def test_a_quota_from_its_definition_to_its_end(redis_url: str) -> None:
    async def test(counters: AsyncCounters) -> None:
        assert await counters.define("team:7", Quota(1, 10, START)) == 1
        assert await counters.consume("team:7", 3, key="k") == Granted(Usage(1, 10, 3, 0))
        assert await counters.consume("team:7", 3, key="k") == Granted(Usage(1, 10, 3, 0))
        with pytest.raises(KeyReused):
            await counters.consume("team:7", 4, key="k")
        hold = await counters.reserve("team:7", 5)
        assert isinstance(hold, Reservation)
        assert hold.ranges == ((4, 8),)
        assert await counters.consume("team:7", 3) == Denied(Reason.BUSY, Usage(1, 10, 3, 5))
        await counters.settle(hold, 2, wait=False)
        other = await counters.reserve("team:7", 5)
        assert isinstance(other, Reservation)
        await counters.release("team:7", other.hold_id)
        await counters.flush()
        assert await counters.usage("team:7") == {1: Usage(1, 10, 5, 0)}
        await counters.define("team:7")
        assert isinstance(await counters.consume("team:7"), NoQuota)
        with pytest.raises(StateLost):
            await counters.reserve("nobody", 1)
        with pytest.raises(InvalidArgument):
            await counters.consume("team:7", 0)

    run(redis_url, test)


def test_many_tasks_share_one_connection_and_never_pass_the_limit(
    redis_url: str, server_client: "redis.Redis"
) -> None:
    async def test(counters: AsyncCounters) -> None:
        await counters.define("team:7", Quota(1, 700, START))
        answers = await asyncio.gather(*(counters.consume("team:7") for _ in range(1000)))
        assert sum(isinstance(answer, Granted) for answer in answers) == 700
        used = sorted(a.usage.used for a in answers if isinstance(a, Granted))
        assert used == list(range(1, 701))
        assert len(counters.connection.client.connection_pool._in_use_connections) == 1

    run(redis_url, test, remember_full=timedelta(0))


def test_scripts_that_the_server_forgot(redis_url: str, server_client: "redis.Redis") -> None:
    async def test(counters: AsyncCounters) -> None:
        await counters.define("team:7", Quota(1, 100, START))
        server_client.script_flush()
        holds = await counters.reserve_many([("team:7", 2)] * 20)
        server_client.script_flush()
        for hold in holds:
            assert isinstance(hold, Reservation)
            await counters.settle(hold, 1, wait=False)
        await counters.flush()
        await counters.flush()
        assert await counters.usage("team:7") == {1: Usage(1, 100, 20, 0)}

    run(redis_url, test)


def test_each_of_many_is_decided_on_its_own(redis_url: str, server_client: "redis.Redis") -> None:
    async def test(counters: AsyncCounters) -> None:
        await counters.define("team:7", Quota(1, 3, START))
        server_client.set(counters.keys.subject("bad"), "no hash")
        wanted = [("team:7", 2), ("nobody", 1), ("bad", 1)]
        held, nobody, bad = await counters.reserve_many(wanted)
        assert isinstance(held, Reservation)
        assert isinstance(nobody, StateLost)
        assert isinstance(bad, Garbled)
        await counters.settle_many([(held, 1)])
        granted, denied = await counters.consume_many([("team:7", 2), ("team:7", 1)])
        assert isinstance(granted, Granted)
        assert isinstance(denied, Denied)
        assert await counters.reserve_many([]) == []

    run(redis_url, test)


def test_a_task_that_is_cancelled_takes_no_answer_from_the_others(redis_url: str) -> None:
    async def test(counters: AsyncCounters) -> None:
        await counters.define("team:7", Quota(1, 100, START))
        tasks = [asyncio.create_task(counters.consume("team:7")) for _ in range(10)]
        await asyncio.sleep(0)
        tasks[3].cancel()
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        used = [a.usage.used for a in answers if isinstance(a, Granted)]
        assert used == [1, 2, 3, 5, 6, 7, 8, 9, 10]
        assert (await counters.usage("team:7"))[1].used == 10

    run(redis_url, test)


def test_who_gives_up_while_connecting_takes_the_connection_from_nobody(redis_url: str) -> None:
    async def test(counters: AsyncCounters) -> None:
        await counters.define("team:7", Quota(1, 100, START))
        await counters.connection.aclose()
        first = asyncio.create_task(counters.consume("team:7"))
        second = asyncio.create_task(counters.consume("team:7"))
        await asyncio.sleep(0)
        first.cancel()
        assert isinstance(await second, Granted)
        with suppress(asyncio.CancelledError):
            await first

    run(redis_url, test)


def test_a_silent_server_fails_all_that_wait_and_is_left_alone(
    redis_url: str, server_client: "redis.Redis"
) -> None:
    async def test(counters: AsyncCounters) -> None:
        await counters.define("team:7", Quota(1, 100, START))
        line = counters.connection._line
        assert line
        line._transport.pause_reading()  # type: ignore[attr-defined]
        calls = [counters.consume("team:7") for _ in range(20)]
        answers = await asyncio.gather(*calls, return_exceptions=True)
        assert all(isinstance(answer, Unavailable) for answer in answers)
        with pytest.raises(Unavailable, match="left alone"):
            await counters.consume("team:7")

    run(redis_url, test, timeout=0.2)


def test_a_connection_that_was_cut_is_opened_again(
    redis_url: str, server_client: "redis.Redis"
) -> None:
    async def test(counters: AsyncCounters) -> None:
        await counters.define("team:7", Quota(1, 100, START))
        line = counters.connection._line
        assert line
        here, port = line._transport.get_extra_info("sockname")
        server_client.client_kill_filter(addr=f"{here}:{port}")
        await asyncio.sleep(0.05)
        assert isinstance(await counters.consume("team:7"), Granted)

    run(redis_url, test)


def test_a_dead_port_is_unavailable() -> None:
    async def test(counters: AsyncCounters) -> None:
        with pytest.raises(Unavailable) as raised:
            await counters.consume("team:7")
        assert isinstance(raised.value.__cause__, redis.ConnectionError)
        await counters.release("team:7", "h", wait=False)

    run(NOBODY, test)


def test_calls_in_flight_are_bounded(redis_url: str) -> None:
    async def test(counters: AsyncCounters) -> None:
        await counters.define("team:7", Quota(1, None, START))
        calls = [counters.consume("team:7") for _ in range(MAX_IN_FLIGHT + 5)]
        answers = await asyncio.gather(*calls, return_exceptions=True)
        refused = [each for each in answers if isinstance(each, Unavailable)]
        assert len(refused) == 5
        assert "wait for some" in str(refused[0])

    run(redis_url, test)


def test_what_is_closed_opens_again_in_another_event_loop(redis_url: str) -> None:
    client = redis.asyncio.Redis.from_url(redis_url)
    counters = AsyncCounters(client, namespace=f"a{uuid4().hex[:20]}")

    async def once() -> int:
        await counters.define("team:7", Quota(1, 100, START))
        await counters.consume("team:7")
        used = (await counters.usage("team:7"))[1].used
        await counters.aclose()
        await client.aclose()
        return used

    assert [asyncio.run(once()) for _ in range(3)] == [1, 2, 3]


def test_a_server_that_says_nonsense_is_an_outage() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(65_536):
            writer.write(b"?nonsense\r\n")
        writer.close()

    async def go() -> None:
        server = await asyncio.start_server(answer, "127.0.0.1", 0, family=socket.AF_INET)
        port = server.sockets[0].getsockname()[1]
        counters = AsyncCounters.from_url(
            f"redis://127.0.0.1:{port}/0?protocol=2", namespace="api", timeout=1.0
        )
        with pytest.raises(Unavailable):
            await counters.consume("team:7")
        await counters.aclose()
        server.close()

    asyncio.run(go())
