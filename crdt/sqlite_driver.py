"""aiosqlite with one trip to its thread for each statement.

The driver goes there four times: to make a cursor, to execute, to fetch, to close. On a busy server these trips cost
more than SQLite itself.
"""

import sqlite3
from collections.abc import Iterable, Sequence
from typing import Any, Final, Self

import aiosqlite

_CHUNK: Final = 64
"""Rows aiosqlite would fetch at a time while iterating, which SQLAlchemy does not do."""


def connect(path: str) -> aiosqlite.Connection:
    """A connection as `aiosqlite.connect` makes it, whose cursors answer in one trip; await it to open it."""
    connection = _Connection(lambda: sqlite3.connect(path), _CHUNK)
    connection._thread.daemon = True  # noqa: SLF001 - as SQLAlchemy sets it: a forgotten connection ends no process
    return connection


class _Cursor:
    """One statement and all of its rows: SQLAlchemy reads every row at once anyway."""

    def __init__(self, connection: "_Connection") -> None:
        self._connection = connection
        self._rows: list[Any] = []
        self.description: Any = None
        self.rowcount = -1
        self.lastrowid: int | None = None
        self.arraysize = 1

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def execute(self, sql: str, parameters: Sequence[Any] = ()) -> Self:
        await self._connection._execute(self._run, sql, parameters)  # type: ignore[no-untyped-call]  # noqa: SLF001 - its way to its thread
        return self

    async def executemany(self, sql: str, parameters: Iterable[Sequence[Any]]) -> Self:
        await self._connection._execute(self._run_many, sql, parameters)  # type: ignore[no-untyped-call]  # noqa: SLF001 - as above
        return self

    async def fetchall(self) -> list[Any]:
        rows, self._rows = self._rows, []
        return rows

    async def close(self) -> None:
        self._rows = []

    def _run(self, sql: str, parameters: Sequence[Any]) -> None:
        cursor = self._connection._conn.execute(sql, parameters)  # noqa: SLF001 - on the connection's own thread
        self._keep(cursor)

    def _run_many(self, sql: str, parameters: Iterable[Sequence[Any]]) -> None:
        cursor = self._connection._conn.executemany(sql, parameters)  # noqa: SLF001 - on the connection's own thread
        self._keep(cursor)

    def _keep(self, cursor: sqlite3.Cursor) -> None:
        try:
            self._rows = cursor.fetchall()
            self.description, self.rowcount, self.lastrowid = cursor.description, cursor.rowcount, cursor.lastrowid
        finally:
            cursor.close()


class _Connection(aiosqlite.Connection):
    def cursor(self) -> _Cursor:  # type: ignore[override]
        return _Cursor(self)
