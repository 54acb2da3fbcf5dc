"""What a document was given and could not take in yet, because what it hangs on is still to come.

The document keeps such parts where its own encoding leaves them out: whatever is made of the encoding (a snapshot, the
answer to a joiner) has to add them.
"""

import logging
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property

from pycrdt import get_update

from crdt import protocol
from crdt.ids import IdSet
from crdt.update import SKIP, StateVector, decode, decode_vector

logger = logging.getLogger(__name__)

MAX_WAITING_BYTES = 4 * 1024 * 1024
"""Kept for one room; of more, the oldest are left to the clients that made them."""
_UNPROVEN, _UNPROVEN_BYTES = 128, 64 * 1024
_COMPARED_BYTES = 256 * 1024
"""A larger part is not compared with what waits already, but kept."""


class Waiting:
    """The parts of updates that wait, found out many at once: to ask for each edit costs as much as applying it.

    Args:
        vector: Gives the document's state vector (v1).

    """

    def __init__(self, vector: Callable[[], bytes]) -> None:
        self._vector = vector
        self._waiting: list[bytes] = []
        self._unproven: list[bytes] = []
        self._unproven_bytes = 0
        self._asked = _Ids()

    def note(self, update: bytes) -> None:
        """Take note of an update (v1) that was applied, as a whole or in part."""
        self._unproven.append(update)
        self._unproven_bytes += len(update)
        if len(self._unproven) > _UNPROVEN or self._unproven_bytes > _UNPROVEN_BYTES:
            self.updates()

    def take(self, update: bytes) -> bool:
        """An update (v1) changed nothing: whether something of it waits now that did not wait before."""
        lacking = Lacking(self._vector())
        part = lacking.of(update)
        if part is None:
            return False
        if len(part) <= _COMPARED_BYTES and _Ids(self.updates(), lacking.known).cover(_Ids([part], lacking.known)):
            return False
        self.note(part)
        # Known from now on: what comes next may be what it hangs on.
        self.updates()
        return True

    def updates(self) -> list[bytes]:
        """What waits now, as updates (v1)."""
        if self._unproven:
            lacking = Lacking(self._vector())
            parts = map(lacking.of, (*self._waiting, *self._unproven))
            self._waiting = _newest([part for part in parts if part is not None])
            self._unproven.clear()
            self._unproven_bytes = 0
        return self._waiting

    def __bool__(self) -> bool:
        """Whether something is known to wait."""
        return bool(self._waiting)

    def settle(self, give: Callable[[bytes], object]) -> list[bytes]:
        """Give the document once more what waits; returns what it could take in now, at least in part.

        Where edits of two authors wait, yrs 0.28 (pycrdt 0.14.13) forgets those of one when what they hang on arrives,
        until they are given again. yjs does not.

        Raises:
            Exception: What `give` raises.

        """
        settled: list[bytes] = []
        while waiting := list(self.updates()):
            before = decode_vector(self._vector())
            for part in waiting:
                give(part)
            lacking = Lacking(self._vector())
            self._waiting = [part for part in map(lacking.of, waiting) if part is not None]
            if lacking.known == before and len(self._waiting) == len(waiting):
                break
            settled += waiting
        return settled

    def take_news(self) -> bool:
        """Whether something waits that did not wait when this was asked last."""
        if not self.updates():
            return False
        before, self._asked = self._asked, _Ids(self._waiting, decode_vector(self._vector()))
        return not before.cover(self._asked)


class Lacking:
    """What a document at this state vector (v1) lacks of updates that were applied to it."""

    def __init__(self, vector: bytes) -> None:
        self._vector = vector

    @cached_property
    def known(self) -> StateVector:
        """The state vector, decoded."""
        return decode_vector(self._vector)

    def of(self, update: bytes) -> bytes | None:
        """The part of an update (v1) that waits, as an update; None when nothing does."""
        rest = get_update(update, self._vector)
        if rest == protocol.EMPTY_UPDATE:
            return None
        deletes = protocol.deleted_ranges(rest)
        # Deletions of what is not known yet wait as well, and no state vector tells of them.
        return rest if deletes is None or any(_beyond(deletes.items(), self.known)) else None


class _Ids:
    """What the parts hold that a document lacks: structs, and deletions of what it does not know."""

    def __init__(self, parts: Iterable[bytes] = (), known: StateVector | None = None) -> None:
        decoded = [decode(part) for part in parts]
        self.structs = IdSet(
            (section.client, struct.clock, struct.length)
            for one in decoded
            for section in one.sections
            for struct in section.structs
            if struct.kind != SKIP
        )
        self.deletes = IdSet(run for one in decoded for run in _beyond(one.deletes, known or {}))

    def cover(self, others: "_Ids") -> bool:
        """Whether everything of the others is here."""
        return all(self.structs.covers(*run) for run in others.structs) and all(
            self.deletes.covers(*run) for run in others.deletes
        )


def _beyond(deletes: Iterable[tuple[int, list[tuple[int, int]]]], known: StateVector) -> Iterator[tuple[int, int, int]]:
    for client, ranges in deletes:
        for clock, length in ranges:
            if clock + length > known.get(client, 0):
                yield client, clock, length


def _newest(parts: list[bytes]) -> list[bytes]:
    size = 0
    for index in range(len(parts) - 1, -1, -1):
        size += len(parts[index])
        if size > MAX_WAITING_BYTES:
            logger.warning("dropped updates that wait", extra={"action": "waiting_dropped", "updates": index + 1})
            return parts[index + 1 :]
    return parts
