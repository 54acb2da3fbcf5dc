"""
A year of heavy use through a running server: `python -m tests.soak.year [weeks]` prints what is left of it.

The year of `tests.crdt.year` is written over a websocket, week by week; between two weeks the room is closed and what
the server noted in SQL is made a week older. The server compacts by itself. Keys that only the keeper may write are
written under other names of the same length, as no run stands behind them.
"""

import asyncio
import json
import sqlite3
import statistics
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import websockets
from pycrdt import Doc

from crdt import canvas, protocol
from crdt.canvas import SERVER_KEYS, CanvasDoc
from crdt.ids import IdSet
from crdt.update import Id, Section, StateVector, Struct, Update, decode, decode_vector, encode
from tests.crdt.compaction_peers import as_json
from tests.crdt.year import Habits, Year, pieces_of, show
from tests.support.peer import YPeer
from tests.support.server import ServerProcess

ROOM = "year"
FRAME_STRUCTS = 500
WEEK = "-7 days"
_PATIENCE_S = 300.0
_LOOK_S = 0.05


class LivedYear(Year):
    """The year as the updates of its days."""

    def __init__(self, habits: Habits) -> None:
        self.days: list[list[bytes]] = []
        self._sent: StateVector = {}
        self._dead: list[tuple[int, int, int]] = []
        super().__init__(habits)

    def _day(self, day: int) -> None:
        super()._day(day)
        self.days.append(list(self._frames()))
        self._sent = {client: structs[-1].end for client, structs in self._structs.items()}
        self._dead.clear()

    def _server_key(self, keeper: int, node: Any, key: str, value: Any) -> None:
        super()._server_key(keeper, node, key[::-1] if key in SERVER_KEYS else key, value)

    def _died(self, one: Id) -> None:
        self._dead.append((*one, 1))

    def _frames(self) -> list[bytes]:
        """What is new, some hundred structs a frame; the deletes come last."""
        gone = {unit.one for node in self._nodes for unit in node.units if not unit.alive}
        fresh: list[tuple[int, Struct]] = []
        for client, structs in self._structs.items():
            known = self._sent.get(client, 0)
            new = structs[_first_after(structs, known) :]
            fresh += [(client, piece) for struct in new for piece in pieces_of(client, struct, gone)]
        frames = [
            encode(Update(_sections(fresh[at : at + FRAME_STRUCTS]))) for at in range(0, len(fresh), FRAME_STRUCTS)
        ]
        return [*frames, encode(Update([], IdSet(self._dead).deletes()))]


def _first_after(structs: list[Struct], clock: int) -> int:
    at = len(structs)
    while at and structs[at - 1].clock >= clock:
        at -= 1
    return at


def _sections(structs: list[tuple[int, Struct]]) -> list[Section]:
    sections: dict[int, Section] = {}
    for client, struct in structs:
        sections.setdefault(client, Section(client, [], struct.clock)).structs.append(struct)
    return [sections[client] for client in sorted(sections, reverse=True)]


# The server


class Database:
    """The server's own SQLite file, looked at and made older from outside."""

    def __init__(self, server: ServerProcess) -> None:
        self._connection = sqlite3.connect(server.data / "darkroom.db", timeout=30, isolation_level=None)

    def one(self, query: str) -> Any:
        return self._connection.execute(query).fetchone()

    def make_older(self) -> None:
        """Everything growth has noted happened a week earlier."""
        for table, column in (("document_frontiers", "at"), ("document_archives", "at"), ("documents", "compacted_at")):
            self._connection.execute(
                f"UPDATE {table} SET {column} = strftime('%Y-%m-%d %H:%M:%f000', {column}, '{WEEK}') "  # noqa: S608
                f"WHERE {column} IS NOT NULL"
            )

    async def until_closed(self) -> None:
        """Wait until the room was let go, and with it looked at and stored."""
        async with asyncio.timeout(_PATIENCE_S):
            while self.one("SELECT keeper FROM documents") != (None,):  # noqa: ASYNC110 - another process
                await asyncio.sleep(_LOOK_S)


async def write(server: ServerProcess, frames: list[bytes]) -> None:
    """Send updates as one client, and wait until the server has applied them."""
    async with websockets.connect(f"{server.ws_url}/{ROOM}", max_size=None) as connection:
        for frame in frames:
            await connection.send(protocol.update_message(frame))
        await connection.send(protocol.step1_message(b"\x01\x01\x00"))
        async for message in connection:
            assert isinstance(message, bytes)
            if any(isinstance(one, protocol.SyncUpdate) and one.step2 for one in protocol.parse(message)):
                return


