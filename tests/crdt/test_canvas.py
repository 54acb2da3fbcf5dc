import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycrdt import Array, Doc, Map, Text

from crdt import canvas
from crdt.canvas import DELETE, CanvasDoc
from crdt.errors import EdgeExists, EdgeNotFound, InvalidNode, NodeExists, NodeNotFound
from crdt.json import Json


def doc_with(**nodes: object) -> CanvasDoc:
    doc: CanvasDoc = Doc(client_id=1)
    root = canvas.nodes_of(doc)
    for node_id, value in nodes.items():
        root[node_id] = value
    return doc


def test_a_node_is_added_nested_with_its_prompt_as_shared_text() -> None:
    doc = doc_with()
    canvas.add_node(doc, {"id": "n", "position": {"x": 1, "y": 2.5}, "data": {"prompt": "fox", "params": {"n": 2}}})
    shared = canvas.nodes_of(doc)["n"]
    assert isinstance(shared["data"]["prompt"], Text)
    assert isinstance(shared["data"]["params"], Map)
    node = canvas.read_node(doc, "n")
    assert node is not None
    assert node.to_json() == {
        "id": "n",
        "type": "image",
        "position": {"x": 1, "y": 2.5},
        "data": {"prompt": "fox", "params": {"n": 2}},
    }


def test_server_owned_keys_of_a_new_node_are_left_out() -> None:
    doc = doc_with()
    canvas.add_node(doc, {"id": "n", "data": {"status": "completed", "imageUrl": "x", "prompt": "fox"}})
    node = canvas.read_node(doc, "n")
    assert node is not None
    assert node.data == {"prompt": "fox"}


@pytest.mark.parametrize(
    ("node", "field"),
    [
        ({}, "id"),
        ({"id": ""}, "id"),
        ({"id": "a\x00b"}, "id"),
        ({"id": "x" * 257}, "id"),
        ({"id": "n", "type": 5}, "type"),
        ({"id": "n", "position": {"x": 1}}, "position"),
        ({"id": "n", "position": {"x": "1", "y": 2}}, "position"),
        ({"id": "n", "position": {"x": math.nan, "y": 2}}, "position"),
        ({"id": "n", "data": []}, "data"),
        ({"id": "n", "data": {"prompt": 5}}, "data.prompt"),
    ],
)
def test_a_wrong_field_is_named(node: dict[str, Json], field: str) -> None:
    with pytest.raises(InvalidNode) as refused:
        canvas.add_node(doc_with(), node)
    assert refused.value.field == field


def test_an_id_is_taken_once() -> None:
    doc = doc_with(n=Map({"data": Map()}))
    with pytest.raises(NodeExists):
        canvas.add_node(doc, {"id": "n"})


@pytest.mark.parametrize(
    "hostile",
    [
        {"position": {"x": "far", "y": None}, "data": "text"},
        {"type": 7, "position": [1, 2], "data": None},
        Map({"position": {"x": math.inf, "y": 0}, "data": Array([1])}),
        {"type": "", "data": {"bytes": b"\x00\x01", "deep": [[[[{"a": math.nan}]]]]}},
        json.dumps({"type": "image", "position": {"x": 0, "y": 0}}),
    ],
)
def test_whatever_a_peer_wrote_reads_as_a_node_that_sql_can_keep(hostile: object) -> None:
    node = canvas.read_node(doc_with(n=hostile), "n")
    assert node is not None
    row = node.to_row()
    assert row.position == {"x": 0, "y": 0}
    assert isinstance(row.node_type, str)
    json.dumps(row.node_data, allow_nan=False)


@pytest.mark.parametrize("nothing", [None, 5, "not json", "[1]", b"bytes", True])
def test_what_is_no_node_at_all_is_not_read(nothing: object) -> None:
    assert canvas.read_node(doc_with(n=nothing), "n") is None


def test_numbers_from_javascript_become_whole_again_and_giant_ones_text() -> None:
    node = canvas.read_node(doc_with(n=Map({"data": Map({"seed": 5.0, "half": 0.5, "big": 2**60})})), "n")
    assert node is not None
    assert node.data == {"seed": 5, "half": 0.5, "big": str(2**60)}
    assert type(node.data["seed"]) is int


