"""
How long the server's event loop stands still around a large document: `python -m tests.soak.loop [--full]`.

A canvas of 10,000 nodes is loaded cold, joined by one and by many, dragged in until it is mirrored and stored again
and again, and let go. Meanwhile another process asks GET /health every 10 ms, on one connection: an answer that is late
tells of a loop that stood still. That process also notes how late it was itself, which is what the machine added.
"""

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from pycrdt import Doc

from crdt import canvas
from crdt.canvas import CanvasDoc
from tests.bench.measure import beat, quantile
from tests.bench.realtime import joined, left, seeded
from tests.bench.target import Target
from tests.bench.traffic import NODES_PER_UPDATE, canvas_updates, drags
from tests.bench.wire import Wire
from tests.soak.drags import WITHOUT_LIMITS
from tests.soak.figures import metrics, say, until_let_go
from tests.support.processes import LOOPBACK, ROOT
from tests.support.server import ServerProcess

NODES = 10_000
EVERY_S = 0.01
WANTED_MS = 50.0
ALLOWED_MS = 200.0
"""On a machine where others work too, more than this is still ours."""
WRITERS, HZ = 10, 20
_FANOUT = "darkroom_fanout_seconds"


@dataclass(slots=True)
class Beats:
    """What the heartbeat saw: when it asked (monotonic seconds), and how long an answer took (seconds)."""

    seen: list[tuple[float, float]] = field(default_factory=list)
    own_s: float = 0.0
    """How late the heartbeat was at most by itself."""

    def between(self, begin: float, end: float) -> list[float]:
        """Waiting times (ms) of that time; one that hid other beats stands for them too."""
        waits: list[float] = []
        for at, took in self.seen:
            if begin <= at + took and at <= end:
                hidden = int(took / EVERY_S)
                waits += [(took - EVERY_S * each) * 1000 for each in range(hidden + 1)]
        return waits


async def ask_forever(port: int) -> None:
    """The heartbeat: ask until the standard input ends, then print what was seen."""
    reader, writer = await asyncio.open_connection(LOOPBACK, port)
    question = f"GET /health HTTP/1.1\r\nHost: {LOOPBACK}:{port}\r\n\r\n".encode()
    over = asyncio.create_task(asyncio.to_thread(sys.stdin.read))
    seen: list[tuple[float, float]] = []
    own_s, due = 0.0, time.monotonic()
    while not over.done():
        own_s = max(own_s, time.monotonic() - due)
        asked = time.monotonic()
        writer.write(question)
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200"), head
        (size,) = (int(line.split(b":")[1]) for line in head.lower().splitlines() if line.startswith(b"content-length"))
        await reader.readexactly(size)
        seen.append((asked, time.monotonic() - asked))
        due = max(asked + EVERY_S, time.monotonic())
        await asyncio.sleep(due - time.monotonic())
    writer.close()
    sys.stdout.write(json.dumps({"seen": seen, "own_s": own_s}))


class Phases:
    """What was going on when."""

    def __init__(self) -> None:
        self.all: list[tuple[str, float, float]] = []

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """The time inside belongs to this phase."""
        begin = time.monotonic()
        yield
        self.all.append((name, begin, time.monotonic()))


def nodes_alone() -> list[bytes]:
    """A document as people make it, some hundred nodes an update; no key in it belongs to the server."""
    doc: CanvasDoc = Doc(client_id=1)
    updates: list[bytes] = []
    for first in range(0, NODES, NODES_PER_UPDATE):
        known = doc.get_state()
        with doc.transaction():
            for number in range(first, first + NODES_PER_UPDATE):
                prompt = f"a lighthouse at dusk, oil painting, variation {number}"
                canvas.add_node(
                    doc, {"id": f"n{number}", "position": {"x": number, "y": 0}, "data": {"prompt": prompt}}
                )
        updates.append(doc.get_update(known))
    return updates