async def live(server: ServerProcess, seconds: float) -> list[float]:
    """How long edits take from one client to another, at 50 a second (milliseconds)."""
    writer, reader = YPeer(server.ws_url, ROOM), YPeer(server.ws_url, ROOM)
    latencies: list[float] = []
    async with writer.connected(), reader.connected():
        end = time.monotonic() + seconds
        number = 0
        while time.monotonic() < end:
            number += 1
            began = time.perf_counter()
            await writer.edit(partial(_beat, number))
            await reader.until(partial(_has_beat, reader, number))
            latencies.append((time.perf_counter() - began) * 1000)
            await asyncio.sleep(max(0.0, 0.02 - (time.perf_counter() - began)))
    return latencies


def _beat(number: int, doc: CanvasDoc) -> None:
    canvas.meta_of(doc)["beat"] = number


def _has_beat(peer: YPeer, number: int) -> bool:
    return canvas.meta_of(peer.doc).get("beat") == number


def told(name: str, latencies: list[float]) -> None:
    """Print a distribution."""
    ordered = sorted(latencies)
    line = {
        "edits": len(ordered),
        "p50": round(statistics.median(ordered), 1),
        "p99": round(ordered[int(len(ordered) * 0.99)], 1),
        "max": round(ordered[-1], 1),
    }
    sys.stdout.write(f"  {name:32} {json.dumps(line)} ms\n")


async def live_through(habits: Habits, server: ServerProcess) -> None:
    """One year, and its figures."""
    year = LivedYear(habits)
    await server.start()
    began = time.monotonic()
    database = None
    for week in range(0, habits.days, 7):
        await write(server, [frame for day in year.days[week : week + 7] for frame in day])
        database = database or Database(server)
        await database.until_closed()
        database.make_older()
    assert database is not None
    compactions = [json.loads(line) for line in server.log.splitlines() if '"compacted"' in line]
    took = [float(line.get("seconds", 0)) for line in compactions]
    wrote = f"  written in {time.monotonic() - began:.0f} s"
    sys.stdout.write(f"{wrote}, {len(took)} compactions, the longest {max(took, default=0)} s\n")
    show("in SQL, 7 to 14 days kept", _snapshot(database))
    told("live, while it is compacted", await live(server, 15.0))
    await database.until_closed()
    told("live, while it is not", await live(server, 15.0))
    await database.until_closed()
    show("as lived, loaded once", year.state())
    for _ in range(2):
        database.make_older()
        await live(server, 0.1)
        await database.until_closed()
    state = _snapshot(database)
    show("in SQL, nothing kept", state)
    fresh = year.fresh()
    show("fresh", fresh)
    doc: CanvasDoc = Doc()
    doc.apply_update(state)
    assert as_json(doc)["nodes"] == year.flow
    guard, archives = database.one(
        "SELECT length(guard), (SELECT sum(length(archive)) FROM document_archives) FROM documents"
    )
    ids = len(decode_vector(doc.get_state()))
    sys.stdout.write(
        f"  {len(state) / len(fresh):.2f} x fresh, {ids:,} client ids, guard {guard / 1000:,.0f} kB, "
        f"archives of 90 days {archives / 1000:,.0f} kB, server RSS {_rss(server.pid):,.0f} MB, "
        f"typed text {_typed(state) / 1000:,.0f} kB of the structs\n"
    )


def _snapshot(database: Database) -> bytes:
    snapshot: bytes = database.one("SELECT snapshot FROM documents")[0]
    return snapshot


def _typed(state: bytes) -> int:
    """Bytes of structs that belong to no key: what was typed, and what was deleted of it."""
    whole = decode(state)
    keyless = [
        Section(one.client, [s for s in one.structs if s.origin is not None and not s.info & 0x20], one.clock)
        for one in whole.sections
    ]
    return len(encode(Update([one for one in keyless if one.structs])))


def _rss(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096 / 1e6


async def main(weeks: int) -> None:
    """Both years."""
    for name, habits in {
        "no churn, 5 writing loads a day": Habits(days=7 * weeks),
        "no churn and no typing": Habits(days=7 * weeks, prompts=0),
        "churn, 15 writing loads a day": Habits(days=7 * weeks, loads=15, churn=10),
    }.items():
        sys.stdout.write(f"{name}, {weeks} weeks\n")
        with tempfile.TemporaryDirectory() as folder:
            server = ServerProcess(Path(folder) / "server", env={"DARKROOM_DEMO_DELAY_S": "0"})
            try:
                await live_through(habits, server)
            finally:
                server.stop()
        sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 52))
