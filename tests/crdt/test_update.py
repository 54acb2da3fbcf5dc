import math
import struct
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycrdt import Array, Doc, Map, Text, XmlElement, XmlFragment, XmlText, merge_updates

from crdt.canvas import CanvasDoc
from crdt.errors import BadUpdate
from crdt.ids import IdSet
from crdt.lib0 import MAX_DEPTH, Cursor, write_any, write_uint
from crdt.update import ANY, DELETED, SKIP, Struct, decode, decode_vector, encode, encode_vector, tail
from tests.crdt.compaction_peers import Edit, PycrdtReplica, Yjs, node_value
from tests.crdt.compaction_world import World

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats()
    | st.text(st.characters(exclude_categories=["Cs"]))
    | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("abé😀"), inner, max_size=4),
    max_leaves=12,
)


def every_content() -> CanvasDoc:
    """A document with each kind of content that pycrdt can write, some of it deleted."""
    doc: CanvasDoc = Doc(client_id=2**53 - 9)
    root = doc.get("nodes", type=Map)
    fragment = doc.get("page", type=XmlFragment)
    with doc.transaction():
        root["a"] = Map({"text": Text("é😀 fox"), "list": Array([1, [None, b"x"], {"k": 2.5}]), "big": 2**60})
        fragment.children.append(XmlElement("p", {"class": "x"}, [XmlText("words")]))
        root["a"]["text"].format(0, 3, {"bold": True})
        root["a"]["text"].insert_embed(0, {"image": "x"})
        root["a"]["doc"] = Doc()
        root["b"] = Map({"x": 1})
    for number in range(3):
        root["a"]["big"] = number
    del root["b"]
    return doc


def test_every_content_comes_out_as_it_went_in() -> None:
    state = every_content().get_update()
    assert encode(decode(state)) == state


def test_what_yjs_encodes_comes_out_as_it_went_in(yjs: Yjs) -> None:
    replica = yjs.replica(7)
    replica.edit(
        Edit("add", "n", value=node_value(label="é😀", prompt="fox 😀", list=[1, 2.5, -7, 2**40, None, {"a": True}]))
    )
    for number in (0, -1, 63, -64, 64, 2**31 - 1, -(2**31), 2**31, 1e300, 0.1, 0.5):
        replica.edit(Edit("set", "n", "label", number))
        update = replica.update()
        assert encode(decode(update)) == update
    replica.edit(Edit("cut", "n", index=1, length=2))
    replica.edit(Edit("remove", "n"))
    assert encode(decode(replica.update())) == replica.update()


@pytest.mark.parametrize("seed", range(5))
def test_every_update_of_a_busy_room_comes_out_as_it_went_in(seed: int, yjs: Yjs) -> None:
    world = World(Random(seed), yjs)  # noqa: S311
    person = world.join()
    for _ in range(40):
        before = person.replica.vector()
        world.edit(person)
        world.keeper_writes()
        for update in (person.replica.update(before), person.replica.update(), world.server.get_update()):
            assert encode(decode(update)) == update
        world.sync(person)
    world.close()


def test_a_gap_in_what_waits_for_a_parent_is_kept() -> None:
    writer = PycrdtReplica(5)
    writer.edit(Edit("add", "n", value=node_value()))
    first = writer.update()
    writer.edit(Edit("set", "n", "label", 1))
    missed = writer.vector()
    writer.edit(Edit("set", "n", "label", 2))
    merged = merge_updates(first, writer.update(missed))
    assert encode(decode(merged)) == merged
    assert any(struct.kind == SKIP for section in decode(merged).sections for struct in section.structs)


@given(data=st.data())
def test_a_truncated_update_is_refused(data: Any) -> None:
    state = every_content().get_update()
    with pytest.raises(BadUpdate):
        decode(state[: data.draw(st.integers(0, len(state) - 1))])


@given(st.binary(max_size=60))
def test_noise_is_read_or_refused(noise: bytes) -> None:
    try:
        update = decode(noise)
    except BadUpdate:
        return
    assert decode(encode(update)) == update


