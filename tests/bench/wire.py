"""A websocket client on a bare socket, cheap enough that the server is what is measured (RFC 6455)."""

import asyncio
import time
from collections.abc import Callable
from typing import Self, cast
from urllib.parse import urlsplit

from crdt import protocol

BINARY, CLOSE, PING, PONG = 2, 8, 9, 10
_PATIENCE_S = 30.0

Received = Callable[[bytes, float], None]
"""Called with each data message and the time its last byte was read."""


class BrokenConnectionError(Exception):
    """The server refused or closed a connection that the benchmark needs."""


def client_frame(payload: bytes, opcode: int = BINARY) -> bytes:
    """A whole frame under the mask zero, which leaves the payload as it is."""
    size = len(payload)
    if size < 126:
        head = bytes((0x80 | opcode, 0x80 | size))
    elif size < 0x10000:
        head = bytes((0x80 | opcode, 0xFE)) + size.to_bytes(2)
    else:
        head = bytes((0x80 | opcode, 0xFF)) + size.to_bytes(8)
    return head + b"\0\0\0\0" + payload


class Wire(asyncio.Protocol):
    """One connection; set `received` to see what comes."""

    def __init__(self) -> None:
        self.received: Received | None = None
        self.frames = 0
        self.read_bytes = 0
        self.close_code: int | None = None
        self.transport: asyncio.Transport
        self.opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._rest = b""
        self._handshake = True

    @classmethod
    async def connect(cls, url: str) -> Self:
        """Open a connection and wait until the server took it."""
        address = urlsplit(url)
        assert address.hostname
        assert address.port
        loop = asyncio.get_running_loop()
        _, wire = await loop.create_connection(cls, address.hostname, address.port)
        wire.send(
            f"GET {address.path} HTTP/1.1\r\nHost: {address.netloc}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n".encode()
        )
        async with asyncio.timeout(_PATIENCE_S):
            await wire.opened
        return wire

    def send(self, frame: bytes) -> None:
        """Send a whole frame made before."""
        self.transport.write(frame)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are no subclasses of asyncio's.
        self.transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        for future in (self.opened, self.ended):
            if not future.done():
                if future is self.opened:
                    future.set_exception(BrokenConnectionError("the connection was lost in the handshake"))
                else:
                    future.set_result(None)

    def data_received(self, data: bytes) -> None:
        now = time.perf_counter()
        self.read_bytes += len(data)
        data = self._rest + data if self._rest else data
        if self._handshake:
            head, end, data = data.partition(b"\r\n\r\n")
            if not end:
                self._rest = head
                return
            self._handshake = False
            if b" 101 " not in head.split(b"\r\n", 1)[0] and not self.opened.done():
                self.opened.set_exception(BrokenConnectionError(head.decode("latin-1")))
                return
            self.opened.set_result(None)
        self._rest = data[self._take(data, now) :]

    def _take(self, data: bytes, now: float) -> int:
        """Handle whole frames; returns where the first one begins that is not whole."""
        at, end = 0, len(data)
        while end - at >= 2:
            size, head = data[at + 1] & 0x7F, 2
            if size >= 126:
                head = 4 if size == 126 else 10
                if end - at < head:
                    break
                size = int.from_bytes(data[at + 2 : at + head])
            if end - at < head + size:
                break
            self._frame(data[at] & 0x0F, data[at + head : at + head + size], now)
            at += head + size
        return at

    def _frame(self, opcode: int, payload: bytes, now: float) -> None:
        if opcode <= BINARY:
            self.frames += 1
            if self.received is not None:
                self.received(payload, now)
        elif opcode == PING:
            self.send(client_frame(payload, PONG))
        elif opcode == CLOSE:
            self.close_code = int.from_bytes(payload[:2])
            self.transport.close()

    async def close(self) -> None:
        """Say goodbye and wait for the end; a server that does not answer is left."""
        if not self.transport.is_closing():
            self.send(client_frame(b"\x03\xe8", CLOSE))
        try:
            async with asyncio.timeout(2):
                await self.ended
        except TimeoutError:
            self.transport.abort()


async def ask(wire: Wire, state_vector: bytes = protocol.EMPTY_STATE_VECTOR) -> bytes:
    """Send a sync step 1; the update of the answer."""
    answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
    step2 = bytes((protocol.SYNC, protocol.STEP2))

    def received(message: bytes, _now: float) -> None:
        if message.startswith(step2) and not answer.done():
            answer.set_result(message)

    before, wire.received = wire.received, received
    wire.send(client_frame(protocol.step1_message(state_vector)))
    async with asyncio.timeout(_PATIENCE_S):
        done, _ = await asyncio.wait((answer, wire.ended), return_when=asyncio.FIRST_COMPLETED)
    wire.received = before
    if answer not in done:
        raise BrokenConnectionError(f"closed with {wire.close_code} instead of an answer")
    return protocol.Reader(answer.result()[2:]).var_bytes()
