"""The rooms of one process: opened once, kept under a lease, stored, mirrored, and let go when nobody needs them."""

import asyncio
import logging
import random
import re
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Protocol

from sqlalchemy.exc import SQLAlchemyError

from crdt import canvas
from crdt.bus import HEAD_BYTES, Bus, Frame, Kind
from crdt.close_codes import Close
from crdt.entry import Entry
from crdt.errors import BadUpdate, InvalidRoomId, Poison, ProtocolError, RoomUnavailable, TooManyRooms
from crdt.folding import FOLD_BYTES
from crdt.growth import Growth, GrowthLimits
from crdt.guard import Guard
from crdt.journal import Journal
from crdt.json import Json
from crdt.keeping import Keeping
from crdt.lag import Lag
from crdt.late import Late, left_behind, replayed
from crdt.memory import give_back
from crdt.mirroring import in_turns
from crdt.quarantine import Quarantine, Why
from crdt.receipts import Receipt
from crdt.room import KEEPER_BASE, Origin, Room
from crdt.rows import Loaded
from crdt.shared_presence import SharedPresence
from crdt.store import SqlStore
from crdt.watch import Touched
from crdt.weight import MAX_DOCUMENT_BYTES

logger = logging.getLogger(__name__)

ROOM_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")


@dataclass(frozen=True, slots=True)
class RoomLimits:
    """When rooms are kept, written and let go."""

    grace_s: float = 2.0
    """How long an empty room stays open: through a reload of the page, or a short break of its network."""
    mirror_after_s: float = 0.5
    """How long changes of nodes wait before they are mirrored."""
    mirror_pause_s: float = 2.0
    """Between two mirrors of one room: while people drag, its rows follow this often."""
    snapshot_rows: int = 500
    """Log rows after which the whole state is stored and the log trimmed."""
    fold_bytes: int = FOLD_BYTES
    """From this size on snapshots are made in a process of their own."""
    tick_s: float = 5.0
    """Between two looks at SQL, about: a beat, and what the bus may have lost."""
    unheard_s: float = 0.4
    """The same while the bus is down."""
    gap_s: float = 0.05
    """How long a gap in the numbers may stay open before SQL is asked."""
    stop_s: float = 10.0
    trim_after_s: float = 0.5
    """How long after rooms were let go their memory is given back to the system."""
    max_open: int = 2**31
    """Rooms that may be open at once."""
    max_document_bytes: int = MAX_DOCUMENT_BYTES
    """How large peers may make a document."""
    growth: GrowthLimits = field(default_factory=GrowthLimits)


class RoomListener(Protocol):
    """What the owner of runs wants to know of rooms. Only `room_opened` may wait."""

    async def room_opened(self, room: Room) -> None:
        """The room is loaded and kept by this process; it is served once this returns."""

    def room_changed(self, room: Room, nodes: frozenset[str], server: bool) -> None:  # noqa: FBT001 - a callback
        """Nodes came, went, or their data changed (not only a position)."""

    def room_hinted(self, room: Room, run_id: str) -> None:
        """A run of this workflow changed."""

    def room_progress(self, room: Room, payload: Mapping[str, Json]) -> None:
        """A run of this workflow got on."""

    def room_truth(self, room: Room, node_id: str) -> Mapping[str, Json] | None:
        """The server-owned keys of a node as SQL has them; None where that is not known, or there are none."""

    def room_closed(self, room_id: str) -> None:
        """The room is no longer open, or no longer kept, here."""


