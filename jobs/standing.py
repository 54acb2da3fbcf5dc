"""Tells rooms what place their waiting runs have, and how long it may take. Hints, never the truth."""

import datetime as dt
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

import sqlalchemy as sa

from crdt.json import Json
from jobs import admission
from jobs.admission import Look
from jobs.progress import Send
from jobs.state import Stage
from jobs.tables import runs
from jobs.turns import Place, places

INTERVAL_S: Final = 1.0
REPEAT_S: Final = 5.0
"""Whoever opens a room late is told after so long at the latest."""
MOST: Final = 100
"""Places of one maker that are told; further back it is a matter of hope."""
_AHEAD: Final = dt.timedelta(days=1)
_WEIGHT: Final = 0.2
_STEPS: Final = ((10.0, 1.0), (60.0, 5.0), (math.inf, 15.0))
"""Up to how many seconds an estimate is told in which steps: nobody needs to see it change every second."""


Lines: TypeAlias = Mapping[str, tuple[str, Mapping[str, Json]]]
"""By run: its room, and what that is told."""


@dataclass(frozen=True, slots=True)
class News:
    """Which runs wait, and what is told of the first of them."""

    waiting: frozenset[str]
    lines: Lines


@dataclass(slots=True)
class Standing:
    """What was told of whom. One process tells all rooms: the one whose worker's id is the smallest.

    Attributes:
        send: See `jobs.progress.Send`.
        me: Id of the worker of this process.

    """

    send: Send
    me: str
    _mean_s: dict[str, float] = field(default_factory=dict)
    _told: dict[str, tuple[str, Mapping[str, Json]]] = field(default_factory=dict)
    _told_at: float = -math.inf
    _repeated_at: float = -math.inf

    @property
    def due(self) -> bool:
        """Whether it is time to tell again."""
        return time.monotonic() >= self._told_at + INTERVAL_S

    def took(self, provider: str, seconds: float) -> None:
        """Learn how long a run of this maker took."""
        before = self._mean_s.get(provider, seconds)
        self._mean_s[provider] = before + _WEIGHT * (seconds - before)

    def read(self, connection: sa.Connection, look: Look) -> News | None:
        """What there is to tell; None where another process tells it.

        Args:
            connection: To read by.
            look: Taken just now.

        """
        if not look.living or look.living[0] != self.me:
            return None
        waiting = admission.waiting(connection, look, look.now + _AHEAD, each=MOST, paused=True)
        alike = {(one.provider, one.model, one.canvas, one.images): one for one in waiting}
        why = {key: admission.held(look, one) for key, one in alike.items()}
        held = {one.run_id: why[one.provider, one.model, one.canvas, one.images] for one in waiting}
        found = places(waiting, look.desk, dict(self._mean_s), MOST)
        return News(frozenset(held), _lines(connection, found, held))

    def tell(self, news: News | None) -> None:
        """Tell every room what has changed for its runs since it was told last."""
        self._told_at = time.monotonic()
        if news is None:
            self._told.clear()
            return
        lines = news.lines
        again = self._told_at >= self._repeated_at + REPEAT_S
        if again:
            self._repeated_at = self._told_at
        for run_id, (room, line) in lines.items():
            if again or self._told.get(run_id) != (room, line):
                self.send(room, line)
        for run_id in news.waiting & (self._told.keys() - lines.keys()):
            # It fell back behind those that are told.
            room, line = self._told[run_id]
            self.send(room, {"nodeId": line["nodeId"], "runId": run_id, "ended": True})
        self._told = dict(lines)


def _lines(connection: sa.Connection, found: Sequence[Place], held: Mapping[str, str | None]) -> Lines:
    ids = [place.waiting.run_id for place in found]
    columns = (runs.c.id, runs.c.subject_id, runs.c.node_id, runs.c.created_at, runs.c.requested_by)
    lines: dict[str, tuple[str, Mapping[str, Json]]] = {}
    rows: dict[str, Any] = {}
    for at in range(0, len(ids), MOST):
        query = sa.select(*columns).where(runs.c.id.in_(ids[at : at + MOST]))
        rows |= {row.id: row for row in connection.execute(query)}
    for place in found:
        row = rows.get(place.waiting.run_id)
        if row is not None:
            lines[row.id] = (row.subject_id, _line(row, place, held.get(row.id)))
    return lines


def _line(row: Any, place: Place, held: str | None) -> dict[str, Json]:
    """What a room shows of a run that waits: as of one at work, and its place from 1."""
    optional: dict[str, Json] = {
        "by": row.requested_by.get("name"),
        # Who was paused cannot know for how long.
        "waitS": None if place.wait_s is None or held == "paused" else rounded(place.wait_s),
        "held": held,
    }
    return {
        "nodeId": row.node_id,
        "runId": row.id,
        "stage": Stage.QUEUED.value,
        "progress": None,
        "place": place.place,
        "startedAt": row.created_at.isoformat(),
        **{key: value for key, value in optional.items() if value is not None},
    }


def rounded(seconds: float) -> int:
    """An estimate in steps that grow with it, rounded up."""
    step = next(step for most, step in _STEPS if seconds <= most)
    return int(math.ceil(seconds / step) * step)
