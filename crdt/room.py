"""One live document and the peers around it. Synchronous; knows no websocket, no SQL and no bus.

A room applies what peers send at once, gathers it for the length of one event-loop turn, frames it once and writes the
same bytes to every peer: one write per peer and turn, in a crowd one per few milliseconds. A peer whose transport is
full gets no queue but a state vector: when it drains it is sent what it lacks.
"""

import asyncio
import logging
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from enum import Enum
from functools import partial
from typing import TYPE_CHECKING, Any

from pycrdt import merge_updates

from crdt import protocol
from crdt.canvas import CanvasDoc
from crdt.close_codes import Close
from crdt.errors import BadUpdate, DocumentFull, Poison, ProtocolError
from crdt.joins import JoinCache
from crdt.json import Json
from crdt.lag import Lag
from crdt.loading import brings_something, document_of, give, poison_of, waiting_of
from crdt.nesting import check_nesting
from crdt.peer import TELL_EVERY_S, Peer, Socket
from crdt.presence import Presence
from crdt.protocol import (
    AwarenessEntry,
    AwarenessUpdate,
    QueryAwareness,
    SyncStep1,
    SyncUpdate,
    TokenOffered,
    binary_frame,
)
from crdt.receipts import Receipt
from crdt.update import decode_vector
from crdt.waiting import Waiting
from crdt.watch import Touched, Watch
from crdt.weight import MAX_DOCUMENT_BYTES, Weight

if TYPE_CHECKING:
    from crdt.late import Late

logger = logging.getLogger(__name__)

KEEPER_BASE = 2**53 - 2**32
"""A keeper's client id is this plus its fence: of two writers of one key the larger id wins, so the newest keeper."""
CROWD = 30
"""From this many peers on, awareness alone waits for a tick."""
AWARENESS_TICK_S = 0.02
PAUSE_PER_PEER_S, LONGEST_PAUSE_S = 1.6e-4, 0.016
"""In a crowd, how long after a write the next one waits: writing to a peer takes some 2 us, so this keeps one room's
writes near 1 % of a core, and no wait is longer than a frame of a screen. An edit after a quiet time never waits."""
BEHIND_LIMIT_S = 10.0
READ_ONLY = "read-only: this token may look, not edit"
PRESENCE_REFUSED = "presence: not shown; a state is a JSON object of at most 32 KiB, of a client id that is yours"

_NONE: frozenset[str] = frozenset()


class Origin(Enum):
    """Who made an edit; only those of peers and of the server itself are stored."""

    PEER = "peer"
    SERVER = "server"
    BUS = "bus"
    LOAD = "load"


@dataclass(frozen=True, slots=True)
class Untold:
    """An update that was applied and of which nobody was told."""

    message: bytes | None
    """To be told; None when nothing changed."""
    emitted: bytes
    """What the document made of it, a Yjs update (v1)."""
    removed: Mapping[tuple[str, ...], Any]
    """Values that were taken away, by the way to their key."""


Stored = Callable[["Room", bytes], None]
"""Called with every update (v1) that is to be stored and sent to other processes."""
Changed = Callable[["Room", Touched], None]