class Rooms:
    """Every room this process has open.

    Args:
        store: The truth.
        bus: Hints from and to other processes.
        process_id: Fresh at every start; sender of our frames.
        listener: May be set later, before `start`.

    """

    def __init__(
        self,
        store: SqlStore,
        bus: Bus,
        *,
        process_id: str,
        listener: RoomListener | None = None,
        limits: RoomLimits | None = None,
    ) -> None:
        self.listener = listener
        self.limits = limits or RoomLimits()
        self.journal = Journal(store, self._committed)
        self.growth = Growth(store, self.journal, self.limits.growth, opened=self.opened, guarded=self._guarded)
        self._keeping = Keeping(store, self.journal, self.limits, compacts=self.growth.compacts, soon=self._soon)
        self.lag = Lag()
        self._quarantine = Quarantine(store.engine, self._spawn)
        self._store = store
        self._bus = bus
        self._process_id = process_id
        self._entries: dict[str, Entry] = {}
        self._evictions: dict[str, asyncio.Task[None]] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self.unstored: tuple[str, ...] = ()
        """After `stop`: rooms with edits that are not in SQL."""
        self._stopping = False
        self._trim_timer: asyncio.TimerHandle | None = None
        self.hints_missed: Callable[[], Awaitable[None]] | None = None
        """Called while hints of other processes do not arrive, and once more when they do again."""
        self._bus_changed = asyncio.Event()
        bus.received = self._received
        bus.changed = self._bus_changed.set
        bus.gone = lambda process: self._presence.gone(self.all_open(), process)
        self._presence = SharedPresence(bus, process_id)

    # Life

    async def start(self) -> None:
        """Register this process and start the commit loop and the slow tick."""
        await self._store.beat(first=True)
        self._journal_task = self._spawn(self.journal.run())
        self._tick_task = self._spawn(self._tick_forever())

    async def stop(self) -> None:
        """Close every peer (1012), store what is unsaved in bounded time, and give the leases back."""
        self._stopping = self._keeping.stopping = True
        self._tick_task.cancel()
        await self.growth.stop()
        if self._trim_timer is not None:
            self._trim_timer.cancel()
        for entry in self._entries.values():
            entry.cancel_timers()
            if entry.room is not None:
                entry.room.close(*Close.RESTART.because("the server is stopping"))
        try:
            async with asyncio.timeout(self.limits.stop_s):
                for room in self.all_open():
                    if room.late is not None:
                        await room.late.finish()
                self.journal.close()
                await self._journal_task
                for room_id in list(self._entries):
                    await self._evict(room_id, force=True)
                await self._quarantine.settle()
                await self._store.retire()
        except (TimeoutError, SQLAlchemyError, OSError) as error:
            facts = {"action": "stop_incomplete", "reason": type(error).__name__, "rooms": list(self._entries)[:50]}
            logger.error("could not store every room", extra=facts)  # noqa: TRY400 - the reason says it all
        self.unstored = self.journal.rooms
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def open(self, room_id: str) -> Room:
        """The room, loaded once however many ask at the same time.

        It is let go again some time after its last peer left; hold it with `use` while working on it.

        Raises:
            InvalidRoomId: No room can have this name.
            RoomUnavailable: The database does not answer, the server is stopping, or has too many rooms open.

        """
        if ROOM_ID.fullmatch(room_id) is None:
            raise InvalidRoomId(room_id)
        while (eviction := self._evictions.get(room_id)) is not None:
            await asyncio.wait([eviction])
        if self._stopping:
            raise RoomUnavailable(room_id, "the server is stopping")
        if self.journal.full:
            raise RoomUnavailable(room_id, "edits cannot be stored at present")
        entry = self._entries.get(room_id)
        if entry is None:
            if len(self._entries) >= self.limits.max_open:
                raise TooManyRooms(room_id)
            entry = self._entries[room_id] = Entry(self._spawn(self._load(room_id)))
        return await asyncio.shield(entry.opening)

    @asynccontextmanager
    async def use(self, room_id: str) -> AsyncIterator[Room]:
        """The room, held open while inside."""
        room = await self.open(room_id)
        entry = self._entries[room_id]
        entry.users += 1
        self._keep(entry)
        try:
            yield room
        finally:
            entry.users -= 1
            self.left(room_id)

    def receipt(self, room_id: str) -> Receipt:
        """For a peer of a room that wants to be told when its edits are durable."""
        return Receipt(partial(self.journal.confirm, room_id))

    def opened(self, room_id: str) -> Room | None:
        """The room if it is open here."""
        entry = self._entries.get(room_id)
        return entry.room if entry is not None else None

    def all_open(self) -> list[Room]:
        """Every room that is open here."""
        return [entry.room for entry in self._entries.values() if entry.room is not None]

    @property
    def count(self) -> int:
        """How many rooms are open or opening."""
        return len(self._entries)

    def left(self, room_id: str) -> None:
        """Tell that a peer left or a user is done: an empty room is let go after the grace period."""
        entry = self._entries.get(room_id)
        if entry is None or entry.room is None or entry.room.peers or entry.users or self._stopping:
            return
        if entry.close_timer is None:
            loop = asyncio.get_running_loop()
            entry.close_timer = loop.call_later(self.limits.grace_s, self._start_eviction, room_id)

    async def flush(self, room_id: str) -> None:
        """Return once everything applied in the room so far is committed, and mirrored if this process keeps it."""
        await self.journal.flushed(room_id)
        entry = self._entries.get(room_id)
        if entry is not None:
            await self._keeping.mirror(entry)

    def hint(self, workflow_id: str, run_id: str) -> None:
        """Tell every process that has the workflow open that a run of it changed; never waits."""
        room = self.opened(workflow_id)
        if room is not None and room.is_keeper and self.listener is not None:
            self.listener.room_hinted(room, run_id)
        self._bus.send(workflow_id, Frame(Kind.HINT, self._process_id, payload=run_id.encode()))

    def report(self, workflow_id: str, payload: Mapping[str, Json]) -> None:
        """Tell the workflow's keeper, and whoever follows the run, how far it is; never waits, may be lost."""
        room = self.opened(workflow_id)
        if room is not None and room.is_keeper and self.listener is not None:
            self.listener.room_progress(room, payload)
        self._bus.send(workflow_id, Frame.progress(self._process_id, payload))

    # Opening and letting go

    async def _load(self, room_id: str) -> Room:
        joined = False
        try:
            await self._store.ensure(room_id)
            fence = await self._store.take(room_id)
            # Joined before the read: what is committed after it arrives as a frame, so nothing is missed.
            joined = True
            await self._bus.join(room_id)
            loaded = await self._store.load(room_id) or Loaded(0, None, (), 0)
            room = await self._make(room_id, loaded, fence)
            entry = self._entries[room_id]
            entry.complete = room.is_keeper and loaded.mirror_seq < loaded.seq
            entry.room = room
            self._presence.opened(room)
            if room.is_keeper:
                async for slice_ in in_turns(canvas.node_ids(room.doc)):
                    with room.transact() as doc:
                        canvas.upgrade(doc, slice_)
                if self.listener is not None:
                    await self.listener.room_opened(room)
                self._keeping.mirror_later(entry)
        except BaseException as error:
            self._entries.pop(room_id, None)
            if joined:
                await self._bus.leave(room_id)
            if isinstance(error, SQLAlchemyError | OSError):
                raise RoomUnavailable(room_id, "the database does not answer") from error
            raise
        self.left(room_id)
        return room

    async def _make(self, room_id: str, loaded: Loaded, fence: int | None) -> Room:
        while True:
            try:
                return self._made(room_id, loaded, fence)
            except Poison as poison:
                if poison.update == loaded.snapshot:
                    facts = {"action": "document_unreadable", "room": room_id, "reason": poison.reason}
                    logger.critical("a stored document cannot be read", extra=facts)
                    raise RoomUnavailable(
                        room_id, "its stored document cannot be read, see: darkroom doctor"
                    ) from poison
                # Kept before the room is served: the next snapshot trims the log.
                await self._quarantine.keep(room_id, poison.update, Why.STORED, poison.reason)
                self._quarantine.log(room_id, poison.update, Why.STORED, poison.reason)
                loaded = replace(loaded, updates=tuple(one for one in loaded.updates if one != poison.update))

    def _made(self, room_id: str, loaded: Loaded, fence: int | None) -> Room:
        updates = [*([loaded.snapshot] if loaded.snapshot is not None else []), *loaded.updates]
        client_id = KEEPER_BASE + fence if fence is not None else secrets.randbits(32)
        room = Room(
            room_id,
            updates,
            client_id=client_id,
            stored=self._edited,
            changed=self._changed,
            max_bytes=self.limits.max_document_bytes,
            lag=self.lag,
        )
        room.fence = fence
        room.cursor = loaded.seq
        room.poisoned = self._poisoned
        if loaded.guard is not None:
            stored = Guard.decode(loaded.guard)
            guard, plan, since = replayed(stored, loaded.updates)
            room.late = self._guarded(room, guard)
            room.late.stored = stored
            if room.is_keeper:
                room.late.carry_out(plan)
                room.late.look_again(since)
        return room

    def _poisoned(self, room: Room, poison: Poison) -> None:
        self._quarantine.note(room.id, poison.update, Why.PANIC if poison.panicked else Why.REFUSED, poison.reason)
        entry = self._entries.get(room.id)
        if not poison.panicked or entry is None or entry.room is not room:
            return
        # What is in SQL was applied before and is good: everybody comes back to a document that is loaded from there.
        room.close(*Close.TRY_AGAIN.because("the canvas is put in order"))
        entry.cancel_timers()
        del self._entries[room.id]
        self._evictions[room.id] = self._spawn(self._reload(room))

    async def _reload(self, room: Room) -> None:
        room.dispose()
        await self.journal.flushed(room.id)
        await self._let_go(room)

    def _guarded(self, room: Room, guard: Guard) -> Late:
        def truth(node_id: str) -> Mapping[str, Json] | None:
            known = self.listener is not None and room.is_keeper
            return self.listener.room_truth(room, node_id) if self.listener is not None and known else None

        return Late(room, guard, self._store.growth, flushed=self.journal.flushed, spawn=self._spawn, truth=truth)

    def _keep(self, entry: Entry) -> None:
        if entry.close_timer is not None:
            entry.close_timer.cancel()
            entry.close_timer = None

    def _start_eviction(self, room_id: str) -> None:
        entry = self._entries.get(room_id)
        if entry is not None and not self._stopping:
            entry.close_timer = None
            if entry.room is not None and not entry.room.peers and not entry.users:
                self._spawn(self._evict(room_id))

    async def _evict(self, room_id: str, *, force: bool = False) -> None:
        """Store what is unsaved, then forget the room, unless somebody came meanwhile."""
        entry = self._entries.get(room_id)
        if entry is None or entry.room is None:
            return
        room = entry.room
        try:
            if room.late is not None and not force:
                await room.late.settled()
            await self.journal.flushed(room_id)
            await self._keeping.mirror(entry)
            if not force:
                await self.growth.look(room)
            await self._keeping.snapshot(entry)
        except (SQLAlchemyError, OSError):
            logger.exception(
                "room stays open: it could not be stored", extra={"action": "evict_failed", "room": room_id}
            )
            if not force:
                self.left(room_id)
                return
        if self._entries.get(room_id) is not entry:
            return  # Another eviction was quicker.
        waits = room.late is not None and room.late.busy
        busy = room.peers or entry.users or entry.dirty or waits or self.journal.holds(room_id)
        if busy and not force:
            self.left(room_id)
            return
        entry.cancel_timers()
        self.growth.forget(room_id)
        del self._entries[room_id]
        self._evictions[room_id] = task = self._spawn(self._let_go(room))
        await asyncio.wait([task])

    async def _let_go(self, room: Room) -> None:
        try:
            if self.listener is not None:
                self.listener.room_closed(room.id)
            await self._bus.leave(room.id)
            if room.fence is not None:
                await self._store.release(room.id, room.fence)
                # Whoever else has it open need not wait for its tick to keep it.
                self._bus.send(room.id, Frame(Kind.HEAD, self._process_id, room.cursor))
        except (SQLAlchemyError, OSError):
            logger.exception("lease not given back", extra={"action": "release_failed", "room": room.id})
        finally:
            room.dispose()
            self._presence.closed(room)
            self._evictions.pop(room.id, None)
            self._trim_later()

    def _trim_later(self) -> None:
        if self._trim_timer is None and not self._stopping:
            loop = asyncio.get_running_loop()
            self._trim_timer = loop.call_later(self.limits.trim_after_s, self._trim_now)

    def _trim_now(self) -> None:
        self._trim_timer = None
        if self._evictions:
            self._trim_later()
        else:
            self._spawn(asyncio.to_thread(give_back))

    # Edits on their way to SQL

    def _edited(self, room: Room, update: bytes) -> None:
        if self.journal.full:
            room.close(*Close.NOT_STORED.because("the database does not answer"))
        self.journal.add(room.id, update)

    def _committed(self, room_id: str, seq: int, updates: tuple[bytes, ...]) -> None:
        size = sum(map(len, updates))
        for index, update in enumerate(updates if size <= HEAD_BYTES else ()):
            last = index == len(updates) - 1
            self._bus.send(room_id, Frame(Kind.UPDATE, self._process_id, seq if last else 0, update))
        if size > HEAD_BYTES:
            self._bus.send(room_id, Frame(Kind.HEAD, self._process_id, seq))
        entry = self._entries.get(room_id)
        if entry is None or entry.room is None:
            return
        entry.rows += 1
        self._advance(entry, entry.room, seq)
        if entry.rows >= self.limits.snapshot_rows and entry.room.is_keeper and not entry.writing.locked():
            entry.rows = 0
            self._soon(partial(self._keeping.snapshot, entry), "snapshot_failed", room_id)

    def _advance(self, entry: Entry, room: Room, seq: int) -> None:
        """Move the cursor to a number that was applied; numbers behind a gap wait for it to close."""
        if seq <= room.cursor:
            return
        entry.ahead.add(seq)
        while room.cursor + 1 in entry.ahead:
            room.cursor += 1
            entry.ahead.discard(room.cursor)
        if entry.ahead and entry.gap_timer is None:
            loop = asyncio.get_running_loop()
            entry.gap_timer = loop.call_later(self.limits.gap_s, self._gap, room.id)

    def _gap(self, room_id: str) -> None:
        entry = self._entries.get(room_id)
        if entry is not None:
            entry.gap_timer = None
            if entry.ahead:
                self._soon(partial(self._catch_up, room_id), "catch_up_failed", room_id)

    async def _catch_up(self, room_id: str) -> None:
        """Read from SQL what the bus did not bring."""
        room = self.opened(room_id)
        if room is None:
            return
        loaded = await self._store.load(room_id, room.cursor)
        behind = left_behind(room, loaded) if loaded is not None else None
        if behind is not None:
            room.late = room.late or self._guarded(room, behind[0])
            await room.late.prepare()
        entry = self._entries.get(room_id)
        if loaded is None or entry is None or entry.room is None:
            return
        for update in ([loaded.snapshot] if loaded.snapshot is not None else []) + list(loaded.updates):
            entry.room.apply(update, Origin.LOAD)
        if behind is not None and room.late is not None:
            room.late.carry_out(*behind[1:])
        entry.room.cursor = max(entry.room.cursor, loaded.seq)
        entry.ahead = {number for number in entry.ahead if number > entry.room.cursor}

    def _changed(self, room: Room, touched: Touched) -> None:
        entry = self._entries.get(room.id)
        if entry is None:
            return
        entry.nodes |= touched.nodes
        entry.edges |= touched.edges
        entry.meta |= touched.meta
        entry.complete |= touched.unseen
        if not room.is_keeper:
            room.askers.clear()
            return
        self._keeping.mirror_later(entry)
        if self.listener is not None and touched.data:
            self.listener.room_changed(room, touched.data, touched.server)

    # Other processes

    def _received(self, room_id: str, frame: Frame) -> None:
        entry = self._entries.get(room_id)
        if entry is None or entry.room is None or frame.sender == self._process_id:
            return
        room = entry.room
        try:
            if frame.kind is Kind.UPDATE:
                room.apply(frame.payload, Origin.BUS)
                self._advance(entry, room, frame.seq)
            elif frame.kind is Kind.HEAD and not self._stopping:
                self._soon(partial(self._look, [room]), "catch_up_failed", room_id)
            elif self.listener is not None and room.is_keeper and frame.kind is Kind.HINT:
                self.listener.room_hinted(room, frame.payload.decode())
            elif self.listener is not None and room.is_keeper and frame.kind is Kind.PROGRESS:
                self.listener.room_progress(room, frame.told)
            elif frame.kind in {Kind.PRESENCE, Kind.WHO}:
                self._presence.received(room, frame)
        except (BadUpdate, ProtocolError, ValueError):
            logger.exception("frame from the bus refused", extra={"action": "bad_frame", "room": room_id})

    async def _tick_forever(self) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time() + self._tick_s()
        while True:
            heard = self._bus.up
            with suppress(TimeoutError):
                async with asyncio.timeout_at(due if heard else min(due, loop.time() + self.limits.unheard_s)):
                    await self._bus_changed.wait()
            if loop.time() < due:
                # Also when the bus is back: what others said meanwhile was said to nobody here.
                if self._bus.up and self._bus_changed.is_set():
                    self._presence.ask(self.all_open())
                self._bus_changed.clear()
                await self._guard(self._look_around, "catch_up_failed", "")
            else:
                due = loop.time() + self._tick_s()
                await self._guard(self.tick, "tick_failed", "")

    def _tick_s(self) -> float:
        return self.limits.tick_s * random.uniform(0.9, 1.1)  # noqa: S311 - not a secret

    async def tick(self) -> None:
        """Beat, renew the server's awareness, ask for what is missing, close gaps of the bus, keep the unkept."""
        for room in self.all_open():
            room.renew()
            room.ask_for_missing()
        alive = await self._store.beat()
        if not alive:
            await self._store.beat(first=True)
        await self._look(self.all_open(), alive=alive)
        if not self._bus.up and self.hints_missed is not None:
            await self.hints_missed()
        self.growth.tick(self.all_open(), self._spawn)

    async def _look_around(self) -> None:
        await self._look(self.all_open())
        if self.hints_missed is not None:
            await self.hints_missed()

    async def _look(self, rooms: list[Room], *, alive: bool = True) -> None:
        """Ask SQL where these rooms stand: read what the bus did not bring, and keep those that nobody keeps."""
        heads = await self._store.heads([room.id for room in rooms])
        for room in rooms:
            head = heads.get(room.id)
            if head is None or self.opened(room.id) is not room:
                continue
            if head.seq > room.cursor and not self.journal.holds(room.id):
                await self._catch_up(room.id)
            if not alive or (room.fence != head.fence and (room.is_keeper or head.free)):
                await self._take_again(room)

    async def _take_again(self, room: Room) -> None:
        if room.is_keeper and self.listener is not None:
            self.listener.room_closed(room.id)
        fence = await self._store.take(room.id)
        if fence is None and not room.is_keeper:
            return
        room.rebase(fence)
        if fence is None:
            room.set_server_state(None)  # From now on another process tells how far runs are.
        entry = self._entries.get(room.id)
        if fence is not None and entry is not None:
            entry.complete = True
            if self.listener is not None:
                await self.listener.room_opened(room)
            self._keeping.mirror_later(entry)

    # Tasks

    def _soon(self, work: Callable[[], Awaitable[None]], action: str, room_id: str) -> None:
        self._spawn(self._guard(work, action, room_id))

    def _spawn(self, work: Coroutine[Any, Any, Any]) -> "asyncio.Task[Any]":
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _guard(self, work: Callable[[], Awaitable[None]], action: str, room_id: str) -> None:
        """Run background work whose failure is logged and tried again by the next tick."""
        with suppress(RoomUnavailable):
            try:
                await work()
            except (SQLAlchemyError, OSError) as error:
                facts = {"action": action, "room": room_id, "reason": type(error).__name__}
                logger.warning("%s, will be tried again", action.replace("_", " "), extra=facts)
                entry = self._entries.get(room_id)
                if entry is not None:
                    self._keeping.mirror_later(entry)
