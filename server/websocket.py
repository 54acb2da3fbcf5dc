"""The websocket door: `/ws/{room}` for any stock y-websocket client.

`RoomProtocol` is the only uvicorn-specific code: it lets a room write whole frames straight to the transport, one
write per peer and turn. `AsgiSocket` does the same over plain ASGI for any other server, more slowly.
"""

import asyncio
import contextlib
import logging
from collections import deque
from typing import TYPE_CHECKING, Any, Protocol

from starlette.websockets import WebSocket, WebSocketDisconnect
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.http11 import Request

from crdt import protocol
from crdt.errors import InvalidRoomId, RoomUnavailable
from crdt.room import CLOSE_BAD_MESSAGE, CLOSE_TRY_AGAIN, Peer, Room
from crdt.rooms import Rooms

if TYPE_CHECKING:
    from server.origins import Origins

logger = logging.getLogger(__name__)

SOCKET_EXTENSION = "darkroom.socket"
ABORT_AFTER_S = 15.0
"""How long a peer that was told to go may take to read it before the connection is cut."""
CLOSE_BAD_ROOM = 4404
CLOSE_TEXT = 1003
_QUEUE_BYTES = 4 * 1024 * 1024


class RoomSocket(Protocol):
    """A `crdt.room.Socket` that can be attached to a room's flow control."""

    def attach(self, room: Room, peer: Peer) -> None:
        """Tell the room when the transport fills up and drains."""

    def write(self, frames: bytes) -> None:
        """Send whole frames; never waits."""

    def close(self, code: int, reason: str) -> None:
        """Start the closing handshake."""


class RoomProtocol(WebSocketsSansIOProtocol):
    """uvicorn's websocket protocol, lent to a room: frames go past the ASGI queue, control frames as ever."""

    _attached: tuple[Room, Peer] | None = None

    def handle_connect(self, event: Request) -> None:
        """Offer this connection to the endpoint; the task that runs it has not started yet."""
        super().handle_connect(event)
        if hasattr(self, "scope"):
            extensions: dict[str, Any] = self.scope["extensions"]
            extensions[SOCKET_EXTENSION] = self

    def attach(self, room: Room, peer: Peer) -> None:
        """Tell the room when the transport fills up and drains."""
        self._attached = (room, peer)

    def write(self, frames: bytes) -> None:
        """Send whole unmasked frames made by `crdt.protocol.binary_frame`."""
        if not self.close_sent and not self.transport.is_closing():
            self.transport.write(frames)

    def close(self, code: int, reason: str) -> None:
        """Send a close frame; a peer that does not read it is cut off after `ABORT_AFTER_S`."""
        if self.close_sent or self.transport.is_closing():
            return
        self.queue.put_nowait({"type": "websocket.disconnect", "code": code, "reason": reason})
        self.conn.send_close(code, reason)
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = True
        if self.read_paused:
            self.read_paused = False
            self.transport.resume_reading()
        self.close_timer = self.loop.call_later(self.close_timeout, self.transport.close)
        # transport.close() waits for the buffer to drain, which a stalled peer never lets happen.
        self.loop.call_later(ABORT_AFTER_S, self.transport.abort)

    def pause_writing(self) -> None:
        """Stop writing to this peer; the room keeps a state vector instead of a queue."""
        super().pause_writing()
        if self._attached is not None:
            room, peer = self._attached
            room.on_full(peer)

    def resume_writing(self) -> None:
        """The peer reads again."""
        super().resume_writing()
        if self._attached is not None:
            room, peer = self._attached
            room.on_drained(peer)


class AsgiSocket:
    """The same over plain ASGI: a bounded queue and the task that empties it."""

    def __init__(self, websocket: WebSocket) -> None:
        self._websocket = websocket
        self._queue: deque[bytes] = deque()
        self._queued_bytes = 0
        self._wake = asyncio.Event()
        self._closing: tuple[int, str] | None = None
        self._full = False
        self._attached: tuple[Room, Peer] | None = None

    def attach(self, room: Room, peer: Peer) -> None:
        """Tell the room when the queue fills up and drains."""
        self._attached = (room, peer)

    def write(self, frames: bytes) -> None:
        """Queue the messages inside whole frames."""
        for message in protocol.split_frames(frames):
            self._queue.append(message)
            self._queued_bytes += len(message)
        self._wake.set()
        if self._queued_bytes > _QUEUE_BYTES and not self._full and self._attached is not None:
            self._full = True
            self._attached[0].on_full(self._attached[1])

    def close(self, code: int, reason: str) -> None:
        """Close once what is queued is sent."""
        self._closing = self._closing or (code, reason)
        self._wake.set()

    async def run(self) -> None:
        """Send until closed; owned by the endpoint."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._queue:
                message = self._queue.popleft()
                await self._websocket.send_bytes(message)
                self._queued_bytes -= len(message)
            if self._full and self._attached is not None:
                self._full = False
                self._attached[0].on_drained(self._attached[1])
            if self._closing is not None:
                await self._websocket.close(*self._closing)
                return


async def websocket_endpoint(websocket: WebSocket) -> None:
    """Serve one client of one room until either side closes."""
    origins: Origins = websocket.app.state.services.origins
    if not origins.trusts(websocket.headers.get("origin", ""), websocket.headers.get("host", "")):
        await websocket.close()
        return
    await websocket.accept()
    native: RoomProtocol | None = websocket.scope.get("extensions", {}).get(SOCKET_EXTENSION)
    rooms: Rooms = websocket.app.state.services.rooms
    if native is not None:
        await _serve(websocket, rooms, native)
        return
    socket = AsgiSocket(websocket)
    sender = asyncio.create_task(socket.run())
    try:
        await _serve(websocket, rooms, socket)
    finally:
        if not sender.done() and socket._closing is None:  # noqa: SLF001 - the endpoint owns both
            sender.cancel()
        with contextlib.suppress(asyncio.CancelledError, WebSocketDisconnect, RuntimeError):
            await sender


async def _serve(websocket: WebSocket, rooms: Rooms, socket: RoomSocket) -> None:
    room_id = websocket.path_params["room"]
    try:
        async with rooms.use(room_id) as room:
            peer = room.enter(socket)
            socket.attach(room, peer)
            try:
                await _receive(websocket, room, peer)
            finally:
                room.leave(peer)
    except InvalidRoomId as error:
        socket.close(CLOSE_BAD_ROOM, f"bad-room: {error}"[:120])
    except RoomUnavailable as error:
        socket.close(CLOSE_TRY_AGAIN, f"try-again: {error.reason}"[:120])


async def _receive(websocket: WebSocket, room: Room, peer: Peer) -> None:
    while True:
        message = await websocket.receive()
        if message["type"] == "websocket.disconnect":
            return
        data = message.get("bytes")
        if data is None:
            peer.socket.close(CLOSE_TEXT, "binary-only: this endpoint speaks the y-websocket protocol")
        elif data:
            room.receive(peer, data)
        else:
            peer.socket.close(CLOSE_BAD_MESSAGE, "bad-message: an empty frame")