class Room:
    """Peers around one document.

    Args:
        room_id: The workflow id.
        state: Yjs updates (v1) to begin with, in order.
        client_id: Of the document in this process; always explicit.
        stored: See `Stored`.
        changed: Called after each transaction that touched nodes, edges or meta.
        max_bytes: How large peers may make the document.
        lag: Told of each turn, how long it took.

    """

    def __init__(  # noqa: PLR0913 - what a room borrows of its surroundings
        self,
        room_id: str,
        state: list[bytes],
        *,
        client_id: int,
        stored: Stored,
        changed: Changed,
        max_bytes: int = MAX_DOCUMENT_BYTES,
        lag: Lag | None = None,
    ) -> None:
        self.id = room_id
        self.peers: set[Peer] = set()
        self._live: dict[Peer, Callable[[bytes], None]] = {}
        self.fence: int | None = None
        self.cursor = 0
        self.presence = Presence()
        self.doc: CanvasDoc
        self.late: Late | None = None
        """Of a compacted document only."""
        self.poisoned: Callable[[Room, Poison], None] | None = None
        """Called with an update that could not be applied."""
        self.told_presence: Callable[[Room, list[AwarenessEntry]], None] | None = None
        """Called with the states that peers were told of."""
        self.askers: dict[str, Mapping[str, str]] = {}
        """Who put the request into a node that holds one, as far as somebody vouches for them; the keeper clears it."""
        self.weight = Weight(sum(map(len, state)), max_bytes)
        self._stored = stored
        self._changed = changed
        self._lag = lag
        self._turn_began = 0.0
        self._loop = asyncio.get_running_loop()
        self._turn: list[bytes] = []
        self._scheduled = False
        self._flushing = False
        self._flush_timer: asyncio.TimerHandle | None = None
        self._sent_at = 0.0
        self._awareness_sent_at = 0.0
        self._awareness_timer: asyncio.TimerHandle | None = None
        self._joins = JoinCache()
        self._server_entry = AwarenessEntry(secrets.randbits(32), 0, "null")
        self._watch: Watch | None = None
        self._waiting: Waiting
        self._unseen = False
        self._set_doc(state, client_id)

    @property
    def is_keeper(self) -> bool:
        """Whether this process holds the room's lease and may write server-owned keys."""
        return self.fence is not None

    # Peers

    def enter(
        self,
        socket: Socket,
        *,
        read_only: bool = False,
        person: Mapping[str, str] | None = None,
        refused: Callable[[str], None] | None = None,
        receipt: Receipt | None = None,
    ) -> Peer:
        """Take a client in: it is told our state vector and who is present; see `Peer` for the options."""
        peer = Peer(socket, read_only, person, refused, receipt)
        self.flush()
        self.peers.add(peer)
        # How to write is looked up once: with hundreds of peers, looking it up costs as much as writing.
        self._live[peer] = socket.write
        hello = binary_frame(protocol.step1_message(self.doc.get_state()))
        everyone = self.presence.everyone()
        if everyone:
            hello += binary_frame(protocol.awareness_message(everyone))
        if receipt is not None:
            receipt.tell = partial(self._acknowledge, peer)
            hello += binary_frame(protocol.permission_message(may_edit=not read_only)) + _receipt_frame(receipt)
        socket.write(hello)
        return peer

    def leave(self, peer: Peer) -> None:
        """Let a client go; its cursors vanish for the others."""
        self.peers.discard(peer)
        self.hush(peer)
        if peer.behind_timer is not None:
            peer.behind_timer.cancel()
        if peer.receipt is not None:
            peer.receipt.tell = None
        self.presence.leave(peer)
        if self.late is not None:
            self.late.leave(peer)
        self._schedule()

    def hush(self, peer: Peer) -> None:
        """Write no more to a peer whose socket is closing."""
        self._live.pop(peer, None)

    def receive(self, peer: Peer, frame: bytes) -> None:
        """Take one websocket message of a client; a bad one closes that client and nobody else.

        Args:
            peer: Who sent it.
            frame: One or more y-protocol messages.

        """
        if self.late is not None and self.late.holds(peer, frame):
            return
        try:
            edit = protocol.sole_edit(frame)
            if edit is not None:
                self._take(peer, edit, frame)
                return
            for message in protocol.parse(frame):
                self._receive(peer, message)
        except DocumentFull as error:
            peer.socket.close(*Close.DOCUMENT_FULL.because(str(error)))
        except (ProtocolError, BadUpdate) as error:
            peer.socket.close(*Close.BAD_MESSAGE.because(str(error)))

    def _receive(self, peer: Peer, message: protocol.Message) -> None:
        match message:
            case SyncUpdate(update, step2):
                self._take(peer, update, protocol.update_message(update), step2=step2)
            case AwarenessUpdate(entries, refused):
                if refused + self.presence.receive(peer, entries):
                    self._refuse_presence(peer)
                self._schedule_awareness()
            case SyncStep1(state_vector):
                if self.late is None or not self.late.withholds(peer, state_vector):
                    self.answer(peer, state_vector)
            case QueryAwareness():
                peer.socket.write(binary_frame(protocol.awareness_message(self.presence.everyone())))
            case TokenOffered(token):
                if peer.offered is not None:
                    peer.offered(token)
            case _:  # Also a permission denied: nothing of ours can be denied by a client.
                logger.debug("unknown message", extra={"action": "unknown_message", "room": self.id})

    def _take(self, peer: Peer, update: bytes, message: bytes, *, step2: bool = False) -> None:
        check_nesting(update)
        if peer.read_only:
            if brings_something(self.doc, update):
                self._refuse(peer)
        elif self.late is None or not self.late.takes(peer, update, step2=step2):
            self._apply(update, Origin.PEER, message, peer.person)
        elif self.late.treats(peer):
            return  # Counted once it is applied.
        self.count(peer)

    def answer(self, peer: Peer, state_vector: bytes) -> None:
        """Send a peer what it lacks."""
        if state_vector != protocol.EMPTY_STATE_VECTOR:
            peer.socket.write(self._with_waiting(binary_frame(protocol.step2_message(self._diff(state_vector)))))
            return
        peer.socket.write(self._with_waiting(self._joins.answer(self.doc.get_update)))

    def _diff(self, state_vector: bytes) -> bytes:
        try:
            return self.doc.get_update(state_vector)
        except ValueError as error:
            raise ProtocolError("the state vector cannot be read") from error

    # Edits

    def apply(self, update: bytes, origin: Origin, author: Mapping[str, str] | None = None) -> bool:
        """Apply an update and tell every peer of it.

        The raw bytes go on and are stored, not what the document made of them: an update whose parent is still to
        come emits nothing. One that brings nothing is dropped.

        Args:
            update: Yjs update (v1).
            origin: Where it comes from.
            author: See `Peer.person`.

        Returns:
            Whether it changed anything.

        Raises:
            BadUpdate: It cannot be applied; the document is unchanged.

        """
        plan = self.late.note(update) if self.late is not None and origin is not Origin.PEER else None
        changed = self._apply(update, origin, protocol.update_message(update), author)
        if self.late is not None and plan:
            self.late.carry_out(plan)
        return changed

    def apply_untold(
        self, update: bytes, author: Mapping[str, str] | None, *, raw: bool, origin: Origin = Origin.PEER
    ) -> Untold:
        """As `apply`, for `crdt.late`: stored, and nobody is told yet.

        Args:
            update: Yjs update (v1).
            author: See `Peer.person`.
            raw: Whether the bytes are to go on and are stored, and not what the document made of them.
            origin: Where it comes from.

        Raises:
            BadUpdate: It cannot be applied; the document is unchanged.

        """
        watch = self._watch
        if watch is None:
            return Untold(None, protocol.EMPTY_UPDATE, {})
        watch.record()
        with watch.removals() as removed:
            try:
                settled = self._merge(watch, update, origin, author)
            finally:
                emitted = watch.take_emitted()
        if settled is None:
            return Untold(None, protocol.EMPTY_UPDATE, {})
        goes_on = update if raw or emitted is None else emitted
        self._stored(self, goes_on)
        self._tell_updates(settled)
        self._report(watch, server=False)
        return Untold(protocol.update_message(goes_on), emitted or protocol.EMPTY_UPDATE, removed)

    def _apply(self, update: bytes, origin: Origin, message: bytes, author: Mapping[str, str] | None) -> bool:
        watch = self._watch
        settled = None if watch is None else self._merge(watch, update, origin, author)
        if watch is None or settled is None:
            return False
        self.tell(message)
        if settled:
            self._tell_updates(settled)
        if origin is Origin.PEER:
            self._stored(self, update)
        self._report(watch, server=False)
        return True

    def _merge(
        self, watch: Watch, update: bytes, origin: Origin, author: Mapping[str, str] | None
    ) -> Sequence[bytes] | None:
        """Put an update into the document; what of older ones could be taken in behind it, or None if it is no news."""
        if origin is not Origin.PEER:
            self.weight.add(len(update))
        elif not self.weight.takes(update, self._loop.time(), self._weigh):
            raise DocumentFull
        waited = bool(self._waiting)
        try:
            changed = watch.apply(update, author)
            if changed:
                self._unseen |= waited
                self._waiting.note(update)
            elif not self._waiting.take(update):
                return None
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:
            poison = poison_of(update, error)
            self._report_poison(poison)
            raise poison from error
        return self._settled(watch) if changed and self._waiting else ()

    def _settled(self, watch: Watch) -> Sequence[bytes]:
        """Give the document again what waits; nobody is to blame here and now when that breaks it."""
        try:
            return self._waiting.settle(partial(give, watch.apply))
        except Poison as poison:
            self._report_poison(poison)
            return ()

    def _report_poison(self, poison: Poison) -> None:
        if self.poisoned is not None:
            self.poisoned(self, poison)

    def _tell_updates(self, updates: Iterable[bytes]) -> None:
        for update in updates:
            self.tell(protocol.update_message(update))

    def _with_waiting(self, frames: bytes) -> bytes:
        """Frames for a peer that catches up: the document's own encoding leaves out what waits for its parent."""
        waiting = [binary_frame(protocol.update_message(update)) for update in self._waiting.updates()]
        return b"".join((frames, *waiting)) if waiting else frames

    def count(self, peer: Peer) -> None:
        """An edit of a peer was dealt with: it is told when that is durable, if it asked."""
        # A room that was let go stores nothing: what still comes to it is for the next one to ask for.
        if peer.receipt is not None and self._watch is not None:
            peer.receipt.take()

    def _acknowledge(self, peer: Peer) -> None:
        """Tell a peer what of its edits is durable; one that is behind learns it when it reads again."""
        write = self._live.get(peer)
        if write is not None and peer.receipt is not None:
            write(_receipt_frame(peer.receipt))

    def _refuse(self, peer: Peer) -> None:
        if peer.receipt is not None:
            peer.receipt.refuse()
        if peer.refused is not None:
            peer.refused("read-only")
        if peer.behind is None:
            peer.socket.write(binary_frame(protocol.denied_message(READ_ONLY)))

    def _refuse_presence(self, peer: Peer) -> None:
        if peer.refused is not None:
            peer.refused("presence")
        now = self._loop.time()
        if peer.behind is None and now - peer.told_at >= TELL_EVERY_S:
            peer.told_at = now
            peer.socket.write(binary_frame(protocol.denied_message(PRESENCE_REFUSED)))

    def _weigh(self) -> int:
        return len(self.state())

    def require_space(self, size: int) -> None:
        """Check that so many bytes more may be written.

        Raises:
            DocumentFull: The document would be larger than it may be.

        """
        if not self.weight.fits(size, self._loop.time(), self._weigh):
            raise DocumentFull

    @contextmanager
    def transact(self) -> Iterator[CanvasDoc]:
        """One server write: what happens inside is one transaction, told to every peer and stored.

        Must not be entered while another transaction of this room runs.
        """
        watch = self._watch
        if watch is not None:
            watch.record()
        try:
            with self.doc.transaction(origin=Origin.SERVER.value):
                yield self.doc
        finally:
            emitted = watch.take_emitted() if watch is not None else None
            if watch is not None and emitted is not None:
                self.weight.add(len(emitted))
                self.tell(protocol.update_message(emitted))
                self._stored(self, emitted)
                self._report(watch, server=True)

    def state(self) -> bytes:
        """The whole document as one Yjs update (v1), with what waits for a parent."""
        whole, waiting = self.doc.get_update(), self._waiting.updates()
        return merge_updates(whole, *waiting) if waiting else whole

    def rebase(self, fence: int | None) -> None:
        """Replace the document by itself under another client id: a new lease never reuses the id of an old one."""
        self.fence = fence
        self._set_doc([self.state()], KEEPER_BASE + fence if fence is not None else secrets.randbits(32))

    def replace_doc(self, doc: CanvasDoc) -> bool:
        """Put a leaner `Doc` of the same history in place of ours, once it has caught up.

        Args:
            doc: Under our client id; nobody else may write it.

        Returns:
            False when the two do not hold the same; then nothing was replaced.

        """
        doc.apply_update(self.doc.get_update(doc.get_state()))
        if decode_vector(doc.get_state()) != decode_vector(self.doc.get_state()):
            return False
        waiting = self._waiting.updates()
        for update in waiting:
            doc.apply_update(update)
        self._use_doc(doc, waiting_of(doc, waiting))
        self._joins.forget()
        return True

    def _set_doc(self, state: list[bytes], client_id: int) -> None:
        doc = document_of(state, client_id)
        waiting = waiting_of(doc, state)
        try:
            waiting.settle(partial(give, doc.apply_update))
        except Poison as poison:
            facts = {"action": "waiting_refused", "room": self.id, "reason": poison.reason}
            logger.warning("what waits could not be given again, and goes on waiting", extra=facts)
            doc = document_of(state, client_id)
            waiting = waiting_of(doc, state)
        self._use_doc(doc, waiting)

    def _use_doc(self, doc: CanvasDoc, waiting: Waiting) -> None:
        self._waiting = waiting
        if self._watch is not None:
            self._watch.drop()
        self.doc, self._watch = doc, Watch(doc, self.askers)

    def _report(self, watch: Watch, *, server: bool) -> None:
        touched = watch.take_touched(server=server)
        if self._unseen:
            self._unseen = False
            touched = replace(touched or Touched(_NONE, _NONE, _NONE, meta=False, server=server), unseen=True)
        if touched is not None:
            self._changed(self, touched)

    def ask_for_missing(self) -> None:
        """Ask everybody for what new updates that wait hang on, once: a stock client answers with what it has."""
        watch = self._watch
        if watch is None:
            return
        self._tell_updates(self._settled(watch))
        self._report(watch, server=False)
        if self._waiting.take_news():
            question = binary_frame(protocol.step1_message(self.doc.get_state()))
            for peer in tuple(self.peers):
                if peer.behind is None and not peer.read_only:
                    peer.socket.write(question)

    # Sending

    def tell(self, message: bytes) -> None:
        """Send a message to every peer with what else this turn brings."""
        frame = binary_frame(message)
        self._turn.append(frame)
        self._joins.add(frame)
        self._schedule()

    def _schedule(self) -> None:
        if self._scheduled:
            return
        self._scheduled = True
        self._turn_began = self._loop.time()
        crowd = len(self._live)
        if crowd > CROWD:
            due = self._sent_at + min(crowd * PAUSE_PER_PEER_S, LONGEST_PAUSE_S)
            if due > self._loop.time():
                self._flush_timer = self._loop.call_at(due, self.flush)
                return
        self._loop.call_soon(self.flush)

    def _schedule_awareness(self) -> None:
        """Edits never wait; cursors alone wait a tick in a crowded room, which costs a third of the work."""
        if len(self.peers) <= CROWD:
            self._schedule()
        elif self._awareness_timer is None and not self._scheduled:
            self._arm_awareness()

    def _arm_awareness(self) -> None:
        due = self._awareness_sent_at + AWARENESS_TICK_S
        self._awareness_timer = self._loop.call_at(max(due, self._loop.time()), self._awareness_due)

    def _awareness_due(self) -> None:
        # A timer may fire a little before its time: that it fired says that it is due, not the clock.
        self._awareness_timer = None
        self._awareness_sent_at = 0.0
        self.flush()

    def flush(self) -> None:
        """Write what this turn brought to every peer that keeps up."""
        self._scheduled = False
        if self._flush_timer is not None:
            self._flush_timer.cancel()
            self._flush_timer = None
        frames, self._turn = self._turn, []
        if self.presence.dirty:
            now = self._loop.time()
            if len(self.peers) <= CROWD or now >= self._awareness_sent_at + AWARENESS_TICK_S:
                entries = self.presence.take_dirty()
                frames.append(binary_frame(protocol.awareness_message(entries)))
                if self.told_presence is not None:
                    self.told_presence(self, entries)
                self._awareness_sent_at = now
                if self._awareness_timer is not None:
                    self._awareness_timer.cancel()
                    self._awareness_timer = None
            elif self._awareness_timer is None:
                self._arm_awareness()
        if not frames:
            return
        wire = frames[0] if len(frames) == 1 else b"".join(frames)
        self._sent_at = self._loop.time()
        self._flushing = True
        for write in tuple(self._live.values()):
            write(wire)
        self._flushing = False
        if self._lag is not None and self._turn_began:
            self._lag.note(self._loop.time() - self._turn_began)
            self._turn_began = 0.0

    def on_full(self, peer: Peer) -> None:
        """The peer's transport is full: stop writing to it, and remember what it has."""
        if peer.behind is not None or peer not in self.peers:
            return
        if self._turn and not self._flushing:
            # The transport still takes this turn; a vector taken before it would leave the turn out for this peer.
            self.flush()
        peer.behind = self.doc.get_state()
        self.hush(peer)
        peer.behind_timer = self._loop.call_later(BEHIND_LIMIT_S, self._too_slow, peer)

    def on_drained(self, peer: Peer) -> None:
        """The peer's transport drained: send it what it lacks in one message, and everyone's presence."""
        if peer.behind is None or peer not in self.peers:
            return
        vector, peer.behind = peer.behind, None
        if self._lag is not None:
            self._lag.resyncs += 1
        self._live[peer] = peer.socket.write
        if peer.behind_timer is not None:
            peer.behind_timer.cancel()
            peer.behind_timer = None
        lacking = self._with_waiting(binary_frame(protocol.update_message(self.doc.get_update(vector))))
        told = _receipt_frame(peer.receipt) if peer.receipt is not None else b""
        peer.socket.write(lacking + binary_frame(protocol.awareness_message(self.presence.everyone())) + told)

    def _too_slow(self, peer: Peer) -> None:
        peer.behind_timer = None
        peer.socket.close(*Close.TOO_SLOW.because("reading stopped for 10 s"))

    # The server as a peer

    def set_server_state(self, state: dict[str, Json] | None) -> None:
        """Set what the server itself tells by awareness (progress of runs, refusals); None takes it away."""
        text = protocol.awareness_state(state)
        if text == self._server_entry.state == "null":
            return
        entry = self._server_entry
        self._server_entry = AwarenessEntry(entry.client_id, entry.clock + 1, text)
        self.presence.set(self, self._server_entry)
        self._schedule_awareness()

    def receive_distant(self, process: str, body: bytes) -> None:
        """Take awareness states of clients of another process.

        Raises:
            ProtocolError: They cannot be read.

        """
        self.presence.receive_distant(process, protocol.parse_awareness(body).entries)
        self._schedule_awareness()

    def forget_distant(self, process: str) -> None:
        """Another process is gone: so are its clients."""
        self.presence.leave(process)
        self._schedule_awareness()

    def renew(self) -> None:
        """Repeat the server's state: clients forget one that was not renewed for 30 s."""
        if self._server_entry.state != "null":
            entry = self._server_entry
            self._server_entry = AwarenessEntry(entry.client_id, entry.clock + 1, entry.state)
            self.presence.set(self, self._server_entry)
            self._schedule_awareness()

    def close(self, code: int, reason: str) -> None:
        """Close every peer; the room itself is let go by `Rooms`."""
        self.flush()
        for peer in tuple(self.peers):
            peer.socket.close(code, reason)
        self._cancel_timers()

    def dispose(self) -> None:
        """Stop watching the document, which nothing else ends: edits still made here reach nobody and are not stored.

        Called when the room was let go. Whoever still holds it wrote too late; the next one to open the room heals it.
        """
        if self._watch is not None:
            self._watch.drop()
            self._watch = None
        self._cancel_timers()
        if self.late is not None:
            self.late.dispose()
        self._joins.forget()

    def _cancel_timers(self) -> None:
        for timer in (self._awareness_timer, self._flush_timer):
            if timer is not None:
                timer.cancel()
        self._awareness_timer = self._flush_timer = None


def _receipt_frame(receipt: Receipt) -> bytes:
    return binary_frame(protocol.durable_message(receipt.durable))
