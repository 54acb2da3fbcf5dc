"""Which workers live: each beats into one row, and one that no longer does has died."""

import contextlib
import datetime as dt
import os
import socket
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncEngine

from crdt.tables import UtcDateTime
from jobs.tables import workers

LEASE_S = 5.0
"""How long a worker that stopped beating still counts as alive (seconds)."""
BEAT_S = 1.5
_PROCESS = uuid.uuid4().hex


def _host() -> str:
    """The machine's name with what tells apart two boots of it, and two containers on it that share the name."""
    parts = [socket.gethostname()]
    with contextlib.suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
    with contextlib.suppress(OSError):
        parts.append(str(Path("/proc/self/ns/pid").readlink()))
    return "/".join(parts)[:256]


@dataclass(frozen=True, slots=True)
class WorkerIdentity:
    """Who a worker is, fresh at every start; `host` names the machine and its process table.

    `process` tells apart two processes that had the same `pid` one after the other, as in a restarted container.
    """

    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    host: str = field(default_factory=_host)
    pid: int = field(default_factory=os.getpid)
    process: str = _PROCESS


class Liveness:
    """The beat of one worker.

    Args:
        engine: From `crdt.database.create_engine`.
        me: The worker.
        concurrency: Attempts it can be at, at once; its worker says so.

    """

    def __init__(self, engine: AsyncEngine, me: WorkerIdentity, concurrency: int = 100) -> None:
        self._engine = engine
        self.me = me
        self.concurrency = concurrency

    async def beat(self) -> None:
        """Commit that this worker lives."""
        async with self._engine.begin() as connection:
            now = await connection.run_sync(database_now)
            insert: Any = (sqlite if connection.dialect.name == "sqlite" else postgresql).insert(workers)
            me = self.me
            lives = {"seen_at": now, "concurrency": self.concurrency}
            values = {"id": me.id, "host": me.host, "pid": me.pid, "process": me.process, **lives}
            await connection.execute(insert.values(**values).on_conflict_do_update(index_elements=["id"], set_=lives))

    async def retire(self) -> None:
        """Commit that this worker is gone, and forget those that died long ago."""
        async with self._engine.begin() as connection:
            now = await connection.run_sync(database_now)
            long_dead = workers.c.seen_at < now - dt.timedelta(hours=1)
            await connection.execute(sa.delete(workers).where(sa.or_(workers.c.id == self.me.id, long_dead)))


def alive_until(
    connection: sa.Connection,
    worker: str,
    me: WorkerIdentity | None = None,
    lease_s: float = LEASE_S,
    process_exists: Callable[[int], bool] | None = None,
) -> dt.datetime | None:
    """When a worker will count as dead unless it beats again; None when it is dead already.

    A worker of this machine whose process is gone is dead at once: a restart after a crash need not wait for the
    lease. A worker without a row never started to beat, or has stopped in an orderly way.

    Args:
        connection: The transaction to read in.
        worker: Id of the worker.
        me: Who asks.
        lease_s: Seconds without a beat that are forgiven.
        process_exists: Whether a process of this machine runs; by default the system is asked.

    """
    row = (connection.execute(sa.select(workers).where(workers.c.id == worker))).one_or_none()
    if row is None:
        return None
    if me is not None and row.host == me.host and row.process != me.process:
        exists = process_exists or _process_exists
        if row.pid == me.pid or not exists(row.pid):
            return None
    until: dt.datetime = row.seen_at + dt.timedelta(seconds=lease_s)
    return until if until > database_now(connection) else None


def database_now(connection: sa.Connection) -> dt.datetime:
    """The time all processes agree on: the database's; on SQLite, which is one machine, ours."""
    if connection.dialect.name == "sqlite":
        return dt.datetime.now(dt.UTC)
    # Not now(): that is when the transaction began, which may be before it waited for a lock.
    now: dt.datetime = (connection.execute(sa.select(sa.func.clock_timestamp(type_=UtcDateTime)))).scalar_one()
    return now


def _process_exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
