from collections.abc import Mapping
from typing import Any

import pytest
from pycrdt import Array, Doc, Map, Text

from crdt import canvas
from crdt.canvas import CanvasDoc
from crdt.chains import Place, key_items
from crdt.compaction import compact
from crdt.guard import HEAL_BASE, Plan
from crdt.healing import heal
from crdt.json import Json
from crdt.update import DELETED, decode, decode_vector
from tests.crdt.compaction_fuzz import with_late_peers
from tests.crdt.compaction_peers import Edit, Yjs, as_json
from tests.crdt.compaction_story import EARLY, LATE, Story, keeper_writes, label, label_of, plan_of
from tests.crdt.compaction_world import Deviation


@pytest.mark.parametrize("block", range(4))
def test_late_peers_are_healed_and_no_value_is_lost(block: int, yjs: Yjs) -> None:
    """Random lives, each late edit compared with a document that never compacts."""
    worlds = [with_late_peers(1000 * block + seed, yjs) for seed in range(20)]
    assert sum(world.late for world in worlds) > 10
    assert sum(world.heals for world in worlds) > 10


def test_without_healing_values_are_lost(yjs: Yjs) -> None:
    """The control: the same lives, late peers merged as any other."""
    lost = 0
    for seed in range(12):
        try:
            with_late_peers(seed, yjs, healing=False)
        except Deviation:
            lost += 1
    assert lost


@pytest.mark.parametrize("client", [EARLY, LATE])
def test_a_late_edit_is_kept(client: int, yjs: Yjs) -> None:
    story = Story(yjs, client=client)
    story.write("three", "four")
    story.compact()
    story.world.edit(story.gone, label("offline"))
    story.world.sync(story.gone)
    assert story.world.heals == 1
    story.end("offline")


@pytest.mark.parametrize("client", [EARLY, LATE])
def test_a_late_peer_that_wrote_nothing_takes_the_current_value(client: int, yjs: Yjs) -> None:
    story = Story(yjs, client=client)
    story.write("three", "four")
    story.compact()
    story.world.sync(story.gone)
    assert label_of(story.gone.replica.json()) == "four"
    story.end("four")


def test_an_offline_removal_loses_to_what_was_written_since(yjs: Yjs) -> None:
    story = Story(yjs)
    story.write("three")
    story.compact()
    story.world.edit(story.gone, Edit("unset", "n0", "label"))
    story.world.sync(story.gone)
    story.end("three")


def test_a_removed_key_stays_removed_for_a_late_peer(yjs: Yjs) -> None:
    story = Story(yjs)
    story.world.edit(story.here, Edit("unset", "n0", "label"))
    story.world.sync(story.here)
    story.compact()
    story.world.sync(story.gone)
    story.end(None)


@pytest.mark.parametrize("client", [EARLY, LATE])
def test_an_edit_in_the_middle_of_a_squashed_item_is_healed(client: int, yjs: Yjs) -> None:
    """The keeper wrote one key many times in a row: its items became one, and a late edit hangs inside it."""
    story = Story(yjs, client=client)
    world = story.world
    for status in range(6):
        keeper_writes(world, status)
        if status == 2:
            world.sync(story.gone)
    squashed = [s for _, s in key_items(decode(world.server.get_update())) if s.kind == DELETED and s.length > 1]
    assert squashed
    story.compact()
    world.edit(story.gone, Edit("set", "n0", "status", "forged"))
    origin = next(s.origin for _, s in key_items(decode(story.gone.replica.update(world.server.get_state()))))
    assert origin is not None
    assert any(s.clock < origin[1] < s.end - 1 for s in squashed)
    world.sync(story.gone)
    assert as_json(world.server)["nodes"]["n0"]["data"]["status"] == 5
    story.end("two")


