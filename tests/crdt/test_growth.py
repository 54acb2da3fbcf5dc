import asyncio
import datetime as dt
import logging
from dataclasses import replace

import pytest
import sqlalchemy as sa
from pycrdt import Doc
from sqlalchemy.ext.asyncio import AsyncEngine

from crdt import canvas
from crdt.bus import MemoryBus, MemoryHub
from crdt.canvas import CanvasDoc
from crdt.growth import MANY_IDS, GrowthLimits, Reason, reason
from crdt.growth_store import CompactedRow, GrowthStore
from crdt.room import KEEPER_BASE, Origin, Room
from crdt.rows import Ledger, Size
from crdt.store import SqlStore
from crdt.tables import document_archives, document_frontiers, document_updates, documents
from crdt.update import decode, decode_vector
from tests.crdt.builders import Client, database
from tests.crdt.compaction_peers import Edit, PycrdtReplica, as_json, node_value
from tests.crdt.growth_pages import (
    AT_ONCE,
    LIMITS,
    Killed,
    Page,
    agreed,
    archive_rows,
    compact,
    document_row,
    label,
    label_of,
    rooms_of,
)

DAY = dt.timedelta(days=1)
NOW = dt.datetime(2026, 11, 21, 12, tzinfo=dt.UTC)
WEEK_OLD = Ledger(3_000_000, b"\x00", NOW, NOW - 2 * DAY, Size(2_000_000, 1_000, 100, 50_000))


@pytest.mark.parametrize(
    ("ledger", "units", "expected"),
    [
        (replace(WEEK_OLD, frontier=None, compacted_at=None, size=None), 10**6, None),
        (replace(WEEK_OLD, compacted_at=None, size=None), 0, Reason.FIRST),
        (replace(WEEK_OLD, size=None), 0, Reason.FIRST),
        (WEEK_OLD, 50_000, None),
        (WEEK_OLD, 51_000, None),
        (WEEK_OLD, 51_001, Reason.STRUCTS),
        (replace(WEEK_OLD, compacted_at=NOW - DAY / 2), 10**6, None),
        (replace(WEEK_OLD, stored_bytes=4_000_000), 50_001, None),
        (replace(WEEK_OLD, stored_bytes=4_000_001), 50_001, Reason.BYTES),
        (replace(WEEK_OLD, stored_bytes=4_000_001), 50_000, None),
        (replace(WEEK_OLD, compacted_at=NOW - 6 * DAY), 50_001, None),
        (replace(WEEK_OLD, compacted_at=NOW - 7 * DAY), 50_001, Reason.AGE),
        (replace(WEEK_OLD, compacted_at=NOW - 70 * DAY), 50_000, None),
    ],
)
def test_when_a_document_is_compacted(ledger: Ledger, units: int, expected: Reason | None) -> None:
    assert reason(ledger, units, NOW, GrowthLimits()) is expected


def busy_page(room: Room, writes: int = 100, *, client: int = 7) -> Page:
    """Somebody who writes two keys in turn many times."""
    page = Page(PycrdtReplica(client)).connect(room)
    if "n0" not in as_json(room.doc)["nodes"]:
        page.edit(Edit("add", "n0", value=node_value(label="", prompt="fox")))
    for number in range(writes):
        page.edit(label(f"{number}"))
        page.edit(Edit("set", "n0", "seed", number))
    return page


def structs_of(state: bytes) -> int:
    return sum(len(section.structs) for section in decode(state).sections)


async def test_a_room_is_compacted_in_memory_and_in_sql(engine: AsyncEngine) -> None:
    async with rooms_of(engine) as rooms, rooms.use("r") as room:
        page = busy_page(room)
        flow, lived = as_json(room.doc), room.state()
        await compact(rooms, room)
        assert as_json(room.doc) == flow
        assert structs_of(room.state()) < 20 < structs_of(lived)
        row, (archive,) = await document_row(engine), await archive_rows(engine)
        assert (row.snapshot_seq, len(row.snapshot)) == (row.seq, archive.bytes)
        assert row.guard is not None
        assert row.compacted_at == archive.at
        async with engine.connect() as connection:
            assert (await connection.execute(sa.select(sa.func.count()).select_from(document_updates))).scalar() == 0
        page.edit(label("later"))
        await agreed(room, page)
    async with rooms_of(engine, "p2") as rooms, rooms.use("r") as room:
        assert as_json(room.doc)["nodes"]["n0"]["data"]["label"] == "later"
        assert room.late is not None


