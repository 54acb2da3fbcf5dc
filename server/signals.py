"""Waking those in this process who wait for news of a run."""

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Final

from crdt.json import Json

_MOST_CHANGED: Final = 400
"""Runs a listener is told of by name; of more it is told that there were more."""


class Watch:
    """One listener's view of one run, or of all runs of a canvas."""

    def __init__(self) -> None:
        self._woken = asyncio.Event()
        self._changed: set[str] = set()
        self.progress: Mapping[str, Json] | None = None
        """How far the run is, since it was last taken."""

    def wake(self) -> None:
        """Tell that there is something new."""
        self._woken.set()

    async def wait(self, timeout_s: float) -> bool:
        """Wait for news, at most so long; returns whether there was any."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._woken.wait()
        except TimeoutError:
            return False
        self._woken.clear()
        return True

    def change(self, run_id: str) -> None:
        """Tell that a run changed."""
        if len(self._changed) <= _MOST_CHANGED:
            self._changed.add(run_id)
        self.wake()

    def take_changed(self) -> set[str] | None:
        """Runs that changed since this was asked last; None where they are too many to be named."""
        taken, self._changed = self._changed, set()
        return taken if len(taken) <= _MOST_CHANGED else None

    def take_progress(self) -> Mapping[str, Json] | None:
        """The latest progress, once."""
        taken, self.progress = self.progress, None
        return taken


class RunSignals:
    """Hints and progress of runs, for whoever watches one; nobody is kept waiting, nothing is queued."""

    def __init__(self) -> None:
        self._watches: dict[str, set[Watch]] = {}

    def watch_canvas(self, workflow_id: str) -> AbstractContextManager[Watch]:
        """Listen to every run of a canvas while inside."""
        return self.watch(_canvas(workflow_id))

    @contextmanager
    def watch(self, run_id: str) -> Iterator[Watch]:
        """Listen to a run while inside."""
        watch = Watch()
        self._watches.setdefault(run_id, set()).add(watch)
        try:
            yield watch
        finally:
            listeners = self._watches[run_id]
            listeners.discard(watch)
            if not listeners:
                del self._watches[run_id]

    def hint(self, workflow_id: str, run_id: str) -> None:
        """Tell that a run changed."""
        for watch in self._watches.get(run_id, ()):
            watch.wake()
        for watch in self._watches.get(_canvas(workflow_id), ()):
            watch.change(run_id)

    def progress(self, run_id: str, progress: Mapping[str, Json]) -> None:
        """Tell how far a run is."""
        for watch in self._watches.get(run_id, ()):
            watch.progress = progress
            watch.wake()

    def close(self) -> None:
        """Wake everybody: the server is stopping."""
        for listeners in self._watches.values():
            for watch in listeners:
                watch.wake()


def _canvas(workflow_id: str) -> str:
    # No run's id has a slash.
    return f"canvas/{workflow_id}"
