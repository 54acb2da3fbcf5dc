"""How large a document is, known without encoding it for every edit."""

from collections.abc import Callable
from typing import Final

MAX_DOCUMENT_BYTES: Final = 64 * 1024 * 1024
_WEIGH_EVERY_S: Final = 10.0
"""Encoding a document of this size takes a while: it must not be what a full room does all the time."""


class Weight:
    """Bytes of one document: as it was encoded last, and what was added since.

    What is added weighs more than it leaves in the document: most edits overwrite something. So the document is weighed
    again before anything is refused.

    Args:
        size: Bytes of the document as one update (v1), or of the updates it was made of.
        limit: Beyond it nothing is taken.

    """

    def __init__(self, size: int, limit: int = MAX_DOCUMENT_BYTES) -> None:
        self.bytes = size
        self._limit = limit
        self._weighed_at = -_WEIGH_EVERY_S

    def takes(self, update: bytes, now: float, weigh: Callable[[], int]) -> bool:
        """Whether an update may be applied; it counts from now on.

        Args:
            update: What is to be added (v1); one that only deletes is always taken.
            now: Seconds.
            weigh: Bytes of the document now.

        """
        size = len(update)
        if update[:1] != b"\x00" and not self.fits(size, now, weigh):
            return False
        self.bytes += size
        return True

    def fits(self, size: int, now: float, weigh: Callable[[], int]) -> bool:
        """Whether so many bytes more may be added; see `takes`."""
        if self.bytes + size <= self._limit:
            return True
        if now - self._weighed_at < _WEIGH_EVERY_S:
            return False
        self._weighed_at = now
        self.bytes = weigh()
        return self.bytes + size <= self._limit

    def add(self, size: int) -> None:
        """Count what was applied without asking."""
        self.bytes += size
