"""Rooms whose database is slow, fails or was left half way: nothing is lost, doubled or served stale."""

import asyncio
import random
import weakref
from collections.abc import AsyncIterator, Callable

import pytest
import sqlalchemy as sa
from pycrdt import Map
from sqlalchemy.ext.asyncio import AsyncEngine

from crdt import canvas, protocol
from crdt.bus import MemoryBus
from crdt.catalog import Catalog
from crdt.close_codes import Close
from crdt.errors import RoomUnavailable
from crdt.journal import MAX_PENDING_BYTES
from crdt.room import Origin, Room
from crdt.rooms import RoomLimits, Rooms
from crdt.store import SqlStore
from crdt.tables import documents
from tests.crdt.builders import Client, Recorder, RecordingSocket, database, running_rooms
from tests.crdt.faulty import FaultyStore
from tests.crdt.people import Person, content, turns
from tests.support.fast_clock import FastLoop

QUICK = RoomLimits(grace_s=0.0, mirror_after_s=0.0, tick_s=3600.0)


@pytest.fixture
async def store(engine: AsyncEngine) -> FaultyStore:
    return FaultyStore(engine, "p1")


@pytest.fixture
async def rooms(store: FaultyStore) -> AsyncIterator[Rooms]:
    made = Rooms(store, MemoryBus(), process_id="p1", limits=QUICK)
    await made.start()
    yield made
    store.faults.end()
    await made.stop()


async def turns_until(wanted: Callable[[], bool]) -> None:
    """Let the loop turn until a condition holds."""
    async with asyncio.timeout(10):
        while not wanted():
            await turns(1)


async def fill(engine: AsyncEngine) -> None:
    """A canvas with one node, stored by a process that is gone."""
    async with running_rooms(engine, process_id="before") as rooms, rooms.use("r") as room:
        Client(room).add_node("old")


async def test_two_people_who_enter_a_cold_room_at_once_see_everything_and_it_is_loaded_once(
    engine: AsyncEngine, store: FaultyStore, rooms: Rooms
) -> None:
    await fill(engine)
    store.faults.hold("load")
    entering = [asyncio.create_task(rooms.open("r")) for _ in range(2)]
    await turns_until(lambda: store.loads > 0)
    assert not any(task.done() for task in entering)
    store.faults.end()
    first, second = await asyncio.gather(*entering)
    assert first is second
    assert [canvas.node_ids(Client(room).doc) for room in (first, second)] == [["old"], ["old"]]
    assert store.loads == 1


async def test_a_room_that_cannot_be_loaded_is_refused_and_its_rows_stay_as_they_are(
    engine: AsyncEngine, store: FaultyStore, rooms: Rooms
) -> None:
    await fill(engine)

    async def stored() -> object:
        async with engine.connect() as connection:
            columns = (documents.c.seq, documents.c.snapshot_seq, documents.c.snapshot)
            return (await connection.execute(sa.select(*columns))).one()

    before = await stored()
    for call in ("take", "load"):
        store.faults.failing = {call}
        with pytest.raises(RoomUnavailable):
            await rooms.open("r")
        assert rooms.all_open() == []
        assert await stored() == before
    store.faults.end()
    assert canvas.node_ids((await rooms.open("r")).doc) == ["old"]


async def test_what_could_not_be_stored_when_the_last_person_left_is_there_for_the_next(
    store: FaultyStore, rooms: Rooms
) -> None:
    store.faults.failing = {"append", "snapshot", "mirror"}
    async with rooms.use("r") as room:
        client = Client(room)
        client.add_node("n")
        room.leave(client.peer)
    async with rooms.use("r") as room:
        assert canvas.node_ids(Client(room).doc) == ["n"]
        room.peers.clear()
        store.faults.end()
        await rooms.flush("r")
    loaded = await store.load("r")
    assert loaded is not None
    assert loaded.seq == 1


