import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send
from uvicorn.server import ServerState

from server.reception import HEAD_BYTES, Reception


class Hasty(Reception):
    head_s = 0.3
    arrived: asyncio.Event

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self.arrived.set()


async def hello(_scope: Scope, _receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"hi"})


@asynccontextmanager
async def visiting(
    arrived: asyncio.Event | None = None,
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection to a server that waits only a moment for headers; `arrived` is set when it has read."""
    config = uvicorn.Config(hello, lifespan="off", log_config=None)
    config.load()
    state = ServerState()
    loop = asyncio.get_running_loop()

    def make() -> Hasty:
        protocol = Hasty(config, state, {})
        protocol.arrived = arrived or asyncio.Event()
        return protocol

    server = await loop.create_server(make, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    reader, writer = await asyncio.open_connection(host, port)
    try:
        yield reader, writer
    finally:
        writer.close()
        server.close()
        await asyncio.gather(*state.tasks)
        await server.wait_closed()


async def answered(reader: asyncio.StreamReader) -> bytes:
    """Everything until the connection ends."""
    async with asyncio.timeout(10):
        try:
            return await reader.read()
        except ConnectionError:
            return b""


@pytest.mark.parametrize("said", [b"", b"GET / HTTP/1.1\r\nHost: h\r\nX-Slow: "])
async def test_headers_that_do_not_come_are_not_waited_for(said: bytes) -> None:
    """Neither does what comes drop by drop extend the time."""
    async with visiting() as (reader, writer):
        writer.write(said)
        ended = asyncio.create_task(answered(reader))
        while not ended.done():
            if said:
                writer.write(b"x")
            await asyncio.wait([ended], timeout=0.02)
        assert await ended == b""


async def test_headers_without_end_are_refused() -> None:
    async with visiting() as (reader, writer):
        writer.write(b"GET / HTTP/1.1\r\n" + b"X-More: y\r\n" * (HEAD_BYTES // 8))
        assert (await answered(reader)).startswith(b"HTTP/1.1 400 ")


async def test_requests_one_after_the_other_are_answered_and_each_has_its_own_time() -> None:
    arrived = asyncio.Event()
    async with asyncio.timeout(10), visiting(arrived) as (reader, writer):
        for _ in range(3):
            arrived.clear()
            writer.write(b"GET / HTTP/1.1\r\nHost: h\r\nX: " + b"y" * (HEAD_BYTES // 2))
            await arrived.wait()
            writer.write(b"\r\n\r\n")
            assert (await reader.readuntil(b"\r\n\r\nhi")).startswith(b"HTTP/1.1 200 ")
        writer.write(b"GET / HT")
        assert await answered(reader) == b""
