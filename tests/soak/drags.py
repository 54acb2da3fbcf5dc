"""
What is left of very many edits: `python -m tests.soak.drags [--full]`.

One client drags a hundred nodes in turn, each drag a transaction of its own, so no two of them merge. What SQL holds
is then made older week by week, and the server compacts it. Before that the same is done to the keys that only the
server writes, in process: every status of every run is a transaction of the keeper.
"""

import argparse
import asyncio
import datetime as dt
import gc
import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from pycrdt import Doc, TransactionEvent

from crdt import canvas, protocol
from crdt.canvas import CanvasDoc
from crdt.database import create_engine
from crdt.json import Json
from crdt.memory import give_back
from crdt.rooms import RoomLimits, Rooms
from tests.bench.measure import usage
from tests.bench.realtime import left, seeded
from tests.bench.target import Target
from tests.bench.traffic import canvas_updates
from tests.bench.wire import Wire, ask, client_frame
from tests.crdt.builders import database, running_rooms
from tests.soak.figures import bound, say
from tests.soak.year import Database
from tests.support.processes import ROOT
from tests.support.server import ServerProcess

NODES = 100
PER_FRAME = 1_000
_PATIENCE_S = 120.0
WEEKS = 3
"""The state vector that was noted first lacks the last edits, so it takes more than one compaction."""
TIMES_FRESH = 2.0
STATUS_MB = 1.0
"""Per 10,000 status writes."""
WITHOUT_LIMITS = {
    "DARKROOM_DEMO_DELAY_S": "0",
    "DARKROOM_LOG_LEVEL": "info",
    "DARKROOM_MESSAGES_PER_S": "0",
    "DARKROOM_BYTES_PER_S": "0",
    "DARKROOM_USER_MESSAGES_PER_S": "0",
    "DARKROOM_USER_BYTES_PER_S": "0",
    "DARKROOM_MAX_DOCUMENT_BYTES": str(2**30),
}


class Dragger:
    """A client that drags nodes in turn; `doc` is what it sees."""

    def __init__(self, seed: list[bytes]) -> None:
        self.doc: CanvasDoc = Doc(client_id=random.getrandbits(32))
        for update in seed:
            self.doc.apply_update(update)
        self._updates: list[bytes] = []
        self._observed = self.doc.observe(self._keep)

    def _keep(self, event: TransactionEvent) -> None:
        self._updates.append(event.update)

    def frames(self, first: int, edits: int) -> Iterator[bytes]:
        """The drags with these numbers, many in one frame."""
        nodes = canvas.nodes_of(self.doc)
        for at in range(first, first + edits, PER_FRAME):
            for number in range(at, min(at + PER_FRAME, first + edits)):
                nodes[f"n{number % NODES}"]["position"] = {"x": number * 1.5, "y": number / 3}
            yield client_frame(b"".join(map(protocol.update_message, self._updates)))
            self._updates.clear()


def fresh(doc: CanvasDoc) -> bytes:
    """A new document of the same content."""
    made: CanvasDoc = Doc(client_id=1)
    flow = canvas.read_flow(doc)
    nodes, edges = flow["nodes"], flow["edges"]
    assert isinstance(nodes, list)
    assert isinstance(edges, list)
    with made.transaction():
        for node in nodes:
            assert isinstance(node, dict)
            canvas.add_node(made, node)
        for edge in edges:
            assert isinstance(edge, dict)
            canvas.add_edge(made, edge)
    assert canvas.read_flow(made) == flow
    return made.get_update()


async def drag(target: Target, server: ServerProcess, edits: int) -> bool:
    """Drag through a running server; whether compaction makes it small again."""
    seed, url = canvas_updates(NODES), target.room()
    wire = await seeded(target, url, seed)
    dragger, start_mb, begun = Dragger(seed), usage(target.pid).rss_mb, time.monotonic()
    await send(wire, dragger, 0, edits)
    open_mb = usage(target.pid).rss_mb
    say(f"{edits:,} drags of {NODES} nodes, {edits / (time.monotonic() - begun):,.0f} a second")
    await left([wire])
    stored = Database(server)
    await stored.until_closed()
    lived = len(_snapshot(stored))
    say(f"  {lived / 1000:,.0f} kB as lived; server memory {start_mb:,.0f} MB before, {open_mb:,.0f} MB with all of it")
    for week in range(WEEKS):
        stored.make_older()
        wire = await Wire.connect(url)
        await send(wire, dragger, edits + week, 1)
        await left([wire])
        await stored.until_closed()
        say(f"  week {week + 1}: {len(_snapshot(stored)) / 1000:,.1f} kB in SQL")
    compactions = [json.loads(line) for line in server.log.splitlines() if '"compacted"' in line]
    longest_s = max((one["seconds"] for one in compactions), default=0.0)
    say(f"  {len(compactions)} compactions, the longest {longest_s:.1f} s")
    loaded: CanvasDoc = Doc()
    loaded.apply_update(_snapshot(stored))
    assert _places(loaded) == _places(dragger.doc), "a drag was lost"
    small = len(fresh(loaded))
    wire = await Wire.connect(url)
    await ask(wire)
    say(f"  {small / 1000:,.1f} kB fresh; server memory {usage(target.pid).rss_mb:,.0f} MB with what is left open")
    await left([wire])
    return bound("after compaction", len(_snapshot(stored)) / small, TIMES_FRESH, "times fresh")


async def send(wire: Wire, dragger: Dragger, first: int, edits: int) -> None:
    """Send drags, each frame once the one before was applied."""
    for frame in dragger.frames(first, edits):
        wire.send(frame)
        await ask(wire, dragger.doc.get_state())