def test_two_late_peers_at_once_and_one_late_for_two_compactions(yjs: Yjs) -> None:
    story = Story(yjs)
    second = story.world.join_yjs(EARLY)
    story.write("three")
    story.compact()
    story.write("four")
    story.compact()
    for person, value in ((story.gone, "mine"), (second, "ours")):
        story.world.edit(person, label(value))
    updates = [(p, p.replica.update(story.world.server.get_state()), p.knows()) for p in (story.gone, second)]
    assert story.world.guard is not None
    for person, update, knew in updates:
        lacked = story.world.guard.lacked_by(knew, story.world.server_vector())
        story.world.receive(update, lacked, person)
    assert story.world.heals == 2
    story.end("ours")


def test_a_heal_that_was_told_but_not_stored_is_not_made_again_under_its_id(yjs: Yjs) -> None:
    """A crash between a heal and the next write of the document: the counter was stored first."""
    story = Story(yjs)
    world = story.world
    second = world.join_yjs(EARLY)
    story.write("three")
    story.compact()
    stored, guard = (world.server.get_update(), world.reference.get_update()), world.guard
    world.edit(story.gone, label("mine"))
    world.sync(story.gone)
    world.sync(story.here)
    assert world.heals == 1
    world.restart(*stored, guard)
    world.edit(second, label("ours"))
    world.sync(second)
    assert world.heals == 2
    world.sync(story.here)
    assert {HEAL_BASE + 1, HEAL_BASE + 2} < world.server_vector().keys()
    world.sync(story.gone)
    story.end(label_of(as_json(world.server)))


@pytest.mark.parametrize(("client", "expected"), [(EARLY, "three"), (LATE, "unsent")])
def test_an_edit_of_a_half_open_socket_is_healed(client: int, expected: str, yjs: Yjs) -> None:
    """Written before the frontier was seen, sent after: its state vector looks well, its origin was retired."""
    story = Story(yjs, client=client)
    story.world.edit(story.gone, label("unsent"))
    story.write("three")
    story.world.pull(story.gone)
    story.compact()
    assert story.world.guard is not None
    assert story.world.guard.lacked_by(story.gone.knows(), story.world.server_vector()) == ()
    story.world.sync(story.gone)
    assert story.world.heals == 1
    story.end(expected)


def test_an_edit_that_was_on_its_way_during_a_heal_is_not_lost(yjs: Yjs) -> None:
    story = Story(yjs)
    story.write("three")
    story.compact()
    story.world.edit(story.here, label("on its way"))
    story.world.sync(story.gone)
    assert story.world.heals == 1
    story.world.sync(story.here)
    assert story.world.heals == 2
    story.end("on its way")


def test_what_is_written_after_a_heal_needs_no_other(yjs: Yjs) -> None:
    story = Story(yjs)
    second = story.world.join_yjs(EARLY)
    story.write("three")
    story.compact()
    story.world.sync(story.gone)
    story.write("four")
    story.world.sync(story.gone)
    assert story.world.guard is not None
    assert len(story.world.guard.settled) == 1
    heals = story.world.heals
    story.world.sync(second)
    assert story.world.heals == heals
    story.end("four")


def test_sql_wins_where_it_owns_the_key(yjs: Yjs) -> None:
    story = Story(yjs)
    for status in range(3):
        keeper_writes(story.world, status)
    story.compact()
    story.world.edit(story.gone, Edit("set", "n0", "status", "forged"))
    doc = story.world.server
    asked: list[str] = []

    def truth(node: str) -> Mapping[str, Json]:
        asked.append(node)
        return {"status": "completed"}

    plan = plan_of(story.world, story.gone)
    doc.apply_update(story.gone.replica.update(doc.get_state()))
    doc.apply_update(heal(doc, 1, plan, truth))
    story.gone.replica.apply(doc.get_update(story.gone.replica.vector()))
    for flow in (as_json(doc), story.gone.replica.json()):
        assert flow["nodes"]["n0"]["data"]["status"] == "completed"
    assert asked == ["n0"]
    story.world.close()


