"""What a document was given and could not take in yet, because what it hangs on is still to come.

The document keeps such parts where its own encoding leaves them out: whatever is made of the encoding (a snapshot, the
answer to a joiner) has to add them.
"""

import logging
from collections.abc import Callable, Iterable

from pycrdt import get_update

from crdt import protocol
from crdt.update import decode_vector

logger = logging.getLogger(__name__)

MAX_WAITING_BYTES = 4 * 1024 * 1024
"""Kept for one room; of more, the oldest are left to the clients that made them."""
_UNPROVEN, _UNPROVEN_BYTES = 128, 64 * 1024


class Waiting:
    """The parts of updates that wait, found out many at once: asking for each edit costs as much as applying it.

    Args:
        vector: Gives the document's state vector (v1).

    """

    def __init__(self, vector: Callable[[], bytes]) -> None:
        self._vector = vector
        self._waiting: list[bytes] = []
        self._unproven: list[bytes] = []
        self._unproven_bytes = 0

    def note(self, update: bytes) -> None:
        """An update (v1) was applied, as a whole or in part."""
        self._unproven.append(update)
        self._unproven_bytes += len(update)
        if len(self._unproven) > _UNPROVEN or self._unproven_bytes > _UNPROVEN_BYTES:
            self.updates()

    def updates(self) -> list[bytes]:
        """What waits now, as updates (v1)."""
        if self._unproven:
            lacking = Lacking(self._vector())
            parts = map(lacking.of, (*self._waiting, *self._unproven))
            self._waiting = _newest([part for part in parts if part is not None])
            self._unproven.clear()
            self._unproven_bytes = 0
        return self._waiting


class Lacking:
    """What a document at this state vector (v1) lacks of updates that were applied to it."""

    def __init__(self, vector: bytes) -> None:
        self._vector = vector
        self._known: dict[int, int] | None = None

    def of(self, update: bytes) -> bytes | None:
        """The part of an update (v1) that waits, as an update; None when nothing does."""
        rest = get_update(update, self._vector)
        if rest == protocol.EMPTY_UPDATE:
            return None
        deletes = protocol.deleted_ranges(rest)
        # Deletions of what is not known yet wait as well, and no state vector tells of them.
        return rest if deletes is None or self._beyond(deletes) else None

    def _beyond(self, deletes: dict[int, list[tuple[int, int]]]) -> bool:
        if self._known is None:
            self._known = decode_vector(self._vector)
        known = self._known
        return any(
            clock + length > known.get(client, 0) for client, ranges in deletes.items() for clock, length in ranges
        )


def _newest(parts: Iterable[bytes]) -> list[bytes]:
    kept, size = list(parts), 0
    for index in range(len(kept) - 1, -1, -1):
        size += len(kept[index])
        if size > MAX_WAITING_BYTES:
            logger.warning("dropped updates that wait", extra={"action": "waiting_dropped", "updates": index + 1})
            return kept[index + 1 :]
    return kept
