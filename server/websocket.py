"""The websocket door: `/ws/{room}` for any stock y-websocket client.

`RoomProtocol` is the only uvicorn-specific code: it gives messages to a room as they are read, and lets it write whole
frames straight to the transport, one write per peer and turn. `AsgiSocket` does the same over plain ASGI for any
other server, more slowly.
"""

import asyncio
import contextlib
import logging
import math
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any, Protocol

from sqlalchemy.exc import SQLAlchemyError
from starlette.websockets import WebSocket, WebSocketDisconnect
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.http11 import Request
from websockets.protocol import State

from crdt import protocol
from crdt.close_codes import Close
from crdt.errors import InvalidRoomId, RoomUnavailable, TooManyRooms
from crdt.peer import Peer
from crdt.room import Room
from server.access import SUBPROTOCOL, Access, Caller, Role
from server.crowd import Busy
from server.errors import Forbidden, Unauthenticated, WorkflowNotFound
from server.limits import Allowance, Meter, Share
from server.session import Guest, Session, person_of, refusal_of

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
STRANGER_BYTES = 64 * 1024
STRANGER_S = 5.0
"""What is buffered of a peer that is told to go at once, or still waits for its room; how long the first may take."""
TOO_MUCH = "more was sent than one client may, and it went on when held back"
UNLIMITED = Meter([Share.of(Allowance(), 0.0)])
_FINAL_BINARY, _MASKED = 0x82, 0x80
HEAVY_BYTES = 16 * 1024
"""A message of more takes milliseconds to apply."""
_QUEUE_BYTES = 4 * 1024 * 1024


class RoomSocket(Protocol):
    """A `crdt.room.Socket` that can be attached to a room's flow control."""

    def attach(self, room: Room, peer: Peer) -> None:
        """Tell the room when the transport fills up and drains."""

    def write(self, frames: bytes) -> None:
        """Send whole frames; never waits."""

    def close(self, code: int, reason: str) -> None:
        """Start the closing handshake."""

    def meter(self, meter: Meter, limited: Callable[[], None]) -> None:
        """From here on the peer may send what `meter` has; `limited` is called whenever it is held back."""

    async def pace(self, size: int) -> None:
        """Wait as long as the peer is to be held back, after a message that came by ASGI."""