async def test_edits_that_nobody_can_store_are_refused_before_they_fill_the_memory(
    store: FaultyStore, rooms: Rooms
) -> None:
    store.faults.hold("append")
    async with rooms.use("r") as room:
        writer, watcher = Client(room), Client(room)
        rooms.journal.pending_bytes += MAX_PENDING_BYTES  # As if that much was waiting for the database already.
        for number in range(3):
            canvas.nodes_of(writer.doc)[f"n{number}"] = Map({"data": Map()})
            writer.push()
        for client in (writer, watcher):
            assert client.socket.closed is not None
            assert client.socket.closed[0] == Close.TRY_AGAIN.code
        with pytest.raises(RoomUnavailable):
            await rooms.open("r")
        room.peers.clear()
        rooms.journal.pending_bytes -= MAX_PENDING_BYTES
        store.faults.end()
        await rooms.flush("r")
    async with rooms.use("r") as room:
        assert len(canvas.node_ids(room.doc)) == 3


def test_leaving_and_entering_while_stores_are_slow_never_meets_a_stale_or_dead_room(sqlite_url: str) -> None:
    """On a clock that runs fast: each call takes 100 ms, people are away for up to 50 ms."""
    rounds, chance = 100, random.Random(7)  # noqa: S311 - the same every time

    async def come_and_go() -> None:
        living: weakref.WeakSet[Room] = weakref.WeakSet()
        async with database(sqlite_url) as engine:
            store = FaultyStore(engine, "p1")
            store.faults.slow_s = 0.1
            limits = RoomLimits(grace_s=0.0, mirror_after_s=0.0, stop_s=600.0)
            rooms = Rooms(store, MemoryBus(), process_id="p1", limits=limits)
            await rooms.start()
            for number in range(rounds):
                async with rooms.use("r") as room:
                    living.add(room)
                    assert [one for one in living if one._watch is not None] == [room]
                    client = Client(room)
                    assert len(canvas.node_ids(client.doc)) == number
                    client.add_node(f"n{number}")
                    room.leave(client.peer)
                del room, client
                await asyncio.sleep(chance.choice([0, 0.01, 0.03, 0.05, 4.0]))
            await rooms.stop()
            assert store.loads > rounds / 10
            loaded = await store.load("r")
            assert loaded is not None
            assert loaded.snapshot is not None

    with asyncio.Runner(loop_factory=FastLoop) as runner:
        runner.run(come_and_go())


async def test_rows_of_an_edit_that_a_crash_took_back_go_with_it(
    engine: AsyncEngine, store: FaultyStore, rooms: Rooms
) -> None:
    store.faults.hold("append")
    room = await rooms.open("r")
    with room.transact() as doc:
        canvas.add_node(doc, {"id": "never stored"})
    await rooms._keeping.mirror(rooms._entries["r"])
    catalog = Catalog(engine, store)
    assert [node["id"] for node in await nodes(catalog)] == ["never stored"]
    async with engine.begin() as connection:
        await connection.execute(sa.update(documents).values(keeper=None))
    async with running_rooms(engine, process_id="after the crash") as others, others.use("r"):
        await others.flush("r")
        assert await nodes(catalog) == []


async def nodes(catalog: Catalog) -> list[dict[str, object]]:
    flow = await catalog.read_flow("r")
    assert flow is not None
    return flow["nodes"]  # type: ignore[return-value]


