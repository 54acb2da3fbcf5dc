"""Writing to SQLite the short way.

A busy process commits twenty times a second, and by SQLAlchemy's asynchronous driver a transaction is one trip to
another thread for each statement: that cost more than everything else a room does. Here a transaction is one trip, to a
thread and a connection that do nothing else.
"""

import asyncio
import datetime as dt
import sqlite3
import weakref
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

import sqlalchemy as sa
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import StaticPool

from crdt.database import prepare_sqlite

T = TypeVar("T")
_NEXT: Final = "UPDATE documents SET seq = seq + 1 WHERE id = ? RETURNING seq"
_INSERT: Final = 'INSERT INTO document_updates (room, seq, "update", at) VALUES (?, ?, ?, ?)'


class SqliteWriter:
    """A connection of its own, opened with the first write and closed with the object.

    Args:
        path: The database file.

    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._connection: sqlite3.Connection | None = None
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="sqlite-writer")
        self._engine = sa.create_engine(
            "sqlite://", creator=self._connected, poolclass=StaticPool, hide_parameters=True
        )
        prepare_sqlite(self._engine)

    async def run(self, work: Callable[[sa.Connection], T]) -> T:
        """Commit what `work` does with a connection, on the thread of this writer.

        Raises:
            OperationalError: SQLite refused; nothing was written.

        """
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._run, work)

    async def append(self, rows: Mapping[str, bytes], at: dt.datetime) -> dict[str, int]:
        """Commit one row per room to the log, all in one transaction.

        Args:
            rows: What each room's row holds, see `crdt.store.pack`.
            at: When.

        Returns:
            The number each room's row got.

        Raises:
            OperationalError: SQLite refused; nothing was written.
            KeyError: There is no such room; nothing was written.

        """
        loop = asyncio.get_running_loop()
        # As SQLAlchemy stores a time in SQLite: naive, in UTC.
        text = at.astimezone(dt.UTC).replace(tzinfo=None).isoformat(" ", "microseconds")
        try:
            return await loop.run_in_executor(self._thread, self._append, dict(rows), text)
        except sqlite3.Error as error:
            raise OperationalError("append to the log", None, error) from error

    def _run(self, work: Callable[[sa.Connection], T]) -> T:
        with self._engine.begin() as connection:
            return work(connection)

    def _append(self, rows: dict[str, bytes], at: str) -> dict[str, int]:
        if self._connection is None:
            with self._engine.connect():
                pass  # Opens it, with the pragmas of every other.
        connection = self._connected()
        connection.execute("BEGIN IMMEDIATE")
        try:
            numbers = _write(connection, rows, at)
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
        return numbers

    def _connected(self) -> sqlite3.Connection:
        if self._connection is None:
            self._connection = sqlite3.connect(self._path, check_same_thread=False)
            weakref.finalize(self, self._connection.close)
        return self._connection


def _write(connection: sqlite3.Connection, rows: dict[str, bytes], at: str) -> dict[str, int]:
    numbers = {}
    for room, row in rows.items():
        found = connection.execute(_NEXT, (room,)).fetchone()
        if found is None:
            raise KeyError(room)
        numbers[room] = found[0]
        connection.execute(_INSERT, (room, found[0], row, at))
    return numbers
