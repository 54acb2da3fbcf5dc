"""Pages of people around a real room, on yjs or pycrdt, that go offline, stay away and come back."""

import asyncio
import datetime as dt
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine

from crdt import protocol
from crdt.bus import MemoryBus, MemoryHub
from crdt.growth import GrowthLimits
from crdt.guard import HEAL_BASE
from crdt.peer import Peer
from crdt.protocol import SyncStep1, SyncUpdate
from crdt.room import Room
from crdt.rooms import RoomLimits, Rooms
from crdt.store import SqlStore
from crdt.tables import document_archives, documents
from crdt.update import decode_vector
from tests.crdt.builders import RecordingSocket
from tests.crdt.compaction_peers import Edit, Replica, as_json

NOW = dt.timedelta(0)
AT_ONCE = GrowthLimits(window=NOW, note_every=NOW, gap=NOW, at_latest=NOW, look_every_s=0.0)
"""Everything written up to now may be retired, whenever the room is looked at."""
LIMITS = RoomLimits(grace_s=60.0, mirror_after_s=0.0, tick_s=600.0, growth=AT_ONCE)
EARLY, LATE = 100, 2**31
"""Client ids: of two who write at once the larger one wins."""


class Page:
    """One person's document, online with `connect` and offline after `leave`."""

    def __init__(self, replica: Replica) -> None:
        self.replica = replica
        self.socket = RecordingSocket()
        self.room: Room | None = None
        self.peer: Peer | None = None
        self._sent = replica.vector()

    def connect(self, room: Room, *, read_only: bool = False, answer: bool = True) -> "Page":
        """As a stock y-websocket client: say what we have, and answer when asked for what the other lacks."""
        self.room, self.socket = room, RecordingSocket()
        self.peer = room.enter(self.socket, read_only=read_only)
        room.receive(self.peer, protocol.step1_message(self.replica.vector()))
        if answer:
            self.pull()
        return self

    def leave(self) -> None:
        assert self.room is not None
        assert self.peer is not None
        self.room.leave(self.peer)
        self.room = self.peer = None

    def pull(self) -> None:
        """Apply what the room wrote, and answer its questions."""
        for message in self.socket.take():
            if isinstance(message, SyncUpdate):
                self.replica.apply(message.update)
            elif isinstance(message, SyncStep1):
                self.say(protocol.step2_message(self.replica.update(message.state_vector)))
        self._sent = self.replica.vector()

    def say(self, message: bytes) -> None:
        assert self.room is not None
        assert self.peer is not None
        self.room.receive(self.peer, message)

    def edit(self, edit: Edit) -> None:
        """Edit, and send the edit when online."""
        self.replica.edit(edit)
        if self.room is not None:
            self.push()

    def push(self) -> None:
        """Send what was edited since the last time."""
        self.say(protocol.update_message(self.replica.update(self._sent)))
        self._sent = self.replica.vector()

    async def hear(self) -> None:
        """Everything the room has to say to this page, late or not."""
        assert self.room is not None
        if self.room.late is not None:
            await self.room.late.settled()
        self.room.flush()
        self.pull()
        if self.room.late is not None:
            await self.room.late.settled()
        self.room.flush()
        self.pull()


def label(value: str, node: str = "n0") -> Edit:
    return Edit("set", node, "label", value)


def label_of(page: Page, node: str = "n0") -> object:
    return page.replica.json()["nodes"][node]["data"].get("label")


async def compact(rooms: Rooms, room: Room) -> None:
    """Look at the room; it has to be compacted by that."""
    doc = room.doc
    await rooms.growth.look(room)
    assert room.doc is not doc


async def agreed(room: Room, *pages: Page) -> None:
    """Every page shows what the room shows, and waits for nothing."""
    for _ in range(2):
        for page in pages:
            await page.hear()
    flow = as_json(room.doc)
    for page in pages:
        assert page.replica.json() == flow
        assert not page.replica.waits()


def heals_of(room: Room) -> list[int]:
    """The numbers of the heals in the document."""
    return sorted(client - HEAL_BASE for client in decode_vector(room.doc.get_state()) if client >= HEAL_BASE)


class Killed(Rooms):
    """Rooms of a process that will be killed."""

    async def kill(self) -> None:
        """End at once: nothing that is not committed remains."""
        self._stopping = True
        for entry in self._entries.values():
            entry.cancel_timers()
            if entry.room is not None:
                entry.room.dispose()
        await asyncio.sleep(0)  # What was begun in this turn starts, so that it can be ended.
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@asynccontextmanager
async def rooms_of(
    engine: AsyncEngine, process_id: str = "p1", *, limits: RoomLimits = LIMITS, hub: MemoryHub | None = None
) -> AsyncIterator[Rooms]:
    rooms = Rooms(SqlStore(engine, process_id), MemoryBus(hub), process_id=process_id, limits=limits)
    await rooms.start()
    try:
        yield rooms
    finally:
        await rooms.stop()


async def document_row(engine: AsyncEngine) -> sa.Row[tuple[object, ...]]:
    async with engine.connect() as connection:
        return (await connection.execute(sa.select(documents))).one()


async def archive_rows(engine: AsyncEngine) -> list[sa.Row[tuple[object, ...]]]:
    async with engine.connect() as connection:
        query = sa.select(document_archives).order_by(document_archives.c.number)
        return list(await connection.execute(query))
