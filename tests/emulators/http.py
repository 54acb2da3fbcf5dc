"""A small HTTP/1.1 server on loopback that can also misbehave: stall, drip, break off, reset."""

import asyncio
import json
import socket
import struct
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Self
from urllib.parse import urlsplit

MAX_HEADER_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Received:
    """One request as it came; header names are lower case, `at` is the loop's time."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes
    at: float

    def json(self) -> Any:
        return json.loads(self.body)


class Exchange:
    """The way back to one client."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self.keeps = True

    async def answer(self, status: int, body: bytes | object, headers: Mapping[str, str] | None = None) -> None:
        """A whole answer; what is not bytes goes out as JSON."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        described = {"content-type": "application/json", "content-length": str(len(content)), **(headers or {})}
        self._writer.write(_head(status, described) + content)
        # A length that was lied about leaves the connection unusable.
        self.keeps = described["content-length"] == str(len(content))
        await self._writer.drain()

    async def start(self, status: int, headers: Mapping[str, str]) -> None:
        """The head of a chunked answer."""
        self._writer.write(_head(status, {**headers, "transfer-encoding": "chunked"}))
        await self._writer.drain()

    async def chunk(self, content: bytes) -> None:
        self._writer.write(f"{len(content):x}\r\n".encode() + content + b"\r\n")
        await self._writer.drain()

    async def end(self) -> None:
        self._writer.write(b"0\r\n\r\n")
        await self._writer.drain()

    def break_off(self) -> None:
        """Close in the middle, as a process that dies does."""
        self.keeps = False

    def reset(self) -> None:
        """Reset the connection: the client reads ECONNRESET."""
        raw = self._writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()
        self.keeps = False

    @property
    def left(self) -> bool:
        """Whether the client has gone."""
        return self._writer.is_closing()


@dataclass
class HttpEmulator:
    """Serves `handle` on 127.0.0.1; every request is written into the journal."""

    journal: list[Received] = field(default_factory=list)
    port: int = 0

    def __post_init__(self) -> None:
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    async def handle(self, request: Received, exchange: Exchange) -> None:
        """Answer one request."""
        raise NotImplementedError

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @asynccontextmanager
    async def serving(self, port: int = 0) -> AsyncIterator[Self]:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", port, limit=MAX_HEADER_BYTES)
        self.port = self._server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            self._server.close()
            for task in tuple(self._connections):
                task.cancel()
            await asyncio.gather(*self._connections, return_exceptions=True)
            await self._server.wait_closed()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            await self._converse(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            # The client left, or the emulator stops; either way nobody waits for an answer.
            pass
        finally:
            self._connections.discard(task)
            writer.close()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        exchange = Exchange(writer)
        while exchange.keeps:
            request = await _read(reader)
            self.journal.append(request)
            await self.handle(request, exchange)


async def _read(reader: asyncio.StreamReader) -> Received:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = head.rstrip("\r\n").split("\r\n")
    method, target, _ = first.split(" ", 2)
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    if headers.get("transfer-encoding", "").lower() == "chunked":
        body = await _chunks(reader)
    else:
        body = await reader.readexactly(int(headers.get("content-length", "0")))
    url = urlsplit(target)
    return Received(method, url.path, url.query, headers, body, asyncio.get_running_loop().time())


async def _chunks(reader: asyncio.StreamReader) -> bytes:
    body = b""
    while size := int(await reader.readline(), 16):
        body += await reader.readexactly(size)
        await reader.readline()
    await reader.readline()
    return body


def _head(status: int, headers: Mapping[str, str]) -> bytes:
    phrase = HTTPStatus(status).phrase if status in set(HTTPStatus) else "Unknown"
    lines = [f"HTTP/1.1 {status} {phrase}", *(f"{name}: {value}" for name, value in headers.items())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


@dataclass(frozen=True, slots=True)
class Part:
    """One field of a multipart form."""

    name: str
    filename: str | None
    content_type: str | None
    data: bytes


def parse_multipart(content_type: str, body: bytes) -> list[Part]:
    """The fields of a multipart form; raises ValueError where it is none."""
    kind, _, rest = content_type.partition(";")
    boundary = rest.strip().removeprefix("boundary=").strip('"')
    if kind.strip().lower() != "multipart/form-data" or not boundary:
        raise ValueError("not multipart/form-data")
    sections = body.split(b"--" + boundary.encode())
    if len(sections) < 2 or not sections[-1].startswith(b"--"):
        raise ValueError("the form does not end")
    return [_part(section) for section in sections[1:-1]]


def _part(section: bytes) -> Part:
    head, _, data = section.removeprefix(b"\r\n").partition(b"\r\n\r\n")
    headers = {
        name.strip().lower(): value.strip()
        for name, _, value in (line.partition(":") for line in head.decode().split("\r\n"))
    }
    fields = {
        key.strip(): value.strip('"')
        for key, _, value in (item.partition("=") for item in headers["content-disposition"].split(";")[1:])
    }
    return Part(fields["name"], fields.get("filename"), headers.get("content-type"), data.removesuffix(b"\r\n"))