async def test_a_room_is_compacted_by_the_tick_and_keeps_its_client_id(sqlite_engine: AsyncEngine) -> None:
    async with rooms_of(sqlite_engine) as rooms, rooms.use("r") as room:
        busy_page(room)
        doc = room.doc
        await rooms.tick()
        async with asyncio.timeout(20):
            while rooms.growth._round is not None and not rooms.growth._round.done():
                await asyncio.wait([rooms.growth._round])
        assert room.doc is not doc
        assert room.doc.client_id == doc.client_id == KEEPER_BASE + 1


async def test_a_room_that_is_due_is_compacted_before_it_is_let_go(sqlite_engine: AsyncEngine) -> None:
    async with rooms_of(sqlite_engine, limits=replace(LIMITS, grace_s=0.0)) as rooms:
        async with rooms.use("r") as room:
            page = busy_page(room)
            page.leave()
        async with asyncio.timeout(20):
            while rooms.opened("r") is not None:
                await asyncio.wait(rooms._tasks - {rooms._tick_task, rooms._journal_task}, timeout=0.1)
        assert len(await archive_rows(sqlite_engine)) == 1


async def age(engine: AsyncEngine, by: dt.timedelta) -> None:
    """Make everything that growth wrote this much older."""
    async with engine.begin() as connection:
        for table, column in (
            (document_frontiers, document_frontiers.c.at),
            (document_archives, document_archives.c.at),
            (documents, documents.c.compacted_at),
        ):
            for (at,) in (await connection.execute(sa.select(column).where(column.is_not(None)))).all():
                await connection.execute(sa.update(table).where(column == at).values({column.name: at - by}))


async def frontiers(engine: AsyncEngine) -> list[bytes]:
    async with engine.connect() as connection:
        query = sa.select(document_frontiers.c.vector).order_by(document_frontiers.c.at)
        return list((await connection.execute(query)).scalars())


async def test_only_what_is_older_than_the_window_is_retired(engine: AsyncEngine) -> None:
    async with rooms_of(engine, limits=replace(LIMITS, growth=GrowthLimits())) as rooms, rooms.use("r") as room:
        page, doc = busy_page(room), room.doc
        await rooms.growth.look(room)
        assert (room.doc, len(await frontiers(engine))) == (doc, 1)
        seen = decode_vector(room.doc.get_state())
        for number in range(50):
            page.edit(label(f"in the window {number}"))
        await age(engine, 6 * DAY)
        await rooms.growth.look(room)
        assert (room.doc, len(await frontiers(engine))) == (doc, 2)
        await age(engine, DAY)
        await compact(rooms, room)
        assert room.late is not None
        retired = list(room.late.guard.retired)
        assert retired
        assert all(clock + length <= seen[client] for client, clock, length in retired)
        assert len(await frontiers(engine)) == 3


async def test_frontiers_and_archives_that_nobody_needs_are_removed(engine: AsyncEngine) -> None:
    async with rooms_of(engine, limits=replace(LIMITS, growth=GrowthLimits())) as rooms, rooms.use("r") as room:
        page = busy_page(room, 5)
        for day in range(30):
            page.edit(label(f"{day}"))
            await rooms.growth.look(room)
            await age(engine, DAY)
        # Those of the window, of the three days beyond, and the one before.
        assert 10 <= len(await frontiers(engine)) <= 12
        assert len(await archive_rows(engine)) == 4
        await age(engine, 90 * DAY)
        page.edit(label("again"))
        await rooms.growth.look(room)
        assert [row.number for row in await archive_rows(engine)] == [5]


class Gated(GrowthStore):
    """Commits a compaction only when told to."""

    def __init__(self, engine: AsyncEngine, process_id: str) -> None:
        super().__init__(engine, process_id)
        self.reached, self.gate = asyncio.Event(), asyncio.Event()

    async def compacted(self, room: str, row: CompactedRow, fence: int, *, keep_after: dt.datetime) -> bool:
        self.reached.set()
        await self.gate.wait()
        return await super().compacted(room, row, fence, keep_after=keep_after)


async def gated_rooms(engine: AsyncEngine) -> tuple[Killed, Gated]:
    store = SqlStore(engine, "p1")
    store.growth = gated = Gated(engine, "p1")
    rooms = Killed(store, MemoryBus(), process_id="p1", limits=LIMITS)
    await rooms.start()
    return rooms, gated