async def live(target: Target, rounds: int, seconds: float) -> Phases:
    """The life of a large document, some times over."""
    phases, url, seed = Phases(), target.room(), nodes_alone()
    count = int((HZ * seconds + 1) * rounds)
    frames = [iter(drags(seed, node, count)) for node in range(WRITERS)]
    with phases("nobody"):
        await asyncio.sleep(2.0)
    with phases("made"):
        keep = await seeded(target, url, seed)
        await asyncio.sleep(4.0)
    for _ in range(rounds):
        with phases("let go"):
            await left([keep])
            await until_let_go(target.http_url)
        with phases("loaded cold"):
            (keep,) = await joined(target, url, 1)
            await asyncio.sleep(1.0)
        with phases("joined one by one"):
            people = await joined(target, url, 8)
        with phases("joined at once"):
            crowds = await asyncio.gather(*(joined(target, url, 1) for _ in range(16)))
        with phases("dragged, mirrored, stored"):
            wires = [*people, *(wire for crowd in crowds for wire in crowd)]
            await beat([partial(_next, wire, mine) for wire, mine in zip(wires, frames, strict=False)], HZ, seconds)
        await left(wires)
    with phases("let go"):
        await left([keep])
        await until_let_go(target.http_url)
    with phases("made with pictures"):  # As a copied canvas comes: the server takes its own keys out again.
        await left([await seeded(target, target.room(), canvas_updates(NODES))])
        await until_let_go(target.http_url)
    return phases


def _next(wire: Wire, frames: Iterator[bytes], _number: int) -> None:
    wire.send(next(frames))


async def measure(rounds: int, seconds: float, folder: Path) -> bool:
    """Run it; whether no pause was longer than allowed."""
    server = ServerProcess(folder / "server", env=WITHOUT_LIMITS)
    try:
        await server.start()
        target = Target(server.ws_url, server.url, server.pid, raw=False)
        command = [sys.executable, "-m", "tests.soak.loop", "--beat", str(server.port)]
        pipe = asyncio.subprocess.PIPE
        child = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdin=pipe, stdout=pipe)
        try:
            phases = await live(target, rounds, seconds)
            counted = await metrics(server.url)
            printed, _ = await asyncio.wait_for(child.communicate(b""), 30)
        finally:
            if child.returncode is None:
                child.kill()
                await child.wait()
    finally:
        server.stop()
    return told(Beats(**json.loads(printed)), phases, counted)


def told(beats: Beats, phases: Phases, counted: dict[str, float]) -> bool:
    """Print what was seen; whether no pause was longer than allowed."""
    say(f"{NODES:,} nodes; milliseconds until GET /health was answered:")
    for name in dict.fromkeys(name for name, _, _ in phases.all):
        waits = [wait for one, begin, end in phases.all if one == name for wait in beats.between(begin, end)]
        p50, p99, most = quantile(waits, 0.5), quantile(waits, 0.99), max(waits, default=0.0)
        say(f"  {name:26} p50 {p50:6.1f}  p99 {p99:6.1f}  longest {most:6.1f}  ({len(waits):,} beats)")
    longest = max(took for _, took in beats.seen) * 1000
    turns, quick = counted[f"{_FANOUT}_count"], counted[f"{_FANOUT}_bucket:0.05"]
    say(f"  the server's own account: {turns - quick:,.0f} of {turns:,.0f} turns of rooms took more than 50 ms")
    say(f"  the heartbeat itself was late by {beats.own_s * 1000:.1f} ms at most")
    verdict = "ok" if longest <= WANTED_MS else "more than wanted" if longest <= ALLOWED_MS else "TOO MUCH"
    say(f"  {verdict}: the longest pause was {longest:.1f} ms, wanted {WANTED_MS:.0f}, allowed {ALLOWED_MS:.0f}")
    return longest <= ALLOWED_MS


def main() -> int:
    """Run it; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak.loop", description=__doc__)
    parser.add_argument("--full", action="store_true", help="ten rounds of a minute instead of two of half a minute")
    parser.add_argument("--beat", type=int, metavar="PORT", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.beat is not None:
        asyncio.run(ask_forever(options.beat))
        return 0
    rounds, seconds = (10, 60.0) if options.full else (2, 30.0)
    with tempfile.TemporaryDirectory(prefix="darkroom-soak-") as folder:
        return int(not asyncio.run(measure(rounds, seconds, Path(folder))))


if __name__ == "__main__":
    sys.exit(main())
