"""What people may do with the queue: pause and resume it, move a run in it, look at it, and find it full."""

import datetime as dt
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import sqlalchemy as sa

from jobs.admission import UNFINISHED, WAITS
from jobs.dispatcher import Dispatcher
from jobs.errors import NotWaiting, QueueFull, RunNotFound
from jobs.liveness import database_now
from jobs.pauses import Held, Kind, Pause, Scope, drop_pauses, put_pause, read_pauses
from jobs.reading import first_run
from jobs.run import Run
from jobs.runs import Runs
from jobs.tables import runs as table

MAX_WAITING: Final = 10_000
MAX_OWN: Final = 2_000
_FRESH_S: Final = 0.25
_RETRY_AFTER_S: Final = 10.0
MAX_RANK: Final = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Overview:
    """How many runs wait and are at work, by maker, and what is paused."""

    held: Held
    waiting: Mapping[str, int]
    running: Mapping[str, int]


@dataclass(slots=True)
class _Count:
    """What was counted a moment ago, and what was let in since."""

    at: float = float("-inf")
    everybody: int = 0
    added: int = 0


@dataclass(slots=True)
class QueueControl:
    """The queue as people see it.

    Attributes:
        runs: The truth.
        dispatcher: Has a look after every change.
        max_waiting: Runs of everybody that may wait.
        max_own: Of them, runs of one person; where nobody knows who asks, of the people of one canvas.

    """

    runs: Runs
    dispatcher: Dispatcher
    max_waiting: int = MAX_WAITING
    max_own: int = MAX_OWN
    _count: _Count = field(default_factory=_Count)

    async def pause(self, scope: Scope, key: str, until_s: float | None, reason: str, by: str | None) -> Pause:
        """Let nothing new of this scope through until then; None: until it is resumed. What is at work goes on."""

        def write(connection: sa.Connection) -> Pause:
            now = database_now(connection)
            until = None if until_s is None else now + dt.timedelta(seconds=until_s)
            pause = Pause(scope, key, Kind.OPERATOR, until, reason, by, now)
            put_pause(connection, pause)
            return pause

        pause = await self.runs.transaction(write)
        self.dispatcher.poke()
        return pause

    async def resume(self, scope: Scope, key: str) -> int:
        """End the pauses of this scope, also one that a maker asked for; returns how many there were."""
        ended = await self.runs.transaction(lambda connection: drop_pauses(connection, scope, key))
        self.dispatcher.poke()
        return ended

    async def overview(self) -> Overview:
        """How the queue is now."""
        # By the name of the column: as an expression its values would be other parameters to Postgres.
        by: tuple[sa.ColumnElement[Any], ...] = (table.c.provider, sa.literal_column("waits"))
        query = sa.select(table.c.provider, WAITS.label("waits"), sa.func.count()).where(table.c.status.in_(UNFINISHED))

        def read(connection: sa.Connection) -> tuple[Held, list[Any]]:
            held = read_pauses(connection, database_now(connection))
            return held, list(connection.execute(query.group_by(*by)))

        held, found = await self.runs.read(read)
        waiting, running = Counter[str](), Counter[str]()
        for provider, waits, count in found:
            (waiting if waits else running)[provider] += count
        return Overview(held, waiting, running)

    async def move(self, run_id: str, to: Literal["front", "back"]) -> Run:
        """Put a waiting run before, or behind, all others of its person and priority at its maker.

        Raises:
            RunNotFound: No run has this id.
            NotWaiting: It has its place already, or has ended.

        """

        def write(connection: sa.Connection) -> None:
            query = sa.select(table).where(table.c.id == run_id).with_for_update(key_share=True)
            run = first_run(connection.execute(query))
            if run is None:
                raise RunNotFound(run_id)
            if run.status.terminal or not run.waits:
                raise NotWaiting(run)
            edge = (sa.func.min if to == "front" else sa.func.max)(table.c.rank)
            others = sa.select(edge).where(WAITS, table.c.provider == run.provider, table.c.id != run_id)
            last = connection.execute(others).scalar_one_or_none()
            rank = max(-MAX_RANK, min(MAX_RANK, (last or 0) + (-1 if to == "front" else 1)))
            connection.execute(sa.update(table).where(table.c.id == run_id).values(rank=rank))

        await self.runs.transaction(write)
        self.dispatcher.poke()
        return await self.runs.get(run_id)

    async def admit(self, user_id: str | None, workflow_id: str, more: int = 1) -> None:
        """Check that so many runs more may wait.

        Counted, not locked: requests of one moment may together go over by their own number.

        Raises:
            QueueFull: Too many do; says whose.

        """
        count, now = self._count, time.monotonic()
        fresh = now < count.at + _FRESH_S
        if fresh and count.everybody + count.added + more <= min(self.max_waiting, self.max_own):
            # With so few waiting, neither limit is near: nothing to ask.
            count.added += more
            return
        mine = (
            table.c.user_id == user_id
            if user_id is not None
            else sa.and_(table.c.user_id.is_(None), table.c.subject_id == workflow_id)
        )
        own = sa.func.coalesce(sa.func.sum(sa.case((mine, 1), else_=0)), 0)
        query: sa.Select[Any] = sa.select(sa.func.count(), own).where(WAITS)
        everybody, of_mine = await self.runs.read(lambda connection: tuple(connection.execute(query).one()))
        self._count = _Count(now, everybody, more)
        if of_mine + more > self.max_own:
            raise QueueFull(of_mine, own=True, retry_after_s=_RETRY_AFTER_S)
        if everybody + more > self.max_waiting:
            raise QueueFull(everybody, own=False, retry_after_s=_RETRY_AFTER_S)
