from random import Random

import pytest
from pycrdt import Array, Doc, Map, Text

from crdt import canvas
from crdt.archive import Archive
from crdt.canvas import CanvasDoc
from crdt.compaction import compact, sound
from crdt.compactor import CompactionFailed, compact_apart, compacted, may_swap
from crdt.errors import BadUpdate
from crdt.guard import Guard
from crdt.room import KEEPER_BASE
from crdt.update import DELETED, GC, HAS_KEY, decode, decode_vector, encode
from tests.crdt.builders import Recorder
from tests.crdt.compaction_fuzz import inside_the_window
from tests.crdt.compaction_peers import Edit, PycrdtReplica, Yjs, as_json, node_value
from tests.crdt.compaction_world import World
from tests.crdt.year import Habits, Year, compact_year


def label(value: object) -> Edit:
    return Edit("set", "n0", "label", str(value))


def worked(*clients: int) -> CanvasDoc:
    """A node whose label and status were written ten times by each of two people in turn."""
    first, second = PycrdtReplica(clients[0]), PycrdtReplica(clients[1])
    first.edit(Edit("add", "n0", value=node_value(label="", prompt="fox")))
    for number in range(10):
        for one, other in ((first, second), (second, first)):
            other.apply(one.update())
            other.edit(label(number))
            other.edit(Edit("set", "n0", "status", number))
    first.apply(second.update())
    return first.doc


def vector_of(doc: CanvasDoc) -> dict[int, int]:
    return decode_vector(doc.get_state())


@pytest.mark.parametrize("clients", [(5, 9), (9, 5), (2**53 - 9, 7)])
def test_a_fresh_document_of_a_compacted_state_is_the_same(clients: tuple[int, int], yjs: Yjs) -> None:
    doc = worked(*clients)
    made = compact(doc.get_update(), vector_of(doc))
    assert sound(doc.get_update(), made.state)
    for fresh in (PycrdtReplica(1, made.state), yjs.replica(1, made.state)):
        assert fresh.json() == as_json(doc)
        assert decode_vector(fresh.vector()) == vector_of(doc)
        assert not fresh.waits()
    assert made.structs < 20 < sum(run.length for run in made.retired)
    assert len(made.state) < len(doc.get_update()) / 2


def test_garbage_under_an_origin_that_was_kept_is_noticed() -> None:
    """The naive way: the value behind the garbage is lost without a word, in yjs and in yrs."""
    doc = worked(5, 9)
    update = decode(doc.get_update())
    for section in update.sections:
        for struct in section.structs:
            if struct.kind == DELETED and struct.info & HAS_KEY:
                struct.info = GC
    naive = encode(update)
    assert PycrdtReplica(1, naive).json()["nodes"]["n0"]["data"] == {"prompt": "fox"}
    assert not sound(doc.get_update(), naive)


@pytest.mark.parametrize("block", range(4))
def test_whoever_has_seen_the_frontier_notices_nothing(block: int, yjs: Yjs) -> None:
    """Random lives with offline edits, undo, reloads and compactions, equal to a document that never compacts."""
    worlds = [inside_the_window(1000 * block + seed, yjs) for seed in range(20)]
    assert sum(world.retired for world in worlds) > 100
    assert sum(world.heals for world in worlds) == 0


@pytest.mark.parametrize("frontier", [{}, {5: 1}, {9: 10**6}, {77: 5}])
def test_what_the_frontier_does_not_cover_stays(frontier: dict[int, int]) -> None:
    doc = worked(5, 9)
    made = compact(doc.get_update(), frontier)
    assert (made.retired, made.state) == ((), doc.get_update())


def test_roots_and_texts_and_keys_of_shared_types_are_left_alone() -> None:
    doc: CanvasDoc = Doc(client_id=5)
    for number in range(5):
        with doc.transaction():
            canvas.meta_of(doc)["title"] = f"Title {number}"
            canvas.nodes_of(doc).pop("n0", None)
            canvas.add_node(doc, {"id": "n0", "data": {"prompt": "fox"}})
            canvas.nodes_of(doc)["n0"]["data"]["prompt"] = Text("hare")
            canvas.nodes_of(doc)["n0"]["data"]["prompt"].insert(0, "a")
    assert compact(doc.get_update(), vector_of(doc)).retired == ()


def test_a_map_in_a_list_is_left_alone() -> None:
    doc: CanvasDoc = Doc(client_id=5)
    with doc.transaction():
        canvas.add_node(doc, {"id": "n0", "data": {}})
        canvas.nodes_of(doc)["n0"]["list"] = Array([Map({"x": 0})])
    for number in range(3):
        canvas.nodes_of(doc)["n0"]["list"][0]["x"] = number
    assert compact(doc.get_update(), vector_of(doc)).retired == ()


def test_something_that_waits_for_a_parent_is_no_document() -> None:
    one = PycrdtReplica(5)
    one.edit(Edit("add", "n0", value=node_value(label="")))
    before = one.vector()
    one.edit(label(1))
    with pytest.raises(BadUpdate):
        compact(one.update(before), {})


