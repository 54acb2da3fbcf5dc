import pytest
from pycrdt import Doc, Map

from crdt import canvas
from crdt.canvas import CanvasDoc
from crdt.child import ChildFailed, answer_of
from crdt.folding import fold_apart
from crdt.rooms import RoomLimits
from crdt.store import SqlStore
from tests.crdt.builders import Client, database, running_rooms


def edits(*names: str) -> list[bytes]:
    doc: CanvasDoc = Doc(client_id=5)
    made = []
    for name in names:
        before = doc.get_state()
        with doc.transaction():
            canvas.nodes_of(doc)[name] = Map({"data": Map()})
        made.append(doc.get_update(before))
    return made


def node_ids(*updates: bytes) -> list[str]:
    doc: CanvasDoc = Doc()
    for update in updates:
        doc.apply_update(update)
    return sorted(canvas.node_ids(doc))


async def test_a_log_is_folded_with_what_still_waits_for_its_parent() -> None:
    first, second = edits("a", "b")
    other: CanvasDoc = Doc(client_id=9)
    for update in (first, second):
        other.apply_update(update)
    before = other.get_state()
    canvas.nodes_of(other)["b"]["type"] = "image"
    waiting = other.get_update(before)
    state = await fold_apart([first, waiting])
    assert node_ids(state) == ["a"]
    whole: CanvasDoc = Doc()
    for update in (state, second):
        whole.apply_update(update)
    assert canvas.nodes_of(whole)["b"]["type"] == "image"


async def test_a_child_that_breaks_down_says_why() -> None:
    with pytest.raises(ChildFailed, match="ended with code 1: ValueError"):
        await answer_of("crdt.folding", [b"\x01\x02"], limit_s=30.0)
    with pytest.raises(ChildFailed, match="longer than 0 s"):
        await answer_of("crdt.folding", edits("a"), limit_s=0.0)


async def test_the_snapshot_of_a_large_document_is_made_of_what_is_stored(sqlite_url: str) -> None:
    limits = RoomLimits(grace_s=0.0, snapshot_rows=2, fold_bytes=0, tick_s=60.0)
    async with database(sqlite_url) as engine:
        async with running_rooms(engine, limits=limits) as rooms:
            author = Client(await rooms.open("r"))
            for name in "abcd":
                author.add_node(name)
                await rooms.flush("r")
        loaded = await SqlStore(engine, "reader").load("r")
        assert loaded is not None
        assert loaded.snapshot is not None
        assert loaded.updates == ()
        assert node_ids(loaded.snapshot) == list("abcd")
