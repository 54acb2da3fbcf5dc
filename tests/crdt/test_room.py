import asyncio
import gc
import json
import weakref
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycrdt import Array, Doc, Map, Text

from crdt import canvas, protocol
from crdt.close_codes import Close
from crdt.protocol import AwarenessUpdate, PermissionDenied, SyncUpdate
from crdt.room import CROWD, KEEPER_BASE, Origin
from tests.crdt.builders import Client, Recorder, RecordingSocket, awareness


async def test_an_edit_reaches_every_peer_and_is_stored_once() -> None:
    recorder = Recorder()
    room = recorder.room()
    a, b = Client(room), Client(room)
    a.add_node("n", prompt="fox")
    b.pull()
    assert b.flow() == a.flow()
    assert len(recorder.stored) == 1


async def test_all_edits_of_one_turn_leave_in_one_write_per_peer() -> None:
    room = Recorder().room()
    a, b = Client(room), Client(room)
    before = b.socket.writes
    for name in "xyz":
        with a.doc.transaction():
            canvas.nodes_of(a.doc)[name] = Map({"data": Map()})
        a.push()
    await asyncio.sleep(0)
    assert b.socket.writes == before + 1
    assert len([m for m in b.pull() if isinstance(m, SyncUpdate)]) == 3


async def test_an_update_sent_twice_is_neither_stored_nor_told_again() -> None:
    recorder = Recorder()
    room = recorder.room()
    a, b = Client(room), Client(room)
    with a.doc.transaction():
        canvas.nodes_of(a.doc)["n"] = Map({"data": Map()})
    update = a.push()
    room.flush()
    b.pull()
    room.receive(a.peer, protocol.update_message(update))
    room.flush()
    assert b.pull() == []
    assert len(recorder.stored) == 1


async def test_an_update_whose_parent_is_missing_is_kept_until_the_parent_comes() -> None:
    recorder = Recorder()
    room = recorder.room()
    watcher = Client(room)
    author: canvas.CanvasDoc = Doc(client_id=5)
    updates: list[bytes] = []
    subscription = author.observe(lambda event: updates.append(event.update))
    nodes = canvas.nodes_of(author)
    nodes["n"] = Map({"data": Map()})
    nodes["n"]["data"]["label"] = "child"
    subscription.drop()
    child, parents = updates[-1], updates[:-1]
    peer = room.enter(RecordingSocket())
    room.receive(peer, protocol.update_message(child))
    for parent in parents:
        room.receive(peer, protocol.update_message(parent))
    room.flush()
    watcher.pull()
    node = canvas.read_node(watcher.doc, "n")
    assert node is not None
    assert node.data == {"label": "child"}
    again = Recorder().room(*recorder.stored)
    assert canvas.read_flow(again.doc) == canvas.read_flow(room.doc)


async def test_what_waits_for_its_parent_is_in_snapshots_and_reaches_those_who_join_meanwhile() -> None:
    """The document's own encoding leaves it out."""
    author: canvas.CanvasDoc = Doc(client_id=5)
    updates: list[bytes] = []
    subscription = author.observe(lambda event: updates.append(event.update))
    canvas.nodes_of(author)["n"] = Map({"data": Map()})
    canvas.nodes_of(author)["n"]["data"]["label"] = "child"
    subscription.drop()
    child, parents = updates[-1], updates[:-1]
    room = Recorder().room()
    room.apply(child, Origin.PEER)
    joiner = Client(room)
    restarted = Recorder().room(room.state())
    again = Recorder().room(restarted.state())
    for parent in parents:
        for one in (room, restarted, again):
            one.apply(parent, Origin.PEER)
    room.flush()
    joiner.pull()
    for doc in (room.doc, restarted.doc, again.doc, joiner.doc):
        node = canvas.read_node(doc, "n")
        assert node is not None
        assert node.data == {"label": "child"}
    assert room.state() == room.doc.get_update()


