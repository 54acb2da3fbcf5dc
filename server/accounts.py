"""Counting runs that ended: a hint says that a run changed, SQL says how."""

import asyncio
import logging
from collections import OrderedDict
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from crdt.database import read_only
from jobs.state import TERMINAL
from jobs.tables import runs
from server.metrics import Metrics

logger = logging.getLogger(__name__)

GATHER_S: Final = 0.5
_MOST: Final = 10_000
_CHUNK: Final = 500


class RunAccounts:
    """Counts each run once, when it ends.

    Args:
        engine: From `crdt.database.create_engine`.
        metrics: Where they are counted.
        gather_s: Seconds to gather hints before SQL is asked.

    """

    def __init__(self, engine: AsyncEngine, metrics: Metrics, gather_s: float = GATHER_S) -> None:
        self._reading = read_only(engine)
        self._metrics = metrics
        self._gather_s = gather_s
        self._changed: dict[str, None] = {}
        self._counted: OrderedDict[str, None] = OrderedDict()
        self._woken = asyncio.Event()

    def hint(self, run_id: str) -> None:
        """Tell that a run changed; beyond `_MOST` at a time they go uncounted."""
        if run_id not in self._counted and len(self._changed) < _MOST:
            self._changed[run_id] = None
            self._woken.set()

    async def run(self) -> None:
        """Count until cancelled."""
        while True:
            await self._woken.wait()
            await asyncio.sleep(self._gather_s)
            try:
                await self.count()
            except (SQLAlchemyError, OSError) as error:
                logger.warning("runs not counted", extra={"action": "count_failed", "reason": type(error).__name__})

    async def count(self) -> None:
        """Count what has ended among the runs that were hinted at."""
        self._woken.clear()
        ids, self._changed = list(self._changed), {}
        columns = (runs.c.id, runs.c.status, runs.c.processor, runs.c.created_at, runs.c.finished_at)
        async with self._reading.connect() as connection:
            for at in range(0, len(ids), _CHUNK):
                query = sa.select(*columns).where(runs.c.id.in_(ids[at : at + _CHUNK]), runs.c.status.in_(TERMINAL))
                for row in await connection.execute(query):
                    self._ended(row)

    def _ended(self, row: Any) -> None:
        if row.id in self._counted:
            return
        self._counted[row.id] = None
        if len(self._counted) > _MOST:
            self._counted.popitem(last=False)
        duration = row.finished_at - row.created_at
        self._metrics.run_ended(row.status, row.processor.partition(":")[0], duration.total_seconds())
