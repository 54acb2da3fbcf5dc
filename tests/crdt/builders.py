"""Peers, sockets and stores for the tests of the shared document."""

import itertools
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from pycrdt import Doc, Map
from sqlalchemy.ext.asyncio import AsyncEngine

from crdt import canvas, protocol
from crdt.bus import MemoryBus, MemoryHub
from crdt.canvas import CanvasDoc
from crdt.database import create_engine
from crdt.json import Json
from crdt.peer import Peer
from crdt.room import Room
from crdt.rooms import RoomLimits, Rooms
from crdt.store import SqlStore
from crdt.tables import metadata
from crdt.watch import Touched

_ids = itertools.count(1000)


class RecordingSocket:
    """Keeps what a room writes to it."""

    def __init__(self) -> None:
        self.messages: list[bytes] = []
        self.writes = 0
        self.closed: tuple[int, str] | None = None

    def write(self, frames: bytes) -> None:
        self.writes += 1
        self.messages.extend(protocol.split_frames(frames))

    def close(self, code: int, reason: str) -> None:
        self.closed = self.closed or (code, reason)

    def take(self) -> list[protocol.Message]:
        """The messages written since the last call."""
        messages = [parsed for message in self.messages for parsed in protocol.parse(message)]
        self.messages.clear()
        return messages


class Client:
    """A y-protocol peer around a document of its own, attached to a room without a wire."""

    def __init__(self, room: Room, **options: Any) -> None:
        self.doc: CanvasDoc = Doc(client_id=next(_ids))
        self.socket = RecordingSocket()
        self.room = room
        self._sent = self.doc.get_state()
        self.peer: Peer = room.enter(self.socket, **options)
        room.receive(self.peer, protocol.step1_message(self.doc.get_state()))
        self.pull()

    def pull(self) -> list[protocol.Message]:
        """Apply what the room wrote, answering its questions; returns the messages."""
        messages = self.socket.take()
        for message in messages:
            if isinstance(message, protocol.SyncUpdate):
                self.doc.apply_update(message.update)
            elif isinstance(message, protocol.SyncStep1):
                answer = self.doc.get_update(message.state_vector)
                self.room.receive(self.peer, protocol.step2_message(answer))
        return messages

    def push(self) -> bytes:
        """Send what was edited since the last push; returns the update."""
        update = self.doc.get_update(self._sent)
        self._sent = self.doc.get_state()
        self.room.receive(self.peer, protocol.update_message(update))
        return update

    def sync(self) -> None:
        """Both ways, with the turn of the room ended."""
        self.push()
        self.room.flush()
        self.pull()

    def add_node(self, node_id: str, **data: Json) -> None:
        with self.doc.transaction():
            canvas.nodes_of(self.doc)[node_id] = Map(
                {"type": "image", "position": {"x": 0, "y": 0}, "data": Map(dict(data))}
            )
        self.sync()

    def flow(self) -> Mapping[str, Json]:
        return canvas.read_flow(self.doc)


class Recorder:
    """What a room told its owner."""

    def __init__(self) -> None:
        self.stored: list[bytes] = []
        self.touched: list[Touched] = []

    def room(self, *state: bytes, room_id: str = "r", client_id: int = 1) -> Room:
        return Room(
            room_id,
            list(state),
            client_id=client_id,
            stored=lambda _room, update: self.stored.append(update),
            changed=lambda _room, touched: self.touched.append(touched),
        )


def awareness(client_id: int, clock: int, state: str) -> bytes:
    return protocol.awareness_message([protocol.AwarenessEntry(client_id, clock, state)])


@asynccontextmanager
async def database(url: str) -> AsyncIterator[AsyncEngine]:
    """An engine on a fresh schema."""
    engine = create_engine(url)
    async with engine.begin() as connection:
        await connection.run_sync(metadata.create_all)
    try:
        yield engine
    finally:
        await engine.dispose()


@asynccontextmanager
async def running_rooms(
    engine: AsyncEngine, *, process_id: str = "p1", hub: MemoryHub | None = None, limits: RoomLimits | None = None
) -> AsyncIterator[Rooms]:
    """Rooms of one process, started and stopped."""
    rooms = Rooms(SqlStore(engine, process_id), MemoryBus(hub), process_id=process_id, limits=limits)
    await rooms.start()
    try:
        yield rooms
    finally:
        await rooms.stop()