async def test_a_read_only_peer_changes_nothing() -> None:
    recorder = Recorder()
    room = recorder.room()
    viewer = Client(room, read_only=True)
    viewer.add_node("n")
    assert canvas.read_flow(room.doc)["nodes"] == []
    assert recorder.stored == []


def denials(client: Client) -> int:
    """How often a client was told that it may not, since it last looked."""
    return len([message for message in client.pull() if isinstance(message, PermissionDenied)])


async def test_a_read_only_peer_is_told_of_each_refused_edit_and_stays() -> None:
    room = Recorder().room()
    refused: list[str] = []
    viewer = Client(room, read_only=True, refused=refused.append)
    for expected in (1, 2):
        with viewer.doc.transaction():
            canvas.nodes_of(viewer.doc)[f"n{expected}"] = Map({"data": Map()})
        viewer.push()
        assert denials(viewer) == 1
        assert len(refused) == expected
    assert viewer.socket.closed is None


async def test_a_read_only_peer_that_brings_nothing_new_is_told_nothing() -> None:
    room = Recorder().room()
    editor, viewer = Client(room), Client(room, read_only=True)
    editor.add_node("n1")
    editor.add_node("n2")
    with editor.doc.transaction():
        del canvas.nodes_of(editor.doc)["n1"]
    editor.sync()
    viewer.pull()
    room.receive(viewer.peer, protocol.step2_message(viewer.doc.get_update()))
    room.receive(viewer.peer, protocol.step2_message(protocol.EMPTY_UPDATE))
    room.receive(viewer.peer, protocol.update_message(viewer.doc.get_update()))
    assert denials(viewer) == 0


async def test_a_read_only_peer_deletes_nothing() -> None:
    room = Recorder().room()
    editor, viewer = Client(room), Client(room, read_only=True)
    editor.add_node("n1")
    viewer.pull()
    with viewer.doc.transaction():
        del canvas.nodes_of(viewer.doc)["n1"]
    room.receive(viewer.peer, protocol.step2_message(viewer.doc.get_update()))
    assert denials(viewer) == 1
    assert canvas.node_ids(room.doc) == ["n1"]


async def test_a_broken_update_of_a_read_only_peer_closes_it_as_any() -> None:
    room = Recorder().room()
    viewer = Client(room, read_only=True)
    room.receive(viewer.peer, protocol.update_message(b"\xff\xff"))
    assert viewer.socket.closed is not None
    assert viewer.socket.closed[0] == Close.BAD_MESSAGE.code


@given(st.lists(st.sampled_from(["add", "drop", "type"]), max_size=12), st.booleans())
@settings(max_examples=40)
def test_what_a_read_only_peer_has_seen_is_never_refused_and_what_is_new_always(edits: list[str], new: bool) -> None:  # noqa: FBT001
    async def play() -> None:
        room = Recorder().room()
        editor, viewer = Client(room), Client(room, read_only=True)
        for number, edit in enumerate(edits):
            nodes = canvas.nodes_of(editor.doc)
            with editor.doc.transaction():
                names = canvas.node_ids(editor.doc)
                if edit == "add" or not names:
                    nodes[f"n{number}"] = Map({"data": Map()})
                elif edit == "drop":
                    del nodes[names[number % len(names)]]
                else:
                    nodes[names[0]]["position"] = {"x": number, "y": 0}
            editor.sync()
        viewer.pull()
        if new:
            with viewer.doc.transaction():
                canvas.nodes_of(viewer.doc)["mine"] = Map()
        before = room.state()
        room.receive(viewer.peer, protocol.step2_message(viewer.doc.get_update()))
        assert denials(viewer) == new
        assert room.state() == before

    asyncio.run(play())


