"""
People, processes and a database for a while at odds; in the end all agree, and nothing acknowledged is lost.

A script is a list of steps that hypothesis draws, and shrinks to the shortest one that fails.
"""

import asyncio
import itertools
from collections import defaultdict
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from typing import Any, TypeAlias

import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from crdt import canvas, update
from crdt.bus import MemoryHub
from crdt.canvas import CanvasDoc
from crdt.catalog import Catalog
from crdt.errors import RoomUnavailable
from crdt.ids import IdSet
from crdt.room import Room
from crdt.rooms import RoomLimits, Rooms
from crdt.store import SqlStore
from crdt.tables import processes
from tests.crdt.builders import Recorder, database
from tests.crdt.faulty import CALLS, Faults, FaultyBus, FaultyStore
from tests.crdt.people import EDITS, Person, content, meet, several, turns
from tests.support.fast_clock import FastLoop

PEOPLE = 3
_numbers = itertools.count(1)

Script: TypeAlias = list[tuple[Any, ...]]
_who = st.integers(0, PEOPLE - 1)
_edits = st.lists(st.tuples(st.sampled_from(EDITS), st.integers(0, 30)), min_size=1, max_size=3)
_orders = st.sampled_from(["in order", "in order", "reversed", "twice"])
_usual = [
    st.tuples(st.just("edit"), _who, _edits),
    st.tuples(st.just("say"), _who, _edits, _orders),
    st.tuples(st.just("send"), _who, _orders),
    st.tuples(st.just("read"), _who),
    st.tuples(st.just("trade"), _who),
    st.tuples(st.just("delay"), _who),
    st.tuples(st.just("arrive")),
    st.tuples(st.just("connect"), _who),
    st.tuples(st.just("leave"), _who),
    st.tuples(st.just("stall"), _who),
    st.tuples(st.just("drain"), _who),
    st.tuples(st.just("server_edit"), _who, _edits),
    st.tuples(st.just("acknowledge"), _who),
    st.tuples(st.just("pass_time"), st.integers(1, 20)),
]
_rare = [
    st.tuples(st.just("meet"), _who, _who),
    st.tuples(st.just("commit"), _who),
    st.tuples(st.just("fold"), _who),
    st.tuples(st.just("tick"), _who),
    st.tuples(st.just("hold"), st.sampled_from(["append", "append", "snapshot", "mirror"])),
    st.tuples(st.just("fail"), st.sets(st.sampled_from(CALLS), min_size=1, max_size=3), st.booleans()),
    st.tuples(st.just("recover")),
    st.tuples(st.just("restart"), _who),
    st.tuples(st.just("crash"), _who),
    st.tuples(st.just("disturb"), st.sampled_from(["lost", "twice", "late"])),
]
STEPS = st.one_of(*_usual, *_usual, *_rare)


def _scene(*steps: Any) -> st.SearchStrategy[Script]:
    return st.tuples(*(step if isinstance(step, st.SearchStrategy) else st.just(step) for step in steps)).map(list)


_say, _pass = st.tuples(st.just("say"), _who, _edits, _orders), st.tuples(st.just("pass_time"), st.integers(1, 20))
_end = st.tuples(st.sampled_from(["restart", "crash", "fold", "commit"]), _who)
_ack = st.tuples(st.just("acknowledge"), _who)
_SCENES = [
    # What an edit hangs on is late, also at a snapshot and a restart.
    _scene(
        ("edit", 0, [("add", 2)]), ("delay", 0), ("meet", 0, 1), ("say", 1, [("label", 2), ("title", 1)], "in order"),
        _ack, ("commit", 0), ("fold", 0), _end,
    ),
    _scene(
        ("edit", 0, [("add", 2)]), ("delay", 0), ("meet", 0, 1), ("say", 1, [("remove", 2)], "in order"),
        _ack, ("commit", 0), ("arrive",), _end,
    ),
    # The end of a process while a commit is on its way.
    _scene(("hold", "append"), _say, _pass, _ack, _pass, _end),
    _scene(("hold", "append"), ("server_edit", 0, [("add", 2)]), _pass, _end),
    # A database that is away.
    _scene(st.tuples(st.just("fail"), st.sets(st.sampled_from(CALLS), min_size=1), st.booleans()), _say, _pass, _ack,
           st.sampled_from([("recover",), ("leave", 0), ("crash", 0)])),
    # A bus that loses something in the middle.
    _scene(("disturb", "lost"), _say, ("commit", 0), ("commit", 1), ("recover",), _say),
    # Everybody goes, and somebody is back at once.
    _scene(_say, ("leave", 0), ("leave", 1), ("leave", 2), _pass, ("connect", 0)),
    # New pages are opened while others edit.
    _scene(("newcomer", 1), ("trade", 1), _say, ("newcomer", 2), ("trade", 2)),
    # A process that was away for so long that its room is somebody else's.
    _scene(_say, ("usurp", 0), _say, _end),
    # A reader whose transport fills up in the middle of a turn.
    _scene(("say", 0, [("add", 2)], "in order"), ("stall", 1), _say, _pass, ("drain", 1)),
]  # fmt: skip
SCRIPTS: st.SearchStrategy[Script] = st.lists(
    st.one_of(st.lists(STEPS, min_size=1, max_size=10), st.one_of(_SCENES)), min_size=1, max_size=12
).map(lambda scenes: [step for scene in scenes for step in scene])
"""Of scenes that are known to be hard and of steps in any order."""


