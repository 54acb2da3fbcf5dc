"""A database and a bus between processes that fail as the test says."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import TypeVar

from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncEngine

from crdt.bus import Frame, MemoryBus, MemoryHub
from crdt.rows import Head, Loaded, Mirror
from crdt.store import SqlStore

T = TypeVar("T")
CALLS = ("append", "load", "snapshot", "mirror", "take", "release", "heads")


class Faults:
    """What goes wrong at present; shared by every process on one database."""

    def __init__(self) -> None:
        self.failing: set[str] = set()
        """Calls that are refused."""
        self.silent: set[str] = set()
        """Calls that are done, but whose answer is lost on the way back."""
        self.gates: dict[str, asyncio.Event] = {}
        """Calls that wait until their gate is opened."""
        self.slow_s = 0.0
        """How long each call takes at least."""

    def hold(self, call: str) -> None:
        """Keep calls waiting from now on."""
        self.gates.setdefault(call, asyncio.Event())

    def end(self) -> None:
        """Nothing goes wrong any more."""
        self.failing.clear()
        self.silent.clear()
        self.slow_s = 0.0
        for gate in self.gates.values():
            gate.set()
        self.gates.clear()


class FaultyStore(SqlStore):
    """The real store behind a connection that has faults."""

    def __init__(self, engine: AsyncEngine, process_id: str, faults: Faults | None = None) -> None:
        super().__init__(engine, process_id)
        self.faults = faults or Faults()
        self.loads = 0
        """How often a document was read from the database."""

    async def append(self, updates: Mapping[str, Sequence[bytes]]) -> dict[str, int]:
        return await self._call("append", partial(super().append, updates))

    async def load(self, room: str, after: int = 0) -> Loaded | None:
        self.loads += 1
        return await self._call("load", partial(super().load, room, after))

    async def heads(self, rooms: object) -> dict[str, Head]:
        return await self._call("heads", partial(super().heads, rooms))  # type: ignore[arg-type]

    async def take(self, room: str) -> int | None:
        return await self._call("take", partial(super().take, room))

    async def release(self, room: str, fence: int) -> None:
        await self._call("release", partial(super().release, room, fence))

    async def snapshot(self, room: str, state: bytes, seq: int, fence: int, guard: bytes | None = None) -> bool:
        return await self._call("snapshot", partial(super().snapshot, room, state, seq, fence, guard))

    async def mirror(self, room: str, mirror: Mirror, fence: int) -> bool:
        return await self._call("mirror", partial(super().mirror, room, mirror, fence))

    async def _call(self, name: str, work: Callable[[], Awaitable[T]]) -> T:
        gate = self.faults.gates.get(name)
        if gate is not None:
            await gate.wait()
        if self.faults.slow_s:
            await asyncio.sleep(self.faults.slow_s)
        self._fail(name in self.faults.failing)
        result = await work()
        self._fail(name in self.faults.silent)
        return result

    def _fail(self, fails: bool) -> None:  # noqa: FBT001
        if fails:
            raise OperationalError("a statement", None, OSError("the connection is gone"))


class FaultyBus(MemoryBus):
    """A bus that drops, doubles or delays frames while told to."""

    def __init__(self, hub: MemoryHub) -> None:
        super().__init__(hub)
        self.trouble = ""
        self._late: list[tuple[str, Frame]] = []

    def send(self, room: str, frame: Frame) -> None:
        if self.trouble == "late":
            self._late.append((room, frame))
        elif self.trouble != "lost":
            for _ in range(2 if self.trouble == "twice" else 1):
                super().send(room, frame)

    def end(self) -> None:
        """Deliver as usual again; what was late comes now, the last first."""
        self.trouble = ""
        for room, frame in reversed(self._late):
            super().send(room, frame)
        self._late.clear()
