import asyncio
import weakref
from collections.abc import Mapping
from typing import Any

import pytest
import sqlalchemy as sa
from pycrdt import Doc, Map
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncEngine

from crdt import canvas
from crdt.bus import MemoryBus, MemoryHub
from crdt.canvas import CanvasDoc
from crdt.catalog import Catalog
from crdt.errors import InvalidRoomId, RoomUnavailable
from crdt.json import Json
from crdt.loading import document_of
from crdt.mirroring import SLICE
from crdt.room import KEEPER_BASE, Origin, Room
from crdt.rooms import RoomLimits, Rooms
from crdt.store import SqlStore
from crdt.tables import document_updates, documents, workflow_nodes
from tests.crdt.builders import Client, running_rooms
from tests.crdt.faulty import FaultyStore

QUICK = RoomLimits(grace_s=0.0, mirror_after_s=0.0, tick_s=60.0)


def node_ids(flow: Any) -> list[str]:
    return [node["id"] for node in flow["nodes"]]


class Listener:
    """Notes what it is told; `opened` is set once a room was opened."""

    def __init__(self) -> None:
        self.changed: list[tuple[frozenset[str], bool]] = []
        self.hints: list[str] = []
        self.progress: list[Mapping[str, Json]] = []
        self.closed = asyncio.Event()

    async def room_opened(self, room: Room) -> None:
        await asyncio.sleep(0)

    def room_changed(self, room: Room, nodes: frozenset[str], server: bool) -> None:  # noqa: FBT001
        self.changed.append((nodes, server))

    def room_hinted(self, room: Room, run_id: str) -> None:
        self.hints.append(run_id)

    def room_progress(self, room: Room, payload: Mapping[str, Json]) -> None:
        self.progress.append(payload)

    def room_truth(self, room: Room, node_id: str) -> Mapping[str, Json] | None:
        return None

    def room_closed(self, room_id: str) -> None:
        self.closed.set()


async def test_a_restart_brings_everything_back(engine: AsyncEngine) -> None:
    async with running_rooms(engine) as rooms, rooms.use("r") as room:
        client = Client(room)
        client.add_node("n", prompt="fox")
        before = client.flow()
    async with running_rooms(engine, process_id="p2") as rooms, rooms.use("r") as room:
        assert canvas.read_flow(room.doc) == before
        assert room.doc.client_id == KEEPER_BASE + 2


async def test_what_was_committed_survives_a_process_that_never_stopped(engine: AsyncEngine) -> None:
    async with running_rooms(engine) as rooms, rooms.use("r") as room:
        Client(room).add_node("n", prompt="fox")
        await rooms.journal.flushed("r")
        loaded = await SqlStore(engine, "other").load("r")
    assert loaded is not None
    doc: CanvasDoc = Doc()
    for update in loaded.updates:
        doc.apply_update(update)
    assert canvas.node_ids(doc) == ["n"]


async def test_a_flush_puts_the_canvas_into_the_mirror(engine: AsyncEngine) -> None:
    async with running_rooms(engine) as rooms, rooms.use("r") as room:
        with room.transact() as doc:
            canvas.add_node(doc, {"id": "a", "position": {"x": 1, "y": 2}, "data": {"prompt": "fox"}})
            canvas.add_node(doc, {"id": "b"})
            canvas.add_edge(doc, {"id": "e", "source": "a", "target": "b"})
        await rooms.flush("r")
        flow = await Catalog(engine, SqlStore(engine, "p1")).read_flow("r")
        assert flow is not None
        assert flow["nodes"] == canvas.read_flow(room.doc)["nodes"]
        assert flow["edges"] == canvas.read_flow(room.doc)["edges"]


async def test_a_room_is_loaded_once_however_many_ask(engine: AsyncEngine) -> None:
    async with running_rooms(engine) as rooms:
        opened = await asyncio.gather(*(rooms.open("r") for _ in range(20)))
        assert len({id(room) for room in opened}) == 1
        assert opened[0].fence == 1


@pytest.mark.parametrize("name", ["", "..", "a/b", "a%2Fb", "a*", "a:b", "a\x00", "x" * 129, "-a", "ä"])
async def test_a_hostile_room_name_is_refused(sqlite_engine: AsyncEngine, name: str) -> None:
    async with running_rooms(sqlite_engine) as rooms:
        with pytest.raises(InvalidRoomId):
            await rooms.open(name)


