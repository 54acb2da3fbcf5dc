import asyncio
from collections.abc import Mapping

import pytest
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncEngine

from crdt import protocol
from crdt.bus import MemoryBus, MemoryHub
from crdt.growth_store import GrowthStore
from crdt.json import Json
from crdt.protocol import PermissionDenied
from crdt.room import Room
from crdt.rooms import Rooms
from crdt.store import SqlStore
from tests.crdt.builders import Client, RecordingSocket
from tests.crdt.compaction_peers import Edit, PycrdtReplica, Replica, Yjs, as_json, node_value
from tests.crdt.growth_pages import (
    EARLY,
    LATE,
    LIMITS,
    Killed,
    Page,
    agreed,
    compact,
    document_row,
    heals_of,
    label,
    label_of,
    rooms_of,
)


class Scene:
    """Somebody was here and went away, somebody else wrote on, and everything up to now was retired."""

    def __init__(self, rooms: Rooms, room: Room, here: Page, gone: Page) -> None:
        self.rooms, self.room, self.here, self.gone = rooms, room, here, gone

    @classmethod
    async def set(
        cls, rooms: Rooms, yjs: Yjs, *, client: int = LATE, gone: Replica | None = None, retire: bool = True
    ) -> "Scene":
        room = await rooms.open("r")
        here = Page(yjs.replica(1000)).connect(room)
        here.edit(Edit("add", "n0", value=node_value(label="", prompt="fox")))
        here.edit(label("one"))
        away = Page(gone or yjs.replica(client)).connect(room)
        await away.hear()
        away.leave()
        scene = cls(rooms, room, here, away)
        scene.write("two", "three")
        if retire:
            await compact(rooms, room)
        return scene

    def write(self, *values: str) -> None:
        for value in values:
            self.here.edit(label(value))

    async def back(self, page: Page | None = None) -> None:
        """Who was gone comes back and is healed; everybody agrees, now and after both wrote again."""
        page = page or self.gone
        page.connect(self.room)
        await agreed(self.room, page, self.here)

    async def end(self, *pages: Page) -> None:
        """Everybody agrees, now and after everybody wrote again."""
        everybody = pages or (self.gone, self.here)
        await agreed(self.room, *everybody)
        for page in everybody:
            page.edit(label(f"again {id(page)}"))
            await agreed(self.room, *everybody)
            assert label_of(self.here) == f"again {id(page)}"


@pytest.mark.parametrize("client", [EARLY, LATE])
async def test_a_late_edit_is_kept_and_everybody_agrees(engine: AsyncEngine, client: int, yjs: Yjs) -> None:
    async with rooms_of(engine) as rooms:
        scene = await Scene.set(rooms, yjs, client=client)
        scene.gone.edit(label("offline"))
        scene.gone.edit(Edit("add", "n1", value=node_value(label="new", prompt="hare")))
        scene.gone.edit(Edit("type", "n0", value="a "))
        await scene.back()
        assert label_of(scene.here) == "offline"
        assert label_of(scene.here, "n1") == "new"
        assert scene.here.replica.json()["nodes"]["n0"]["data"]["prompt"] == "a fox"
        assert heals_of(scene.room) == [0]
        await scene.end()


@pytest.mark.parametrize("client", [EARLY, LATE])
async def test_without_healing_a_value_is_lost(sqlite_engine: AsyncEngine, client: int, yjs: Yjs) -> None:
    """The control: the same, with a room that merges a late client as any other."""
    async with rooms_of(sqlite_engine) as rooms:
        scene = await Scene.set(rooms, yjs, client=client)
        scene.gone.edit(label("offline"))
        scene.room.late = None
        scene.gone.connect(scene.room)
        await scene.here.hear()
        room_label = as_json(scene.room.doc)["nodes"]["n0"]["data"].get("label")
        assert {room_label, label_of(scene.here), label_of(scene.gone)} != {"offline"}


async def test_a_late_peer_on_pycrdt_is_healed_too(sqlite_engine: AsyncEngine, yjs: Yjs) -> None:
    async with rooms_of(sqlite_engine) as rooms:
        scene = await Scene.set(rooms, yjs, gone=PycrdtReplica(LATE))
        scene.gone.edit(label("offline"))
        await scene.back()
        assert label_of(scene.here) == "offline"
        await scene.end()


@pytest.mark.parametrize("client", [EARLY, LATE])
async def test_a_late_peer_that_wrote_nothing_takes_what_is_there(
    sqlite_engine: AsyncEngine, client: int, yjs: Yjs
) -> None:
    async with rooms_of(sqlite_engine) as rooms:
        scene = await Scene.set(rooms, yjs, client=client)
        await scene.back()
        assert label_of(scene.gone) == "three"
        await scene.end()