def test_a_late_reader_is_healed_and_its_edits_are_ignored(yjs: Yjs) -> None:
    story = Story(yjs)
    story.write("three")
    story.compact()
    story.world.edit(story.gone, label("not allowed"))
    world = story.world
    assert world.guard is not None
    lacked = world.guard.lacked_by(story.gone.knows(), world.server_vector())
    plan = world.guard.plan(world.server_vector(), world.archives, lacked=lacked)
    before = as_json(world.server)
    world.server.apply_update(heal(world.server, 1, plan))
    story.gone.replica.apply(world.server.get_update(story.gone.replica.vector()))
    assert as_json(world.server) == before
    assert story.gone.replica.json() == before
    world.close()


def shared(kind: str) -> Any:
    return {
        "map": Map({"a": 1, "b": Map({"c": None})}),
        "text": Text("é😀 fox"),
        "empty text": Text(""),
        "array": Array([1, {"x": [True]}]),
        "empty array": Array([]),
        "value": {"x": [1.5, None]},
    }[kind]


@pytest.mark.parametrize("kind", ["map", "text", "empty text", "array", "empty array", "value"])
def test_a_key_that_holds_a_shared_type_by_now_is_written_as_a_copy(kind: str, yjs: Yjs) -> None:
    doc: CanvasDoc = Doc(client_id=7)
    with doc.transaction():
        canvas.add_node(doc, {"id": "n0", "data": {}})
    data = canvas.nodes_of(doc)["n0"]["data"]
    for number in range(3):
        data["params"] = number
    made = compact(doc.get_update(), decode_vector(doc.get_state()))
    data["params"] = shared(kind)
    before = as_json(doc)
    doc.apply_update(heal(doc, 1, Plan(dict.fromkeys(made.anchors))))
    assert as_json(doc) == before
    assert yjs.replica(1, doc.get_update()).json() == before
    assert type(data["params"]) is type(shared(kind))


def test_a_heal_of_what_is_gone_is_empty() -> None:
    doc: CanvasDoc = Doc(client_id=7)
    places = [Place((7, 0), "label", ("nodes", "n0", "data")), Place((7, 0), "x", ("nodes",))]
    assert heal(doc, 1, Plan(dict.fromkeys(places[:1]))) == b"\x00\x00"
    assert clients_of(heal(doc, 1, Plan(dict.fromkeys(places[1:])))) == {HEAL_BASE + 1}


def clients_of(update: bytes) -> set[int]:
    return {section.client for section in decode(update).sections}


@pytest.mark.parametrize("number", [-1, 2**20])
def test_the_ids_of_heals_have_an_end(number: int) -> None:
    with pytest.raises(ValueError, match="heals"):
        heal(Doc(), number, Plan({}))


def test_an_edit_on_top_of_a_late_one_is_kept_though_the_heal_is_still_on_its_way(yjs: Yjs) -> None:
    story = Story(yjs)
    world = story.world
    story.write("three")
    story.compact()
    for value in ("first", "second"):
        assert world.guard is not None
        lacked = world.guard.lacked_by(story.gone.knows(), world.server_vector())
        world.edit(story.gone, label(value))
        world.receive(story.gone.replica.update(world.server.get_state()), lacked, story.gone)
        assert label_of(as_json(world.server)) == value
    assert world.heals == 2
    story.end("second")


def test_a_peer_that_sends_its_whole_state_instead_of_what_is_new_is_healed_too(yjs: Yjs) -> None:
    """What it wrote since is one item with what the room holds already."""
    story = Story(yjs)
    world = story.world
    story.write("three")
    story.compact()
    for values in (("first",), ("second", "third")):
        assert world.guard is not None
        lacked = world.guard.lacked_by(story.gone.knows(), world.server_vector())
        for value in values:
            world.edit(story.gone, label(value))
        world.receive(story.gone.replica.update(), lacked, story.gone)
    assert world.heals == 2
    before = world.heals
    world.receive(story.gone.replica.update(), (), story.gone)
    assert world.heals == before
    story.end("third")
