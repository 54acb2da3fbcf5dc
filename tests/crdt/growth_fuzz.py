"""Random lives around a real room that compacts itself; `python -m tests.crdt.growth_fuzz 200` runs that many."""

import asyncio
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

from sqlalchemy.ext.asyncio import AsyncEngine

from crdt import canvas
from crdt.bus import MemoryBus
from crdt.room import Room
from crdt.store import SqlStore
from tests.crdt.builders import database
from tests.crdt.compaction_peers import Edit, PycrdtReplica, Yjs, as_json
from tests.crdt.growth_pages import LIMITS, Killed, Page, agreed, heals_of, label

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

STEPS = 80
NODES = ("n0", "n1", "n2")
PAGES = 4


@dataclass
class Life:
    """Four people, each with keys that nobody else writes: their last value must be there at the end."""

    engine: AsyncEngine
    random: Random
    yjs: Yjs
    healing: bool = True
    pages: list[Page] = field(default_factory=list)
    mine: dict[tuple[int, str], int] = field(default_factory=dict)
    tally: Counter[str] = field(default_factory=Counter)
    rooms: Killed = field(init=False)
    room: Room = field(init=False)

    async def live(self) -> None:
        """The whole life; raises AssertionError where something was lost."""
        await self._open()
        with self.room.transact() as doc:
            for name in NODES:
                canvas.add_node(doc, {"id": name, "data": {"label": "", "prompt": "fox"}})
        for number in range(PAGES):
            client = self.random.randrange(2**16, 2**32)
            replica = PycrdtReplica(client) if number == 0 else self.yjs.replica(client)
            self.pages.append(Page(replica).connect(self.room))
            await self.pages[-1].hear()
        steps: list[Callable[[], Coroutine[Any, Any, None]]] = [
            self._edit, self._leave, self._come, self._keeper, self._compact, self._restart,
        ]  # fmt: skip
        for _ in range(STEPS):
            await self.random.choices(steps, [12, 3, 3, 2, 1.5, 0.6])[0]()
        await self._end()

    async def _end(self) -> None:
        for page in self.pages:
            if page.room is None:
                page.connect(self.room)
        for _ in range(3):
            for page in self.pages:
                await page.hear()
            if self.room.late is not None:
                await self.room.late.looked()
        await agreed(self.room, *self.pages)
        self.tally["heals"] += len(heals_of(self.room))
        data = {name: as_json(self.room.doc)["nodes"][name]["data"] for name in NODES}
        for (number, name), value in self.mine.items():
            found = data[name].get(f"mine {number}")
            assert found == value, f"page {number} wrote {value} into {name}, it is {found}"
        for page in self.pages:
            page.replica.close()
        await self.rooms.stop()

    async def _open(self) -> None:
        store = SqlStore(self.engine, f"p{self.random.randrange(10**9)}")
        self.rooms = Killed(store, MemoryBus(), process_id="p", limits=LIMITS)
        await self.rooms.start()
        self.room = await self.rooms.open("r")
        self._unguard()

    def _unguard(self) -> None:
        if not self.healing:
            self.room.late = None

    async def _edit(self) -> None:
        number = self.random.randrange(PAGES)
        page, name = self.pages[number], self.random.choice(NODES)
        kind = self.random.random()
        if kind < 0.6:
            value = self.mine[number, name] = self.mine.get((number, name), 0) + 1
            page.edit(Edit("set", name, f"mine {number}", value))
        elif kind < 0.9:
            page.edit(label(f"{self.random.randrange(1000)}", name))
        else:
            page.edit(Edit("type", name, value="ab", index=self.random.randrange(4)))

    async def _leave(self) -> None:
        page = self.random.choice(self.pages)
        if page.room is not None:
            if self.random.random() < 0.7:
                await page.hear()
            page.leave()

    async def _come(self) -> None:
        page = self.random.choice(self.pages)
        if page.room is None:
            page.connect(self.room)
            if self.random.random() < 0.8:
                await page.hear()

    async def _keeper(self) -> None:
        with self.room.transact() as doc:
            canvas.patch_data(doc, self.random.choice(NODES), {"status": self.random.choice(["pending", "running"])})

    async def _compact(self) -> None:
        for page in self.pages:
            if page.room is not None:
                await page.hear()
        doc = self.room.doc
        await self.rooms.growth.look(self.room)
        self.tally["compactions"] += self.room.doc is not doc
        self._unguard()

    async def _restart(self) -> None:
        for page in self.pages:
            if page.room is not None:
                page.leave()
        if self.random.random() < 0.5:
            await self.rooms.kill()
            self.tally["kills"] += 1
        else:
            await self.rooms.stop()
        await self._open()
        for page in self.pages[:2]:
            page.connect(self.room)


async def one_life(seed: int, yjs: Yjs, folder: Path, *, healing: bool = True) -> Counter[str]:
    """Live once; what happened."""
    async with database(f"sqlite+aiosqlite:///{folder / f'life-{seed}-{healing}.db'}") as engine:
        life = Life(engine, Random(seed), yjs, healing)  # noqa: S311 - a trial must be repeatable
        try:
            await life.live()
        except AssertionError:
            await life.rooms.kill()
            raise
        return life.tally


async def main(lives: int, first: int = 0) -> int:
    """Live that often and print what came of it; the exit code."""
    yjs, failed, sums, began = Yjs(), 0, Counter[str](), time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(first, first + lives):
            try:
                sums += await one_life(seed, yjs, Path(folder))
            except AssertionError as error:
                failed += 1
                sys.stdout.write(f"{seed}: {str(error)[:200]}\n")
        sys.stdout.write(f"{lives} lives in {time.monotonic() - began:.0f} s, {failed} failed, {dict(sums)}\n")
    yjs.close()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main(*map(int, sys.argv[1:]))))