class Process:
    """One server process: its rooms, and how to end it in order or not."""

    def __init__(self, engine: AsyncEngine, hub: MemoryHub, faults: Faults, snapshot_rows: int) -> None:
        name = self.name = f"p{next(_numbers)}"
        self.bus = FaultyBus(hub)
        self.store = FaultyStore(engine, name, faults)
        limits = RoomLimits(grace_s=0.0, mirror_after_s=0.0, tick_s=3600.0, snapshot_rows=snapshot_rows)
        self.rooms = Rooms(self.store, self.bus, process_id=name, limits=limits)

    async def stop(self, patience_s: float) -> None:
        self.rooms.limits = replace(self.rooms.limits, stop_s=patience_s)
        await self.rooms.stop()
        self.bus.rooms.clear()

    async def kill(self) -> None:
        """End it as SIGKILL does: nothing that was begun goes on."""
        rooms = self.rooms
        rooms._stopping = True
        self.bus.rooms.clear()
        await turns(1)
        tasks = tuple(rooms._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if rooms._trim_timer is not None:
            rooms._trim_timer.cancel()
        for entry in rooms._entries.values():
            entry.cancel_timers()
            if entry.room is not None:
                entry.room.dispose()
        if self.store._transactions.writer is not None:
            await asyncio.to_thread(self.store._transactions.writer._thread.shutdown)

    async def expire(self, engine: AsyncEngine) -> None:
        """Let the time pass after which its rooms are free for others."""
        async with engine.begin() as connection:
            await connection.execute(sa.delete(processes).where(processes.c.id == self.name))


class World:
    """One canvas and all around it."""

    def __init__(self, engine: AsyncEngine, *, processes: int, snapshot_rows: int) -> None:
        self.room_id = f"r{next(_numbers)}"
        self.engine = engine
        self.snapshot_rows = snapshot_rows
        self.faults = Faults()
        self.hub = MemoryHub()
        self.processes = [self._process() for _ in range(processes)]
        self.people = [Person(100 + number) for number in range(PEOPLE)]
        self.late: list[bytes] = []
        self.received: dict[Process, list[bytes]] = defaultdict(list)
        """What each process was sent, as far as it took it."""
        self.acknowledged: list[bytes] = []
        self.acknowledging: set[asyncio.Task[None]] = set()

    def _process(self) -> Process:
        return Process(self.engine, self.hub, self.faults, self.snapshot_rows)

    async def play(self, script: Script) -> None:
        """Go through a script, then let everything come to rest, and look."""
        try:
            for process in self.processes:
                await process.rooms.start()
            await self._begin()
            for name, *arguments in script:
                await getattr(self, name)(*arguments)
            await self._come_to_rest()
        finally:
            self.faults.end()
            for process in self.processes:
                await process.kill()
            for person in self.people:
                await person.leave()
                person.forget()
            await asyncio.gather(*self.acknowledging, return_exceptions=True)

    async def _begin(self) -> None:
        """Everybody is there and sees two nodes."""
        for who in range(PEOPLE):
            await self.connect(who)
        await self.edit(0, [("add", 0), ("add", 1)])
        await self._quiet()

    # What people do

    async def edit(self, who: int, doings: list[tuple[str, int]]) -> None:
        self.people[who].edit(several(doings))

    async def say(self, who: int, doings: list[tuple[str, int]], order: str) -> None:
        await self.edit(who, doings)
        await self.send(who, order)

    async def send(self, who: int, order: str) -> None:
        self.received[self._home(who)] += self.people[who].send(order=order)

    async def read(self, who: int) -> None:
        self.people[who].read()

    async def trade(self, who: int) -> None:
        """Both ways, with the turn of the room ended."""
        await self.send(who, "in order")
        await turns(1)
        await self.read(who)

    async def delay(self, who: int) -> None:
        """The oldest message that is on its way is overtaken by all others, also by those of other people."""
        line = self.people[who].line
        if line is not None and line.outbox:
            self.late.append(line.outbox.pop(0))

    async def arrive(self) -> None:
        online = [person for person in self.people if person.line is not None]
        if online and self.late:
            who = self.people.index(online[0])
            assert online[0].line is not None
            online[0].line.outbox.insert(0, self.late.pop())
            await self.send(who, "in order")

    async def connect(self, who: int) -> None:
        if self.people[who].line is None:
            with suppress(RoomUnavailable):
                await self.people[who].connect(self._home(who).rooms, self.room_id)

    async def leave(self, who: int) -> None:
        await self.people[who].leave()

    async def stall(self, who: int) -> None:
        line = self.people[who].line
        if line is not None:
            line.room.on_full(line.peer)

    async def drain(self, who: int) -> None:
        line = self.people[who].line
        if line is not None:
            line.room.on_drained(line.peer)

    async def meet(self, one: int, other: int) -> None:
        meet(self.people[one], self.people[other])

    async def newcomer(self, who: int) -> None:
        """Somebody closes the page for good, and somebody else opens one."""
        await self.leave(who)
        self.people[who].forget()
        self.people[who] = Person(1000 + next(_numbers))
        await self.connect(who)

    # What the server does

    async def server_edit(self, which: int, doings: list[tuple[str, int]]) -> None:
        room = self._open_room(which)
        if room is not None:
            with room.transact() as doc:
                several(doings)(doc)

    async def acknowledge(self, which: int) -> None:
        room = self._open_room(which)
        if room is not None:
            home = self._home(which)
            task = asyncio.create_task(self._acknowledge(home.rooms, [*self.received[home], room.state()]))
            self.acknowledging.add(task)

    async def pass_time(self, count: int) -> None:
        """Some hundredths of a second, on a clock that runs fast."""
        await asyncio.sleep(count / 100)

    async def commit(self, which: int) -> None:
        """Wait until the database has everything, if it takes it at present."""
        if not self.faults.gates.get("append") and not {"append"} & (self.faults.failing | self.faults.silent):
            await self._home(which).rooms.journal.flushed(self.room_id)

    async def fold(self, which: int) -> None:
        """A snapshot at this very moment."""
        rooms = self._home(which).rooms
        entry = rooms._entries.get(self.room_id)
        if entry is not None and not entry.writing.locked() and "snapshot" not in self.faults.gates:
            with suppress(SQLAlchemyError):
                await rooms._keeping.snapshot(entry)

    async def tick(self, which: int) -> None:
        if not self.faults.gates:  # Nothing here waits for a gate that a later step opens.
            with suppress(SQLAlchemyError, OSError):
                await self._home(which).rooms.tick()

    async def usurp(self, which: int) -> None:
        """Another process took the room meanwhile, and let it go again."""
        await self._home(which).expire(self.engine)
        thief = SqlStore(self.engine, "thief")
        fence = await thief.take(self.room_id)
        if fence is not None:
            await thief.release(self.room_id, fence)

    async def hold(self, call: str) -> None:
        self.faults.hold(call)

    async def fail(self, calls: set[str], silently: bool) -> None:  # noqa: FBT001
        (self.faults.silent if silently else self.faults.failing).update(calls)

    async def recover(self) -> None:
        self.faults.end()
        for process in self.processes:
            process.bus.end()

    async def disturb(self, trouble: str) -> None:
        for process in self.processes:
            process.bus.trouble = trouble

    async def restart(self, which: int) -> None:
        """A clean stop stores everything, unless the database does not take it."""
        number = which % len(self.processes)
        process = self.processes[number]
        trouble = bool(self.faults.failing or self.faults.silent or self.faults.gates)
        room = process.rooms.opened(self.room_id)
        state = [*self.received[process], *([room.state()] if room is not None else [])]
        await process.stop(0.2 if trouble else 60.0)
        await self._replace(number)
        if not trouble:
            await self._require_stored(state)

    async def crash(self, which: int) -> None:
        number = which % len(self.processes)
        await self.processes[number].kill()
        await self._replace(number)

    async def _replace(self, number: int) -> None:
        """A process is gone, and another takes its place; its people are offline."""
        for who, person in enumerate(self.people):
            if who % len(self.processes) == number:
                await person.leave()
        await self._settle_acknowledgements()
        await self._require_stored(self.acknowledged)
        await self.processes[number].expire(self.engine)
        self.processes[number] = self._process()
        await self.processes[number].rooms.start()

    # What must hold

    async def _acknowledge(self, rooms: Rooms, promised: list[bytes]) -> None:
        await rooms.journal.flushed(self.room_id)
        self.acknowledged += promised
        await self._require_stored(promised)

    async def _settle_acknowledgements(self) -> None:
        """Those that still wait are never given; those that were given must have been true."""
        tasks, self.acknowledging = self.acknowledging, set()
        for task in tasks:
            if not task.done():
                task.cancel()
        for outcome in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(outcome, Exception):
                raise outcome

    async def _require_stored(self, states: Iterable[bytes]) -> None:
        updates = await self._stored()
        # Loaded as well: of two writes to one key the loser is deleted only where they meet.
        stored = coverage([*updates, _document(updates).get_update()])
        for state in states:
            for kept, promised in zip(stored, coverage([state]), strict=True):
                missing = [run for run in promised if not kept.covers(*run)]
                assert not missing, f"not in the database: {missing}"

    async def _stored(self) -> list[bytes]:
        loaded = await SqlStore(self.engine, "auditor").load(self.room_id)
        if loaded is None:
            return []
        return [*([loaded.snapshot] if loaded.snapshot is not None else []), *loaded.updates]

    async def _come_to_rest(self) -> None:
        await self.recover()
        for task in tuple(self.acknowledging):
            await task
        while self.late and any(person.line is not None for person in self.people):
            await self.arrive()
        await self._quiet()
        # Nobody needs to reconnect to see what the others see.
        for who, person in enumerate(self.people):
            if person.line is not None and not person.has_met:
                assert person.content() == content(person.line.room.doc), f"{who} sees something else than the room"
        for who in range(PEOPLE):
            await self.leave(who)
            await self.connect(who)
        await self._quiet()
        await self._compare()
        for process in self.processes:
            await process.stop(60.0)
        assert content(_document(await self._stored())) == self.people[0].content(), "the database after a clean stop"
        await self._require_stored(self.acknowledged)

    async def _quiet(self) -> None:
        """Let everything arrive, in as many rounds as it takes."""
        for who in range(PEOPLE):
            await self.drain(who)
        busy = True
        while busy:
            for who in range(PEOPLE):
                await self.send(who, "in order")
            for process in self.processes:
                await process.rooms.journal.flushed(self.room_id)
            for process in self.processes:
                await process.rooms.tick()
                room = process.rooms.opened(self.room_id)
                if room is not None:
                    room.flush()
            busy = sum(person.read() for person in self.people) > 0  # Each of them reads.

    async def _compare(self) -> None:
        people = [person.content() for person in self.people]
        assert people[1:] == people[:1] * (PEOPLE - 1), "two people see different canvases"
        vectors = [update.decode_vector(person.doc.get_state()) for person in self.people]
        assert vectors[1:] == vectors[:1] * (PEOPLE - 1), "two people know different edits"
        assert content(_document(await self._stored())) == people[0], "the database holds something else"

    async def check_rows(self) -> None:
        """Whether `workflow_nodes` shows what the document holds; after `play`."""
        mirrored = await Catalog(self.engine, SqlStore(self.engine, "auditor")).read_flow(self.room_id)
        assert mirrored is not None
        assert mirrored["nodes"] == canvas.read_flow(self.people[0].doc)["nodes"]

    def _home(self, which: int) -> Process:
        return self.processes[which % len(self.processes)]

    def _open_room(self, which: int) -> Room | None:
        return self._home(which).rooms.opened(self.room_id)


def explore(url: str, *, processes: int, examples: int, again: bool = True) -> None:
    """Play scripts that hypothesis draws, all on one database: the same at every run, or (`again` False) new ones."""
    with asyncio.Runner(loop_factory=FastLoop) as runner:
        opened = database(url)
        engine = runner.run(opened.__aenter__())

        @settings(deadline=None, max_examples=examples, derandomize=again, database=None)
        @given(script=SCRIPTS, snapshot_rows=st.sampled_from([1, 2, 500]))
        def agree(script: Script, snapshot_rows: int) -> None:
            runner.run(World(engine, processes=processes, snapshot_rows=snapshot_rows).play(script))

        try:
            agree()
        finally:
            runner.run(opened.__aexit__(None, None, None))


def coverage(updates: Iterable[bytes]) -> tuple[IdSet, IdSet]:
    """All structs and all deletions that some updates hold."""
    decoded = [update.decode(one) for one in updates]
    structs = (
        (section.client, struct.clock, struct.length)
        for one in decoded
        for section in one.sections
        for struct in section.structs
        if struct.kind != update.SKIP
    )
    deletes = ((client, *run) for one in decoded for client, runs in one.deletes for run in runs)
    return IdSet(structs), IdSet(deletes)


def _document(updates: list[bytes]) -> CanvasDoc:
    """What a room makes of them."""
    room = Recorder().room(*updates)
    room.dispose()
    return room.doc
