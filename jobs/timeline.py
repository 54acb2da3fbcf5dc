"""The events of all runs of a canvas as one line that can be read on from any place, also after a restart.

Events have no number that counts over a canvas: giving one would make every run of it wait for every other. They have a
time, taken before their commit, so that an event may appear behind a later one. A cursor therefore says two things: a
moment at least `SETTLE` ago up to which everything was read, and how far each run was read that has had events since.
"""

import datetime as dt
import re
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, Self

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine

from crdt.database import read_only
from jobs.reading import utcnow
from jobs.records import RunEvent
from jobs.tables import run_events, runs

SETTLE: Final = dt.timedelta(seconds=30)
"""No event is committed so long after its time; clocks of processes may differ by less."""
MAX_SEEN: Final = 64
"""Runs that a written cursor speaks of; of others the last events may come twice."""
PAGE: Final = 500
_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_TICK: Final = dt.timedelta(microseconds=1)
_PREFIX_CHARS: Final = 12
"""Of a run's id, enough to tell the runs of half a minute apart."""
_TEXT: Final = re.compile(rf"[0-9]{{1,17}}(?:~[0-9a-zA-Z_-]{{1,{_PREFIX_CHARS}}}\.[0-9]{{1,6}}){{0,{MAX_SEEN}}}")


@dataclass(frozen=True, slots=True)
class CanvasEvent:
    """An event, and the node whose run it is of."""

    node_id: str
    event: RunEvent


@dataclass(frozen=True, slots=True)
class Cursor:
    """How far somebody has read.

    Attributes:
        at: Everything up to this moment was read.
        seen: Number and time of the last event read of each run that has had any since, by the start of its id.

    """

    at: dt.datetime = _EPOCH
    seen: Mapping[str, tuple[int, dt.datetime]] = field(default_factory=dict)

    def __str__(self) -> str:
        """The cursor as a client keeps it."""
        latest = sorted(self.seen.items(), key=lambda item: item[1][1], reverse=True)[:MAX_SEEN]
        return "~".join((str((self.at - _EPOCH) // _TICK), *(f"{run}.{seq}" for run, (seq, _) in latest)))

    @classmethod
    def parse(cls, text: str, now: dt.datetime) -> Self:
        """A cursor that a client kept.

        Args:
            text: As `str` made it.
            now: Aware UTC; what it speaks of is remembered from now on for as long as what was just read.

        Raises:
            ValueError: It is none.

        """
        if _TEXT.fullmatch(text) is None:
            raise ValueError("is no place in these events; use an id that the stream gave, or `next` of a list")
        at, *seen = text.split("~")
        pairs = (part.rpartition(".") for part in seen)
        return cls(_EPOCH + int(at) * _TICK, {run: (int(seq), now) for run, _, seq in pairs})

    def has(self, event: RunEvent) -> bool:
        """Whether it was read already."""
        return event.seq <= self.seen.get(event.run_id[:_PREFIX_CHARS], (0, _EPOCH))[0]

    def past(self, event: RunEvent) -> "Cursor":
        """The cursor once this event was read too."""
        return replace(self, seen={**self.seen, event.run_id[:_PREFIX_CHARS]: (event.seq, event.ts)})

    def settled(self, moment: dt.datetime) -> "Cursor":
        """The cursor once everything up to a moment was read."""
        if moment <= self.at:
            return self
        return Cursor(moment, {run: place for run, place in self.seen.items() if place[1] > moment})


class Timeline:
    """Reads the events of canvases.

    Args:
        engine: From `crdt.database.create_engine`.
        clock: The time, aware UTC.

    """

    def __init__(self, engine: AsyncEngine, clock: Callable[[], dt.datetime] = utcnow) -> None:
        self._reading = read_only(engine)
        self._clock = clock

    def now(self) -> Cursor:
        """The cursor of somebody who reads what comes from now on."""
        return Cursor(self._clock())

    def parse(self, text: str) -> Cursor:
        """See `Cursor.parse`."""
        return Cursor.parse(text, self._clock())

    async def read(self, workflow_id: str, cursor: Cursor) -> AsyncIterator[tuple[CanvasEvent | None, Cursor]]:
        """Everything behind a cursor, in the order of its times.

        Yields:
            Each event with the cursor behind it; last None, with the cursor behind everything.

        """
        begun, last = self._clock(), None
        while True:
            page = await self._page(workflow_id, cursor.at if last is None else last.event.ts, last)
            for found in page:
                # What is older than this event has been read, and what may still appear among it is newer than SETTLE.
                cursor = cursor.settled(min(found.event.ts - _TICK, begun - SETTLE))
                last = found
                if not cursor.has(found.event):
                    cursor = cursor.past(found.event)
                    yield found, cursor
            if len(page) < PAGE:
                yield None, cursor.settled(begun - SETTLE)
                return

    async def of_runs(self, workflow_id: str, run_ids: Collection[str], cursor: Cursor) -> list[CanvasEvent]:
        """Events of these runs behind a cursor, at most `PAGE`; cheap, and not all there may be of others."""
        query = _events(workflow_id, cursor.at).where(run_events.c.run_id.in_(sorted(run_ids)))
        return [found for found in await self._fetch(query) if not cursor.has(found.event)]

    async def _page(self, workflow_id: str, at: dt.datetime, last: CanvasEvent | None) -> list[CanvasEvent]:
        if last is None:
            return await self._fetch(_events(workflow_id, at))
        columns = (run_events.c.ts, run_events.c.run_id, run_events.c.seq)
        values = (last.event.ts, last.event.run_id, last.event.seq)
        place = sa.tuple_(*columns)
        behind = sa.tuple_(*(sa.literal(value, column.type) for value, column in zip(values, columns, strict=True)))
        return await self._fetch(_events(workflow_id, at - _TICK).where(place > behind))

    async def _fetch(self, query: sa.Select[Any]) -> list[CanvasEvent]:
        async with self._reading.connect() as connection:
            rows = await connection.execute(query.limit(PAGE))
            return [
                CanvasEvent(row.node_id, RunEvent(row.run_id, row.seq, row.ts, row.kind, row.payload)) for row in rows
            ]


def _events(workflow_id: str, after: dt.datetime) -> sa.Select[Any]:
    query = sa.select(run_events, runs.c.node_id).join(runs, runs.c.id == run_events.c.run_id)
    # A run is as new as its newest event: the others are left out before their events are looked at.
    query = query.where(runs.c.subject_id == workflow_id, run_events.c.ts > after)
    if after > _EPOCH + SETTLE:
        query = query.where(runs.c.updated_at > after - SETTLE)
    return query.order_by(run_events.c.ts, run_events.c.run_id, run_events.c.seq)