async def test_a_late_peer_is_told_nothing_before_it_is_healed(sqlite_engine: AsyncEngine, yjs: Yjs) -> None:
    async with rooms_of(sqlite_engine) as rooms:
        scene = await Scene.set(rooms, yjs)
        scene.gone.connect(scene.room, answer=False)
        told = scene.gone.socket.take()
        assert [type(message) for message in told] == [protocol.SyncStep1]


async def test_a_late_peer_that_never_says_what_it_has_is_healed_as_if_it_had_nothing(
    sqlite_engine: AsyncEngine, yjs: Yjs
) -> None:
    async with rooms_of(sqlite_engine) as rooms:
        scene = await Scene.set(rooms, yjs)
        assert scene.room.late is not None
        scene.room.late.step2_s = 0.0
        scene.gone.connect(scene.room, answer=False)
        scene.gone.socket.take()
        await agreed(scene.room, scene.gone, scene.here)
        assert label_of(scene.gone) == "three"


async def test_a_fresh_page_is_answered_at_once(sqlite_engine: AsyncEngine, yjs: Yjs) -> None:
    async with rooms_of(sqlite_engine) as rooms:
        scene = await Scene.set(rooms, yjs)
        fresh = Page(yjs.replica(5)).connect(scene.room)
        assert label_of(fresh) == "three"
        assert heals_of(scene.room) == []


async def test_two_late_peers_at_once_and_late_for_two_compactions(engine: AsyncEngine, yjs: Yjs) -> None:
    async with rooms_of(engine) as rooms:
        scene = await Scene.set(rooms, yjs, retire=False)
        second = Page(yjs.replica(EARLY, scene.gone.replica.update()))
        await compact(rooms, scene.room)
        scene.write("four", "five")
        await compact(rooms, scene.room)
        scene.gone.edit(label("mine"))
        second.edit(label("ours"))
        second.edit(Edit("set", "n0", "seed", 7))
        for page in (scene.gone, second):
            page.connect(scene.room)
        await agreed(scene.room, scene.gone, second, scene.here)
        assert len(heals_of(scene.room)) == len(set(heals_of(scene.room))) >= 2
        assert label_of(scene.here) in ("mine", "ours")
        assert scene.here.replica.json()["nodes"]["n0"]["data"]["seed"] == 7
        await scene.end(scene.gone, second, scene.here)


async def test_a_crash_between_heal_and_snapshot_repeats_no_number(engine: AsyncEngine, yjs: Yjs) -> None:
    """The document goes on from the compacted snapshot and the log; who was healed writes on and is healed again."""
    killed = Killed(SqlStore(engine, "p1"), MemoryBus(), process_id="p1", limits=LIMITS)
    await killed.start()
    scene = await Scene.set(killed, yjs)
    second = Page(yjs.replica(EARLY, scene.gone.replica.update()))
    scene.gone.edit(label("offline"))
    await scene.back()
    await killed.journal.flushed("r")
    first = heals_of(scene.room)
    scene.gone.leave()
    scene.here.leave()
    await killed.kill()
    # Written on from an id that the document knows as garbage only.
    scene.gone.edit(Edit("set", "n0", "seed", 1))
    async with rooms_of(engine, "p2") as rooms:
        async with engine.begin() as connection:
            await connection.exec_driver_sql("DELETE FROM processes WHERE id = 'p1'")
        room = await rooms.open("r")
        if not room.is_keeper:
            await rooms.tick()
        after = Scene(rooms, room, scene.here.connect(room), scene.gone.connect(room))
        await agreed(room, after.here, after.gone)
        assert label_of(after.here) == "offline"
        second.edit(label("ours"))
        second.connect(room)
        await agreed(room, after.here, after.gone, second)
        assert label_of(after.here) == "ours"
        assert set(first) < set(heals_of(room))
        assert max(first) < max(heals_of(room))
        await after.end(after.gone, after.here, second)


async def test_a_late_peer_that_was_healed_writes_on_after_a_restart(engine: AsyncEngine, yjs: Yjs) -> None:
    """What it wrote offline became garbage here, and it goes on from that: its ids are remembered with the snapshot."""
    async with rooms_of(engine) as rooms:
        scene = await Scene.set(rooms, yjs)
        scene.gone.edit(Edit("set", "n0", "label", "first"))
        scene.gone.connect(scene.room, answer=False)
        messages = scene.gone.socket.take()
        for message in messages:
            assert isinstance(message, protocol.SyncStep1)
            scene.gone.say(protocol.step2_message(scene.gone.replica.update(message.state_vector)))
        assert scene.room.late is not None
        await scene.room.late.settled()
        scene.gone.leave()
    scene.gone.replica.edit(label("second"))
    async with rooms_of(engine, "p2") as rooms:
        room = await rooms.open("r")
        scene.here.connect(room)
        scene.gone.connect(room)
        await agreed(room, scene.gone, scene.here)
        assert label_of(scene.here) == "second"