def _places(doc: CanvasDoc) -> dict[str, Json]:
    nodes = canvas.read_flow(doc)["nodes"]
    assert isinstance(nodes, list)
    return {str(node["id"]): node["position"] for node in nodes if isinstance(node, dict)}


def _snapshot(stored: Database) -> bytes:
    snapshot: bytes = stored.one("SELECT snapshot FROM documents")[0]
    return snapshot


# Statuses


async def statuses(writes: int, folder: Path) -> bool:
    """Let the keeper write statuses; whether a compacted room that is loaded again is as large as it was."""
    limits = RoomLimits(grace_s=0.0, mirror_after_s=0.0, mirror_pause_s=0.0)
    url = f"sqlite+aiosqlite:///{folder / 'darkroom.db'}"
    async with database(url) as engine, running_rooms(engine, limits=limits) as rooms:
        async with rooms.use("r") as room:
            with room.transact() as doc:
                for number in range(NODES):
                    canvas.add_node(doc, {"id": f"n{number}", "type": "image", "data": {"prompt": "a fox"}})
        await _write(rooms, 0, 3 * NODES)  # One run for each node, so that every key is there.
        await _let_go(rooms)
        before = await _loaded(url)
        say(f"{writes:,} status writes by the keeper, to a document of {before.size / 1000:,.1f} kB")
        await _write(rooms, 3 * NODES, writes)
        await _let_go(rooms)
        lived = await _loaded(url)
        say(f"  loaded again: {lived.size / 1000:,.1f} kB, memory {lived.mb - before.mb:+.2f} MB")
        await _weeks_pass(rooms, WEEKS)
        after = await _loaded(url)
        say(f"  compacted and loaded again: {after.size / 1000:,.1f} kB, memory {after.mb - before.mb:+.2f} MB")
    per_10k = (after.mb - before.mb) * 10_000 / writes
    return bound("memory of 10,000 status writes, compacted and loaded again", per_10k, STATUS_MB, "MB")


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a document takes in a process that did nothing but load it."""

    mb: float
    size: int
    """Bytes of its Yjs update (v1)."""


async def _loaded(url: str) -> Loaded:
    command = [sys.executable, "-m", "tests.soak.drags", "--load", url]
    child = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=asyncio.subprocess.PIPE)
    printed, _ = await asyncio.wait_for(child.communicate(), _PATIENCE_S)
    return Loaded(**json.loads(printed))


async def load(url: str) -> None:
    """Load the room and print what that took."""
    engine = create_engine(url)
    # Another room first: what the first one of a process takes is not this one's.
    async with running_rooms(engine, process_id="reader") as rooms, rooms.use("other"):
        before_mb = _rss_mb()
        async with rooms.use("r") as room:
            seen = Loaded(_rss_mb() - before_mb, len(room.state()))
    await engine.dispose()
    sys.stdout.write(json.dumps(asdict(seen)))


def _rss_mb() -> float:
    gc.collect()
    give_back()
    return usage(os.getpid()).rss_mb


async def _write(rooms: Rooms, first: int, writes: int) -> None:
    async with rooms.use("r") as room:
        for number in range(first, first + writes):
            with room.transact() as doc:
                canvas.patch_data(doc, f"n{number // 3 % NODES}", _status(number))
            if number % 100 == 0:
                await rooms.flush("r")
        await rooms.flush("r")


def _status(number: int) -> dict[str, Json]:
    """The writes of a run, three of them, as the projector makes them."""
    run = f"run-{number // 3:08}"
    match number % 3:
        case 0:
            return {"status": "pending", "runId": run, "runSeq": number, "updatedAt": f"at-{number}"}
        case 1:
            return {"status": "running"}
        case _:
            pictures = {"imageUrl": f"/images/{run}/image.png", "thumbnailUrl": f"/images/{run}/thumbnail.webp"}
            return {"status": "completed", "runSeq": number, "updatedAt": f"at-{number}", **pictures}


def _itself(now: dt.datetime) -> dt.datetime:
    return now


async def _weeks_pass(rooms: Rooms, weeks: int) -> None:
    """In each week there is one edit, and the room is let go and looked at."""
    for _ in range(weeks):
        later = rooms.growth.now() + dt.timedelta(days=7, hours=1)
        rooms.growth.now = partial(_itself, later)
        async with rooms.use("r") as room:
            with room.transact() as doc:
                canvas.meta_of(doc)["week"] = later.isoformat()
        await _let_go(rooms)


async def _let_go(rooms: Rooms) -> None:
    async with asyncio.timeout(_PATIENCE_S):
        while rooms.count:  # noqa: ASYNC110 - nobody is told of it
            await asyncio.sleep(0.01)


async def measure(edits: int, writes: int, folder: Path) -> bool:
    """Both, and whether both are good."""
    good = [await statuses(writes, folder)]
    server = ServerProcess(folder / "server", env=WITHOUT_LIMITS)
    try:
        await server.start()
        good.append(await drag(Target(server.ws_url, server.url, server.pid, raw=False), server, edits))
    finally:
        server.stop()
    return all(good)


def main() -> int:
    """Run it; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak.drags", description=__doc__)
    parser.add_argument("--full", action="store_true", help="1,000,000 drags")
    parser.add_argument("--edits", type=int, help="how many drags (100,000)")
    parser.add_argument("--writes", type=int, default=10_000, help="how many status writes (10,000)")
    parser.add_argument("--load", metavar="DATABASE", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.load is not None:
        asyncio.run(load(options.load))
        return 0
    edits = options.edits or (1_000_000 if options.full else 100_000)
    with tempfile.TemporaryDirectory(prefix="darkroom-soak-") as folder:
        return int(not asyncio.run(measure(edits, options.writes, Path(folder))))


if __name__ == "__main__":
    sys.exit(main())
