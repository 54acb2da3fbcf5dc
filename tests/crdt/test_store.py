import asyncio
import datetime as dt
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncEngine

from crdt.catalog import Catalog
from crdt.rows import EdgeRow, Mirror, NodeRow
from crdt.sqlite_writer import SqliteWriter
from crdt.store import SqlStore, pack, unpack
from crdt.tables import document_updates, documents, processes, workflow_edges, workflow_nodes
from tests.crdt.builders import database


@pytest.fixture
async def store(engine: AsyncEngine) -> SqlStore:
    made = SqlStore(engine, "p1")
    await made.beat(first=True)
    await made.ensure("r")
    return made


def node(node_id: str, **data: object) -> NodeRow:
    return NodeRow(node_id, "image", data, {"x": 1, "y": 2})  # type: ignore[arg-type]


def test_updates_come_out_of_a_log_row_as_they_went_in() -> None:
    updates = [b"", b"\x00", b"x" * 300]
    assert unpack(pack(updates)) == updates


async def test_numbers_count_per_room_from_one_and_load_gives_updates_in_order(store: SqlStore) -> None:
    await store.ensure("s")
    assert await store.append({"r": [b"a", b"b"]}) == {"r": 1}
    assert await store.append({"s": [b"z"], "r": [b"c"]}) == {"r": 2, "s": 1}
    loaded = await store.load("r")
    assert loaded is not None
    assert (loaded.seq, loaded.snapshot, loaded.updates) == (2, None, (b"a", b"b", b"c"))
    later = await store.load("r", after=1)
    assert later is not None
    assert later.updates == (b"c",)
    assert await store.load("unknown") is None


async def test_concurrent_appends_in_opposite_order_leave_no_hole_and_do_not_deadlock(store: SqlStore) -> None:
    await store.ensure("s")
    orders = [{"r": [b"1"], "s": [b"1"]}, {"s": [b"2"], "r": [b"2"]}]
    given = await asyncio.gather(*(store.append(orders[n % 2]) for n in range(20)))
    for room in ("r", "s"):
        assert sorted(numbers[room] for numbers in given) == list(range(1, 21))


async def test_an_append_to_a_room_that_is_not_there_writes_nothing(store: SqlStore) -> None:
    with pytest.raises(KeyError):
        await store.append({"r": [b"a"], "unknown": [b"b"]})
    assert await store.append({"r": [b"c"]}) == {"r": 1}


async def test_a_log_row_says_when_it_was_written(store: SqlStore, engine: AsyncEngine) -> None:
    await store.append({"r": [b"a"]})
    async with engine.connect() as connection:
        (at,) = (await connection.execute(sa.select(document_updates.c.at))).scalars()
    assert abs((dt.datetime.now(dt.UTC) - at).total_seconds()) < 60


async def test_a_snapshot_replaces_the_log_it_covers_and_only_that(store: SqlStore) -> None:
    fence = await store.take("r")
    assert fence == 1
    for update in (b"a", b"b", b"c"):
        await store.append({"r": [update]})
    assert await store.snapshot("r", b"STATE", 2, fence)
    loaded = await store.load("r")
    assert loaded is not None
    assert (loaded.seq, loaded.snapshot, loaded.updates) == (3, b"STATE", (b"c",))
    assert not await store.snapshot("r", b"OLDER", 1, fence)
    assert not await store.snapshot("r", b"STALE", 3, fence - 1)
    behind = await store.load("r", after=2)
    assert behind is not None
    assert behind.snapshot is None


async def test_every_take_raises_the_fence_and_a_stale_keeper_changes_nothing(store: SqlStore) -> None:
    first = await store.take("r")
    second = await store.take("r")
    assert (first, second) == (1, 2)
    assert not await store.mirror("r", Mirror({"n": node("n")}, {}), 1)
    await store.release("r", 1)
    assert await store.mirror("r", Mirror({"n": node("n")}, {}), 2)


async def test_a_room_kept_by_a_living_process_is_not_taken(store: SqlStore, engine: AsyncEngine) -> None:
    if engine.dialect.name == "sqlite":
        pytest.skip("one process by construction")
    other = SqlStore(engine, "p2")
    await other.beat(first=True)
    assert await store.take("r") == 1
    assert await other.take("r") is None
    async with engine.begin() as connection:
        long_ago = sa.func.now() - sa.text("interval '1 minute'")
        await connection.execute(sa.update(processes).where(processes.c.id == "p1").values(seen_at=long_ago))
    assert await store.beat() is False
    assert await other.take("r") == 2
    await other.retire()
    await store.beat(first=True)
    assert await store.take("r") == 3


async def test_a_restarted_embedded_server_keeps_its_rooms_at_once(sqlite_url: str) -> None:
    async with database(sqlite_url) as engine:
        killed = SqlStore(engine, "killed")
        await killed.ensure("r")
        await killed.beat(first=True)
        await killed.take("r")
        assert await SqlStore(engine, "new").take("r") == 2


async def test_the_mirror_never_takes_server_owned_keys_from_the_document(store: SqlStore, engine: AsyncEngine) -> None:
    fence = await store.take("r")
    assert fence is not None
    await store.mirror("r", Mirror({"n": node("n", prompt="fox", status="completed", imageUrl="evil")}, {}), fence)
    async with engine.begin() as connection:
        assert (await connection.execute(sa.select(workflow_nodes.c.node_data))).scalar_one() == {"prompt": "fox"}
        truth = {"prompt": "fox", "status": "running", "runId": "run_1"}
        await connection.execute(sa.update(workflow_nodes).values(node_data=truth))
    await store.mirror("r", Mirror({"n": node("n", prompt="owl", status="completed")}, {}), fence)
    async with engine.connect() as connection:
        data = (await connection.execute(sa.select(workflow_nodes.c.node_data))).scalar_one()
    assert data == {"prompt": "owl", "status": "running", "runId": "run_1"}