def _pass(*_facts: object) -> None:
    """Nobody asked to be told."""


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
    _meter = UNLIMITED
    """What the peer may still send."""
    _rest = b""
    """What was read of a peer that is held back for having sent too much."""
    _pause: asyncio.TimerHandle | None = None
    _waiting_bytes = 0
    """What came of a peer whose room is not open yet."""
    _limited: Callable[[], None] = staticmethod(_pass)
    closed: Callable[[int, str], None] = staticmethod(_pass)
    """Told of each closing that begins here."""

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
        self._waiting_bytes = 0
        waiting = [self.queue.get_nowait() for _ in range(self.queue.qsize())]
        for event in waiting:
            if event["type"] == "websocket.receive" and not self.close_sent:
                take_message(room, peer, event)
            elif event["type"] == "websocket.disconnect":
                self.queue.put_nowait(event)
        if self.read_paused:
            self.read_paused = False
            self.transport.resume_reading()

    def meter(self, meter: Meter, limited: Callable[[], None]) -> None:
        """From here on the peer may send what `meter` has; `limited` is called whenever it is held back."""
        self._meter, self._limited = meter, limited

    async def pace(self, size: int) -> None:
        """Nothing: messages are paced as they are read, and past ASGI."""

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
        if self._attached is None:
            self._wait_for_room(len(data))
        elif self._pause is not None:
            self._rest += data
            return
        meter = self._meter
        meter.size -= len(data)
        self._read(data)
        if meter.size < 0 and self._pause is None:
            self._settle(b"")

    def _read(self, data: bytes) -> None:
        if not self._at_frame:
            super().data_received(self._head + data if self._head else data)
            self._head = b""
            return
        meter = self._meter
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
                meter.messages -= 1
                if meter.messages < 0 and self._settle(data[at:]):
                    return
                if end - start > HEAVY_BYTES and at < len(data):
                    # A large paste takes a while: others have their turn before the next of its messages.
                    self._put_off(data[at:], 0.0)
                    return
            else:
                data, at = self._feed(data, at, end - at), 0
        if at < len(data):
            super().data_received(data[at:])

    def _wait_for_room(self, size: int) -> None:
        """Read no more of a client whose room is still opening than fits into a small buffer."""
        self._waiting_bytes += size
        if self._waiting_bytes > STRANGER_BYTES and not self.read_paused and not self.close_sent:
            self.read_paused = True
            self.transport.pause_reading()

    def _settle(self, rest: bytes) -> bool:
        """Pay for what was read; a peer that owes is not read for a while, and one that goes on is told to go.

        Args:
            rest: What was read and not dealt with; kept if it has to wait.

        Returns:
            Whether it has to.

        """
        pause_s = self._meter.settle(monotonic())
        if not pause_s or self.close_sent:
            return False
        self._limited()
        if pause_s == math.inf:
            self.close(*Close.RATE_LIMITED.because(TOO_MUCH))
            return False
        self._put_off(rest, pause_s)
        return True

    def _put_off(self, rest: bytes, pause_s: float) -> None:
        self._rest = rest
        self._pause = self.loop.call_later(pause_s, self._go_on)
        self.transport.pause_reading()

    def _go_on(self) -> None:
        """Deal with what had to wait, then read on, unless that was too much again."""
        self._end_pause()
        rest, self._rest = self._rest, b""
        if rest:
            self._read(rest)
        if self._pause is None and not self.transport.is_closing():
            self.transport.resume_reading()

    def _end_pause(self) -> None:
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None

    def _feed(self, data: bytes, at: int, size: int) -> bytes:
        """Give the library what is there of a frame; returns what comes behind it."""
        piece = data[at : at + size]
        self._owed_bytes = size - len(piece)
        super().data_received(piece)
        # Once either side closes, everything goes to the library.
        self._at_frame = self.conn.state is State.OPEN
        return data[at + size :]

    @property
    def queued_bytes(self) -> int:
        """What is not sent yet."""
        return self.transport.get_write_buffer_size()

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
        self.closed(code, reason)
        self._hush()
        if self.read_paused or self._pause is not None:
            self._end_pause()
            self._rest = b""
            self.read_paused = False
            self.transport.resume_reading()
        self.close_timer = self.loop.call_later(self.close_timeout, self.transport.close)
        # transport.close() waits for the buffer to drain, which a stalled peer never lets happen.
        self.loop.call_later(ABORT_AFTER_S, self.transport.abort)

    def handle_parser_exception(self) -> None:
        """Close a client that the library refuses to read on."""
        super().handle_parser_exception()
        if self.conn.close_sent is not None:
            self.closed(self.conn.close_sent.code, self.conn.close_sent.reason)

    def keepalive_timeout(self) -> None:
        """Close a client that answers no ping; its buffer, which may be full, is not waited for."""
        super().keepalive_timeout()
        self._hush()
        self.loop.call_later(ABORT_AFTER_S, self.transport.abort)
        if self.conn.close_sent is not None:
            self.closed(self.conn.close_sent.code, self.conn.close_sent.reason)

    def connection_lost(self, exc: Exception | None) -> None:
        """Write no more: the endpoint, which leaves the room, only hears of it later in the turn."""
        self._hush()
        self._end_pause()
        self._rest = b""
        super().connection_lost(exc)
        if self._attached is not None:
            # This object is part of reference cycles and may stay for a while; the room must not stay with it.
            self._attached = None
            del self._room, self._peer
        self.__dict__.pop("closed", None)
        self.__dict__.pop("_limited", None)

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
        peer.socket.close(*Close.BAD_MESSAGE.because("an empty frame"))


def refuse_text(peer: Peer) -> None:
    """Close a client that sends text."""
    peer.socket.close(*Close.BINARY_ONLY.because("this endpoint speaks the y-websocket protocol"))


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
        self._meter = UNLIMITED
        self._limited: Callable[[], None] = _pass
        self.closed: Callable[[int, str], None] = _pass

    @property
    def queued_bytes(self) -> int:
        """What is not sent yet."""
        return self._queued_bytes

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
        if self._closing is None:
            self._closing = (code, reason)
            self.closed(code, reason)
        self._wake.set()

    def meter(self, meter: Meter, limited: Callable[[], None]) -> None:
        """From here on the peer may send what `meter` has; `limited` is called whenever it is held back."""
        self._meter, self._limited = meter, limited

    async def pace(self, size: int) -> None:
        """Read no more for a while of a peer that sent too much; one that goes on is told to go."""
        meter = self._meter
        meter.messages -= 1
        meter.size -= size
        if meter.messages >= 0 and meter.size >= 0:
            return
        pause_s = meter.settle(monotonic())
        if pause_s:
            self._limited()
        if pause_s == math.inf:
            self.close(*Close.RATE_LIMITED.because(TOO_MUCH))
        else:
            await asyncio.sleep(pause_s)

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
    address = services.proxies.client_of(
        websocket.client.host if websocket.client is not None else "", websocket.headers.getlist("x-forwarded-for")
    )
    try:
        caller = _admit(websocket)
        if services.stopping.is_set():
            await _refuse(websocket, native, Close.RESTART.because("the server is stopping"))
            return
        with services.crowd.admit(websocket.path_params["room"], person_of(caller, address)) as visit:
            await _welcome(websocket, native, Guest(caller, visit, address))
    except (Unauthenticated, Forbidden) as error:
        close = refusal_of(error)
        services.metrics.websocket_refused(close[0])
        await _refuse(websocket, native, close)
    except Busy as error:
        await _refuse(websocket, native, Close.BUSY.because(str(error)))