async def test_no_edit_is_lost_that_comes_during_a_compaction(engine: AsyncEngine) -> None:
    rooms, gated = await gated_rooms(engine)
    room = await rooms.open("r")
    page, other = busy_page(room), Page(PycrdtReplica(9)).connect(room)
    looking = asyncio.create_task(rooms.growth.look(room))
    number = 0
    while not gated.reached.is_set():
        page.edit(Edit("set", "n0", f"during {number}", number))
        number += 1
        await asyncio.sleep(0.01)  # Fifty edits a second, about, for as long as the other process takes.
    page.edit(label("while it is stored"))
    other.edit(Edit("add", "n1", value=node_value(label="new", prompt="hare")))
    with room.transact() as doc:
        canvas.patch_data(doc, "n0", {"status": "running"})
    gated.gate.set()
    await looking
    assert room.late is not None
    await agreed(room, page, other)
    data = as_json(room.doc)["nodes"]["n0"]["data"]
    assert [data[f"during {one}"] for one in range(number)] == list(range(number))
    assert (data["label"], data["status"]) == ("while it is stored", "running")
    flow = as_json(room.doc)
    await rooms.stop()
    async with rooms_of(engine, "p2") as again, again.use("r") as room:
        assert as_json(room.doc) == flow


async def test_a_compaction_gives_way_to_an_edit_that_hangs_on_what_it_retired(engine: AsyncEngine) -> None:
    rooms, gated = await gated_rooms(engine)
    room = await rooms.open("r")
    page = busy_page(room, 5)
    late = Page(PycrdtReplica(2**31, room.doc.get_update()))
    page.edit(label("since"))
    late.edit(label("half open"))
    doc = room.doc
    looking = asyncio.create_task(rooms.growth.look(room))
    await gated.reached.wait()
    # Stored compacted already; it is the live document that gives way.
    room.apply(late.replica.update(), Origin.PEER)
    gated.gate.set()
    await looking
    assert (room.doc, room.late) == (doc, None)
    assert as_json(room.doc)["nodes"]["n0"]["data"]["label"] == "half open"
    await rooms.journal.flushed("r")
    # Killed now, the log goes on behind a snapshot in which the edit's origin is garbage: the next load heals it.
    await rooms.kill()
    async with engine.begin() as connection:
        await connection.exec_driver_sql("DELETE FROM processes")
    async with rooms_of(engine, "p2") as again, again.use("r") as room:
        assert room.late is not None
        await room.late.settled()
        page.leave()
        page.connect(room)
        await agreed(room, page)
        assert label_of(page) == "half open"


async def test_a_compaction_that_fails_leaves_everything_as_it_was_and_is_not_tried_at_once(
    engine: AsyncEngine, caplog: pytest.LogCaptureFixture
) -> None:
    limits = replace(LIMITS, growth=replace(AT_ONCE, child_s=0.0))
    async with rooms_of(engine, limits=limits) as rooms, rooms.use("r") as room:
        busy_page(room)
        await rooms.journal.flushed("r")
        doc, before = room.doc, await document_row(engine)
        with caplog.at_level(logging.WARNING):
            await rooms.growth.look(room)
            await rooms.growth.look(room)
        assert [record.__dict__["action"] for record in caplog.records] == ["compaction_failed"]
        assert (room.doc, room.late) == (doc, None)
        assert await document_row(engine) == before
        assert await archive_rows(engine) == []
        then = rooms.growth.now() + dt.timedelta(minutes=11)
        rooms.growth.now = lambda: then
        with caplog.at_level(logging.WARNING):
            await rooms.growth.look(room)
        assert len(caplog.records) == 2


async def test_a_process_that_lost_the_room_stores_no_compaction(engine: AsyncEngine) -> None:
    rooms, gated = await gated_rooms(engine)
    room = await rooms.open("r")
    busy_page(room)
    doc = room.doc
    looking = asyncio.create_task(rooms.growth.look(room))
    await gated.reached.wait()
    async with engine.begin() as connection:
        await connection.execute(sa.update(documents).values(fence=documents.c.fence + 1, keeper="p2"))
    gated.gate.set()
    await looking
    row = await document_row(engine)
    assert (row.guard, row.compacted_at, room.doc) == (None, None, doc)
    assert await archive_rows(engine) == []
    await rooms.stop()