@pytest.mark.parametrize(("client", "expected"), [(EARLY, "three"), (LATE, "unsent")])
async def test_an_edit_of_a_half_open_socket_is_healed(
    sqlite_engine: AsyncEngine, client: int, expected: str, yjs: Yjs
) -> None:
    """Made before the frontier was seen and sent after: the state vector looks well, the origin was retired."""
    async with rooms_of(sqlite_engine) as rooms:
        scene = await Scene.set(rooms, yjs, client=client, retire=False)
        scene.gone.replica.edit(label("unsent"))
        # What was written meanwhile arrives, what it writes does not.
        scene.gone.replica.apply(scene.room.doc.get_update(scene.gone.replica.vector()))
        await compact(rooms, scene.room)
        scene.gone.connect(scene.room)
        await agreed(scene.room, scene.gone, scene.here)
        assert heals_of(scene.room) == [0]
        assert label_of(scene.here) == expected
        await scene.end()


async def test_sql_wins_where_it_owns_the_key(sqlite_engine: AsyncEngine, yjs: Yjs) -> None:
    truth: dict[str, Mapping[str, Json]] = {"n0": {"status": "completed", "runId": "r1"}}
    async with rooms_of(sqlite_engine) as rooms:
        scene = await Scene.set(rooms, yjs, retire=False)
        for status in ("pending", "running"):
            scene.here.edit(Edit("set", "n0", "status", status))
        seen = Page(yjs.replica(EARLY, scene.room.doc.get_update()))
        scene.here.edit(Edit("set", "n0", "status", "completed"))
        rooms.listener = Truth(truth)
        await compact(rooms, scene.room)
        seen.edit(Edit("set", "n0", "status", "forged"))
        await scene.back(seen)
        assert seen.replica.json()["nodes"]["n0"]["data"]["status"] == "completed"
        assert heals_of(scene.room) == [0]


class Truth:
    """Knows what SQL would say."""

    def __init__(self, rows: Mapping[str, Mapping[str, Json]]) -> None:
        self.rows = rows

    async def room_opened(self, room: Room) -> None:
        await asyncio.sleep(0)

    def room_changed(self, room: Room, nodes: frozenset[str], server: bool) -> None: ...  # noqa: FBT001
    def room_hinted(self, room: Room, run_id: str) -> None: ...
    def room_progress(self, room: Room, payload: Mapping[str, Json]) -> None: ...
    def room_truth(self, room: Room, node_id: str) -> Mapping[str, Json] | None:
        return self.rows.get(node_id)

    def room_closed(self, room_id: str) -> None: ...


async def test_a_late_reader_is_healed_and_its_edits_are_refused(sqlite_engine: AsyncEngine, yjs: Yjs) -> None:
    async with rooms_of(sqlite_engine) as rooms:
        scene = await Scene.set(rooms, yjs, retire=False)
        reader = Page(yjs.replica(LATE + 1, scene.gone.replica.update()))
        await compact(rooms, scene.room)
        reader.edit(Edit("set", "n0", "seed", 5))
        reader.connect(scene.room, read_only=True, answer=False)
        assert scene.room.late is not None
        await scene.room.late.settled()
        step1, *rest = reader.socket.take()
        assert isinstance(step1, protocol.SyncStep1)
        for message in rest:
            assert isinstance(message, protocol.SyncUpdate)
            reader.replica.apply(message.update)
        reader.say(protocol.step2_message(reader.replica.update(step1.state_vector)))
        assert any(isinstance(message, PermissionDenied) for message in reader.socket.take())
        assert "seed" not in as_json(scene.room.doc)["nodes"]["n0"]["data"]
        assert label_of(reader) == "three"


