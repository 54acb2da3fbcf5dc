"""The one way this project opens a database: SQLite made durable and serial for writers, or Postgres."""

import contextlib
import sqlite3
from functools import partial
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from crdt import sqlite_driver

BUSY_TIMEOUT_MS = 15_000
"""How long a SQLite writer waits for another one before it gives up."""


def create_engine(url: str) -> AsyncEngine:
    """An engine whose `begin()` takes the write lock at once.

    SQLite runs WAL with `synchronous=FULL` (durable means durable) and starts every transaction as `BEGIN IMMEDIATE`:
    a read that later turns into a write cannot fail half way with "database is locked". Errors do not quote the values
    of a statement: they hold prompts.

    Args:
        url: `sqlite+aiosqlite:///path` or `postgresql+asyncpg://...`.

    """
    parsed = sa.make_url(url)
    if parsed.get_backend_name() == "sqlite":
        connected = partial(sqlite_driver.connect, parsed.database or "")
        engine = create_async_engine(url, async_creator=connected, pool_size=8, max_overflow=8, hide_parameters=True)
        prepare_sqlite(engine.sync_engine)
        return engine
    return create_async_engine(
        url, pool_size=8, max_overflow=8, pool_pre_ping=True, pool_timeout=10, hide_parameters=True
    )


def prepare_sqlite(engine: sa.Engine) -> None:
    """Make every connection of a SQLite engine durable, and every transaction take the write lock at once."""
    sa.event.listen(engine, "connect", _on_connect)
    sa.event.listen(engine, "begin", _on_begin)
    sa.event.listen(engine, "invalidate", _on_invalidate)


def insert_into(dialect: str, table: sa.Table) -> Any:
    """An INSERT that knows `on_conflict_do_...`, of SQLite or Postgres."""
    return sqlite.insert(table) if dialect == "sqlite" else postgresql.insert(table)


def read_only(engine: AsyncEngine) -> AsyncEngine:
    """The same engine for transactions that only read: on SQLite they do not take the write lock."""
    return engine.execution_options(darkroom_read_only=True)


def _on_connect(connection: Any, _record: Any) -> None:
    # The driver must not begin transactions by itself: `_on_begin` does, with the lock we want.
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in (
        f"busy_timeout={BUSY_TIMEOUT_MS}",
        "journal_mode=WAL",
        "synchronous=FULL",
        "foreign_keys=ON",
    ):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _on_begin(connection: sa.Connection) -> None:
    deferred = connection.get_execution_options().get("darkroom_read_only", False)
    connection.exec_driver_sql("BEGIN" if deferred else "BEGIN IMMEDIATE")


def _on_invalidate(connection: Any, _record: Any, _error: BaseException | None) -> None:
    # A statement of a task that was cancelled may still be open, and SQLite really closes a connection only when its
    # last statement is gone: until the garbage collector came by, the write lock stayed with nobody.
    with contextlib.suppress(sqlite3.Error, SQLAlchemyError, ValueError):
        connection.rollback()
