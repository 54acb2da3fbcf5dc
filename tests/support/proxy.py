"""A TCP proxy between a client and a server that is slow, unsteady, deaf, or gone."""

import asyncio
import random
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from tests.support.processes import LOOPBACK

_CHUNK_BYTES = 64 * 1024
_MOST_CHUNKS = 1_000
"""What is on its way in one direction; more waits in the sender's own buffers."""


@dataclass(eq=False)
class _Line:
    """One direction of one connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    under_way: "asyncio.Queue[tuple[float, bytes]]" = field(default_factory=lambda: asyncio.Queue(_MOST_CHUNKS))


class Proxy:
    """
    Passes bytes on, in order, and does to them what the test says; every change counts for open connections too.

    Attributes:
        delay_s: How long each piece takes, in each direction.
        jitter_s: Up to so much longer, by chance.
    """

    def __init__(self, port: int) -> None:
        self.delay_s = 0.0
        self.jitter_s = 0.0
        self.port = 0
        self.accepted = 0
        self._target = port
        self._chance = random.Random(7)  # noqa: S311 - the same jitter in every run
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._reachable = True
        self._severed: set[asyncio.StreamWriter] = set()
        self._open: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        """Where a page finds the server through this proxy."""
        return f"http://{LOOPBACK}:{self.port}"

    @property
    def ws_url(self) -> str:
        """What a y-websocket provider is given as its server."""
        return f"ws://{LOOPBACK}:{self.port}/ws"

    def stall(self) -> None:
        """Pass nothing on from now on; connections stay open, and new ones are taken."""
        self._flowing.clear()

    def resume(self) -> None:
        """Pass on what was held back, and all that follows."""
        self._flowing.set()

    def drop(self) -> None:
        """Reset every open connection (RST)."""
        for writer in tuple(self._open):
            linger = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            writer.transport.abort()

    def cut(self) -> None:
        """Pull the cable of every open connection: nothing comes through any more, not even its end."""
        self._severed |= self._open

    def refuse(self) -> None:
        """Reset open connections, and new ones as they come."""
        self._reachable = False
        self.drop()

    def accept(self) -> None:
        """Let new connections through again."""
        self._reachable = True

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        if not self._reachable:
            writer.transport.abort()
            return
        try:
            far_reader, far_writer = await asyncio.open_connection(LOOPBACK, self._target)
        except OSError:
            writer.transport.abort()
            return
        ends = {writer, far_writer}
        self._open |= ends
        try:
            async with asyncio.TaskGroup() as group:
                for line in (_Line(reader, far_writer), _Line(far_reader, writer)):
                    group.create_task(self._take(line))
                    group.create_task(self._give(line))
        except* (OSError, EOFError):
            pass  # One end is gone: so is the other.
        finally:
            self._open -= ends
            for end in ends - self._severed:
                end.transport.abort()

    async def _take(self, line: _Line) -> None:
        loop = asyncio.get_running_loop()
        while data := await line.reader.read(_CHUNK_BYTES):
            due = loop.time() + self.delay_s + self._chance.uniform(0, self.jitter_s)
            await line.under_way.put((due, data))
        await line.under_way.put((loop.time() + self.delay_s, b""))

    async def _give(self, line: _Line) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due, data = await line.under_way.get()
            await asyncio.sleep(max(0.0, due - loop.time()))
            await self._flowing.wait()
            if line.writer in self._severed:
                await asyncio.Event().wait()
            if not data:
                raise EOFError
            line.writer.write(data)
            await line.writer.drain()

    def _start(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Proxy"]:
        """Inside, it listens."""
        server = await asyncio.start_server(self._start, LOOPBACK, 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            for task in tuple(self._tasks):
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            for writer in self._severed:
                writer.transport.abort()