@pytest.mark.parametrize("first", ["server", "tabs"])
@pytest.mark.parametrize("client", [EARLY + 1, LATE])
async def test_two_tabs_joined_by_a_broadcast_channel_one_of_them_late(
    sqlite_engine: AsyncEngine, client: int, first: str, yjs: Yjs
) -> None:
    """The tabs tell each other everything past the server, before or after the late one has said what it has."""
    async with rooms_of(sqlite_engine) as rooms:
        scene = await Scene.set(rooms, yjs, client=client, retire=False)
        scene.here.edit(Edit("set", "n0", "steps", 1))
        scene.here.edit(Edit("set", "n0", "steps", 2))
        await compact(rooms, scene.room)
        tab, late = Page(yjs.replica(EARLY)).connect(scene.room), scene.gone
        late.edit(Edit("set", "n0", "seed", 5))
        if first == "tabs":
            exchange(tab, late)
        late.connect(scene.room, answer=first == "server")
        exchange(tab, late)
        await agreed(scene.room, late, tab, scene.here)
        exchange(tab, late)
        data = scene.here.replica.json()["nodes"]["n0"]["data"]
        assert data == {"label": "three", "prompt": "fox", "seed": 5, "steps": 2}
        # Both tabs say all they have once more, as after a restart of the server.
        for page in (late, tab):
            page.leave()
            page.connect(scene.room)
        await agreed(scene.room, late, tab, scene.here)
        assert scene.here.replica.json()["nodes"]["n0"]["data"] == data
        await scene.end(late, tab, scene.here)


def exchange(one: Page, other: Page) -> None:
    for giver, taker in ((one, other), (other, one)):
        taker.replica.apply(giver.replica.update(taker.replica.vector()))


class SlowNumbers(GrowthStore):
    """Commits a number only when told to."""

    def __init__(self, engine: AsyncEngine, process_id: str) -> None:
        super().__init__(engine, process_id)
        self.gate = asyncio.Event()
        self.asked = asyncio.Event()
        self.down = False

    async def reserve_heals(self, room: str, count: int) -> int:
        self.asked.set()
        await self.gate.wait()
        if self.down:
            raise OperationalError("down", None, OSError("down"))
        return await super().reserve_heals(room, count)


async def slow_scene(engine: AsyncEngine, yjs: Yjs) -> tuple[Rooms, Scene, SlowNumbers]:
    store = SqlStore(engine, "p1")
    store.growth = slow = SlowNumbers(engine, "p1")
    rooms = Rooms(store, MemoryBus(), process_id="p1", limits=LIMITS)
    await rooms.start()
    return rooms, await Scene.set(rooms, yjs), slow


async def test_others_do_not_wait_for_a_late_peer_and_it_is_taken_in_order(
    sqlite_engine: AsyncEngine, yjs: Yjs
) -> None:
    rooms, scene, slow = await slow_scene(sqlite_engine, yjs)
    scene.gone.edit(label("offline"))
    scene.gone.connect(scene.room)
    await slow.asked.wait()
    scene.here.edit(Edit("set", "n0", "seed", 1))
    for number in range(20):
        scene.gone.edit(Edit("set", "n0", "steps", number))
    assert as_json(scene.room.doc)["nodes"]["n0"]["data"] == {"label": "three", "prompt": "fox", "seed": 1}
    slow.gate.set()
    await agreed(scene.room, scene.gone, scene.here)
    assert scene.here.replica.json()["nodes"]["n0"]["data"] == {
        "label": "offline",
        "prompt": "fox",
        "seed": 1,
        "steps": 19,
    }
    await rooms.stop()


async def test_a_late_peer_that_may_only_look_by_then_changes_nothing(sqlite_engine: AsyncEngine, yjs: Yjs) -> None:
    """Its token ends while it waits for a number."""
    rooms, scene, slow = await slow_scene(sqlite_engine, yjs)
    scene.gone.edit(label("offline"))
    scene.gone.connect(scene.room)
    await slow.asked.wait()
    assert scene.gone.peer is not None
    scene.gone.peer.read_only = True
    slow.gate.set()
    await agreed(scene.room, scene.here)
    assert label_of(scene.here) == "three"
    await rooms.stop()


async def test_a_late_peer_comes_again_when_the_database_does_not_answer(sqlite_engine: AsyncEngine, yjs: Yjs) -> None:
    rooms, scene, slow = await slow_scene(sqlite_engine, yjs)
    scene.gone.edit(label("offline"))
    slow.down = True
    slow.gate.set()
    scene.gone.connect(scene.room)
    assert scene.room.late is not None
    await scene.room.late.settled()
    assert scene.gone.socket.closed is not None
    assert scene.gone.socket.closed[0] == 1013
    assert label_of(scene.here) == "three"
    scene.gone.leave()
    slow.down = False
    await scene.back()
    assert label_of(scene.here) == "offline"
    await rooms.stop()