async def test_the_room_notes_who_asked_in_which_node() -> None:
    room = Recorder().room()
    ada, bob = Client(room, person={"id": "ada"}), Client(room, person={"id": "bob"})
    ada.add_node("n1")
    ada.add_node("n2", request={"id": "i2"})
    room.askers.pop("n1")
    bob.pull()
    with bob.doc.transaction():
        canvas.nodes_of(bob.doc)["n2"]["position"] = {"x": 1, "y": 1}
        canvas.nodes_of(bob.doc)["n1"]["data"]["request"] = {"id": "i1", "by": {"id": "ada"}}
    bob.sync()
    assert room.askers == {"n1": {"id": "bob"}, "n2": {"id": "ada"}}


@pytest.mark.parametrize("frame", [b"", b"\x00", b"\x00\x02\xff", b"\x00\x09\x00", b"\x00\x02\x03abc", b"\x01\x01"])
async def test_a_hostile_frame_closes_its_sender_only(frame: bytes) -> None:
    room = Recorder().room()
    good, bad = Client(room), Client(room)
    room.receive(bad.peer, frame)
    assert bad.socket.closed is not None
    assert bad.socket.closed[0] == Close.BAD_MESSAGE.code
    good.add_node("n")
    assert good.socket.closed is None
    assert len(room.doc.get("nodes", type=Map)) == 1


async def test_a_joiner_is_told_who_is_present_at_once() -> None:
    room = Recorder().room()
    a = Client(room)
    room.receive(a.peer, awareness(77, 1, '{"user":{"name":"Ada"}}'))
    joiner = RecordingSocket()
    room.enter(joiner)
    states = [m for m in joiner.take() if isinstance(m, AwarenessUpdate)]
    assert [entry.client_id for entry in states[0].entries] == [77]


async def test_a_peer_that_leaves_takes_its_cursor_along() -> None:
    room = Recorder().room()
    a, b = Client(room), Client(room)
    room.receive(a.peer, awareness(77, 4, '{"cursor":null}'))
    room.leave(a.peer)
    room.flush()
    last = [m for m in b.pull() if isinstance(m, AwarenessUpdate)][-1]
    assert [(e.client_id, e.clock, e.state) for e in last.entries] == [(77, 5, "null")]


async def test_nobody_moves_or_removes_another_persons_cursor() -> None:
    room = Recorder().room()
    a, b = Client(room), Client(room)
    room.receive(a.peer, awareness(77, 1, '{"cursor":{"x":1,"y":1}}'))
    room.receive(b.peer, awareness(77, 9, "null"))
    room.receive(b.peer, awareness(77, 9, '{"cursor":{"x":9,"y":9}}'))
    assert [e.state for e in room.presence.everyone()] == ['{"cursor":{"x":1,"y":1}}']


async def test_a_client_that_reconnects_before_its_old_socket_died_is_present_after_it() -> None:
    room = Recorder().room()
    old, new = Client(room), Client(room)
    room.receive(old.peer, awareness(77, 3, '{"n":1}'))
    room.receive(new.peer, awareness(77, 3, '{"n":2}'))
    room.leave(old.peer)
    (entry,) = room.presence.everyone()
    assert entry.state == '{"n":2}'
    assert entry.clock > 4


async def test_a_slow_reader_gets_no_queue_and_catches_up_when_it_drains() -> None:
    room = Recorder().room()
    writer, slow = Client(room), Client(room)
    room.on_full(slow.peer)
    writes = slow.socket.writes
    for number in range(50):
        writer.add_node(f"n{number}", prompt="x" * 1000)
    with writer.doc.transaction():
        del canvas.nodes_of(writer.doc)["n0"]
    writer.sync()
    assert slow.socket.writes == writes
    room.on_drained(slow.peer)
    slow.pull()
    assert slow.flow() == writer.flow()


async def test_a_transport_that_fills_up_in_the_middle_of_a_turn_loses_nothing_of_it() -> None:
    room = Recorder().room()
    writer, slow = Client(room), Client(room)
    with writer.doc.transaction():
        canvas.nodes_of(writer.doc)["n"] = Map({"data": Map()})
    writer.push()
    room.on_full(slow.peer)
    room.on_drained(slow.peer)
    slow.pull()
    assert slow.flow() == writer.flow()