async def test_what_left_the_document_leaves_the_mirror(store: SqlStore, engine: AsyncEngine) -> None:
    fence = await store.take("r")
    assert fence is not None
    edges = {"e": EdgeRow("e", "a", "b", {"label": "x"}), "f": EdgeRow("f", "b", "a")}
    await store.mirror("r", Mirror({"a": node("a"), "b": node("b")}, edges, title="Foxes"), fence)
    await store.mirror("r", Mirror({"a": None}, {"e": None}), fence)
    flow = await Catalog(engine, store).read_flow("r")
    assert flow is not None
    assert flow["title"] == "Foxes"
    nodes: Any = flow["nodes"]
    assert [n["id"] for n in nodes] == ["b"]
    await store.mirror("r", Mirror({}, {}, seq=4, complete=True), fence)
    async with engine.connect() as connection:
        present = sa.select(sa.func.count()).select_from(workflow_nodes).where(workflow_nodes.c.present)
        assert (await connection.execute(present)).scalar_one() == 0
        assert (await connection.execute(sa.select(sa.func.count()).select_from(workflow_edges))).scalar_one() == 0
        assert (await connection.execute(sa.select(documents.c.mirror_seq))).scalar_one() == 4


async def test_ten_thousand_nodes_are_mirrored_in_one_call(store: SqlStore, engine: AsyncEngine) -> None:
    fence = await store.take("r")
    assert fence is not None
    await store.mirror("r", Mirror({f"n{i}": node(f"n{i}", prompt="x") for i in range(10_000)}, {}), fence)
    async with engine.connect() as connection:
        count = sa.select(sa.func.count()).select_from(workflow_nodes)
        assert (await connection.execute(count)).scalar_one() == 10_000


async def test_workflows_are_listed_last_changed_first(store: SqlStore, engine: AsyncEngine) -> None:
    catalog = Catalog(engine, store)
    made = await catalog.create_workflow("Owls")
    assert await catalog.exists(made)
    assert not await catalog.exists("nope")
    fence = await store.take("r")
    assert fence is not None
    await store.mirror("r", Mirror({"n": node("n")}, {}, title="Foxes"), fence)
    listed = await catalog.list_workflows()
    assert [(w.title, w.node_count) for w in listed] == [("Foxes", 1), ("Owls", 0)]
    assert [w.title for w in await catalog.list_workflows(before=listed[0].updated_at)] == ["Owls"]


async def test_the_log_is_empty_after_a_full_snapshot(store: SqlStore, engine: AsyncEngine) -> None:
    fence = await store.take("r")
    assert fence is not None
    await store.append({"r": [b"a"]})
    await store.snapshot("r", b"STATE", 1, fence)
    async with engine.connect() as connection:
        count = sa.select(sa.func.count()).select_from(document_updates)
        assert (await connection.execute(count)).scalar_one() == 0


async def test_a_database_that_refuses_an_append_is_told_as_such(tmp_path: Path) -> None:
    """The journal keeps what was refused and tries again."""
    log = SqliteWriter(str(tmp_path / "empty.db"))
    with pytest.raises(OperationalError):
        await log.append({"r": b"row"}, dt.datetime.now(dt.UTC))


async def test_work_that_shares_a_commit_fails_alone(tmp_path: Path) -> None:
    writer = SqliteWriter(str(tmp_path / "shared.db"))
    table = sa.Table("numbers", sa.MetaData(), sa.Column("number", sa.Integer, primary_key=True))
    await writer.run(table.create)

    def write(*numbers: int) -> Callable[[sa.Connection], int]:
        def work(connection: sa.Connection) -> int:
            for number in numbers:
                connection.execute(sa.insert(table).values(number=number))
            return numbers[0]

        return work

    works = [write(1), write(2, 1), write(3), write(4, 4), write(5)]
    ended = await asyncio.gather(*(writer.run(work) for work in works), return_exceptions=True)
    assert [type(end).__name__ for end in ended] == ["int", "IntegrityError", "int", "IntegrityError", "int"]
    assert await writer.run(lambda connection: list(connection.scalars(sa.select(table)))) == [1, 3, 5]


async def test_work_whose_transaction_sqlite_gives_up_is_done_again_alone(tmp_path: Path) -> None:
    writer = SqliteWriter(str(tmp_path / "shared.db"))
    table = sa.Table("numbers", sa.MetaData(), sa.Column("number", sa.Integer, primary_key=True))
    await writer.run(table.create)

    def write(number: int) -> Callable[[sa.Connection], int]:
        return lambda connection: connection.execute(sa.insert(table).values(number=number)).rowcount

    def give_up(connection: sa.Connection) -> None:
        connection.exec_driver_sql("ROLLBACK")
        raise MemoryError

    ended = await asyncio.gather(
        *(writer.run(work) for work in (write(1), write(2), give_up, write(3))), return_exceptions=True
    )
    assert [type(end).__name__ for end in ended] == ["int", "int", "MemoryError", "int"]
    assert await writer.run(lambda connection: list(connection.scalars(sa.select(table)))) == [1, 2, 3]