async def test_everybody_is_asked_once_for_what_an_update_hangs_on(rooms: Rooms) -> None:
    room = await rooms.open("r")
    author, witness = Person(5), RecordingSocket()
    viewer, asked = RecordingSocket(), RecordingSocket()
    room.enter(viewer, read_only=True)
    room.enter(asked)
    author.edit(lambda doc: canvas.nodes_of(doc).update({"n": Map({"data": Map()})}))
    before = author.doc.get_state()
    author.edit(lambda doc: canvas.nodes_of(doc)["n"]["data"].update({"label": "child"}))
    peer = room.enter(witness)
    room.receive(peer, protocol.update_message(author.doc.get_update(before)))
    for socket in (viewer, asked, witness):
        socket.take()
    await rooms.tick()
    await rooms.tick()
    questions = [[m for m in socket.take() if isinstance(m, protocol.SyncStep1)] for socket in (asked, witness, viewer)]
    assert [len(each) for each in questions] == [1, 1, 0]
    room.receive(peer, protocol.step2_message(author.doc.get_update(questions[0][0].state_vector)))
    assert content(room.doc) == author.content()
    author.forget()
    room.peers.clear()


async def test_edits_of_two_people_that_wait_for_a_third_are_all_taken_in(rooms: Rooms) -> None:
    """yrs forgets those of one of them when what they hang on arrives."""
    room = await rooms.open("r")
    watcher, first, second = Client(room), Person(5), Person(6)
    emitted: list[bytes] = []
    first.forget()
    watch = first.doc.observe(lambda event: emitted.append(event.update))
    canvas.nodes_of(first.doc)["n"] = Map({"data": Map()})
    second.apply(first.doc.get_update())
    before = second.doc.get_state()
    canvas.nodes_of(second.doc)["n"]["data"]["label"] = "second"
    canvas.nodes_of(first.doc)["m"] = Map({"data": Map()})
    peer = room.enter(RecordingSocket())
    parents, late = emitted[:-1], emitted[-1]
    for update in (second.doc.get_update(before), late, *parents):
        room.receive(peer, protocol.update_message(update))
    room.flush()
    watcher.pull()
    for name, doc in (("room", room.doc), ("watcher", watcher.doc), ("restarted", Recorder().room(room.state()).doc)):
        assert (name, content(doc)[0]) == (name, {"n": {"data": {"label": "second"}}, "m": {"data": {}}})
    watch.drop()
    second.forget()
    room.peers.clear()


async def test_a_deletion_that_comes_before_what_it_deletes_is_stored_and_told_once(rooms: Rooms) -> None:
    room = await rooms.open("r")
    watcher, author, remover = Client(room), Person(5), Person(6)
    canvas.nodes_of(author.doc)["n"] = Map({"data": Map()})
    created = author.doc.get_update()
    remover.apply(created)
    before = remover.doc.get_state()
    del canvas.nodes_of(remover.doc)["n"]
    removed = remover.doc.get_update(before)
    assert [room.apply(update, Origin.PEER) for update in (removed, removed, created)] == [True, False, True]
    room.flush()
    watcher.pull()
    await rooms.flush("r")
    loaded = await SqlStore(rooms._store._engine, "auditor").load("r")
    assert loaded is not None
    for doc in (room.doc, watcher.doc, Recorder().room(*loaded.updates).doc):
        assert canvas.node_ids(doc) == []
    for person in (author, remover):
        person.forget()
    room.peers.clear()


async def test_a_part_of_an_update_that_waits_survives_a_snapshot(rooms: Rooms) -> None:
    room = await rooms.open("r")
    author, other = Person(5), Person(6)
    canvas.nodes_of(author.doc)["n"] = Map({"data": Map()})
    parent = author.doc.get_update()
    other.apply(parent)
    before = other.doc.get_state()
    with other.doc.transaction():
        canvas.meta_of(other.doc)["title"] = "applied at once"
        canvas.nodes_of(other.doc)["n"]["data"]["label"] = "waits"
    room.apply(other.doc.get_update(before), Origin.PEER)
    joiner = Client(room)
    restarted = Recorder().room(room.state())
    for one in (room, restarted):
        one.apply(parent, Origin.PEER)
    room.flush()
    joiner.pull()
    for doc in (room.doc, restarted.doc, joiner.doc):
        assert content(doc) == other.content()
    for person in (author, other):
        person.forget()
    room.peers.clear()