async def test_a_late_peer_that_sends_without_end_while_it_waits_is_sent_away(
    sqlite_engine: AsyncEngine, yjs: Yjs
) -> None:
    rooms, scene, slow = await slow_scene(sqlite_engine, yjs)
    scene.gone.edit(label("offline"))
    scene.gone.connect(scene.room)
    for _ in range(5):
        scene.gone.say(protocol.update_message(bytes(1_000_000)))
    assert scene.gone.socket.closed is not None
    assert scene.gone.socket.closed[0] == 1013
    slow.gate.set()
    await rooms.stop()


async def test_bytes_that_are_no_update_close_their_sender_only(sqlite_engine: AsyncEngine, yjs: Yjs) -> None:
    async with rooms_of(sqlite_engine) as rooms:
        scene = await Scene.set(rooms, yjs)
        for message in (protocol.update_message(b"\x01\x01\x05"), protocol.step1_message(b"\x05\x01")):
            scene.gone.connect(scene.room, answer=False)
            scene.gone.say(message)
            assert scene.room.late is not None
            if scene.gone.socket.closed is None:
                await scene.room.late.settled()
            assert scene.gone.socket.closed is not None
            assert scene.gone.socket.closed[0] == 4400
            scene.gone.leave()
        scene.here.edit(label("on"))
        assert as_json(scene.room.doc)["nodes"]["n0"]["data"]["label"] == "on"


async def test_an_edit_that_was_on_its_way_during_a_heal_is_not_lost(sqlite_engine: AsyncEngine, yjs: Yjs) -> None:
    async with rooms_of(sqlite_engine) as rooms:
        scene = await Scene.set(rooms, yjs)
        scene.here.replica.edit(label("on its way"))
        scene.gone.connect(scene.room)
        await scene.gone.hear()
        assert heals_of(scene.room) == [0]
        scene.here.push()
        assert scene.room.late is not None
        await scene.room.late.looked()
        await agreed(scene.room, scene.gone, scene.here)
        assert label_of(scene.gone) == "on its way"
        assert heals_of(scene.room) == [0, 1]


async def test_what_goes_on_of_a_late_edit_is_what_the_document_made_of_it(
    sqlite_engine: AsyncEngine, yjs: Yjs
) -> None:
    """Others still know the ids that were retired here: the raw bytes would show them something else."""
    async with rooms_of(sqlite_engine) as rooms:
        scene = await Scene.set(rooms, yjs)
        socket = RecordingSocket()
        scene.room.enter(socket)
        socket.take()
        scene.gone.edit(label("offline"))
        raw = scene.gone.replica.update(scene.room.doc.get_state())
        scene.gone.connect(scene.room)
        await agreed(scene.room, scene.gone, scene.here)
        updates = [message.update for message in socket.take() if isinstance(message, protocol.SyncUpdate)]
        assert updates
        assert raw not in updates
        await rooms.journal.flushed("r")
        loaded = await SqlStore(sqlite_engine, "p2").load("r")
        assert loaded is not None
        assert raw not in loaded.updates


async def test_a_guard_is_stored_with_the_snapshot_after_a_heal(engine: AsyncEngine, yjs: Yjs) -> None:
    async with rooms_of(engine) as rooms:
        scene = await Scene.set(rooms, yjs)
        before = (await document_row(engine)).guard
        scene.gone.edit(label("offline"))
        await scene.back()
        guard = scene.room.late.guard if scene.room.late is not None else None
    after = (await document_row(engine)).guard
    assert guard is not None
    assert after == guard.encode() != before


async def test_a_late_edit_that_comes_from_another_process_is_healed_by_the_keeper(
    engine: AsyncEngine, yjs: Yjs
) -> None:
    """The other process has not compacted: for it the edit is as good as any."""
    hub = MemoryHub()
    async with rooms_of(engine, "p1", hub=hub) as first, rooms_of(engine, "p2", hub=hub) as second:
        scene = await Scene.set(first, yjs, retire=False)
        await first.journal.flushed("r")
        other = await second.open("r")
        if engine.dialect.name == "sqlite":
            other.rebase(None)
            await first.tick()
        scene.gone.edit(label("offline"))
        await compact(first, scene.room)
        scene.gone.connect(other)
        await second.journal.flushed("r")
        assert scene.room.late is not None
        await scene.room.late.settled()
        await first.journal.flushed("r")
        other.flush()
        await agreed(scene.room, scene.here)
        scene.gone.pull()
        assert scene.gone.replica.json() == scene.here.replica.json() == as_json(other.doc)
        assert heals_of(scene.room) == [0]
        scene.gone.leave()


async def test_a_room_that_was_never_compacted_has_nothing_to_heal(sqlite_engine: AsyncEngine) -> None:
    async with rooms_of(sqlite_engine) as rooms, rooms.use("r") as room:
        Client(room).add_node("n0", label="x")
        assert room.late is None