async def test_an_empty_room_is_stored_trimmed_and_let_go(engine: AsyncEngine) -> None:
    listener = Listener()
    async with running_rooms(engine, limits=QUICK) as rooms:
        rooms.listener = listener
        async with rooms.use("r") as room:
            Client(room).add_node("n")
            room.peers.clear()
        async with asyncio.timeout(10):
            await listener.closed.wait()
        room = await rooms.open("r")
        assert canvas.node_ids(room.doc) == ["n"]
        assert room.fence == 2
        async with engine.connect() as connection:
            rows = sa.select(sa.func.count()).select_from(document_updates)
            assert (await connection.execute(rows)).scalar_one() == 0


async def test_closing_and_opening_at_the_same_time_never_serves_a_stale_room(sqlite_engine: AsyncEngine) -> None:
    async with running_rooms(sqlite_engine, limits=QUICK) as rooms:
        for number in range(60):
            async with rooms.use("r") as room:
                with room.transact() as doc:
                    canvas.add_node(doc, {"id": f"n{number:03}"})
                assert len(canvas.node_ids(doc)) == number + 1
            if number % 3:
                await asyncio.sleep(0)


async def test_a_log_that_grows_is_folded_into_a_snapshot(engine: AsyncEngine) -> None:
    async with (
        running_rooms(engine, limits=RoomLimits(snapshot_rows=2, mirror_after_s=0)) as rooms,
        rooms.use("r") as room,
    ):
        for number in range(6):
            with room.transact() as doc:
                canvas.add_node(doc, {"id": f"n{number}"})
            await rooms.journal.flushed("r")
    async with engine.connect() as connection:
        row = (await connection.execute(sa.select(documents))).one()
    assert row.snapshot is not None
    assert row.snapshot_seq == row.seq
    assert row.keeper is None


class FailingStore(SqlStore):
    """A store that refuses until told otherwise."""

    down = False

    async def append(self, updates: Mapping[str, object]) -> dict[str, int]:
        self._check()
        return await super().append(updates)  # type: ignore[arg-type]

    async def load(self, room: str, after: int = 0) -> object:  # type: ignore[override]
        self._check()
        return await super().load(room, after)

    def _check(self) -> None:
        if self.down:
            raise OperationalError("down", None, OSError("down"))


async def test_a_store_that_fails_loses_nothing_once_it_is_back(sqlite_engine: AsyncEngine) -> None:
    store = FailingStore(sqlite_engine, "p1")
    rooms = Rooms(store, MemoryBus(), process_id="p1", limits=QUICK)
    await rooms.start()
    async with rooms.use("r") as room:
        store.down = True
        Client(room).add_node("n")
        room.peers.clear()
        flushed = asyncio.create_task(rooms.journal.flushed("r"))
        with pytest.raises(RoomUnavailable):
            await rooms.open("cold")
        assert not flushed.done()
        store.down = False
        async with asyncio.timeout(10):
            await flushed
    await rooms.stop()
    loaded = await SqlStore(sqlite_engine, "p2").load("r")
    assert loaded is not None
    assert loaded.snapshot is not None


async def test_two_processes_on_one_room_see_each_others_edits(engine: AsyncEngine) -> None:
    hub = MemoryHub()
    async with (
        running_rooms(engine, process_id="p1", hub=hub) as first,
        running_rooms(engine, process_id="p2", hub=hub) as second,
    ):
        async with first.use("r") as a, second.use("r") as b:
            Client(a).add_node("n")
            await first.journal.flushed("r")
            assert canvas.node_ids(b.doc) == ["n"]
            assert b.cursor == a.cursor
            Client(b).add_node("m")
            await second.journal.flushed("r")
            assert canvas.node_ids(a.doc) == ["m", "n"]


async def test_what_the_bus_dropped_is_read_from_sql_by_the_tick(engine: AsyncEngine) -> None:
    async with running_rooms(engine, process_id="p1") as first, running_rooms(engine, process_id="p2") as second:
        async with first.use("r") as a, second.use("r") as b:
            Client(a).add_node("n")
            await first.journal.flushed("r")
            assert canvas.node_ids(b.doc) == []
            await second.tick()
            assert canvas.node_ids(b.doc) == ["n"]
            assert b.cursor == a.cursor


async def test_hints_and_progress_reach_the_keeper(sqlite_engine: AsyncEngine) -> None:
    listener = Listener()
    async with running_rooms(sqlite_engine) as rooms:
        rooms.listener = listener
        async with rooms.use("r"):
            rooms.hint("r", "run_1")
            rooms.report("r", {"runId": "run_1", "progress": 0.5})
            rooms.hint("closed", "run_2")
    assert listener.hints == ["run_1"]
    assert listener.progress == [{"runId": "run_1", "progress": 0.5}]


