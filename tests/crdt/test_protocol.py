from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crdt import protocol
from crdt.errors import ProtocolError
from crdt.protocol import (
    AwarenessEntry,
    AwarenessUpdate,
    Durable,
    Permission,
    QueryAwareness,
    SyncStep1,
    SyncUpdate,
    TokenOffered,
    TokenTaken,
    UnknownMessage,
)

if TYPE_CHECKING:
    from collections.abc import Callable

numbers = st.integers(min_value=0, max_value=2**53)
states = st.dictionaries(st.text(max_size=8), st.one_of(st.text(max_size=8), st.integers(), st.none()), max_size=3)
entries = st.builds(AwarenessEntry, numbers, numbers, st.one_of(st.just("null"), states.map(protocol.awareness_state)))
messages = st.one_of(
    st.builds(SyncStep1, st.binary(max_size=200)),
    st.builds(SyncUpdate, st.binary(max_size=200), step2=st.booleans()),
    st.builds(AwarenessUpdate, st.lists(entries, max_size=4).map(tuple)),
    st.just(QueryAwareness()),
    st.builds(Durable, numbers),
    st.builds(Permission, may_edit=st.booleans()),
)


def encode(message: protocol.Message) -> bytes:
    encoders: dict[type, Callable[[Any], bytes]] = {
        SyncStep1: lambda m: protocol.step1_message(m.state_vector),
        SyncUpdate: lambda m: (protocol.step2_message if m.step2 else protocol.update_message)(m.update),
        AwarenessUpdate: lambda m: protocol.awareness_message(m.entries),
        QueryAwareness: lambda _: bytes([protocol.QUERY_AWARENESS]),
        Durable: lambda m: protocol.durable_message(m.count),
        Permission: lambda m: protocol.permission_message(may_edit=m.may_edit),
    }
    return encoders[type(message)](message)


@given(st.lists(messages, min_size=1, max_size=4))
def test_several_messages_in_one_frame_come_out_as_they_went_in(sent: list[protocol.Message]) -> None:
    assert list(protocol.parse(b"".join(map(encode, sent)))) == sent


@given(numbers)
def test_numbers_round_trip(number: int) -> None:
    reader = protocol.Reader(protocol.var_uint(number))
    assert reader.var_uint() == number
    assert reader.exhausted


@given(messages, st.data())
def test_a_truncated_message_is_refused_and_nothing_else_is_raised(
    message: protocol.Message, data: st.DataObject
) -> None:
    whole = encode(message)
    cut = data.draw(st.integers(min_value=0, max_value=len(whole) - 1))
    with pytest.raises(ProtocolError):
        list(protocol.parse(whole[:cut]))


@given(st.binary(max_size=300))
def test_garbage_raises_only_protocol_errors(garbage: bytes) -> None:
    try:
        for _ in protocol.parse(garbage):
            pass
    except ProtocolError:
        pass


@pytest.mark.parametrize("state", ["{", "[1]", "1", '"text"', "[" * 100_000, '{"x":NaN}', '{"x":-Infinity}', ""])
def test_an_awareness_state_that_is_no_json_object_is_left_out(state: str) -> None:
    good = AwarenessEntry(2, 1, "{}")
    message = protocol.awareness_message([AwarenessEntry(1, 1, state), good])
    assert list(protocol.parse(message)) == [AwarenessUpdate((good,), refused=1)]


@given(st.text())
def test_tokens_travel_in_band(text: str) -> None:
    assert list(protocol.parse(protocol.token_message(text))) == [TokenOffered(text)]
    assert list(protocol.parse(protocol.token_taken_message(text))) == [TokenTaken(text)]


def test_an_unknown_message_type_ends_the_frame_but_is_no_error() -> None:
    assert list(protocol.parse(bytes([77, 1, 2, 3]))) == [UnknownMessage(77)]


@given(st.lists(st.binary(max_size=70_000), max_size=4))
def test_frames_split_into_the_messages_they_were_built_from(payloads: list[bytes]) -> None:
    wire = b"".join(map(protocol.binary_frame, payloads))
    assert list(protocol.split_frames(wire)) == payloads


@given(st.binary(max_size=300), st.binary(max_size=3))
def test_the_short_way_to_an_edit_is_the_long_one(update: bytes, behind: bytes) -> None:
    frame = protocol.update_message(update) + behind
    assert protocol.sole_edit(frame) == (None if behind else update)


@given(st.binary(max_size=12).map(lambda tail: b"\0\2" + tail))
def test_the_short_way_takes_nothing_that_the_long_one_refuses(frame: bytes) -> None:
    edit = protocol.sole_edit(frame)
    if edit is not None:
        assert list(protocol.parse(frame)) == [SyncUpdate(edit, step2=False)]