def test_deleted_keys_stay_deleted(yjs: Yjs) -> None:
    doc = worked(5, 9)
    one = PycrdtReplica(7, doc.get_update())
    one.edit(Edit("unset", "n0", "label"))
    made = compact(one.update(), decode_vector(one.vector()))
    assert sound(one.update(), made.state)
    assert yjs.replica(1, made.state).json() == one.json()
    assert "label" not in one.json()["nodes"]["n0"]["data"]


def test_undo_redo_and_undo_of_a_delete_work_across_a_compaction(yjs: Yjs) -> None:
    world = World(Random(1), yjs)  # noqa: S311
    page, other = world.join_yjs(1000), world.join_yjs(2000)
    for edit in (label("a"), label("b"), Edit("remove", "n1")):
        world.edit(page, edit)
        world.sync(page)
        world.sync(other)
    world.compact_to(world.server_vector())
    assert world.retired
    before = page.replica.json()
    assert "n1" not in before["nodes"]
    for _ in range(2):
        world.undo(page)
        world.sync(page)
    assert page.replica.json()["nodes"]["n1"]["data"]["prompt"] == "fox"
    assert page.replica.json()["nodes"]["n0"]["data"]["label"] == "a"
    for _ in range(2):
        world.undo(page, redo=True)
        world.sync(page)
    assert page.replica.json() == before
    assert world.heals == 0
    world.settle()
    world.close()


def test_a_year_in_small_without_typing_is_at_most_twice_its_content() -> None:
    """The figures of the whole year: `python -m tests.crdt.year`. What is typed and deleted stays, by design."""
    year = Year(Habits(days=20, nodes=60, runs=80, drops=80, prompts=0, params=15, churn=2))
    state, made, _ = compact_year(year, kept_days=0)
    assert sound(state, made.state)
    assert len(made.state) <= 2 * len(year.fresh())
    assert len(state) > 4 * len(year.fresh())
    assert len(made.state) < len(compact_year(year, kept_days=5)[1].state) < len(state)


def test_a_year_in_small_with_typing_is_the_same_document() -> None:
    year = Year(Habits(days=10, nodes=60, runs=80, drops=80, prompts=25, params=15, churn=2))
    state, made, _ = compact_year(year, kept_days=0)
    assert sound(state, made.state)
    assert len(made.state) < len(state) / 2


async def test_a_child_does_the_same_as_we_would() -> None:
    doc = worked(5, 9)
    made, ours = (
        await compact_apart([doc.get_update()], doc.get_state()),
        compacted([doc.get_update()], doc.get_state()),
    )
    # yrs writes the keys of a plain object in any order: the same document, other bytes.
    assert sound(made.state, ours.state)
    assert (made.vector, made.guard, made.archive) == (ours.vector, ours.guard, ours.archive)
    again = await compact_apart([made.state], made.vector, made.guard)
    assert sound(again.state, made.state)
    assert Guard.decode(again.guard) == Guard.decode(made.guard)


async def test_a_child_that_fails_says_why_and_one_that_hangs_is_ended() -> None:
    with pytest.raises(CompactionFailed, match="ended with code 1: ValueError"):
        await compact_apart([b"\x01\x01\x05\x00\x0b\x00\x00"], b"\x00")
    with pytest.raises(CompactionFailed, match="longer than"):
        await compact_apart([worked(5, 9).get_update()], b"\x00", limit_s=0.0)


def test_what_came_meanwhile_joins_unless_it_hangs_on_what_was_retired() -> None:
    doc = worked(5, 9)
    made = compacted([doc.get_update()], doc.get_state())
    live = PycrdtReplica(7, doc.get_update())
    live.edit(label("later"))
    assert may_swap(Guard.decode(made.guard), live.update(made.vector))
    client, clock, _ = next(iter(Guard.decode(made.guard).retired))
    update = decode(live.update(made.vector))
    update.sections[0].structs[0].origin = client, clock
    assert not may_swap(Guard.decode(made.guard), encode(update))


def test_an_archive_finds_the_key_of_every_retired_id() -> None:
    doc = worked(5, 9)
    made = compact(doc.get_update(), vector_of(doc))
    for archive in (Archive(made.retired), Archive.decode(Archive(made.retired).encode())):
        for run in made.retired:
            assert archive.find((run.client, run.clock)) == run.place
            assert archive.find((run.client, run.clock + run.length - 1)) == run.place
        assert archive.find((5, 10**6)) is None
        assert archive.find((77, 0)) is None


def test_keys_of_a_deleted_node_are_forgotten_at_the_next_compaction() -> None:
    doc = worked(5, 9)
    made = compact(doc.get_update(), vector_of(doc))
    one = PycrdtReplica(7, made.state)
    one.edit(Edit("remove", "n0"))
    again = compact(one.update(), decode_vector(one.vector()), made.anchors)
    assert made.anchors
    assert not again.anchors


async def test_a_thousand_keepers_that_write_nothing_leave_no_id() -> None:
    room = Recorder().room(worked(5, 9).get_update(), client_id=KEEPER_BASE)
    before = vector_of(room.doc)
    for fence in range(1000):
        room.rebase(fence)
    assert vector_of(room.doc) == before