@pytest.mark.parametrize(
    "update", [b"\x00\x00\x00", b"\x01\x01\x05\x00\x0b\x00\x00", b"\x01\x01\x05\x00\x27\x01\x01n\x01k\x09\x00"]
)
def test_trailing_bytes_and_unknown_contents_are_refused(update: bytes) -> None:
    with pytest.raises(BadUpdate):
        decode(update)


def test_deep_nesting_is_no_recursion() -> None:
    def nested(depth: int) -> bytes:
        return b"\x01\x01\x05\x00\x28\x01\x01n\x01k\x01" + b"u\x01" * depth + b"~\x00"

    assert decode(nested(MAX_DEPTH)).sections[0].structs[0].kind == ANY
    with pytest.raises(BadUpdate):
        decode(nested(100_000))


@given(VALUES)
def test_values_are_written_so_that_pycrdt_reads_the_same(value: Any) -> None:
    out = bytearray(b"\x01\x01\x05\x00\x28\x01\x05nodes\x01k\x01")
    write_any(out, value)
    cursor = Cursor(bytes(out))
    cursor.skip(15)
    cursor.skip_any()
    assert cursor.at == len(out)
    doc: CanvasDoc = Doc()
    doc.apply_update(bytes(out) + b"\x00")
    assert same(doc.get("nodes", type=Map)["k"], value)


def same(one: Any, other: Any) -> bool:
    """Equal, with NaN equal to itself."""
    if isinstance(other, float) and math.isnan(other):
        return math.isnan(one)
    if isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in other)
    return bool(one == other)


@given(st.integers(-(2**31) + 1, 2**31 - 1) | st.floats(width=32, allow_nan=False) | st.floats(allow_nan=False))
def test_numbers_are_written_as_javascript_writes_them(value: float) -> None:
    out = bytearray()
    write_any(out, value)
    if value == value // 1 and abs(value) < 2**31:
        assert out[0] == 125
    elif math.isinf(value) or struct.unpack(">f", struct.pack(">f", clipped(value)))[0] == value:
        assert out[0] == 124
    else:
        assert out[0] == 123


def clipped(value: float) -> float:
    return value if abs(value) < 3.4e38 else 0.1


@given(st.dictionaries(st.integers(0, 2**53), st.integers(0, 2**40)))
def test_state_vectors_come_out_as_they_went_in(vector: dict[int, int]) -> None:
    assert decode_vector(encode_vector(vector)) == vector


@pytest.mark.parametrize("vector", [b"", b"\x01", b"\x01\x05", b"\x00\x00"])
def test_a_broken_state_vector_is_refused(vector: bytes) -> None:
    with pytest.raises(BadUpdate):
        decode_vector(vector)


def test_an_item_can_be_divided() -> None:
    content = bytearray(b"\x03")
    for value in ("a", [1, {"b": None}], 7):
        write_any(content, value)
    rest = tail(Struct(ANY, 10, 3, content=bytes(content)), 2)
    assert (rest.clock, rest.length, rest.content) == (12, 1, b"\x01\x7d\x07")
    assert tail(Struct(DELETED, 10, 300, content=b"\xac\x02"), 40).content == b"\x84\x02"


def test_a_shared_type_cannot_be_divided() -> None:
    with pytest.raises(BadUpdate):
        tail(Struct(7, 10, 1, content=b"\x01"), 0)


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 30), st.integers(0, 5))))
def test_a_set_of_ids_is_a_set(ranges: list[tuple[int, int, int]]) -> None:
    ids = {(client, clock) for client, start, length in ranges for clock in range(start, start + length)}
    merged = IdSet(ranges)
    assert {one for one in ((c, n) for c in range(3) for n in range(40)) if one in merged} == ids
    assert {(c, n) for c, start, length in merged for n in range(start, start + length)} == ids
    assert IdSet.of(merged.deletes()) == merged
    assert bool(merged) == bool(ids)


def test_numbers_of_any_size_are_written() -> None:
    out = bytearray()
    for value in (0, 127, 128, 2**53 - 1):
        write_uint(out, value)
    cursor = Cursor(bytes(out))
    assert [cursor.uint() for _ in range(4)] == [0, 127, 128, 2**53 - 1]
