"""A network that fails on demand: proxies on the loopback, between clients and a server."""

import asyncio
import random
import threading
from contextlib import suppress
from enum import StrEnum
from typing import Self
from urllib.parse import urlsplit, urlunsplit

HOST = "127.0.0.1"
CHUNK = 65_536
CONNECT_SECONDS = 5.0
DROPPED = 0.1


class Mode(StrEnum):
    """What becomes of the bytes."""

    PASS = "pass"  # noqa: S105
    DELAY = "delay"
    """They arrive later, in both directions."""
    HOLD = "hold"
    """They arrive once the mode is another one; until then it is a black hole."""
    CUT_REPLIES = "cut replies"
    """Requests arrive; instead of the reply the connection ends."""
    DROP = "drop"
    """Some of them end their connection, in either direction."""
    REFUSE = "refuse"
    """Connections end as soon as they begin."""


class Proxy:
    """One server's proxy. Its attributes may be set from any thread and hold from then on.

    Args:
        url: the server's address, `scheme://...@host:port/...`; `url` is the same by way of the proxy.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self.upstream = (parts.hostname or HOST, parts.port or 0)
        self.delay_seconds = 0.0
        self.url = ""
        self._parts = parts
        self._mode = Mode.PASS
        self._links: dict[asyncio.Task[None], tuple[asyncio.WriteTransport, ...]] = {}
        self._flowing = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def mode(self) -> Mode:
        return self._mode

    @mode.setter
    def mode(self, mode: Mode) -> None:
        self._mode = mode
        assert self._loop is not None
        self._loop.call_soon_threadsafe(
            self._flowing.clear if mode is Mode.HOLD else self._flowing.set
        )
        if mode is Mode.REFUSE:
            self.cut()

    def cut(self) -> None:
        """End all connections."""
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._abort)

    async def open(self) -> None:
        """Begin to listen."""
        self._loop = asyncio.get_running_loop()
        self._flowing.set()
        # Kept, or it would be closed with the last reference.
        self._server = await asyncio.start_server(self._accept, HOST, 0)
        port = self._server.sockets[0].getsockname()[1]
        parts = self._parts
        netloc = f"{parts.netloc.rpartition('@')[0]}@{HOST}:{port}"
        self.url = urlunsplit((parts.scheme, netloc.lstrip("@"), parts.path, parts.query, ""))

    async def close(self) -> None:
        """Stop listening, and end all connections."""
        self._server.close()
        self._flowing.set()
        self._abort()
        await asyncio.gather(*self._links)

    def _abort(self) -> None:
        for transports in self._links.values():
            for transport in transports:
                transport.abort()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        try:
            self._links[task] = (writer.transport,)
            if self._mode is not Mode.REFUSE:
                await self._link(task, reader, writer)
        finally:
            writer.transport.abort()
            del self._links[task]

    async def _link(
        self, task: asyncio.Task[None], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                back, forth = await asyncio.open_connection(*self.upstream)
        except OSError:
            return
        self._links[task] = (writer.transport, forth.transport)
        try:
            await asyncio.gather(
                self._pass_on(reader, forth, writer, is_reply=False),
                self._pass_on(back, writer, forth, is_reply=True),
            )
        finally:
            forth.transport.abort()

    async def _pass_on(
        self,
        source: asyncio.StreamReader,
        sink: asyncio.StreamWriter,
        opposite: asyncio.StreamWriter,
        *,
        is_reply: bool,
    ) -> None:
        with suppress(OSError):
            while chunk := await source.read(CHUNK):
                await self._flowing.wait()
                if self._mode is Mode.DELAY:
                    await asyncio.sleep(self.delay_seconds)
                if self._is_lost(is_reply=is_reply):
                    break
                sink.write(chunk)
                await sink.drain()
        # Half-open connections are of no use to these protocols.
        sink.close()
        opposite.close()

    def _is_lost(self, *, is_reply: bool) -> bool:
        if self._mode is Mode.CUT_REPLIES:
            return is_reply
        return self._mode is Mode.DROP and random.random() < DROPPED  # noqa: S311


class Network:
    """The thread that the proxies live in; as a context manager it runs for the block."""

    def __init__(self) -> None:
        self._begun = threading.Event()
        self._proxies: list[Proxy] = []
        self._thread = threading.Thread(target=lambda: asyncio.run(self._live()), daemon=True)

    def proxy(self, url: str) -> Proxy:
        """A proxy before the server at this address."""
        proxy = Proxy(url)
        self._proxies.append(proxy)
        asyncio.run_coroutine_threadsafe(proxy.open(), self._loop).result(CONNECT_SECONDS)
        return proxy

    async def _live(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._over = asyncio.Event()
        self._begun.set()
        await self._over.wait()
        for proxy in self._proxies:
            await proxy.close()

    def __enter__(self) -> Self:
        self._thread.start()
        self._begun.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join()
