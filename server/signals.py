"""Waking those in this process who wait for news of a run."""

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from crdt.json import Json


class Watch:
    """One listener's view of one run."""

    def __init__(self) -> None:
        self._woken = asyncio.Event()
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

    def take_progress(self) -> Mapping[str, Json] | None:
        """The latest progress, once."""
        taken, self.progress = self.progress, None
        return taken


class RunSignals:
    """Hints and progress of runs, for whoever watches one; nobody is kept waiting, nothing is queued."""

    def __init__(self) -> None:
        self._watches: dict[str, set[Watch]] = {}

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

    def hint(self, run_id: str) -> None:
        """Tell that a run changed."""
        for watch in self._watches.get(run_id, ()):
            watch.wake()

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
