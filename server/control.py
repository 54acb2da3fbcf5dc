"""Steering many runs at once."""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from jobs.runs import Runs
from jobs.selection import Selection
from jobs.worker import Worker

CHUNK: Final = 200
"""Runs cancelled in one transaction: others get their turn in between."""
MAX_TOLD: Final = 1_000
LIMIT_S: Final = 10.0
"""After so long an answer is due; what remains is told, and cancelled when asked again."""


@dataclass(slots=True)
class Cancelling:
    """How far a cancel of many has come.

    Attributes:
        cancelled: Runs that it ended.
        run_ids: The first `MAX_TOLD` of them.
        remaining: Runs it has not come to.

    """

    cancelled: int = 0
    run_ids: list[str] = field(default_factory=list)
    remaining: int = 0


class Control:
    """Cancels runs by what they have in common.

    Args:
        runs: The truth.
        worker: Stops their attempts.
        limit_s: Seconds one call may take.

    """

    def __init__(self, runs: Runs, worker: Worker, limit_s: float = LIMIT_S) -> None:
        self._runs = runs
        self._worker = worker
        self._limit_s = limit_s

    async def cancel(self, selection: Selection, by: Mapping[str, str]) -> Cancelling:
        """Cancel every run of the selection that has not ended: each as if it were cancelled alone.

        What waits goes first, so that no place that becomes free is given to a run that is about to be cancelled.
        """
        done = Cancelling()
        until = time.monotonic() + self._limit_s
        async with asyncio.TaskGroup() as stops:
            for part in [selection] if selection.waiting else [replace(selection, waiting=True), selection]:
                if not await self._cancel_part(part, by, done, stops, until):
                    break
        if time.monotonic() > until:
            done.remaining = await self._runs.count(selection)
        return done

    async def _cancel_part(
        self, part: Selection, by: Mapping[str, str], done: Cancelling, stops: asyncio.TaskGroup, until: float
    ) -> bool:
        """Whether there was time for all of it; attempts are stopped while the next are cancelled."""
        after = ""
        while ids := await self._runs.unfinished_of(part, CHUNK, after):
            after = ids[-1]
            cancelled = await self._runs.cancel_many(ids, by, waiting=part.waiting)
            # One that nobody began has no attempt to stop, and no maker to tell: its place in the queue leads nowhere.
            begun = [before.id for before, _ in cancelled if before.attempt]
            stops.create_task(self._worker.cancel_many(begun))
            done.cancelled += len(cancelled)
            done.run_ids += [run.id for _, run in cancelled][: MAX_TOLD - len(done.run_ids)]
            if time.monotonic() > until:
                return False
        return True
