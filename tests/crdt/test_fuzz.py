"""Broken updates end the connection of their sender at worst, never the room."""

import asyncio

from hypothesis import given, settings
from hypothesis import strategies as st

from crdt import canvas, protocol
from tests.crdt.builders import Client, Recorder
from tests.crdt.people import EDITS, several

edits = st.lists(st.tuples(st.sampled_from(EDITS), st.integers(0, 30)), min_size=1, max_size=8)
damage = st.one_of(
    st.tuples(st.just("cut"), st.integers(0, 400), st.just(b"")),
    st.tuples(st.just("put"), st.integers(0, 400), st.binary(min_size=1, max_size=6)),
    st.tuples(st.just("insert"), st.integers(0, 400), st.binary(min_size=1, max_size=6)),
)


def damaged(update: bytes, wounds: list[tuple[str, int, bytes]]) -> bytes:
    for kind, place, what in wounds:
        at = place % (len(update) + 1)
        if kind == "cut":
            update = update[:at]
        else:
            update = update[:at] + what + update[at + (len(what) if kind == "put" else 0) :]
    return update


@settings(max_examples=150)
@given(doings=edits, wounds=st.lists(damage, min_size=1, max_size=3))
def test_a_damaged_update_leaves_the_room_to_the_others(
    doings: list[tuple[str, int]], wounds: list[tuple[str, int, bytes]]
) -> None:
    async def play() -> None:
        recorder = Recorder()
        room = recorder.room()
        good, bad = Client(room), Client(room)
        with bad.doc.transaction():
            several([("add", 0), ("add", 1), *doings])(bad.doc)
        room.receive(bad.peer, protocol.update_message(damaged(bad.doc.get_update(), wounds)))
        room.flush()
        good.pull()
        good.add_node("good")
        assert good.socket.closed is None
        joiner = Client(room)
        again = Recorder().room(room.state())
        restarted = Recorder().room(*recorder.stored)
        for doc in (joiner.doc, again.doc, restarted.doc):
            assert "good" in canvas.nodes_of(doc)
        room.dispose()

    asyncio.run(play())
