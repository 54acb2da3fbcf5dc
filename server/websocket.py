"""The websocket door: `/ws/{room}` for any stock y-websocket client.

`RoomProtocol` is the only uvicorn-specific code: it gives messages to a room as they are read, and lets it write whole
frames straight to the transport, one write per peer and turn. `AsgiSocket` does the same over plain ASGI for any
other server, more slowly.
"""

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from sqlalchemy.exc import SQLAlchemyError
from starlette.websockets import WebSocket, WebSocketDisconnect
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.http11 import Request
from websockets.protocol import State

from crdt import protocol
from crdt.errors import InvalidRoomId, RoomUnavailable
from crdt.room import CLOSE_BAD_MESSAGE, CLOSE_TRY_AGAIN, Peer, Room
from server.access import SUBPROTOCOL, Access, Caller, Role
from server.errors import Forbidden, Unauthenticated, WorkflowNotFound
from server.metrics import Metrics

try:
    from websockets.speedups import apply_mask
except ImportError:  # pragma: no cover - built without its C extension
    from websockets.utils import apply_mask

if TYPE_CHECKING:
    from server.services import Services

logger = logging.getLogger(__name__)

SOCKET_EXTENSION = "darkroom.socket"
ABORT_AFTER_S = 15.0
"""How long a peer that was told to go may take to read it before the connection is cut."""
RECEIPT_PARAMETER = "ack"
CLOSE_BAD_ROOM = 4404
CLOSE_TEXT = 1003
CLOSE_NO_TOKEN = 4401
CLOSE_FORBIDDEN = 4403
STRANGER_BYTES = 64 * 1024
STRANGER_S = 5.0
"""What is buffered of a peer whose token was refused, and how long it may take to go."""
_LOOK_AGAIN_S = 3.0
_FINAL_BINARY, _MASKED = 0x82, 0x80
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
    """uvicorn's websocket protocol, lent to a room: messages go past ASGI both ways, control frames as ever."""

    _attached: tuple[Room, Peer] | None = None
    _room: Room
    _peer: Peer
    _at_frame = False
    """Whether the library has read whole frames only, so that the next one may go past it."""
    _owed_bytes = 0
    """What the library still lacks of the frame it is reading."""
    _head = b""
    """The beginning of a frame whose length is not known yet."""

    def handle_connect(self, event: Request) -> None:
        """Offer this connection to the endpoint; the task that runs it has not started yet."""
        super().handle_connect(event)
        if hasattr(self, "scope"):
            extensions: dict[str, Any] = self.scope["extensions"]
            extensions[SOCKET_EXTENSION] = self
            self._at_frame = True

    def distrust(self) -> None:
        """Take next to nothing of a stranger who is told to go, and not for long."""
        self.conn.max_message_size = STRANGER_BYTES
        self.loop.call_later(STRANGER_S, self.transport.abort)

    def attach(self, room: Room, peer: Peer) -> None:
        """From here on messages go to the room as they are read; those that came before it are given to it now.

        Reading is never paused then: what was read is dealt with before more is.
        """
        self._attached = self._room, self._peer = room, peer
        waiting = [self.queue.get_nowait() for _ in range(self.queue.qsize())]
        for event in waiting:
            if event["type"] == "websocket.receive" and not self.close_sent:
                take_message(room, peer, event)
            elif event["type"] == "websocket.disconnect":
                self.queue.put_nowait(event)
        if self.read_paused:
            self.read_paused = False
            self.transport.resume_reading()

    def send_receive_event_to_app(self) -> None:
        """Give a message that the library put together to the room, once there is one."""
        if self._attached is None:
            super().send_receive_event_to_app()
            return
        data, self.frames = b"".join(self.frames), []
        if self.close_sent:
            return
        if self.curr_msg_data_type == "text":
            refuse_text(self._peer)
        else:
            take_bytes(self._room, self._peer, data)

    def data_received(self, data: bytes) -> None:
        """Read whole binary messages, which are nearly all, at once, and leave the rest to the library."""
        if not self._at_frame:
            super().data_received(self._head + data if self._head else data)
            self._head = b""
            return
        if self._owed_bytes:
            data = self._feed(data, 0, self._owed_bytes)
        elif self._head:
            data, self._head = self._head + data, b""
        at, limit = 0, self.config.ws_max_size
        while at < len(data) and self._at_frame:
            bounds = frame_bounds(data, at)
            if bounds is None:
                self._head = data[at:]
                return
            start, end = bounds
            plain = data[at] == _FINAL_BINARY and data[at + 1] >= _MASKED and not self.frames
            if plain and self._attached is not None and end <= len(data) and end - start <= limit:
                take_bytes(self._room, self._peer, apply_mask(data[start:end], data[start - 4 : start]))
                at = end
            else:
                data, at = self._feed(data, at, end - at), 0
        if at < len(data):
            super().data_received(data[at:])

    def _feed(self, data: bytes, at: int, size: int) -> bytes:
        """Give the library what is there of a frame; returns what comes behind it."""
        piece = data[at : at + size]
        self._owed_bytes = size - len(piece)
        super().data_received(piece)
        # Once either side closes, everything goes to the library.
        self._at_frame = self.conn.state is State.OPEN
        return data[at + size :]

    @property
    def write(self) -> Callable[[bytes], None]:
        """Sends whole unmasked frames made by `crdt.protocol.binary_frame`; kept by the room until it is hushed."""
        return _drop if self.close_sent or self.transport.is_closing() else self.transport.write

    def close(self, code: int, reason: str) -> None:
        """Send a close frame; a peer that does not read it is cut off after `ABORT_AFTER_S`."""
        if self.close_sent or self.transport.is_closing():
            return
        self.queue.put_nowait({"type": "websocket.disconnect", "code": code, "reason": reason})
        self._at_frame = False
        self.conn.send_close(code, reason)
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = True
        self._hush()
        if self.read_paused:
            self.read_paused = False
            self.transport.resume_reading()
        self.close_timer = self.loop.call_later(self.close_timeout, self.transport.close)
        # transport.close() waits for the buffer to drain, which a stalled peer never lets happen.
        self.loop.call_later(ABORT_AFTER_S, self.transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        """Write no more: the endpoint, which leaves the room, only hears of it later in the turn."""
        self._hush()
        super().connection_lost(exc)
        if self._attached is not None:
            # This object is part of reference cycles and may stay for a while; the room must not stay with it.
            self._attached = None
            del self._room, self._peer

    def _hush(self) -> None:
        if self._attached is not None:
            self._room.hush(self._peer)

    def pause_writing(self) -> None:
        """Stop writing to this peer; the room keeps a state vector instead of a queue."""
        super().pause_writing()
        if self._attached is not None:
            self._room.on_full(self._peer)

    def resume_writing(self) -> None:
        """The peer reads again."""
        super().resume_writing()
        if self._attached is not None:
            self._room.on_drained(self._peer)


def frame_bounds(data: bytes, at: int) -> tuple[int, int] | None:
    """Where the payload of the client frame at `at` begins and ends (RFC 6455 5.2).

    Returns:
        None as long as its length is not there.

    """
    if len(data) < at + 2:
        return None
    size, start = data[at + 1] & 0x7F, at + 2
    if size >= 126:  # noqa: PLR2004 - longer length field
        width = 2 if size == 126 else 8  # noqa: PLR2004
        if len(data) < start + width:
            return None
        size, start = int.from_bytes(data[start : start + width]), start + width
    if data[at + 1] >= _MASKED:
        start += 4
    return start, start + size


def take_message(room: Room, peer: Peer, event: Mapping[str, Any]) -> None:
    """Give a message, as ASGI has it, to the room."""
    data = event.get("bytes")
    if data is None:
        refuse_text(peer)
    else:
        take_bytes(room, peer, data)


def take_bytes(room: Room, peer: Peer, data: bytes) -> None:
    """Give a binary message to the room."""
    if data:
        room.receive(peer, data)
    else:
        peer.socket.close(CLOSE_BAD_MESSAGE, "bad-message: an empty frame")


def refuse_text(peer: Peer) -> None:
    """Close a client that sends text."""
    peer.socket.close(CLOSE_TEXT, "binary-only: this endpoint speaks the y-websocket protocol")


def _drop(_frames: bytes) -> None:
    """Write nothing: the connection is closing."""


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
    services: Services = websocket.app.state.services
    if not services.origins.trusts(websocket.headers.get("origin", ""), websocket.headers.get("host", "")):
        await websocket.close()
        return
    native: RoomProtocol | None = websocket.scope.get("extensions", {}).get(SOCKET_EXTENSION)
    try:
        caller = _admit(websocket)
    except (Unauthenticated, Forbidden) as error:
        await _refuse(websocket, native, services.metrics, error)
        return
    await websocket.accept(_subprotocol(websocket))
    if native is not None:
        await _serve(websocket, caller, native)
        return
    socket = AsgiSocket(websocket)
    sender = asyncio.create_task(socket.run())
    try:
        await _serve(websocket, caller, socket)
    finally:
        if not sender.done() and socket._closing is None:  # noqa: SLF001 - the endpoint owns both
            sender.cancel()
        with contextlib.suppress(asyncio.CancelledError, WebSocketDisconnect, RuntimeError):
            await sender


def _admit(websocket: WebSocket) -> Caller:
    """Who opens the websocket, once it is clear that they may.

    Raises:
        Unauthenticated: Without a good token.
        Forbidden: The token is not for this workflow.

    """
    access: Access = websocket.app.state.access
    caller = access.caller(websocket)
    caller.require_workflow(websocket.path_params["room"])
    return caller


async def _refuse(
    websocket: WebSocket, native: RoomProtocol | None, metrics: Metrics, error: Unauthenticated | Forbidden
) -> None:
    """Accept and close: a browser reads the code of a close frame, but not the status of a refused upgrade."""
    if isinstance(error, Unauthenticated):
        code, reason = CLOSE_NO_TOKEN, f"{error.why}: {error}"
    else:
        code, reason = CLOSE_FORBIDDEN, f"forbidden: {error}"
    if native is not None:
        native.distrust()
    metrics.websocket_refused(code)
    with contextlib.suppress(WebSocketDisconnect, RuntimeError):
        await websocket.accept(_subprotocol(websocket))
        await websocket.close(code, _short(reason))


def _subprotocol(websocket: WebSocket) -> str | None:
    """The one of ours, if it was offered: a browser that offers any insists on one of them, and a token is none."""
    return SUBPROTOCOL if SUBPROTOCOL in websocket.scope["subprotocols"] else None


def _wants_receipt(websocket: WebSocket) -> bool:
    """Whether the client understands messages of our own, see `crdt.protocol.DARKROOM`."""
    return websocket.query_params.get(RECEIPT_PARAMETER) == "1"


def _short(reason: str) -> str:
    """A reason as a close frame takes it (RFC 6455 5.5): at most 123 bytes."""
    return reason.encode()[:120].decode(errors="ignore")


async def _serve(websocket: WebSocket, caller: Caller, socket: RoomSocket) -> None:
    services: Services = websocket.app.state.services
    room_id = websocket.path_params["room"]
    looks_only = not caller.may(Role.EDITOR)
    try:
        if looks_only:
            # To open a room is to make a workflow, which is for those who may edit.
            await services.require(room_id)
        async with services.rooms.use(room_id) as room:
            peer = room.enter(
                socket,
                read_only=looks_only,
                person=caller.person(),
                refused=services.metrics.edit_refused,
                receipt=services.rooms.receipt(room_id) if _wants_receipt(websocket) else None,
            )
            socket.attach(room, peer)
            expiry = _Expiry(caller, peer, services.metrics)
            try:
                await _receive(websocket, room, peer)
            finally:
                expiry.cancel()
                room.leave(peer)
    except InvalidRoomId as error:
        socket.close(CLOSE_BAD_ROOM, _short(f"bad-room: {error}"))
    except WorkflowNotFound as error:
        socket.close(CLOSE_BAD_ROOM, _short(f"not-found: {error}"))
    except RoomUnavailable as error:
        socket.close(CLOSE_TRY_AGAIN, _short(f"try-again: {error.reason}"))
    except (SQLAlchemyError, OSError):
        logger.warning("workflow not looked up", extra={"action": "join_failed", "room": room_id})
        socket.close(CLOSE_TRY_AGAIN, "try-again: the database does not answer")


class _Expiry:
    """Closes a websocket when its token ends; nothing it sends afterwards is taken."""

    def __init__(self, caller: Caller, peer: Peer, metrics: Metrics) -> None:
        self._caller = caller
        self._peer = peer
        self._metrics = metrics
        self._timer: asyncio.TimerHandle | None = None
        self._look()

    def cancel(self) -> None:
        """The websocket is gone."""
        if self._timer is not None:
            self._timer.cancel()

    def _look(self) -> None:
        left_s = self._caller.seconds_left()
        if left_s is None:
            return
        if left_s > 0:
            # Looked at again now and then: a machine that sleeps, or a clock that is set, moves the end.
            self._timer = asyncio.get_running_loop().call_later(min(left_s, _LOOK_AGAIN_S), self._look)
            return
        self._peer.read_only = True
        self._metrics.websocket_refused(CLOSE_NO_TOKEN)
        self._peer.socket.close(CLOSE_NO_TOKEN, "expired: the access token has expired, ask for a new one")


async def _receive(websocket: WebSocket, room: Room, peer: Peer) -> None:
    while True:
        message = await websocket.receive()
        if message["type"] == "websocket.disconnect":
            return
        take_message(room, peer, message)
