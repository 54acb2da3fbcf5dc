"""Healing in a live room: peers that have not seen the frontier of a compaction, and edits that hang on retired ids.

`crdt.guard` decides and `crdt.healing` writes; this holds what such a peer sends until a number for the heal is
committed, and lets nobody else wait. A room that was never compacted has no `Late` and pays nothing.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Final

from pycrdt import Doc
from sqlalchemy.exc import SQLAlchemyError

from crdt import protocol
from crdt.archive import Archive
from crdt.canvas import CanvasDoc
from crdt.chains import Place, key_items
from crdt.close_codes import Close
from crdt.errors import BadUpdate, ProtocolError
from crdt.growth_store import GrowthStore
from crdt.guard import HEAL_BASE, Guard, Plan
from crdt.healing import HEALS, Truth, heal, plain_content
from crdt.ids import IdSet
from crdt.peer import Peer
from crdt.room import Origin, Room
from crdt.rows import Loaded
from crdt.update import GC, Update, decode, decode_structs, decode_vector

logger = logging.getLogger(__name__)

STEP2_S: Final = 5.0
"""How long a late peer may take to send what it has; then it is healed as if it had nothing."""
LIMIT_S: Final = 10.0
"""Time SQL has for a number and the archives."""
NUMBERS: Final = 4
"""Numbers of heals reserved at a time."""
HELD_FRAMES, HELD_BYTES = 1_000, 4 * 1024 * 1024
"""What is kept of a peer that waits; one that sends more comes again later."""
MAX_LOST: Final = 256
"""Edits kept to be looked at, see `Late._lost`; of more, the later ones lose as concurrent edits do."""
PAUSE_S, LONGEST_PAUSE_S = 2.0, 10.0
"""Between two looks at the whole document; longer while they find nothing."""

Flushed = Callable[[str], Awaitable[None]]
Spawn = Callable[[Coroutine[Any, Any, None]], "asyncio.Task[None]"]


@dataclass(eq=False, slots=True)
class _Visit:
    """A late peer until it is healed."""

    vector: bytes | None = None
    """Its state vector, as long as it was not answered."""
    frames: list[bytes] = field(default_factory=list)
    frames_bytes: int = 0
    at_work: bool = False
    timer: asyncio.TimerHandle | None = None


class Late:
    """What a room of a compacted document does besides.

    Args:
        room: Whose `late` this becomes.
        guard: As it came out of SQL, or out of a compaction.
        store: Gives numbers and archives.
        flushed: Returns once every edit of a room so far is committed.
        spawn: Runs a coroutine in a task that somebody owns.
        truth: Server-owned keys as SQL has them.

    """

    def __init__(
        self, room: Room, guard: Guard, store: GrowthStore, *, flushed: Flushed, spawn: Spawn, truth: Truth
    ) -> None:
        self.guard = guard
        self.stored = guard
        """The one that SQL has."""
        self.step2_s = STEP2_S
        self._room = room
        self._store = store
        self._flushed = flushed
        self._spawn = spawn
        self._truth = truth
        self._visits: dict[Peer, _Visit] = {}
        self._numbers: list[int] = []
        """Committed and not used yet, the lowest last."""
        self._highest_then = 0
        self._archives: list[Archive] | None = None
        self._due: list[tuple[Plan, CanvasDoc | None, bytes | None]] = []
        self._untold: list[bytes] = []
        self._teller: asyncio.Task[None] | None = None
        self._catching_up = False
        self._lost: list[tuple[Update, Update]] = []
        """Edits that lost as they arrived, each with what the document emitted: a heal may have overtaken them."""
        self._looker: asyncio.Task[None] | None = None
        self._idle = asyncio.Event()
        self._idle.set()
        self._hurry = asyncio.Event()
        self._looked = asyncio.Event()
        self._looked.set()

    @property
    def busy(self) -> bool:
        """Whether a late peer waits."""
        return bool(self._visits or self._due or self._untold) or not self._looked.is_set()

    async def settled(self) -> None:
        """Return once every late peer was healed or sent away, and every edit that lost was looked at."""
        await self.looked()
        await self._idle.wait()

    async def finish(self) -> None:
        """Heal who said what they have, and leave the others to whoever serves them next; the room is being closed."""
        for peer in tuple(self._visits):
            self.leave(peer)
        await self.settled()

    async def looked(self) -> None:
        """Return once every edit that lost so far was looked at, which is then not put off."""
        self._hurry.set()
        await self._looked.wait()

    # What the room asks

    def holds(self, peer: Peer, frame: bytes) -> bool:
        """Whether a message has to wait because one of the same peer before it does."""
        visit = self._visits.get(peer)
        if visit is None or not visit.at_work:
            return False
        visit.frames.append(frame)
        visit.frames_bytes += len(frame)
        if len(visit.frames) > HELD_FRAMES or visit.frames_bytes > HELD_BYTES:
            visit.frames.pop()
            peer.socket.close(*Close.TRY_AGAIN.because("too much was sent while old edits were put in order"))
        return True

    def withholds(self, peer: Peer, state_vector: bytes) -> bool:
        """Whether a step 1 has to wait: what we have would break a late peer, unless a heal comes with it.

        Raises:
            BadUpdate: It is no state vector.

        """
        if state_vector == protocol.EMPTY_STATE_VECTOR:
            return False
        if not self.guard.lacked_by(decode_vector(state_vector), self._known()):
            return False
        visit = self._visits.setdefault(peer, _Visit())
        self._idle.clear()
        visit.vector = state_vector
        if peer.read_only:
            self._start(peer, visit, None)
        else:
            visit.timer = asyncio.get_running_loop().call_later(self.step2_s, self._start, peer, visit, None)
        return True

    def takes(self, peer: Peer, update: bytes, *, step2: bool) -> bool:
        """Whether an edit of a peer is dealt with here and not as any other.

        Args:
            peer: Who sent it.
            update: Yjs update (v1).
            step2: Whether it says all that the peer has. A key that goes by that is not believed to be gone: a tab may
                have told this one what it lacked, past the server, and by that have broken its chains.

        Raises:
            BadUpdate: It cannot be read.

        """
        visit = self._visits.get(peer)
        if visit is None:
            structs = decode_structs(update)
            if not self.guard.concerns(_divided(structs)[1]):
                if not (step2 or self.guard.settled):
                    return False
                self._apply(peer, update, structs, step2=step2)
                return True
            visit = self._visits[peer] = _Visit()
            self._idle.clear()
        self._start(peer, visit, update)
        return True

    def treats(self, peer: Peer) -> bool:
        """Whether an edit of this peer still waits to be applied."""
        visit = self._visits.get(peer)
        return visit is not None and visit.at_work

    def note(self, update: bytes) -> Plan:
        """Before an update from another process is applied: what the keeper has to heal behind it.

        Raises:
            BadUpdate: It cannot be read.

        """
        heals, others = _divided(decode_structs(update))
        self._note_heals(heals)
        if not self.guard.concerns(others):
            return Plan({})
        # Without the archives: nobody waits here, and of an id that is not found every key is written anew.
        plan = self.guard.plan(self._known(), (), update=_divided(decode(update))[1])
        if self._room.is_keeper:
            return plan
        self.guard = self.guard.healed(Plan({}, plan.hanging))
        return Plan({})

    def carry_out(self, plan: Plan, source: CanvasDoc | None = None, message: bytes | None = None) -> None:
        """Heal now if there is a number, else as soon as one is committed.

        Args:
            plan: What is to be written anew.
            source: Where current values are read, when not in the room's own document.
            message: To be told together with the heal, which puts right what it says.

        """
        if not plan:
            if message is not None:
                self._room.tell(message)
            return
        if self._numbers and not self._outnumbered():
            self._heal(plan, self._numbers.pop(), source, message)
            return
        self._due.append((plan, source, message))
        self._idle.clear()
        if not self._catching_up:
            self._catching_up = True
            self._spawn(self._catch_up())

    def look_again(self, log: list[Update]) -> None:
        """Look at edits of before a restart that may have lost to a heal; see `replayed`."""
        if log and self.guard.settled:
            whole = decode(self._room.doc.get_update())
            self._put_off(_together(log), Update([], whole.deletes))

    def leave(self, peer: Peer) -> None:
        """The peer is gone; what it sent before is still put in order."""
        visit = self._visits.get(peer)
        if visit is not None and not visit.at_work:
            if visit.timer is not None:
                visit.timer.cancel()
            self._forget(peer)

    def dispose(self) -> None:
        """The room is let go."""
        if self._looker is not None:
            self._looker.cancel()

    def compacted(self, guard: Guard) -> None:
        """The document was compacted again."""
        self.guard = self.stored = guard

    # One peer

    def _start(self, peer: Peer, visit: _Visit, update: bytes | None) -> None:
        if visit.timer is not None:
            visit.timer.cancel()
        visit.at_work = True
        self._spawn(self._treat(peer, visit, update))

    async def _treat(self, peer: Peer, visit: _Visit, update: bytes | None) -> None:
        try:
            await self.prepare()
            self._settle(peer, visit, update)
            if self._teller is not None:
                async with asyncio.timeout(LIMIT_S):
                    await asyncio.shield(self._teller)
            if visit.vector is not None and peer in self._room.peers:
                self._room.answer(peer, visit.vector)
        except (ProtocolError, BadUpdate) as error:
            facts = {"action": "bad_message", "room": self._room.id, "reason": str(error)}
            logger.info("refused a message", extra=facts)
            peer.socket.close(*Close.BAD_MESSAGE.because(str(error)))
            visit.frames.clear()
        except (TimeoutError, SQLAlchemyError, OSError) as error:
            facts = {"action": "heal_failed", "room": self._room.id, "reason": type(error).__name__}
            logger.warning("a late client is sent away, it will come again", extra=facts)
            peer.socket.close(*Close.TRY_AGAIN.because("the database does not answer"))
            visit.frames.clear()
        finally:
            self._forget(peer)
        for number, frame in enumerate(visit.frames):
            self._room.receive(peer, frame)
            if (again := self._visits.get(peer)) is not None and again.at_work:
                again.frames += visit.frames[number + 1 :]
                again.frames_bytes = sum(map(len, again.frames))
                break

    async def prepare(self) -> None:
        """Have a number that is committed, and the archives.

        Raises:
            TimeoutError, SQLAlchemyError, OSError: The database does not answer.

        """
        async with asyncio.timeout(LIMIT_S):
            # Two: somebody else may take the last one meanwhile.
            if len(self._numbers) < 2 or self._outnumbered():  # noqa: PLR2004
                self._highest_then = max(self._known(), default=0)
                first = await self._store.reserve_heals(self._room.id, NUMBERS)
                self._numbers = list(range(first + NUMBERS - 1, first - 1, -1))
            if self._archives is None:
                encoded = await self._store.archives(self._room.id)
                self._archives = await asyncio.to_thread(lambda: [Archive.decode(one) for one in encoded])

    def _settle(self, peer: Peer, visit: _Visit, update: bytes | None) -> None:
        """Apply what a late peer sent and heal at once behind it, without an await."""
        room, known = self._room, self._known()
        lacked = self.guard.lacked_by(decode_vector(visit.vector), known) if visit.vector is not None else ()
        if update is None or peer.read_only:
            self.carry_out(self.guard.plan(known, (), lacked=lacked))
            return
        heals, others = _divided(decode(update))
        plan = self.guard.plan(known, self._archives or (), lacked=lacked, update=others)
        self._note_heals(heals)
        done = room.apply_untold(update, peer.person, raw=False)
        room.count(peer)
        self.carry_out(self._brought_back(plan, done.removed), message=done.message)
        if self.guard.settled and done.message is not None:
            # Other keys it wrote may have been healed for somebody else while it was away.
            self._note_lost(update, others, decode(done.emitted))

    def _brought_back(self, plan: Plan, removed: Mapping[tuple[str, ...], Any]) -> Plan:
        """A plan with the compacted keys that were taken away, as they were."""
        if not removed:
            return plan
        places = {(*place.path, place.key): place for place in self.guard.anchors}
        claims = dict(plan.claims)
        for way in removed.keys() & places.keys():
            if claims.get(places[way]) is None and (content := plain_content(removed[way])) is not None:
                claims[places[way]] = content
        return Plan(claims, plan.hanging)

    def _heal(self, plan: Plan, number: int, source: CanvasDoc | None, message: bytes | None) -> None:
        room = self._room
        if number >= HEALS:
            facts = {"action": "heals_used_up", "room": room.id}
            logger.error("no more heals in this room: copy its nodes into a new workflow", extra=facts)
            return
        self._highest_then = max(self._highest_then, HEAL_BASE + number)
        update = heal(source or room.doc, number, plan, self._truth)
        done = room.apply_untold(update, None, raw=True, origin=Origin.SERVER)
        self.guard = self.guard.healed(plan)
        self._untold += [one for one in (message, done.message) if one is not None]
        self._idle.clear()
        if self._teller is None:
            self._teller = self._spawn(self._tell())
        logger.info("healed", extra={"action": "healed", "room": room.id, "keys": len(plan.claims)})

    async def _tell(self) -> None:
        """Tell of heals once they are committed.

        One that a crash took back would come again from those who heard of it, and win over what was written since.
        """
        try:
            while self._untold:
                await self._flushed(self._room.id)
                told, self._untold = self._untold, []
                for message in told:
                    self._room.tell(message)
        finally:
            self._teller = None
            self._rest()

    async def _catch_up(self) -> None:
        """Heal what could not wait for its number to be applied."""
        try:
            while self._due:
                await self.prepare()
                plan, source, message = self._due.pop(0)
                self._heal(plan, self._numbers.pop(), source, message)
        except (TimeoutError, SQLAlchemyError, OSError) as error:
            facts = {"action": "heal_failed", "room": self._room.id, "reason": type(error).__name__}
            logger.warning("keys of a late edit are not written anew", extra=facts)
            self._due.clear()
        finally:
            self._catching_up = False
            self._rest()

    def _forget(self, peer: Peer) -> None:
        self._visits.pop(peer, None)
        self._rest()

    def _rest(self) -> None:
        if not self.busy:
            self._archives = None
            self._idle.set()

    def _note_heals(self, heals: Update) -> None:
        """Take heals that others made, and that come only now, as ours."""
        if heals.sections:
            known = self._known()
            new = [section for section in heals.sections if section.client not in known]
            self.guard = settled_by(self.guard, Update(new))

    def _outnumbered(self) -> bool:
        """Whether another process has healed since our numbers were given out: a lower one would lose to its."""
        return max(self._known(), default=0) > max(self._highest_then, HEAL_BASE)

    def _known(self) -> dict[int, int]:
        return decode_vector(self._room.doc.get_state())

    # Edits that a heal overtook

    def _apply(self, peer: Peer, update: bytes, structs: Update, *, step2: bool) -> None:
        """An edit of a peer that has seen the frontier: what it may have broken or lost all the same is made good."""
        self._note_heals(_divided(structs)[0])
        done = self._room.apply_untold(update, peer.person, raw=True)
        plan = self._brought_back(Plan({}), done.removed) if step2 else Plan({})
        self.carry_out(plan, message=done.message)
        if self.guard.settled and done.message is not None:
            self._note_lost(update, structs, decode(done.emitted))

    def _note_lost(self, update: bytes, structs: Update, emitted: Update) -> None:
        dead = IdSet.of(emitted.deletes)
        # Whoever wrote behind a heal has seen it.
        ends = [(c, s.end - 1) for c, s in key_items(structs) if s.origin is None or s.origin[0] < HEAL_BASE]
        if not any(one in dead for one in ends) or len(self._lost) >= MAX_LOST:
            return
        self._put_off(decode(update), emitted)

    def _put_off(self, update: Update, emitted: Update) -> None:
        self._lost.append((update, emitted))
        self._looked.clear()
        if self._looker is None or self._looker.done():
            self._looker = self._spawn(self._look())

    async def _look(self) -> None:
        """Find out whether edits lost to a heal that their writers had not seen; one look at a time, in a thread."""
        pause = PAUSE_S
        try:
            while self._lost:
                self._hurry.clear()
                lost, self._lost = self._lost, []
                update, emitted = (_together(one[side] for one in lost) for side in (0, 1))
                state = partial(bytes, self._room.doc.get_update())
                plan = await asyncio.to_thread(self.guard.overtaken, update, emitted, state)
                self.carry_out(plan)
                if not self._lost:
                    self._looked.set()
                    self._rest()
                pause = PAUSE_S if plan else min(pause * 2, LONGEST_PAUSE_S)
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._hurry.wait(), pause)
        finally:
            self._looked.set()
            self._rest()


def left_behind(room: Room, loaded: Loaded) -> tuple[Guard, Plan, CanvasDoc] | None:
    """What to write anew because the room has not seen the frontier of what SQL holds now; None when it has.

    Args:
        room: Before it applies what was loaded.
        loaded: With a snapshot.

    Returns:
        The guard, the plan, and the document to read values from.

    """
    if loaded.guard is None or loaded.snapshot is None:
        return None
    whole: CanvasDoc = Doc()
    for update in (loaded.snapshot, *loaded.updates):
        whole.apply_update(update)
    guard, _, _ = replayed(Guard.decode(loaded.guard), loaded.updates)
    lacked = guard.lacked_by(decode_vector(room.doc.get_state()), decode_vector(whole.get_state()))
    return (guard, Plan(dict.fromkeys(lacked)), whole) if lacked else None


def settled_by(guard: Guard, heals: Update) -> Guard:
    """The guard once heals of another process, or of before a restart, are in the document."""
    places = guard.places_of(heals)
    return guard.healed(Plan(dict.fromkeys(places))) if places else guard


def replayed(guard: Guard, log: Iterable[bytes]) -> tuple[Guard, Plan, list[Update]]:
    """The guard of a document whose log goes further than what the guard was stored with, and what is still to heal.

    Args:
        guard: As stored.
        log: Yjs updates (v1) behind the snapshot, in order.

    Returns:
        The guard, what to heal, and the updates behind the last heal: it may have overtaken one of them.

    """
    since: list[Update] = []
    claims: dict[Place, bytes | None] = {}
    garbage: list[tuple[int, int, int]] = []
    for update in map(decode, log):
        heals, others = _divided(update)
        guard = settled_by(guard, heals)
        since = [] if heals.sections else [*since, update]
        for place in guard.places_of(heals):
            claims.pop(place, None)
        if guard.concerns(others):
            plan = guard.plan({}, (), update=others)
            claims.update(plan.claims)
            guard = guard.healed(Plan({}, plan.hanging))
        # What hung on retired ids was stored as garbage, and its writer goes on from it.
        garbage += [(one.client, s.clock, s.length) for one in others.sections for s in one.structs if s.kind == GC]
    if garbage:
        guard = replace(guard, retired=IdSet([*guard.retired, *garbage]))
    return guard, Plan(claims), since


def _divided(update: Update) -> tuple[Update, Update]:
    """What an update holds of heals, and the rest."""
    heals = [section for section in update.sections if section.client >= HEAL_BASE]
    others = [section for section in update.sections if section.client < HEAL_BASE]
    return Update(heals), Update(others, update.deletes)


def _together(updates: Iterable[Update]) -> Update:
    whole = Update()
    for update in updates:
        whole.sections += update.sections
        whole.deletes += update.deletes
    return whole
