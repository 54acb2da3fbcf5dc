"""Transactions as one function of a connection, with as few trips and commits as the database allows."""

from collections.abc import Callable
from typing import TypeVar

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine

from crdt.sqlite_writer import SqliteWriter

T = TypeVar("T")


class Transactions:
    """Where everything of a process that writes often should write: on SQLite its parts then share commits.

    Args:
        engine: From `crdt.database.create_engine`.

    """

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        sqlite = engine.dialect.name == "sqlite"
        self.writer = SqliteWriter(str(engine.url.database)) if sqlite else None

    async def run(self, work: Callable[[sa.Connection], T]) -> T:
        """Commit what `work` does; it may be called again from the start, so it changes nothing but the database.

        Raises:
            SQLAlchemyError: The database refused; nothing was written.

        """
        if self.writer is not None:
            return await self.writer.run(work)
        async with self._engine.begin() as connection:
            return await connection.run_sync(work)
