import pytest
from pycrdt import Array, Doc, Map

from crdt.errors import BadUpdate
from crdt.lib0 import MAX_DEPTH, write_text, write_uint
from crdt.nesting import check_nesting


def value_update(value: bytes) -> bytes:
    """An update (v1) that puts an encoded Any value into `nodes`."""
    out = bytearray((1, 1, 77, 0, 0x28, 1))
    write_text(out, "nodes")
    write_text(out, "k")
    write_uint(out, 1)
    return bytes(out) + value + b"\x00"


@pytest.mark.parametrize("opening", [b"u\x01", b"v\x01\x01k", b"u\x02\x7e", b"u\x02" + b"w\x14" + b"x" * 20])
def test_values_may_be_nested_so_deep_and_no_deeper(opening: bytes) -> None:
    check_nesting(value_update(opening * (MAX_DEPTH - 1) + b"\x7e"))
    for depth in (MAX_DEPTH + 1, 100_000):
        with pytest.raises(BadUpdate):
            check_nesting(value_update(opening * depth + b"\x7e"))


def test_what_is_large_but_flat_is_taken() -> None:
    doc: Doc[Map[object]] = Doc()
    doc.get("nodes", type=Map).update(
        {"text": "you value vivid hues, " * 5000, "list": Array([{"u": ["v"]}] * 3000), "map": Map({"u": "v" * 9000})}
    )
    check_nesting(doc.get_update())
