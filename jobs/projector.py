"""Puts the truth about runs into the documents of the rooms this process keeps, and takes orders out of them.

It reconciles, it does not replay: whatever was lost, doubled, late or faked, a look at SQL mends it.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Coroutine, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any, Final, Self

from crdt import canvas
from crdt.canvas import DELETE, INTENT_KEY, SERVER_KEYS
from crdt.json import Json
from crdt.mirroring import in_turns
from crdt.room import Room
from crdt.rooms import Rooms
from jobs import uploads
from jobs.images import ImageWorkshop
from jobs.intents import Ask, Refusal, intent_id_of, parse_intent, refusal_of
from jobs.notices import Notices
from jobs.run import Run, node_patch
from jobs.runs import Runs
from jobs.storage import ImageStore
from jobs.trouble import log_trouble, passing

logger = logging.getLogger(__name__)

TICK_S: Final = 5.0
LIMIT_S: Final = 20.0
"""Time one look at the database, or one order, may take."""
IDLE: Final = "idle"
"""The one status that a node without a run may have."""


@dataclass(frozen=True, slots=True)
class _Truth:
    """What a node must show, and of which run and event."""

    run_id: str
    place: tuple[int, int]
    ended: bool
    patch: Mapping[str, Json]


@dataclass(eq=False, slots=True)
class _Canvas:
    """What is known of one room."""

    room: Room
    notices: Notices
    truth: dict[str, _Truth] = field(default_factory=dict)
    tally: int | None = None
    everything: bool = False
    hinted: set[str] = field(default_factory=set)
    nodes: set[str] = field(default_factory=set)
    at_work: set[tuple[str, str]] = field(default_factory=set)
    """Intents and pasted pictures being dealt with: (node id, intent id or key of data)."""
    flight: asyncio.Lock = field(default_factory=asyncio.Lock)
    driver: asyncio.Task[None] | None = None

    @property
    def dirty(self) -> bool:
        """Whether there is anything to look at."""
        return self.everything or bool(self.hinted or self.nodes)


class Projector:
    """A `RoomListener`. Its slow tick runs while the context is entered.

    Args:
        rooms: Whose listener this is.
        runs: The truth.
        ask: Does what an intent asks for.
        images: Checks pasted pictures.
        store: Keeps pasted pictures.
        tick_s: Between two looks at SQL for what no hint told (seconds).
        notice_interval_s: Between two writes of the server's awareness state (seconds).
        vouched: Whether access tokens say who everybody is; what an intent says of its author is then not believed.

    """

    def __init__(  # noqa: PLR0913 - its seams
        self,
        rooms: Rooms,
        runs: Runs,
        ask: Ask,
        images: ImageWorkshop,
        store: ImageStore,
        *,
        tick_s: float = TICK_S,
        notice_interval_s: float = 0.25,
        vouched: bool = False,
    ) -> None:
        self._rooms = rooms
        self._runs = runs
        self._ask = ask
        self._images = images
        self._store = store
        self._tick_s = tick_s
        self._notice_interval_s = notice_interval_s
        self._vouched = vouched
        self._canvases: dict[str, _Canvas] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._spawn(self._tick_forever())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for known in self._canvases.values():
            known.notices.close()

    # RoomListener

    async def room_opened(self, room: Room) -> None:
        """Bring the document up to date before anybody sees it."""
        self.room_closed(room.id)
        known = self._canvases[room.id] = _Canvas(room, Notices(room, self._notice_interval_s), everything=True)
        try:
            await self._drive(known)
        except BaseException:
            self.room_closed(room.id)
            raise

    def room_changed(self, room: Room, nodes: frozenset[str], server: bool) -> None:  # noqa: FBT001 - a callback
        """Look at what a peer changed; what we changed ourselves is as we want it, but may bring a node back."""
        known = self._canvases.get(room.id)
        if known is None or server:
            if known is not None:
                self._look(known, (node_id for node_id in nodes if self._needs_a_look(known, node_id)))
            return
        self._look(known, nodes)

    def room_hinted(self, room: Room, run_id: str) -> None:
        """A run of this workflow changed."""
        known = self._canvases.get(room.id)
        if known is not None:
            known.hinted.add(run_id)
            self._start(known)

    def room_progress(self, room: Room, payload: Mapping[str, Json]) -> None:
        """A run of this workflow got on."""
        known = self._canvases.get(room.id)
        node_id, run_id = payload.get("nodeId"), payload.get("runId")
        if known is None or not isinstance(node_id, str) or not isinstance(run_id, str):
            return
        truth = known.truth.get(node_id)
        over = truth is not None and truth.run_id == run_id and truth.ended
        if over or payload.get("ended"):
            if known.notices.run_of(node_id) == run_id:
                known.notices.drop(node_id)
            return
        if "place" in payload and known.notices.begun(node_id, run_id):
            # It had its turn while somebody was still counting those that wait.
            return
        known.notices.progress(node_id, {key: value for key, value in payload.items() if key != "nodeId"})

    def room_truth(self, room: Room, node_id: str) -> Mapping[str, Json] | None:
        """What a node must show."""
        known = self._canvases.get(room.id)
        truth = known.truth.get(node_id) if known is not None else None
        return truth.patch if truth is not None else None

    def room_closed(self, room_id: str) -> None:
        """Forget the room."""
        known = self._canvases.pop(room_id, None)
        if known is not None:
            known.notices.close()

    # What others may call

    async def project(self, room: Room) -> None:
        """Bring the room's document up to date with SQL; single flight with whatever else looks at it.

        Raises:
            Whatever reading SQL raises.

        """
        known = self._canvases.get(room.id)
        if known is not None:
            known.everything = True
            await self._drive(known)

    async def reconcile_open_rooms(self) -> None:
        """Bring every room up to date of which SQL has seen events that no hint told, or where a look has failed.

        Raises:
            Whatever reading SQL raises.

        """
        tallies = await self._runs.tallies(self._canvases)
        for room_id, known in list(self._canvases.items()):
            if known.tally != tallies.get(room_id, 0):
                known.everything = True
            if known.dirty:
                await self._drive(known)

    # One room, one flight

    def _look(self, known: _Canvas, nodes: Iterable[str]) -> None:
        known.nodes.update(nodes)
        if known.nodes:
            self._start(known)

    def _start(self, known: _Canvas) -> None:
        if known.driver is None or known.driver.done():
            known.driver = self._spawn(self._drive_or_log(known))

    async def _drive_or_log(self, known: _Canvas) -> None:
        try:
            await self._drive(known)
        except Exception as error:  # noqa: BLE001 - the edge of a task; what was to be looked at stays for the tick
            log_trouble(logger, "projection_failed", error, room=known.room.id)

    async def _drive(self, known: _Canvas) -> None:
        """Look at whatever is dirty until nothing is; one at a time per room, so no older state follows a newer."""
        async with known.flight:
            while known.dirty and self._live(known):
                await self._once(known)

    async def _once(self, known: _Canvas) -> None:
        everything, hinted, nodes = known.everything, known.hinted, known.nodes
        known.everything, known.hinted, known.nodes = False, set(), set()
        try:
            async with asyncio.timeout(LIMIT_S):
                if everything:
                    tally = (await self._runs.tallies([known.room.id])).get(known.room.id, 0)
                    self._learn(known, (await self._runs.current(known.room.id)).values())
                    known.tally = tally
                if hinted:
                    self._learn(known, await self._runs.find(hinted))
                unknown = [
                    node_id
                    async for slice_ in in_turns(tuple(nodes))
                    for node_id in slice_
                    if self._unknown(known, node_id)
                ]
                if unknown:
                    self._learn(known, (await self._runs.current(known.room.id, unknown)).values())
        except BaseException:
            known.everything |= everything
            known.hinted |= hinted
            known.nodes |= nodes
            raise
        names = nodes | known.nodes | {node_id for node_id, truth in known.truth.items() if truth.run_id in hinted}
        await self._write_in_turns(known, canvas.node_ids(known.room.doc) if everything else list(names))

    async def _write_in_turns(self, known: _Canvas, names: list[str]) -> None:
        """Put right what these nodes show, and let others have their turn in between.

        One slice is compared and written in one step. What is known of runs never goes back, so what a later slice
        writes is at least as new as what was read.
        """
        left = set(names)
        try:
            async for slice_ in in_turns(names):
                if not self._live(known):
                    return
                self._write(known, slice_)
                left.difference_update(slice_)
        except BaseException:
            known.nodes |= left
            raise

    def _learn(self, known: _Canvas, found: Iterable[Run]) -> None:
        for run in found:
            place = (run.ordinal, run.seq)
            old = known.truth.get(run.node_id)
            if run.workflow_id != known.room.id or (old is not None and old.place >= place):
                continue
            known.tally = (known.tally or 0) + run.seq - (old.place[1] if old and old.run_id == run.id else 0)
            known.truth[run.node_id] = _Truth(run.id, place, run.status.terminal, node_patch(run))
            shown = known.notices.run_of(run.node_id)
            if shown is not None and (run.status.terminal or shown != run.id):
                known.notices.drop(run.node_id)

    def _write(self, known: _Canvas, nodes: Iterable[str]) -> None:
        room, names = known.room, set(nodes)
        found = {node_id: node for node_id in names if (node := canvas.read_node(room.doc, node_id)) is not None}
        patches = {
            node_id: patch for node_id, node in found.items() if (patch := self._patch(known, node_id, node.data))
        }
        if patches:
            with room.transact() as doc:
                for node_id, patch in patches.items():
                    canvas.patch_data(doc, node_id, patch)
        for node_id in room.askers.keys() & names:
            if node_id not in found or INTENT_KEY not in found[node_id].data:
                del room.askers[node_id]
        for node_id, node in found.items():
            if INTENT_KEY in node.data:
                self._take_intent(known, node_id, node.data[INTENT_KEY])
            for key, value in uploads.data_urls(node.data).items():
                self._move_picture(known, node_id, key, value)

    @staticmethod
    def _patch(known: _Canvas, node_id: str, data: Mapping[str, Json]) -> dict[str, Any]:
        """What must be written into a node's data so that it shows the truth."""
        truth = known.truth.get(node_id)
        if truth is not None:
            return {key: value for key, value in truth.patch.items() if key not in data or data[key] != value}
        return {key: DELETE for key in SERVER_KEYS & data.keys() if (key, data[key]) != ("status", IDLE)}

    def _unknown(self, known: _Canvas, node_id: str) -> bool:
        """Whether a node says something of a run though we know of none: SQL is asked before it is not believed."""
        node = canvas.read_node(known.room.doc, node_id) if node_id not in known.truth else None
        return node is not None and bool(SERVER_KEYS & node.data.keys())

    def _needs_a_look(self, known: _Canvas, node_id: str) -> bool:
        node = canvas.read_node(known.room.doc, node_id)
        return node is not None and bool(
            self._patch(known, node_id, node.data) or INTENT_KEY in node.data or uploads.data_urls(node.data)
        )

    def _live(self, known: _Canvas) -> bool:
        """Whether the room is still open here, and ours to write."""
        return self._canvases.get(known.room.id) is known and known.room.is_keeper

    # Intents

    def _take_intent(self, known: _Canvas, node_id: str, value: Json) -> None:
        intent_id = intent_id_of(value) or ""
        if (node_id, intent_id) not in known.at_work:
            known.at_work.add((node_id, intent_id))
            self._spawn(self._do_intent(known, node_id, intent_id, value, known.room.askers.get(node_id, {})))

    async def _do_intent(
        self, known: _Canvas, node_id: str, intent_id: str, value: Json, asker: Mapping[str, str]
    ) -> None:
        facts = {"node_id": node_id, "request_id": intent_id}
        async with self._trying_again(known, node_id, intent_id, "intent_delayed"):
            try:
                intent = parse_intent(value)
                if self._vouched:
                    intent = replace(intent, by=asker)
                async with asyncio.timeout(LIMIT_S):
                    await self._ask(known.room.id, node_id, intent)
            except Exception as error:
                if passing(error):
                    raise
                refusal = refusal_of(error, node_id)
                if refusal is None:
                    log_trouble(logger, "intent_broken", error, room=known.room.id, **facts)
                    refusal = Refusal(node_id, "internal", "Something went wrong inside the server.")
                if intent_id:
                    known.notices.refuse(intent_id, refusal)
                logger.info(
                    "intent refused",
                    extra={"action": "intent_refused", "room": known.room.id, "reason": refusal.code, **facts},
                )
            self._replace(known, node_id, INTENT_KEY, value, DELETE)
            node = canvas.read_node(known.room.doc, node_id)
            if node is None or INTENT_KEY not in node.data:
                known.room.askers.pop(node_id, None)

    # Pasted pictures

    def _move_picture(self, known: _Canvas, node_id: str, key: str, value: Json) -> None:
        if (node_id, key) not in known.at_work:
            known.at_work.add((node_id, key))
            self._spawn(self._do_move(known, node_id, key, value))

    async def _do_move(self, known: _Canvas, node_id: str, key: str, value: Json) -> None:
        async with self._trying_again(known, node_id, key, "picture_delayed"):
            moved = await uploads.moved(value, known.room.id, self._images, self._store)
            self._replace(known, node_id, key, value, DELETE if moved is None else moved)

    def _replace(self, known: _Canvas, node_id: str, key: str, old: Json, new: Any) -> None:
        """Write a key of a node's data, unless somebody has changed it meanwhile."""
        if not self._live(known):
            return
        node = canvas.read_node(known.room.doc, node_id)
        if node is not None and node.data.get(key) == old:
            with known.room.transact() as doc:
                canvas.patch_data(doc, node_id, {key: new})

    @asynccontextmanager
    async def _trying_again(self, known: _Canvas, node_id: str, what: str, action: str) -> AsyncIterator[None]:
        """Do something for a node; where a passing failure stops it, it is tried again after a tick."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 - the edge of a task
            log_trouble(logger, action, error, room=known.room.id, node_id=node_id)
            if not passing(error):
                return
            await asyncio.sleep(self._tick_s)
        finally:
            known.at_work.discard((node_id, what))
        if self._live(known):
            # Also where it went well: somebody may have put another in its place meanwhile.
            self._look(known, [node_id])

    # Tasks

    async def _tick_forever(self) -> None:
        while True:
            await asyncio.sleep(self._tick_s)
            try:
                async with asyncio.timeout(LIMIT_S):
                    await self.reconcile_open_rooms()
            except Exception as error:  # noqa: BLE001 - the edge of a task that must not end
                log_trouble(logger, "reconcile_failed", error)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
