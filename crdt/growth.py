"""Keeping documents small: notes what everybody has seen, and has compacted what nobody needs any more.

Only a room's keeper compacts it, in a process of its own, one room at a time. What comes meanwhile goes on in the old
`Doc` and is carried over when the compacted one takes its place.
"""

import asyncio
import datetime as dt
import logging
import time
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

from pycrdt import Doc
from sqlalchemy.exc import SQLAlchemyError

from crdt.canvas import CanvasDoc
from crdt.compactor import TIME_LIMIT_S, Compacted, CompactionFailed, compact_apart, may_swap
from crdt.growth_store import CompactedRow
from crdt.guard import Guard
from crdt.journal import Journal
from crdt.late import Late
from crdt.room import Room
from crdt.rows import Ledger, Loaded
from crdt.store import SqlStore
from crdt.update import decode_vector

logger = logging.getLogger(__name__)

_DAY: Final = dt.timedelta(days=1)
MANY_IDS: Final = (2_000, 3_000)
"""Client ids from which a room is reported: every page load that writes leaves one for ever."""
_LONGEST_BACKOFF: Final = _DAY


@dataclass(frozen=True, slots=True)
class GrowthLimits:
    """When documents are compacted."""

    window: dt.timedelta = 7 * _DAY
    """How long a client may be offline and merge as if nothing had happened; beyond it is healed. At least a day."""
    note_every: dt.timedelta = _DAY
    look_every_s: float = 600.0
    """How often a room that is open is looked at; it also is when it is let go."""
    gap: dt.timedelta = _DAY
    """Between two compactions of a room."""
    at_latest: dt.timedelta = 7 * _DAY
    """Compacted after this time if anything was written."""
    structs_per_key: int = 20
    grown_bytes: int = 2_000_000
    keep_archives: dt.timedelta = 90 * _DAY
    keep_frontiers: dt.timedelta = 3 * _DAY
    """Beyond the window."""
    child_s: float = TIME_LIMIT_S
    settle_s: float = 30.0
    """How long a compaction waits for late clients to be healed."""
    backoff: dt.timedelta = dt.timedelta(minutes=10)
    """After a compaction that failed; doubled each time, up to a day."""


class Reason(Enum):
    """Why a document is compacted."""

    FIRST = "first"
    STRUCTS = "structs"
    BYTES = "bytes"
    AGE = "age"


def reason(ledger: Ledger, units: int, now: dt.datetime, limits: GrowthLimits) -> Reason | None:
    """Why a document is to be compacted now; None when it is not.

    Args:
        ledger: What SQL knows.
        units: Sum of the document's state vector.
        now: Aware UTC.
        limits: See there.

    """
    if ledger.frontier is None:
        return None
    if ledger.compacted_at is None or ledger.size is None:
        return Reason.FIRST
    since, age = units - ledger.size.units, now - ledger.compacted_at
    if age < limits.gap or not since:
        return None
    if ledger.size.structs + since > limits.structs_per_key * ledger.size.keys:
        return Reason.STRUCTS
    if ledger.stored_bytes - ledger.size.bytes > limits.grown_bytes:
        return Reason.BYTES
    return Reason.AGE if age >= limits.at_latest else None


@dataclass(slots=True)
class _Known:
    """What is remembered of an open room."""

    look_at: float = 0.0
    ids: int = 0
    failures: int = 0
    not_before: dt.datetime | None = None


