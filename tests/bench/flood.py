"""One client that sends far more than it may: what the others, in its room and elsewhere, feel of it."""

import asyncio

from tests.bench.measure import beat, quantile, usage, window
from tests.bench.realtime import joined, left, seeded
from tests.bench.target import Figures, Target
from tests.bench.traffic import EDIT, Arrivals, canvas_updates, drags
from tests.bench.wire import Wire

PER_S = 5_000
_STEP_S = 0.01


async def flood(target: Target, *, control_s: float = 4.0, flood_s: float = 12.0) -> Figures:
    """Two rooms of eight in which somebody drags at 30 Hz; then one more client sends 5,000 edits a second into one."""
    seed = canvas_updates(50)
    urls = [target.room(), target.room()]
    keep = [await seeded(target, url, seed) for url in urls]
    calm = await _felt(target, urls, seed, 0, control_s)
    (flooder,) = await joined(target, urls[0], 1)
    # Without their marks: only what the others drag is looked for.
    frames = [frame.replace(b"@", b"#") for frame in drags(seed, 40, int(PER_S * flood_s))]
    start_mb = usage(target.pid).rss_mb
    flooding = asyncio.create_task(_flood(flooder, frames))
    with window(target.pid) as used:
        flooded = await _felt(target, urls, seed, 10, flood_s)
    flooding.cancel()
    await asyncio.wait([flooding])
    code = float(flooder.close_code or 0)
    await left([*keep, flooder])
    return {
        "calm: same room p99 ms": calm[0],
        "calm: other room p99 ms": calm[1],
        "flooded: same room p99 ms": flooded[0],
        "flooded: other room p99 ms": flooded[1],
        "memory grew MB": usage(target.pid).rss_mb - start_mb,
        "CPU %": 100 * used.cpu_s / used.wall_s,
        "closed with": code,
    }


async def _flood(wire: Wire, frames: list[bytes]) -> None:
    each = int(PER_S * _STEP_S)
    for at in range(0, len(frames), each):
        if wire.ended.done():
            return
        wire.send(b"".join(frames[at : at + each]))
        await asyncio.sleep(_STEP_S)


async def _felt(target: Target, urls: list[str], seed: list[bytes], node: int, seconds: float) -> list[float]:
    """The p99 (ms) of one person's drag in each room."""
    hz = 30
    count = int(hz * seconds) + 8
    arrivals, senders, wires = [], [], []
    for url in urls:
        arrived = Arrivals(EDIT, node + 1, count)
        (author,) = await joined(target, url, 1)
        readers = await joined(target, url, 7)
        for wire in readers:
            wire.received = arrived.receiver(probe=True)
        senders.append(arrived.sender(node, drags(seed, node, count), author.send))
        arrivals.append(arrived)
        wires += [author, *readers]
    await beat(senders, hz, seconds)
    await asyncio.sleep(1.0)
    await left(wires)
    return [quantile(arrived.latencies_ms, 0.99) for arrived in arrivals]