async def test_a_server_write_is_one_update_told_and_stored() -> None:
    recorder = Recorder()
    room = recorder.room()
    a = Client(room)
    with room.transact() as doc:
        canvas.add_node(doc, {"id": "n", "position": {"x": 1, "y": 2}, "data": {"prompt": "fox"}})
        canvas.patch_data(doc, "n", {"status": "pending"})
    room.flush()
    assert len([m for m in a.pull() if isinstance(m, SyncUpdate)]) == 1
    assert len(recorder.stored) == 1
    assert [t.server for t in recorder.touched] == [True]


async def test_a_drag_is_mirrored_but_does_not_ask_for_the_keepers_attention() -> None:
    recorder = Recorder()
    room = recorder.room()
    a = Client(room)
    a.add_node("n")
    canvas.nodes_of(a.doc)["n"]["position"] = {"x": 5, "y": 5}
    a.push()
    assert recorder.touched[-1].nodes == {"n"}
    assert recorder.touched[-1].data == frozenset()


async def test_nodes_that_are_arrays_or_text_break_nothing() -> None:
    recorder = Recorder()
    room = recorder.room()
    a = Client(room)
    with a.doc.transaction():
        nodes = canvas.nodes_of(a.doc)
        nodes["array"], nodes["text"], nodes["number"] = Array([1]), Text("hi"), 5
    a.push()
    nodes["array"].append(2)
    nodes["text"] += "!"
    a.push()
    assert a.socket.closed is None
    assert canvas.read_flow(room.doc)["nodes"] == []


async def test_the_newest_keeper_wins_against_older_ones_and_browsers() -> None:
    docs: list[canvas.CanvasDoc] = [Doc(client_id=client) for client in (2**32 - 1, KEEPER_BASE + 1, KEEPER_BASE + 2)]
    for value, doc in enumerate(docs):
        doc.get("data", type=Map)["status"] = value
    for target in docs:
        for source in docs:
            target.apply_update(source.get_update())
    assert [doc.get("data", type=Map)["status"] for doc in docs] == [2, 2, 2]


async def test_a_rebased_room_holds_the_same_document_under_a_new_id() -> None:
    room = Recorder().room()
    a = Client(room)
    a.add_node("n", prompt="fox")
    room.rebase(7)
    assert room.doc.client_id == KEEPER_BASE + 7
    assert canvas.read_flow(room.doc) == a.flow()
    a.add_node("m")
    assert canvas.node_ids(room.doc) == ["m", "n"]


async def test_the_server_is_a_peer_with_a_state_of_its_own() -> None:
    room = Recorder().room()
    a = Client(room)
    room.set_server_state({"server": True, "runs": {"n": {"progress": 0.5}}})
    room.flush()
    (update,) = [m for m in a.pull() if isinstance(m, AwarenessUpdate)]
    assert json.loads(update.entries[0].state)["runs"]["n"]["progress"] == 0.5


edits = st.lists(
    st.tuples(st.integers(0, 2), st.sampled_from("abc"), st.sampled_from(["add", "set", "del"])), max_size=25
)


@settings(max_examples=40)
@given(edits, st.randoms(use_true_random=False))
def test_random_edits_by_several_peers_end_equal_everywhere(script: list[tuple[int, str, str]], chance: object) -> None:
    async def run() -> None:
        recorder = Recorder()
        room = recorder.room()
        clients = [Client(room) for _ in range(3)]
        for who, name, action in script:
            client = clients[who]
            nodes = canvas.nodes_of(client.doc)
            if action == "add":
                nodes[name] = Map({"position": {"x": who, "y": 0}, "data": Map({"by": who})})
            elif name in nodes and action == "set":
                nodes[name]["data"]["by"] = who
            elif name in nodes:
                del nodes[name]
            if chance.random() < 0.5:  # type: ignore[attr-defined]
                client.push()
            if chance.random() < 0.3:  # type: ignore[attr-defined]
                client.pull()
        for client in clients:
            client.push()
        room.flush()
        for client in clients:
            client.pull()
        restarted = Recorder().room(*recorder.stored)
        assert [client.flow() for client in clients] == [canvas.read_flow(room.doc)] * 3
        assert canvas.read_flow(restarted.doc) == canvas.read_flow(room.doc)

    asyncio.run(run())


