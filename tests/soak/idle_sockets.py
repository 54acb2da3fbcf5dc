"""
Many who do nothing, and many who come and go: `python -m tests.soak.idle_sockets [--full]`.

First sockets that are only open: the server pings them and they answer, which is all that may cost anything. Then rooms
that are opened, written and let go, each under a new name. Half of what is watched is thrown away, as the first half is
where memory is still taken for good: pools, caches, the first pages of the database.
"""

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path

from tests.bench.measure import usage, window
from tests.bench.realtime import joined, left, seeded
from tests.bench.target import Target
from tests.bench.traffic import canvas_updates
from tests.bench.wire import Wire
from tests.soak.figures import allow_sockets, bound, say, slope, until_let_go, watch_memory
from tests.support.server import ServerProcess

PER_ROOM = 50
AT_ONCE = 50
"""Rooms that are open together while rooms come and go."""
CPU_PCT = 2.0
IDLE_KB = 100.0
"""What the server may grow by in a minute in which nobody does anything."""
CYCLE_KB = 5.0
EMPTY_S = 10.0
TRIM_S = 1.5
"""Longer than a server waits before it gives memory back."""


async def idle(target: Target, sockets: int, seconds: float) -> bool:
    """Hold so many sockets for so long; whether that cost next to nothing."""
    start_mb = usage(target.pid).rss_mb
    with window(target.pid) as empty:
        await asyncio.sleep(EMPTY_S)
    wires: list[Wire] = []
    for _ in range(sockets // PER_ROOM):
        wires += await joined(target, target.room(), PER_ROOM)
    say(f"{len(wires):,} sockets in {sockets // PER_ROOM} rooms, held for {seconds:.0f} s")
    await asyncio.sleep(5.0)
    with window(target.pid) as used:
        places, seen = await watch_memory(target.pid, seconds)
    half = len(seen) // 2
    grew_kb = slope(places[half:], seen[half:]) * 60 * 1024
    lost = sum(wire.ended.done() for wire in wires)
    each_kb = (seen[0] - start_mb) * 1024 / len(wires)
    say(f"  memory {start_mb:,.1f} MB before, {seen[0]:,.1f} MB open: {each_kb:.1f} KB each")
    say(f"  CPU of the empty server: {100 * empty.cpu_s / empty.wall_s:.2f} % of a core")
    good = [
        bound("CPU", 100 * used.cpu_s / used.wall_s, CPU_PCT, "% of a core"),
        bound("memory grew in a minute, second half", grew_kb, IDLE_KB, "KB"),
        bound("sockets lost", lost, 0, ""),
    ]
    await left(wires)
    await until_let_go(target.http_url)
    await asyncio.sleep(TRIM_S)
    say(f"  memory {usage(target.pid).rss_mb:,.1f} MB after everybody left")
    return all(good)


async def cycles(target: Target, rooms: int) -> bool:
    """Open, write and let go so many rooms; whether nothing is left of them."""
    say(f"{rooms:,} rooms opened, written and let go, {AT_ONCE} at once")
    seed = canvas_updates(5)
    places: list[float] = []
    seen: list[float] = []
    for done in range(AT_ONCE, rooms + 1, AT_ONCE):
        await left([await seeded(target, target.room(), seed) for _ in range(AT_ONCE)])
        await until_let_go(target.http_url)
        await asyncio.sleep(TRIM_S)
        places.append(done)
        seen.append(usage(target.pid).rss_mb)
    half = len(seen) // 2
    say(f"  memory {seen[0]:,.1f} MB after the first {AT_ONCE}, {seen[half]:,.1f} half way, {seen[-1]:,.1f} at the end")
    return bound("memory left by one room, second half", slope(places[half:], seen[half:]) * 1024, CYCLE_KB, "KB")


async def measure(sockets: int, seconds: float, rooms: int, folder: Path) -> bool:
    """Both, each with a server of its own."""
    good = []
    for name in ("idle", "cycles"):
        env = {"DARKROOM_LOG_LEVEL": "warning", "DARKROOM_USER_MESSAGES_PER_S": "0"}
        server = ServerProcess(folder / name, env=env)
        try:
            await server.start()
            target = Target(server.ws_url, server.url, server.pid, raw=False)
            good.append(await (idle(target, sockets, seconds) if name == "idle" else cycles(target, rooms)))
        finally:
            server.stop()
    return all(good)


def main() -> int:
    """Run it; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak.idle_sockets", description=__doc__)
    parser.add_argument("--full", action="store_true", help="10,000 sockets for 10 minutes, 1,000 rooms")
    parser.add_argument("--sockets", type=int, help="how many (1,000)")
    parser.add_argument("--seconds", type=float, help="how long they are held (60)")
    parser.add_argument("--rooms", type=int, help="how many come and go (500)")
    options = parser.parse_args()
    sockets, seconds, rooms = (10_000, 600.0, 1_000) if options.full else (1_000, 60.0, 500)
    allow_sockets()
    with tempfile.TemporaryDirectory(prefix="darkroom-soak-") as folder:
        good = asyncio.run(
            measure(options.sockets or sockets, options.seconds or seconds, options.rooms or rooms, Path(folder))
        )
    return int(not good)


if __name__ == "__main__":
    sys.exit(main())
