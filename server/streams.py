"""Event streams that are open: bounded, since each costs memory and questions to SQL for as long as it lasts."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from server.errors import TooManyStreams

MAX_STREAMS: Final = 1_000
MAX_OF_CANVAS: Final = 200


class Streams:
    """Counts streams; one that would be too many is refused at the door, before it begins."""

    def __init__(self, limit: int = MAX_STREAMS, of_canvas: int = MAX_OF_CANVAS) -> None:
        self._limit = limit
        self._of_canvas = of_canvas
        self._open: Counter[str] = Counter()

    @property
    def count(self) -> int:
        """How many are open."""
        return self._open.total()

    def check(self, workflow_id: str) -> None:
        """Check that there is room for one more.

        Raises:
            TooManyStreams: There is not.

        """
        if self._open.total() >= self._limit or self._open[workflow_id] >= self._of_canvas:
            raise TooManyStreams

    @contextmanager
    def opened(self, workflow_id: str) -> Iterator[None]:
        """One that is open while inside."""
        self._open[workflow_id] += 1
        try:
            yield
        finally:
            self._open[workflow_id] -= 1
            if not self._open[workflow_id]:
                del self._open[workflow_id]
