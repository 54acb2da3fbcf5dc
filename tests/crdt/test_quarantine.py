import asyncio
import datetime as dt
from collections.abc import Coroutine
from types import SimpleNamespace
from typing import Any

import pytest
import sqlalchemy as sa
from pycrdt import Doc, Map
from sqlalchemy.ext.asyncio import AsyncEngine

from crdt import canvas, protocol
from crdt.canvas import CanvasDoc
from crdt.errors import RoomUnavailable
from crdt.quarantine import KEEP, PER_MINUTE, Quarantine, Why
from crdt.store import pack
from crdt.tables import document_updates, documents, quarantined_updates
from tests.crdt.builders import Client, running_rooms

GARBAGE = b"\x01\x02\x03"


class Panic(BaseException):
    """As a panic inside yrs comes out of pycrdt."""


async def set_aside(engine: AsyncEngine) -> list[tuple[str, str, bytes]]:
    async with engine.connect() as connection:
        table = quarantined_updates
        rows = await connection.execute(sa.select(table.c.room, table.c.why, table.c.update).order_by(table.c.id))
        return [(room, why, update) for room, why, update in rows]


def node_update(name: str) -> bytes:
    doc: CanvasDoc = Doc(client_id=7)
    with doc.transaction():
        canvas.nodes_of(doc)[name] = Map({"data": Map()})
    return doc.get_update()


async def test_an_update_that_cannot_be_applied_is_kept_and_only_its_sender_is_closed(engine: AsyncEngine) -> None:
    async with running_rooms(engine) as rooms:
        room = await rooms.open("r")
        sender, other = Client(room), Client(room)
        room.receive(sender.peer, protocol.update_message(GARBAGE))
        assert sender.socket.closed is not None
        assert sender.socket.closed[0] == 4400
        other.add_node("n")
        assert canvas.node_ids(room.doc) == ["n"]
        assert other.socket.closed is None
    assert await set_aside(engine) == [("r", "refused", GARBAGE)]


async def test_after_a_panic_everybody_comes_back_to_what_was_stored(
    engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_rooms(engine) as rooms:
        room = await rooms.open("r")
        sender, other = Client(room), Client(room)
        other.add_node("kept")

        def break_down(*_: object) -> bool:
            raise Panic("called `Option::unwrap()` on a `None` value")

        monkeypatch.setattr(room, "_watch", SimpleNamespace(apply=break_down, drop=lambda: None))
        room.receive(sender.peer, protocol.update_message(node_update("broken")))
        assert other.socket.closed == (1013, "try-again: the canvas is put in order")
        again = await rooms.open("r")
        assert again is not room
        assert canvas.node_ids(again.doc) == ["kept"]
        back = Client(again)
        back.add_node("later")
    assert [(room, why) for room, why, _ in await set_aside(engine)] == [("r", "panic")]


async def test_a_row_of_the_log_that_cannot_be_read_is_left_out_and_kept(engine: AsyncEngine) -> None:
    async with running_rooms(engine) as rooms:
        await rooms.open("r")
    async with engine.begin() as connection:
        row = {"room": "r", "at": dt.datetime.now(dt.UTC)}
        for seq, update in ((2, GARBAGE), (3, node_update("n"))):
            await connection.execute(sa.insert(document_updates).values(seq=seq, update=pack([update]), **row))
        await connection.execute(sa.update(documents).values(seq=3))
    async with running_rooms(engine, process_id="p2") as rooms:
        room = await rooms.open("r")
        assert canvas.node_ids(room.doc) == ["n"]
    assert await set_aside(engine) == [("r", "stored", GARBAGE)]


async def test_a_snapshot_that_cannot_be_read_is_never_stored_over(engine: AsyncEngine) -> None:
    async with running_rooms(engine) as rooms:
        await rooms.open("r")
    async with engine.begin() as connection:
        await connection.execute(sa.update(documents).values(snapshot=GARBAGE, seq=1, snapshot_seq=1))
    async with running_rooms(engine, process_id="p2") as rooms:
        with pytest.raises(RoomUnavailable, match="darkroom doctor"):
            await rooms.open("r")
    async with engine.connect() as connection:
        assert (await connection.execute(sa.select(documents.c.snapshot))).scalar_one() == GARBAGE


async def test_stopping_waits_for_what_is_still_written(sqlite_engine: AsyncEngine) -> None:
    quarantine = Quarantine(sqlite_engine, asyncio.create_task)
    for name in ("one", "two"):
        quarantine.note(name, GARBAGE, Why.REFUSED, "no update")
    await quarantine.settle()
    assert sorted(room for room, _, _ in await set_aside(sqlite_engine)) == ["one", "two"]


async def test_whoever_sends_nothing_but_garbage_fills_no_disk(sqlite_engine: AsyncEngine) -> None:
    written: list[asyncio.Task[None]] = []

    def spawn(work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        written.append(asyncio.create_task(work))
        return written[-1]

    quarantine = Quarantine(sqlite_engine, spawn, clock=lambda: dt.datetime(2026, 1, 1, tzinfo=dt.UTC))
    for number in range(100):
        quarantine.note("r", b"%d" % number, Why.REFUSED, "no update")
    assert len(written) == PER_MINUTE
    await quarantine.settle()
    for number in range(KEEP):
        await quarantine.keep("r", b"later %d" % number, Why.REFUSED, "no update")
    kept = await set_aside(sqlite_engine)
    assert len(kept) == KEEP
    assert all(update.startswith(b"later") for _, _, update in kept)
