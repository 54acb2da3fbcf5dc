import asyncio
import contextlib
import gc
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from crdt.rows import Mirror, NodeRow
from crdt.store import SqlStore
from tests.crdt.builders import database

ROWS = Mirror({"n": NodeRow("n", "image", {}, {"x": 0, "y": 0})}, {})


@pytest.fixture
def _no_garbage_collection() -> Iterator[None]:
    gc.disable()
    yield
    gc.enable()


def lock_is_free(path: Path) -> bool:
    with contextlib.closing(sqlite3.connect(path, timeout=0, isolation_level=None)) as connection:
        try:
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            return False
        return True


@pytest.mark.usefixtures("_no_garbage_collection")
@pytest.mark.parametrize("point", ["before_cursor_execute", "after_cursor_execute"])
async def test_a_write_that_is_cancelled_at_any_statement_gives_its_lock_back(tmp_path: Path, point: str) -> None:
    """Whoever cancels a run must not stop everybody's edits from being stored."""
    path = tmp_path / "darkroom.db"
    async with database(f"sqlite+aiosqlite:///{path}") as engine:
        store = SqlStore(engine, "p1")
        await store.ensure("r")
        fence = await store.take("r") or 0
        statements, writing = 0, asyncio.create_task(store.snapshot("r", b"\x00\x00", 0, fence))
        await writing

        @sa.event.listens_for(engine.sync_engine, point)
        def cancel(*_: object) -> None:
            nonlocal statements
            statements -= 1
            if statements == 0:
                writing.cancel()

        for number in range(1, 100):
            statements, writing = number, asyncio.create_task(store.snapshot("r", b"\x00\x00", number, fence))
            with contextlib.suppress(asyncio.CancelledError):
                await writing
            assert lock_is_free(path), f"cancelled at statement {number}"
            if statements > 0:
                break
        assert number > 2