async def _welcome(websocket: WebSocket, native: RoomProtocol | None, guest: Guest) -> None:
    services: Services = websocket.app.state.services
    room_id = websocket.path_params["room"]
    await websocket.accept(_subprotocol(websocket))
    socket = AsgiSocket(websocket) if native is None else native
    socket.closed = partial(services.closings.note, room=room_id)
    if isinstance(socket, RoomProtocol):
        await _serve(websocket, guest, socket)
        return
    sender = asyncio.create_task(socket.run())
    try:
        await _serve(websocket, guest, socket)
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


async def _refuse(websocket: WebSocket, native: RoomProtocol | None, close: tuple[int, str]) -> None:
    """Accept and close: a browser reads the code of a close frame, but not the status of a refused upgrade."""
    services: Services = websocket.app.state.services
    if native is not None:
        native.distrust()
    services.closings.note(*close, room=websocket.path_params["room"])
    with contextlib.suppress(WebSocketDisconnect, RuntimeError):
        await websocket.accept(_subprotocol(websocket))
        await websocket.close(*close)


def _subprotocol(websocket: WebSocket) -> str | None:
    """The one of ours, if it was offered: a browser that offers any insists on one of them, and a token is none."""
    return SUBPROTOCOL if SUBPROTOCOL in websocket.scope["subprotocols"] else None


def _wants_receipt(websocket: WebSocket) -> bool:
    """Whether the client understands messages of our own, see `crdt.protocol.DARKROOM`."""
    return websocket.query_params.get(RECEIPT_PARAMETER) == "1"


async def _serve(websocket: WebSocket, guest: Guest, socket: RoomSocket) -> None:
    services: Services = websocket.app.state.services
    try:
        async with AsyncExitStack() as stack:
            async with asyncio.timeout(services.crowd.bounds.join_s):
                room = await _open(websocket, guest.caller, stack)
            await _stay(websocket, guest, socket, room)
    except InvalidRoomId as error:
        socket.close(*Close.BAD_ROOM.because(str(error)))
    except WorkflowNotFound as error:
        socket.close(*Close.NOT_FOUND.because(str(error)))
    except TooManyRooms as error:
        socket.close(*Close.BUSY.because(error.reason))
    except RoomUnavailable as error:
        socket.close(*Close.TRY_AGAIN.because(error.reason))
    except TimeoutError:
        socket.close(*Close.TRY_AGAIN.because("the canvas takes too long to open"))
    except (SQLAlchemyError, OSError):
        socket.close(*Close.TRY_AGAIN.because("the database does not answer"))


async def _open(websocket: WebSocket, caller: Caller, stack: AsyncExitStack) -> Room:
    services: Services = websocket.app.state.services
    room_id = websocket.path_params["room"]
    if not caller.may(Role.EDITOR):
        # To open a room is to make a workflow, which is for those who may edit.
        await services.require(room_id)
    return await stack.enter_async_context(services.rooms.use(room_id))


async def _stay(websocket: WebSocket, guest: Guest, socket: RoomSocket, room: Room) -> None:
    services: Services = websocket.app.state.services
    caller, metrics = guest.caller, services.metrics
    looks_only = not caller.may(Role.EDITOR)
    peer = room.enter(
        socket,
        read_only=looks_only,
        person=caller.person(),
        refused=metrics.refused,
        receipt=services.rooms.receipt(room.id) if _wants_receipt(websocket) else None,
    )
    socket.attach(room, peer)
    socket.meter(guest.visit.meter, metrics.rate_limited)
    session = Session(websocket.app.state.access, guest, room.id, peer, metrics.websocket_refused)
    try:
        while (message := await websocket.receive())["type"] != "websocket.disconnect":
            take_message(room, peer, message)
            await socket.pace(len(message.get("bytes") or b""))
    finally:
        session.end()
        room.leave(peer)