def test_picture_bytes_and_intents_never_reach_the_row() -> None:
    node = canvas.read_node(
        doc_with(n=Map({"data": Map({"src": "data:image/png;base64,AAAA", "request": {"id": "1"}, "k": "v"})})), "n"
    )
    assert node is not None
    assert node.to_row().node_data == {"src": None, "k": "v"}


def test_nul_characters_are_replaced() -> None:
    node = canvas.read_node(doc_with(n=Map({"data": Map({"label": "a\x00b"})})), "n")
    assert node is not None
    assert node.data == {"label": "a\ufffdb"}


def test_plain_nodes_are_nested_once() -> None:
    doc = doc_with(a={"position": {"x": 1, "y": 1}, "data": {"prompt": "fox", "status": "completed"}}, b=Map())
    assert canvas.upgrade(doc)
    assert isinstance(canvas.nodes_of(doc)["a"]["data"]["prompt"], Text)
    assert not canvas.upgrade(doc)


def test_only_what_differs_is_written() -> None:
    doc = doc_with(n=Map({"data": Map({"status": "pending", "images": [{"width": 5.0}]})}))
    assert not canvas.patch_data(doc, "n", {"status": "pending", "images": [{"width": 5}], "gone": DELETE})
    before = doc.get_state()
    assert canvas.patch_data(doc, "n", {"status": "running"})
    assert doc.get_state() != before
    assert not canvas.patch_data(doc, "missing", {"status": "running"})


def test_an_update_merges_data_and_removes_keys_set_to_none() -> None:
    doc = doc_with(n=Map({"position": {"x": 0, "y": 0}, "data": Map({"a": 1, "b": 2, "status": "completed"})}))
    node = canvas.update_node(doc, "n", {"position": {"x": 3, "y": 4}, "data": {"b": None, "c": 3, "status": "idle"}})
    assert node.position == {"x": 3, "y": 4}
    assert node.data == {"a": 1, "c": 3, "status": "completed"}
    with pytest.raises(NodeNotFound):
        canvas.update_node(doc, "missing", {})


def test_edges_go_with_their_node() -> None:
    doc = doc_with(a=Map({"data": Map()}), b=Map({"data": Map()}), c=Map({"data": Map()}))
    canvas.add_edge(doc, {"id": "ab", "source": "a", "target": "b"})
    canvas.add_edge(doc, {"id": "bc", "source": "b", "target": "c", "label": "next"})
    assert canvas.remove_node(doc, "a")
    assert not canvas.remove_node(doc, "a")
    assert canvas.edge_ids(doc) == ["bc"]
    assert canvas.update_edge(doc, "bc", {"label": "then"}).edge_data["label"] == "then"
    with pytest.raises(EdgeExists):
        canvas.add_edge(doc, {"id": "bc", "source": "b", "target": "c"})
    with pytest.raises(InvalidNode, match="source"):
        canvas.add_edge(doc, {"id": "x", "source": "a", "target": "c"})
    with pytest.raises(EdgeNotFound):
        canvas.update_edge(doc, "ab", {})
    assert canvas.remove_edge(doc, "bc")


def test_an_edge_to_a_deleted_node_is_not_shown() -> None:
    doc = doc_with(a=Map({"data": Map()}))
    canvas.edges_of(doc)["dangling"] = Map({"source": "a", "target": "gone"})
    assert canvas.read_flow(doc)["edges"] == []


@given(st.text(max_size=30), st.text(max_size=30))
def test_text_is_replaced_whole_whatever_characters_it_has(old: str, new: str) -> None:
    doc = doc_with(n=Map({"data": Map({"prompt": Text(old)})}))
    canvas.patch_data(doc, "n", {"prompt": new})
    assert str(canvas.nodes_of(doc)["n"]["data"]["prompt"]) == new


def test_a_server_edit_of_the_prompt_keeps_what_another_types_at_the_same_time() -> None:
    doc = doc_with(n=Map({"data": Map({"prompt": Text("a fox")})}))
    other: CanvasDoc = Doc(client_id=2)
    other.apply_update(doc.get_update())
    typed = canvas.nodes_of(other)["n"]["data"]["prompt"]
    typed += " at night"
    canvas.patch_data(doc, "n", {"prompt": "a red fox"})
    doc.apply_update(other.get_update())
    assert str(canvas.nodes_of(doc)["n"]["data"]["prompt"]) == "a red fox at night"