async def test_a_keeper_whose_fence_was_raised_stops_keeping(engine: AsyncEngine) -> None:
    async with running_rooms(engine) as rooms, rooms.use("r") as room:
        async with engine.begin() as connection:
            await connection.execute(sa.update(documents).values(fence=9))
        await rooms.tick()
        assert room.fence == 10
        assert room.doc.client_id == KEEPER_BASE + 10


async def test_a_mirror_that_fell_behind_in_a_crash_is_written_anew_at_open(engine: AsyncEngine) -> None:
    store = SqlStore(engine, "killed")
    await store.ensure("r")
    doc: CanvasDoc = Doc(client_id=4)
    canvas.nodes_of(doc)["n"] = Map({"data": Map({"prompt": "fox"})})
    await store.append({"r": [doc.get_update()]})
    async with running_rooms(engine) as rooms, rooms.use("r"):
        await rooms.flush("r")
        flow = await Catalog(engine, store).read_flow("r")
    assert flow is not None
    assert node_ids(flow) == ["n"]


async def test_plain_nodes_are_nested_before_the_room_is_served(engine: AsyncEngine) -> None:
    store = SqlStore(engine, "old")
    await store.ensure("r")
    doc: CanvasDoc = Doc(client_id=4)
    canvas.nodes_of(doc)["n"] = {"type": "image", "position": {"x": 1, "y": 1}, "data": {"prompt": "fox"}}
    await store.append({"r": [doc.get_update()]})
    async with running_rooms(engine) as rooms, rooms.use("r") as room:
        assert isinstance(canvas.nodes_of(room.doc)["n"]["data"], Map)


async def test_an_update_from_sql_is_not_stored_again(engine: AsyncEngine) -> None:
    async with running_rooms(engine) as rooms, rooms.use("r") as room:
        other: CanvasDoc = Doc(client_id=4)
        canvas.nodes_of(other)["n"] = Map({"data": Map()})
        room.apply(other.get_update(), Origin.LOAD)
        assert not rooms.journal.holds("r")


async def test_a_change_made_while_a_large_canvas_is_mirrored_is_mirrored_as_well(sqlite_engine: AsyncEngine) -> None:
    async with running_rooms(sqlite_engine) as rooms, rooms.use("r") as room:
        with room.transact() as doc:
            for number in range(2 * SLICE + 1):
                canvas.nodes_of(doc)[f"n{number}"] = Map({"data": Map({"prompt": "fox"})})
        await rooms.journal.flushed("r")
        mirroring = asyncio.create_task(rooms.flush("r"))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        with room.transact() as doc:
            for number in range(2 * SLICE + 1):
                canvas.nodes_of(doc)[f"n{number}"]["data"]["prompt"] = "owl"
        await mirroring
        await rooms.flush("r")
        async with sqlite_engine.connect() as connection:
            stored = (await connection.execute(sa.select(workflow_nodes.c.node_data))).scalars().all()
        assert [data["prompt"] for data in stored] == ["owl"] * (2 * SLICE + 1)


async def test_a_room_that_is_let_go_is_freed(sqlite_engine: AsyncEngine) -> None:
    async with running_rooms(sqlite_engine, limits=QUICK) as rooms:
        listener = Listener()
        rooms.listener = listener
        async with rooms.use("r") as room:
            Client(room).add_node("n")
            freed = asyncio.Event()
            weakref.finalize(room, freed.set)
            for peer in tuple(room.peers):
                room.leave(peer)
        del room, peer
        await listener.closed.wait()
        async with asyncio.timeout(10):
            await freed.wait()


async def test_a_snapshot_holds_nothing_that_the_log_may_never_get(engine: AsyncEngine) -> None:
    """Somebody may be killed with an edit on its way: who reads the log behind the snapshot must miss nothing."""
    store = FaultyStore(engine, "p1")
    rooms = Rooms(store, MemoryBus(), process_id="p1")
    await rooms.start()
    room = await rooms.open("r")
    client = Client(room)
    client.add_node("committed")
    await rooms.flush("r")
    store.faults.failing.add("append")
    client.add_node("on its way")
    await rooms._keeping.snapshot(rooms._entries["r"])
    loaded = await SqlStore(engine, "reader").load("r")
    assert loaded is not None
    assert loaded.snapshot is not None
    assert canvas.node_ids(document_of([loaded.snapshot, *loaded.updates], 1)) == ["committed"]
    store.faults.end()
    await rooms.stop()
