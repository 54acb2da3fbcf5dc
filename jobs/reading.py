"""What can be asked about runs; see `jobs.runs` for what can be done to them."""

import datetime as dt
from collections.abc import Callable, Collection, Mapping
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine

from crdt.database import read_only
from jobs.errors import RunNotFound
from jobs.records import RunEvent, run_from_row
from jobs.run import Run
from jobs.selection import UNFINISHED, Place, Selection, matching, page, unfinished_ids
from jobs.state import TERMINAL
from jobs.tables import run_events, runs

_CHUNK: Final = 500
"""Ids per statement: SQLite has a limit on bound parameters."""


def utcnow() -> dt.datetime:
    """Now, aware UTC."""
    return dt.datetime.now(dt.UTC)


class RunReader:
    """Reads runs and their events.

    Args:
        engine: From `crdt.database.create_engine`.
        clock: The time, aware UTC.

    """

    def __init__(self, engine: AsyncEngine, clock: Callable[[], dt.datetime] = utcnow) -> None:
        self._reading = read_only(engine)
        self._clock = clock

    async def get(self, run_id: str) -> Run:
        """The run with this id.

        Raises:
            RunNotFound: There is none.

        """
        async with self._reading.connect() as connection:
            run = first_run(await connection.execute(sa.select(runs).where(runs.c.id == run_id)))
        if run is None:
            raise RunNotFound(run_id)
        return run

    async def events(self, run_id: str, after_seq: int = 0) -> list[RunEvent]:
        """Events of a run behind `after_seq`, in order."""
        query = sa.select(run_events).where(run_events.c.run_id == run_id, run_events.c.seq > after_seq)
        async with self._reading.connect() as connection:
            rows = await connection.execute(query.order_by(run_events.c.seq))
            return [RunEvent(row.run_id, row.seq, row.ts, row.kind, row.payload) for row in rows]

    async def current(self, workflow_id: str, node_ids: Collection[str] | None = None) -> dict[str, Run]:
        """The current run of each node that has one; `node_ids` limits the answer to these nodes."""
        if node_ids is None:
            return await self._current(workflow_id, None)
        found: dict[str, Run] = {}
        wanted = sorted(set(node_ids))
        for at in range(0, len(wanted), _CHUNK):
            found |= await self._current(workflow_id, wanted[at : at + _CHUNK])
        return found

    async def history(self, workflow_id: str, node_id: str, limit: int = 50, before: int | None = None) -> list[Run]:
        """Runs of a node, newest first; `before` is the ordinal behind which they begin."""
        query = of_node(workflow_id, node_id).order_by(runs.c.ordinal.desc()).limit(limit)
        if before is not None:
            query = query.where(runs.c.ordinal < before)
        async with self._reading.connect() as connection:
            return [run_from_row(row) for row in await connection.execute(query)]

    async def batch(self, batch_id: str) -> list[Run]:
        """Runs of a batch, in the order they were made."""
        query = sa.select(runs).where(runs.c.batch_id == batch_id).order_by(runs.c.created_at, runs.c.id)
        async with self._reading.connect() as connection:
            return [run_from_row(row) for row in await connection.execute(query)]

    async def select(self, selection: Selection, limit: int, behind: Place | None = None) -> list[Run]:
        """These runs, newest first."""
        async with self._reading.connect() as connection:
            return [run_from_row(row) for row in await connection.execute(page(selection, limit, behind))]

    async def unfinished_of(self, selection: Selection, limit: int, after_id: str = "") -> list[str]:
        """Ids of those of these runs that have not ended, in the order of their ids, behind `after_id`."""
        async with self._reading.connect() as connection:
            return list((await connection.execute(unfinished_ids(selection, limit, after_id))).scalars())

    async def count(self, selection: Selection) -> int:
        """How many of these runs have not ended."""
        query = sa.select(sa.func.count()).where(runs.c.status.in_(UNFINISHED), *matching(selection))
        async with self._reading.connect() as connection:
            return int((await connection.execute(query)).scalar_one())

    async def children(self, run: Run) -> list[Run]:
        """Runs that retry this one, or go back to it."""
        query = of_node(run.workflow_id, run.node_id).where(runs.c.parent_id == run.id).order_by(runs.c.ordinal)
        async with self._reading.connect() as connection:
            return [run_from_row(row) for row in await connection.execute(query)]

    async def unfinished(self, limit: int, *, after_id: str = "", idle_since: dt.datetime | None = None) -> list[Run]:
        """Runs that have not ended, ordered by id, for the sweep.

        Args:
            limit: At most so many.
            after_id: Start behind this id: the next page.
            idle_since: Leave out what was touched after it, and what is parked beyond now.

        """
        query = sa.select(runs).where(runs.c.status.in_(UNFINISHED), runs.c.id > after_id)
        if idle_since is not None:
            overdue = sa.or_(runs.c.resume_at.is_(None), runs.c.resume_at <= self._clock())
            query = query.where(runs.c.updated_at <= idle_since, overdue)
        async with self._reading.connect() as connection:
            rows = await connection.execute(query.order_by(runs.c.id).limit(limit))
            return [run_from_row(row) for row in rows]

    async def find(self, run_ids: Collection[str]) -> list[Run]:
        """Those of these runs that exist."""
        ids = sorted(set(run_ids))
        found: list[Run] = []
        async with self._reading.connect() as connection:
            for at in range(0, len(ids), _CHUNK):
                query = sa.select(runs).where(runs.c.id.in_(ids[at : at + _CHUNK]))
                found += [run_from_row(row) for row in await connection.execute(query)]
        return found

    async def tallies(self, workflow_ids: Collection[str]) -> dict[str, int]:
        """How many events the runs of each workflow have had: a number that every recorded event raises."""
        ids = sorted(set(workflow_ids))
        found: dict[str, int] = {}
        async with self._reading.connect() as connection:
            for at in range(0, len(ids), _CHUNK):
                total = sa.cast(sa.func.sum(runs.c.seq), sa.BigInteger)
                query = sa.select(runs.c.subject_id, total).where(runs.c.subject_id.in_(ids[at : at + _CHUNK]))
                rows = await connection.execute(query.group_by(runs.c.subject_id))
                found |= {row.subject_id: row[1] for row in rows}
        return found

    async def overtaken(self, attempts: Mapping[str, int]) -> set[str]:
        """Of these runs and the attempts at work on them, those that have ended or were taken over."""
        ids = sorted(attempts)
        lost: set[str] = set()
        async with self._reading.connect() as connection:
            for at in range(0, len(ids), _CHUNK):
                chunk = ids[at : at + _CHUNK]
                query = sa.select(runs.c.id, runs.c.status, runs.c.attempt).where(runs.c.id.in_(chunk))
                held = {
                    row.id
                    for row in await connection.execute(query)
                    if row.status not in TERMINAL and row.attempt == attempts[row.id]
                }
                lost |= set(chunk) - held
        return lost

    async def _current(self, workflow_id: str, node_ids: Collection[str] | None) -> dict[str, Run]:
        mine = [runs.c.subject_id == workflow_id]
        if node_ids is not None:
            mine.append(runs.c.node_id.in_(list(node_ids)))
        newest = (
            sa.select(runs.c.node_id, sa.func.max(runs.c.ordinal).label("ordinal"))
            .where(*mine)
            .group_by(runs.c.node_id)
            .subquery()
        )
        same = sa.and_(runs.c.node_id == newest.c.node_id, runs.c.ordinal == newest.c.ordinal)
        query = sa.select(runs).join(newest, same).where(runs.c.subject_id == workflow_id)
        async with self._reading.connect() as connection:
            return {row.node_id: run_from_row(row) for row in await connection.execute(query)}


def of_node(workflow_id: str, node_id: str) -> sa.Select[Any]:
    """Select the runs of a node."""
    return sa.select(runs).where(runs.c.subject_id == workflow_id, runs.c.node_id == node_id)


def first_run(rows: sa.CursorResult[Any]) -> Run | None:
    """The one run among these rows, if there is one."""
    row = rows.one_or_none()
    return run_from_row(row) if row is not None else None
