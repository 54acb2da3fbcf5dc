"""What the keeper of a room writes besides the log: snapshots, and the rows that mirror the document."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Protocol

from crdt.child import ChildFailed
from crdt.entry import Entry
from crdt.folding import fold_apart, folded
from crdt.journal import Journal
from crdt.mirroring import read_mirror
from crdt.room import Room
from crdt.store import SqlStore

logger = logging.getLogger(__name__)


class Pace(Protocol):
    """The limits that matter here; see `crdt.rooms.RoomLimits`."""

    @property
    def mirror_after_s(self) -> float:
        """How long changes of nodes wait before they are mirrored."""

    @property
    def mirror_pause_s(self) -> float:
        """Between two mirrors of one room."""

    @property
    def fold_bytes(self) -> int:
        """From this size on snapshots are made in a process of their own."""


class Keeping:
    """Writes for the rooms that this process keeps; a stale fence changes nothing.

    Args:
        store: The truth.
        journal: Says whether edits are on their way to the log.
        pace: When what is written, and how.
        compacts: Whether a room is being compacted, which is a snapshot of its own.
        soon: Does work in a task that somebody owns, its failure logged under this action.

    """

    def __init__(
        self,
        store: SqlStore,
        journal: Journal,
        pace: Pace,
        *,
        compacts: Callable[[str], bool],
        soon: Callable[[Callable[[], Awaitable[None]], str, str], None],
    ) -> None:
        self.stopping = False
        self._store = store
        self._journal = journal
        self._pace = pace
        self._compacts = compacts
        self._soon = soon

    async def snapshot(self, entry: Entry) -> None:
        """Store the whole state, and drop the log that it covers."""
        room = entry.room
        if room is None or room.fence is None or self._compacts(room.id):
            return
        async with entry.writing:
            fence = room.fence
            large = room.weight.bytes > self._pace.fold_bytes
            # An edit on its way to the log may never come there: a process that reads the log would not miss it.
            ahead = self._journal.holds(room.id)
            if ahead and room.late is not None:
                return  # The next rows ask again.
            if ahead or (large and room.late is None):
                await self._fold(room, fence, apart=large)
                return
            state, seq = room.state(), room.cursor
            late = room.late if room.late is not None and room.late.guard is not room.late.stored else None
            guard = late.guard if late is not None else None
            encoded = await asyncio.to_thread(guard.encode) if guard is not None else None
            stored = await self._store.snapshot(room.id, state, seq, fence, encoded)
            if stored and late is not None and guard is not None:
                late.stored = guard

    async def _fold(self, room: Room, fence: int, *, apart: bool) -> None:
        """A snapshot of what SQL has and no more; apart where encoding it here would keep everybody waiting."""
        loaded = await self._store.load(room.id)
        if loaded is None or not loaded.updates:
            return
        updates = loaded.updates if loaded.snapshot is None else (loaded.snapshot, *loaded.updates)
        try:
            state = await (fold_apart(updates) if apart else asyncio.to_thread(folded, updates))
        except ChildFailed as error:
            facts = {"action": "snapshot_failed", "room": room.id, "reason": str(error)}
            logger.warning("no snapshot was made, the log goes on", extra=facts)
            return
        await self._store.snapshot(room.id, state, loaded.seq, fence)

    def mirror_later(self, entry: Entry) -> None:
        """Have what changed mirrored soon, unless that is so already."""
        if entry.mirror_timer is None and entry.dirty and not self.stopping:
            loop = asyncio.get_running_loop()
            due = max(loop.time() + self._pace.mirror_after_s, entry.mirrored_at + self._pace.mirror_pause_s)
            entry.mirror_timer = loop.call_at(due, self._mirror_now, entry)

    def _mirror_now(self, entry: Entry) -> None:
        entry.mirror_timer = None
        if entry.room is not None:
            self._soon(partial(self.mirror, entry), "mirror_failed", entry.room.id)

    async def mirror(self, entry: Entry) -> None:
        """Write what changed into the rows of nodes and edges."""
        room = entry.room
        if room is None or room.fence is None:
            return
        async with entry.writing:
            if not entry.dirty:
                return
            nodes, edges, meta, complete = entry.nodes, entry.edges, entry.meta, entry.complete
            entry.nodes, entry.edges, entry.meta, entry.complete, entry.unnumbered = set(), set(), False, False, False
            fence = room.fence
            entry.mirrored_at = asyncio.get_running_loop().time()
            try:
                seq = None if self._journal.holds(room.id) else room.cursor
                mirror = await read_mirror(room.doc, nodes, edges, seq=seq, complete=complete)
                written = await self._store.mirror(room.id, mirror, fence)
                entry.unnumbered = seq is None
                self.mirror_later(entry)
            except BaseException:
                entry.nodes |= nodes
                entry.edges |= edges
                entry.meta |= meta
                entry.complete |= complete
                raise
            if not written:
                logger.warning(
                    "mirror refused: not the keeper any more", extra={"action": "stale_fence", "room": room.id}
                )
