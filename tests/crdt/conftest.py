"""What the tests of the shared document begin with: databases with every table, and real yjs."""

from collections.abc import AsyncIterator, Iterator

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from tests.crdt.builders import database
from tests.crdt.compaction_peers import Yjs


@pytest.fixture
async def engine(database_url: str) -> AsyncIterator[AsyncEngine]:
    """Every table, empty, on SQLite and on Postgres in turn."""
    async with database(database_url) as opened:
        yield opened


@pytest.fixture
async def sqlite_engine(sqlite_url: str) -> AsyncIterator[AsyncEngine]:
    """Every table, empty, on SQLite, where the database makes no difference."""
    async with database(sqlite_url) as opened:
        yield opened


@pytest.fixture(scope="module")
def yjs() -> Iterator[Yjs]:
    """yjs documents in a process of their own, one process for a module."""
    process = Yjs()
    yield process
    process.close()
