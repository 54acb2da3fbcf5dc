"""Durable acknowledgement: a peer that asked is told of what is committed, of all of it, and of nothing else."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import pytest
from pycrdt import Map
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncEngine

from crdt import canvas, protocol
from crdt.bus import MemoryBus
from crdt.protocol import Durable, Permission
from crdt.receipts import Receipt
from crdt.room import Room
from crdt.rooms import RoomLimits, Rooms
from crdt.store import SqlStore
from tests.crdt.builders import Client, Recorder, RecordingSocket

PATIENT = RoomLimits(tick_s=60.0)


class GatedStore(SqlStore):
    """Commits when it is let: each round is `await store.reached()`, then `store.let()`."""

    def __init__(self, engine: AsyncEngine) -> None:
        super().__init__(engine, "p1")
        self._asked = asyncio.Semaphore(0)
        self._may = asyncio.Semaphore(0)
        self._failures = 0

    async def append(self, updates: Mapping[str, Sequence[bytes]]) -> dict[str, int]:
        self._asked.release()
        await self._may.acquire()
        if self._failures:
            self._failures -= 1
            raise OperationalError("down", None, OSError("down"))
        return await super().append(updates)

    async def reached(self) -> None:
        async with asyncio.timeout(10):
            await self._asked.acquire()

    def let(self, *, fail: bool = False) -> None:
        self._failures += fail
        self._may.release()


class Asking:
    """A client that asked to be told."""

    def __init__(self, rooms: Rooms, room: Room, **options: Any) -> None:
        self.client = Client(room, receipt=rooms.receipt(room.id), **options)

    def look(self) -> list[int]:
        """What it was told since the last look."""
        return [message.count for message in self.client.pull() if isinstance(message, Durable)]


@pytest.fixture
async def store(sqlite_engine: AsyncEngine) -> GatedStore:
    return GatedStore(sqlite_engine)


@pytest.fixture
async def rooms(store: GatedStore) -> AsyncIterator[Rooms]:
    made = Rooms(store, MemoryBus(), process_id="p1", limits=PATIENT)
    await made.start()
    yield made
    for _ in range(20):
        store.let()
    await made.stop()


@pytest.fixture
async def room(rooms: Rooms) -> AsyncIterator[Room]:
    async with rooms.use("r") as opened:
        yield opened


async def committed(rooms: Rooms, store: GatedStore) -> None:
    """Let one commit through, and wait until nothing is pending."""
    await store.reached()
    store.let()
    await rooms.journal.flushed("r")


async def test_an_edit_is_acknowledged_once_it_is_committed_and_not_before(
    rooms: Rooms, room: Room, store: GatedStore, sqlite_engine: AsyncEngine
) -> None:
    asking = Asking(rooms, room)
    assert asking.look() == [1]  # What it holds before its first edit: nothing, which is durable.
    asking.client.add_node("n")
    await store.reached()
    assert asking.look() == []
    store.let()
    await rooms.journal.flushed("r")
    assert asking.look() == [2]
    loaded = await SqlStore(sqlite_engine, "p2").load("r")
    assert loaded is not None
    assert len(loaded.updates) == 1


async def test_an_edit_made_during_a_commit_waits_for_the_next(rooms: Rooms, room: Room, store: GatedStore) -> None:
    asking = Asking(rooms, room)
    asking.client.add_node("a")
    await store.reached()
    asking.client.add_node("b")
    asking.look()
    store.let()
    await store.reached()
    assert asking.look() == [2]
    store.let()
    await rooms.journal.flushed("r")
    assert asking.look() == [3]


async def test_one_commit_of_many_edits_is_one_message(rooms: Rooms, room: Room, store: GatedStore) -> None:
    asking = Asking(rooms, room)
    asking.look()
    for number in range(50):
        asking.client.add_node(f"n{number}")
    await committed(rooms, store)
    assert asking.look() == [51]


async def test_a_delete_is_acknowledged_as_any_edit(rooms: Rooms, room: Room, store: GatedStore) -> None:
    asking = Asking(rooms, room)
    asking.client.add_node("n")
    await committed(rooms, store)
    asking.look()
    vector = asking.client.doc.get_state()
    with asking.client.doc.transaction():
        del canvas.nodes_of(asking.client.doc)["n"]
    assert asking.client.doc.get_state() == vector
    asking.client.push()
    await store.reached()
    assert asking.look() == []
    store.let()
    await rooms.journal.flushed("r")
    assert asking.look() == [3]


async def test_an_edit_that_is_stored_already_is_acknowledged_at_once(
    rooms: Rooms, room: Room, store: GatedStore
) -> None:
    other = Client(room)
    other.add_node("n")
    await committed(rooms, store)
    asking = Asking(rooms, room)
    asking.look()
    room.receive(asking.client.peer, protocol.update_message(other.doc.get_update()))
    assert asking.look() == [2]


async def test_repeating_what_is_not_committed_yet_is_not_acknowledged(
    rooms: Rooms, room: Room, store: GatedStore
) -> None:
    """A client that lost its connection sends again what the room holds, but SQL does not."""
    first = Asking(rooms, room)
    first.client.add_node("n")
    await store.reached()
    room.leave(first.client.peer)
    again = Asking(rooms, room)
    room.receive(again.client.peer, protocol.update_message(first.client.doc.get_update()))
    assert again.look() == []
    store.let()
    await rooms.journal.flushed("r")
    assert again.look() == [2]


async def test_while_the_database_fails_nothing_is_acknowledged(rooms: Rooms, room: Room, store: GatedStore) -> None:
    asking = Asking(rooms, room)
    asking.look()
    asking.client.add_node("n")
    for _ in range(2):
        await store.reached()
        store.let(fail=True)
    await store.reached()
    assert asking.look() == []
    store.let()
    await rooms.journal.flushed("r")
    assert asking.look() == [2]


async def test_a_refused_edit_is_never_acknowledged_nor_what_follows_it(
    rooms: Rooms, room: Room, store: GatedStore
) -> None:
    viewer = Asking(rooms, room, read_only=True)
    assert viewer.look() == [1]  # Its step 2, which brings nothing.
    viewer.client.add_node("n")
    room.receive(viewer.client.peer, protocol.update_message(protocol.EMPTY_UPDATE))
    Client(room).add_node("m")
    await committed(rooms, store)
    assert viewer.look() == []


@pytest.mark.parametrize("read_only", [False, True])
async def test_a_peer_that_asks_is_told_whether_it_may_edit(rooms: Rooms, room: Room, *, read_only: bool) -> None:
    socket = RecordingSocket()
    room.enter(socket, read_only=read_only, receipt=rooms.receipt("r"))
    assert socket.take()[1:] == [Permission(may_edit=not read_only), Durable(0)]


async def test_a_peer_that_did_not_ask_is_told_nothing(rooms: Rooms, room: Room, store: GatedStore) -> None:
    silent = Client(room)
    silent.add_node("n")
    await committed(rooms, store)
    assert silent.socket.messages == []


async def test_a_peer_that_is_behind_learns_it_when_it_reads_again(rooms: Rooms, room: Room, store: GatedStore) -> None:
    asking = Asking(rooms, room)
    asking.client.add_node("n")
    asking.look()
    room.on_full(asking.client.peer)
    await committed(rooms, store)
    assert asking.client.socket.messages == []
    room.on_drained(asking.client.peer)
    assert asking.look() == [2]


async def test_nothing_is_written_to_a_peer_that_left(rooms: Rooms, room: Room, store: GatedStore) -> None:
    asking = Asking(rooms, room)
    asking.client.add_node("n")
    asking.look()
    room.leave(asking.client.peer)
    await committed(rooms, store)
    assert asking.client.socket.messages == []
    receipt = asking.client.peer.receipt
    assert receipt is not None
    assert receipt.tell is None  # Nor does it keep the room.


async def test_a_room_that_was_let_go_acknowledges_nothing() -> None:
    room = Recorder().room()
    receipt = Receipt(lambda receipt: receipt.confirm(receipt.taken))
    client = Client(room, receipt=receipt)
    room.dispose()
    with client.doc.transaction():
        canvas.nodes_of(client.doc)["n"] = Map({})
    client.push()
    assert receipt.durable == 1