async def test_a_snapshot_is_not_written_over_a_compaction_at_work(sqlite_engine: AsyncEngine) -> None:
    rooms, gated = await gated_rooms(sqlite_engine)
    room = await rooms.open("r")
    page = busy_page(room)
    looking = asyncio.create_task(rooms.growth.look(room))
    await gated.reached.wait()
    page.edit(label("later"))
    await rooms.journal.flushed("r")
    await rooms._keeping.snapshot(rooms._entries["r"])
    assert (await document_row(sqlite_engine)).snapshot is None
    gated.gate.set()
    await looking
    assert room.late is not None
    assert (await document_row(sqlite_engine)).guard is not None
    await rooms.stop()


async def test_only_the_keeper_compacts(postgres_url: str) -> None:
    hub = MemoryHub()
    async with database(postgres_url) as engine:
        async with rooms_of(engine, "p1", hub=hub) as first, rooms_of(engine, "p2", hub=hub) as second:
            async with first.use("r") as kept, second.use("r") as other:
                busy_page(kept)
                await first.journal.flushed("r")
                doc = other.doc
                await second.growth.look(other)
                assert (other.is_keeper, other.doc) == (False, doc)
                assert await archive_rows(engine) == []
                await compact(first, kept)


async def test_a_process_that_fell_behind_a_compaction_is_put_right(postgres_url: str) -> None:
    """The bus brought nothing for long: what it reads from SQL has lost the heads that its document ends with."""
    async with database(postgres_url) as engine:
        async with rooms_of(engine, "p1") as first, rooms_of(engine, "p2") as second:
            async with first.use("r") as kept:
                page = busy_page(kept, 3)
                await first.journal.flushed("r")
                async with second.use("r") as other:
                    reader = Page(PycrdtReplica(5)).connect(other)
                    for number in range(5):
                        page.edit(label(f"since {number}"))
                    await compact(first, kept)
                    await second.tick()
                    await agreed(other, reader)
                    await second.journal.flushed("r")
                    await first.tick()
                    await agreed(kept, page)
                    assert label_of(page) == label_of(reader) == "since 4"
                    assert as_json(other.doc) == as_json(kept.doc)


async def test_client_ids_are_counted_and_a_room_with_many_is_reported(
    sqlite_engine: AsyncEngine, caplog: pytest.LogCaptureFixture
) -> None:
    async with rooms_of(sqlite_engine) as rooms, rooms.use("r") as room:
        for limit in MANY_IDS:
            while len(decode_vector(room.doc.get_state())) < limit:
                start = len(decode_vector(room.doc.get_state()))
                room.apply(written_by(range(start + 10, start + 510)), Origin.PEER)
            with caplog.at_level(logging.WARNING):
                await rooms.growth.look(room)
                await rooms.growth.look(room)
        reports = [record for record in caplog.records if record.__dict__["action"] == "many_client_ids"]
        assert [record.__dict__["limit"] for record in reports] == list(MANY_IDS)
        assert rooms.growth.most_ids == len(decode_vector(room.doc.get_state()))
    assert rooms.growth.most_ids == 0


def written_by(clients: range) -> bytes:
    whole: CanvasDoc = Doc(client_id=1)
    for client in clients:
        doc: CanvasDoc = Doc(client_id=client)
        canvas.meta_of(doc)[f"key {client}"] = 1
        whole.apply_update(doc.get_update())
    return whole.get_update()


async def test_a_hundred_keepers_that_write_nothing_leave_no_id(sqlite_engine: AsyncEngine) -> None:
    async with rooms_of(sqlite_engine) as rooms, rooms.use("r") as room:
        Client(room).add_node("n0", label="x")
        before = decode_vector(room.doc.get_state())
    for _ in range(5):
        async with rooms_of(sqlite_engine, limits=replace(LIMITS, grace_s=0.0)) as rooms:
            for _ in range(20):
                await rooms.open("r")
                await rooms._evict("r")
    async with rooms_of(sqlite_engine) as rooms, rooms.use("r") as room:
        assert room.fence == 102
        assert decode_vector(room.doc.get_state()) == before


async def test_numbers_of_heals_are_given_out_once(engine: AsyncEngine) -> None:
    store = SqlStore(engine, "p1")
    await store.ensure("r")
    given = await asyncio.gather(*(store.growth.reserve_heals("r", 4) for _ in range(10)))
    assert sorted(given) == list(range(0, 40, 4))
    assert (await document_row(engine)).heals == 40
