"""Writing to SQLite the short way.

A busy process commits many times a second. By SQLAlchemy's asynchronous driver a transaction is four trips to another
thread for each statement, and every commit waits for the disk on its own. Here a transaction is one trip, to a thread
and a connection that do nothing else, and whatever arrives while the disk is waited for shares the next commit.
"""

import asyncio
import datetime as dt
import sqlite3
import threading
import weakref
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import sqlalchemy as sa
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import StaticPool

from crdt.database import prepare_sqlite

T = TypeVar("T")
MOST: Final = 64
"""Pieces of work that share one commit."""
_NEXT: Final = "UPDATE documents SET seq = seq + 1 WHERE id = ? RETURNING seq"
_INSERT: Final = 'INSERT INTO document_updates (room, seq, "update", at) VALUES (?, ?, ?, ?)'


@dataclass(frozen=True, slots=True)
class _Job:
    work: Callable[[sa.Connection], Any]
    future: asyncio.Future[Any]


@dataclass(frozen=True, slots=True)
class _End:
    job: _Job
    value: Any = None
    error: BaseException | None = None


class SqliteWriter:
    """A connection of its own, opened with the first write and closed with the object.

    Each piece of work is all or nothing, and its caller hears of it after the commit. What fails takes nothing else
    with it: it runs inside a savepoint, and where SQLite gives up a whole transaction, each piece is done again alone.

    Args:
        path: The database file.

    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._connection: sqlite3.Connection | None = None
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="sqlite-writer")
        self._jobs: deque[_Job] = deque()
        self._lock = threading.Lock()
        self._at_work = False
        self._engine = sa.create_engine(
            "sqlite://", creator=self._connected, poolclass=StaticPool, hide_parameters=True
        )
        prepare_sqlite(self._engine)

    async def run(self, work: Callable[[sa.Connection], T]) -> T:
        """Commit what `work` does with a connection, on the thread of this writer.

        A caller that is cancelled before its turn writes nothing; later, its work is committed all the same.

        Args:
            work: May be called again from the start when a transaction was given up.

        Raises:
            OperationalError: SQLite refused; nothing was written.

        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        with self._lock:
            self._jobs.append(_Job(work, future))
            idle, self._at_work = not self._at_work, True
        if idle:
            self._thread.submit(self._drain, loop)
        return await future

    async def append(self, rows: Mapping[str, bytes], at: dt.datetime) -> dict[str, int]:
        """Commit one row per room to the log, all or none.

        Args:
            rows: What each room's row holds, see `crdt.store.pack`.
            at: When.

        Returns:
            The number each room's row got.

        Raises:
            OperationalError: SQLite refused; nothing was written.
            KeyError: There is no such room; nothing was written.

        """
        # As SQLAlchemy stores a time in SQLite: naive, in UTC.
        text = at.astimezone(dt.UTC).replace(tzinfo=None).isoformat(" ", "microseconds")
        held = dict(rows)
        try:
            return await self.run(lambda _connection: _write(self._connected(), held, text))
        except sqlite3.Error as error:
            raise OperationalError("append to the log", None, error) from error

    def _drain(self, loop: asyncio.AbstractEventLoop) -> None:
        while True:
            with self._lock:
                jobs = [self._jobs.popleft() for _ in range(min(len(self._jobs), MOST))]
                if not jobs:
                    self._at_work = False
                    return
            ends = self._commit([job for job in jobs if not job.future.cancelled()])
            try:
                loop.call_soon_threadsafe(_tell, ends)
            except RuntimeError:
                # The loop was closed with work on its way: nobody waits for it any more.
                continue

    def _commit(self, jobs: list[_Job]) -> list[_End]:
        if len(jobs) > 1:
            try:
                return self._together(jobs)
            except Exception:  # noqa: BLE001 - whoever it was hears of it alone
                return [self._alone(job) for job in jobs]
        return [self._alone(job) for job in jobs]

    def _together(self, jobs: list[_Job]) -> list[_End]:
        with self._engine.begin() as connection:
            raw = self._connected()
            return [_saved(connection, raw, job) for job in jobs]

    def _alone(self, job: _Job) -> _End:
        try:
            with self._engine.begin() as connection:
                value = job.work(connection)
        except BaseException as error:  # noqa: BLE001 - raised where the work was asked for
            return _End(job, error=error)
        return _End(job, value)

    def _connected(self) -> sqlite3.Connection:
        if self._connection is None:
            self._connection = sqlite3.connect(self._path, check_same_thread=False)
            weakref.finalize(self, self._connection.close)
        return self._connection


def _saved(connection: sa.Connection, raw: sqlite3.Connection, job: _Job) -> _End:
    """One piece of work among others in a transaction.

    Raises:
        sqlite3.Error: The transaction is lost, and with it what the others did.

    """
    raw.execute("SAVEPOINT work")
    try:
        value = job.work(connection)
    except BaseException as error:  # noqa: BLE001 - raised where the work was asked for
        # A full disk ends the whole transaction: then there is no savepoint, and this raises.
        raw.execute("ROLLBACK TO work")
        raw.execute("RELEASE work")
        return _End(job, error=error)
    raw.execute("RELEASE work")
    return _End(job, value)


def _tell(ends: list[_End]) -> None:
    for end in ends:
        if end.job.future.done():
            continue
        if end.error is None:
            end.job.future.set_result(end.value)
        else:
            end.job.future.set_exception(end.error)


def _write(connection: sqlite3.Connection, rows: dict[str, bytes], at: str) -> dict[str, int]:
    numbers = {}
    for room, row in rows.items():
        found = connection.execute(_NEXT, (room,)).fetchone()
        if found is None:
            raise KeyError(room)
        numbers[room] = found[0]
        connection.execute(_INSERT, (room, found[0], row, at))
    return numbers