async def test_updates_from_the_bus_are_told_to_peers_but_not_stored() -> None:
    recorder = Recorder()
    room = recorder.room()
    a = Client(room)
    other: canvas.CanvasDoc = Doc(client_id=9)
    nodes = canvas.nodes_of(other)
    nodes["n"] = Map({"data": Map()})
    room.apply(other.get_update(), Origin.BUS)
    room.flush()
    a.pull()
    assert canvas.node_ids(a.doc) == ["n"]
    assert recorder.stored == []


async def test_cursors_of_a_crowd_are_told_even_when_the_timer_fires_early(monkeypatch: pytest.MonkeyPatch) -> None:
    """Event loops round: a timer that fired a little before its time left everybody's cursors where they were."""
    room = Recorder().room()
    clients = [Client(room) for _ in range(CROWD + 2)]
    armed: list[object] = []
    monkeypatch.setattr(
        room, "_loop", SimpleNamespace(time=lambda: 100.0, call_at=lambda _due, call: armed.append(call))
    )
    for clock in (1, 2):
        room.receive(clients[0].peer, awareness(7, clock, f'{{"n":{clock}}}'))
        early = armed.pop()
        assert callable(early)
        early()
    assert not room.presence.dirty
    (told,) = [m for m in clients[1].pull() if isinstance(m, AwarenessUpdate)][-1].entries
    assert told.state == '{"n":2}'


async def test_a_room_that_was_let_go_is_freed_at_once() -> None:
    """A document holds its observers where the garbage collector cannot see them."""
    room = Recorder().room()
    Client(room).add_node("n")
    room.flush()
    await asyncio.sleep(0)
    room.dispose()
    gone = weakref.ref(room)
    del room
    gc.collect()
    assert gone() is None


async def test_a_write_to_a_room_that_was_let_go_reaches_nobody_and_is_not_stored() -> None:
    recorder = Recorder()
    room = recorder.room()
    room.dispose()
    with room.transact() as doc:
        canvas.nodes_of(doc)["n"] = Map({"data": Map()})
    assert not room.apply(room.state(), Origin.BUS)
    assert recorder.stored == []


def drawing(author: Client, node_id: str) -> None:
    with author.doc.transaction():
        canvas.nodes_of(author.doc)[node_id] = Map({"data": Map()})
    author.push()


async def test_in_a_crowd_edits_that_follow_quickly_leave_together_and_the_first_at_once() -> None:
    room = Recorder().room()
    author, watcher, *_ = [Client(room) for _ in range(CROWD + 2)]
    room.flush()
    room._sent_at = 0.0
    before = watcher.socket.writes
    drawing(author, "first")
    await asyncio.sleep(0)
    assert watcher.socket.writes == before + 1
    for node_id in ("second", "third"):
        drawing(author, node_id)
        await asyncio.sleep(0)
    assert watcher.socket.writes == before + 1
    room.flush()
    assert watcher.socket.writes == before + 2
    watcher.pull()
    assert watcher.flow() == author.flow()


async def test_a_room_that_is_closed_tells_what_waited_first() -> None:
    room = Recorder().room()
    author, watcher, *_ = [Client(room) for _ in range(CROWD + 2)]
    for node_id in ("first", "second"):
        drawing(author, node_id)
        await asyncio.sleep(0)
    room.close(1012, "restart")
    watcher.pull()
    assert watcher.flow() == author.flow()