class Growth:
    """Looks after the documents of the rooms of this process.

    Args:
        store: Where they are kept.
        journal: Has every edit committed before a document is read from SQL.
        limits: See there.
        opened: The room that is open under an id.
        guarded: Gives a room its `Late`.

    """

    def __init__(
        self,
        store: SqlStore,
        journal: Journal,
        limits: GrowthLimits,
        *,
        opened: Callable[[str], Room | None],
        guarded: Callable[[Room, Guard], Late],
    ) -> None:
        self.now: Callable[[], dt.datetime] = lambda: dt.datetime.now(dt.UTC)
        self._store = store
        self._journal = journal
        self._limits = limits
        self._opened = opened
        self._guarded = guarded
        self._known: dict[str, _Known] = {}
        self._at_work: tuple[str, asyncio.Event] | None = None
        self._round: asyncio.Task[None] | None = None

    @property
    def most_ids(self) -> int:
        """Client ids of the open room that has most."""
        return max((known.ids for known in self._known.values()), default=0)

    def compacts(self, room_id: str) -> bool:
        """Whether this room is being compacted; its snapshot is not written meanwhile."""
        return self._at_work is not None and self._at_work[0] == room_id

    def forget(self, room_id: str) -> None:
        """The room was let go."""
        self._known.pop(room_id, None)

    def tick(self, rooms: Iterable[Room], spawn: Callable[[Coroutine[Any, Any, None]], "asyncio.Task[None]"]) -> None:
        """Look at the rooms that were not looked at for some time, one after the other; never waits."""
        if self._round is not None and not self._round.done():
            return
        now = time.monotonic()
        due = [room for room in rooms if room.is_keeper and self._known.setdefault(room.id, _Known()).look_at <= now]
        if due:
            self._round = spawn(self._look_at(due))

    async def stop(self) -> None:
        """End what is being done; a compaction leaves everything as it was."""
        if self._round is not None:
            self._round.cancel()
            await asyncio.gather(self._round, return_exceptions=True)

    async def _look_at(self, rooms: list[Room]) -> None:
        for room in rooms:
            if self._opened(room.id) is room:
                try:
                    await self.look(room)
                except (SQLAlchemyError, OSError) as error:
                    facts = {"action": "growth_failed", "room": room.id, "reason": type(error).__name__}
                    logger.warning("growth not looked at, will be tried again", extra=facts)

    async def look(self, room: Room) -> None:
        """Note the room's state vector when it is time, and compact the document if that is worth it.

        While another room is compacted this one is left for later.

        Raises:
            SQLAlchemyError, OSError: The database does not answer.

        """
        known = self._known.setdefault(room.id, _Known())
        known.look_at = time.monotonic() + self._limits.look_every_s
        vector = decode_vector(room.doc.get_state())
        self._count(room, known, len(vector))
        if room.fence is None:
            return
        now = self.now()
        ledger = await self._noted(room, room.fence, now)
        if ledger is None or (known.not_before is not None and now < known.not_before):
            return
        why = reason(ledger, sum(vector.values()), now, self._limits)
        if why is None:
            return
        if self._at_work is not None:
            name, done = self._at_work
            if name == room.id:
                await done.wait()
            return
        self._at_work = room.id, asyncio.Event()
        try:
            await self._compact(room, ledger, known, now, why)
        finally:
            self._at_work[1].set()
            self._at_work = None

    def _count(self, room: Room, known: _Known, ids: int) -> None:
        for limit in MANY_IDS:
            if known.ids < limit <= ids:
                facts = {"action": "many_client_ids", "room": room.id, "ids": ids, "limit": limit}
                logger.warning("many clients have written here: copy the nodes into a new workflow", extra=facts)
        known.ids = ids

    async def _noted(self, room: Room, fence: int, now: dt.datetime) -> Ledger | None:
        """What SQL knows of the document, today's state vector included."""
        limits, growth = self._limits, self._store.growth
        begin = now - limits.window
        ledger = await growth.ledger(room.id, begin)
        if ledger is None or (ledger.noted_at is not None and ledger.noted_at > now - limits.note_every):
            return ledger
        vector = room.doc.get_state()
        noted = await growth.note_frontier(room.id, vector, fence, at=now, keep_after=begin - limits.keep_frontiers)
        return await growth.ledger(room.id, begin) if noted else None

    # Compaction

    async def _compact(self, room: Room, ledger: Ledger, known: _Known, now: dt.datetime, why: Reason) -> None:
        facts = {"room": room.id, "bytes": ledger.stored_bytes, "reason": why.value}
        began = time.monotonic()
        try:
            if room.late is not None:
                async with asyncio.timeout(self._limits.settle_s):
                    await room.late.settled()
            size = await self._try(room, ledger.frontier or b"\x00", now)
        except (CompactionFailed, TimeoutError) as error:
            known.failures += 1
            backoff = min(self._limits.backoff * 2 ** min(known.failures - 1, 10), _LONGEST_BACKOFF)
            known.not_before = now + backoff
            logger.warning(
                "not compacted, everything is as it was: %s", error, extra={"action": "compaction_failed", **facts}
            )
            return
        known.failures = 0
        took = round(time.monotonic() - began, 1)
        logger.info("compacted", extra={"action": "compacted", "to": size, "seconds": took, **facts})

    async def _try(self, room: Room, frontier: bytes, now: dt.datetime) -> int:
        """Compact, store and swap; the bytes that are left.

        Raises:
            CompactionFailed: Nothing has changed, or SQL alone has: the same document, compacted.

        """
        doc, late, fence = room.doc, room.late, room.fence
        guard = late.guard if late is not None else None
        before = await asyncio.to_thread(guard.encode) if guard is not None else b""
        await self._journal.flushed(room.id)
        loaded = await self._store.load(room.id)
        if loaded is None or fence is None:
            raise CompactionFailed("the document is gone")
        updates = [*([loaded.snapshot] if loaded.snapshot is not None else []), *loaded.updates]
        made = await compact_apart(updates, frontier, before, limit_s=self._limits.child_s)
        fresh = await _load(made.pieces, doc.client_id)
        after = await asyncio.to_thread(Guard.decode, made.guard)

        def check() -> None:
            self._check(room, loaded, doc, guard)
            if not may_swap(after, doc.get_update(made.vector)):
                raise CompactionFailed("an edit came that hangs on what was retired")
            for peer in room.peers:
                if peer.behind is not None and after.lacked_by(decode_vector(peer.behind), decode_vector(made.vector)):
                    raise CompactionFailed("somebody who reads slowly has not seen enough yet")

        check()
        row = _row(made, loaded.seq, now)
        kept = now - self._limits.keep_archives
        if not await self._store.growth.compacted(room.id, row, fence, keep_after=kept):
            raise CompactionFailed("this process does not keep the room any more")
        check()
        if not room.replace_doc(fresh):
            raise CompactionFailed("the compacted document lacks something")
        if room.late is not None:
            room.late.compacted(after)
        elif after.anchors:
            room.late = self._guarded(room, after)
        return len(made.state)

    def _check(self, room: Room, loaded: Loaded, doc: CanvasDoc, guard: Guard | None) -> None:
        late = room.late
        if self._opened(room.id) is not room or room.doc is not doc:
            raise CompactionFailed("the room was let go, or has a new keeper")
        if (late.guard if late is not None else None) is not guard or (late is not None and late.busy):
            raise CompactionFailed("a late client was healed meanwhile")
        if room.cursor < loaded.seq:
            raise CompactionFailed("another process has written what did not arrive here yet")


async def _load(parts: Iterable[bytes], client_id: int) -> CanvasDoc:
    """A `Doc` of an update in pieces, others having their turn between two of them."""
    doc: CanvasDoc = Doc(client_id=client_id)
    for part in parts:
        doc.apply_update(part)
        await asyncio.sleep(0)
    return doc


def _row(made: Compacted, seq: int, at: dt.datetime) -> CompactedRow:
    return CompactedRow(made.state, seq, made.guard, made.archive, made.size, at)
