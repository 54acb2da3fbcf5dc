"""What people who draw together feel: edits, cursors, joining, one who does not read."""

import asyncio
import random
import time
from collections.abc import Sequence
from functools import partial

from pycrdt import Doc

from crdt import canvas, protocol
from crdt.canvas import CanvasDoc
from tests.bench.measure import Window, beat, eventually, quantile, usage, window
from tests.bench.target import Figures, Target
from tests.bench.traffic import CURSOR, EDIT, Arrivals, canvas_updates, cursors, drags
from tests.bench.wire import Wire, ask, client_frame

DRAIN_S = 5.0
PROBES = 5
"""How many receivers note latencies: those that connected last."""


async def fan_out(target: Target, *, clients: int, writers: int, hz: float, seconds: float = 6.0) -> Figures:
    """Some people drag nodes, everybody watches."""
    seed, url = canvas_updates(100), target.room()
    keep = await seeded(target, url, seed)
    count = int(hz * seconds) + 8
    frames = [drags(seed, node, count) for node in range(writers)]
    arrivals = Arrivals(EDIT, writers, count)
    wires = await joined(target, url, clients)
    for index, wire in enumerate(wires):
        own = index if index < writers else -1
        wire.received = arrivals.receiver(probe=index >= clients - PROBES, own=own)
    senders = [arrivals.sender(index, frames[index], wires[index].send) for index in range(writers)]
    await asyncio.sleep(0.3)
    with window(target.pid) as used:
        sent = await beat(senders, hz, seconds)
        await eventually(lambda: arrivals.missing(sent) == 0, DRAIN_S)
    missing = arrivals.missing(sent)
    owed = sum(sent) * (clients - 1)
    figures = {
        "CPU us per delivery": used.cpu_s * 1e6 / owed,
        "CPU us per edit": used.cpu_s * 1e6 / sum(sent),
        "p50 ms": quantile(arrivals.latencies_ms, 0.5),
        "p99 ms": quantile(arrivals.latencies_ms, 0.99),
        "not delivered": missing,
    }
    if not target.raw:
        figures["converged"] = await _shows(url, seed, sent)
    await left([keep, *wires])
    return {**figures, **_about(target, used)}


async def awareness(target: Target, *, clients: int, hz: float = 20.0, seconds: float = 4.0) -> Figures:
    """Everybody moves a cursor, one person drags a node."""
    seed, url = canvas_updates(100), target.room()
    keep = await seeded(target, url, seed)
    count = int(hz * seconds) + 8
    moves = [cursors(source, count) for source in range(clients)]
    edits = drags(seed, 0, count)
    cursor_arrivals, edit_arrivals = Arrivals(CURSOR, clients, count), Arrivals(EDIT, 1, count)
    wires = await joined(target, url, clients)
    (writer,) = await joined(target, url, 1)
    for index, wire in list(enumerate(wires))[-PROBES:]:
        see_cursor = cursor_arrivals.receiver(probe=True, own=index)
        see_edit = edit_arrivals.receiver(probe=True)
        wire.received = partial(_both, see_cursor, see_edit)
    movers = [cursor_arrivals.sender(each, moves[each], wire.send) for each, wire in enumerate(wires)]
    await asyncio.sleep(0.3)
    with window(target.pid) as used:
        moved, edited = await asyncio.gather(
            beat(movers, hz, seconds), beat([edit_arrivals.sender(0, edits, writer.send)], 10, seconds)
        )
        await eventually(lambda: cursor_arrivals.missing(moved) + edit_arrivals.missing(edited) == 0, DRAIN_S)
    figures = {
        "CPU us per delivery": used.cpu_s * 1e6 / (sum(moved) * (clients - 1)),
        "cursor p50 ms": quantile(cursor_arrivals.latencies_ms, 0.5),
        "cursor p99 ms": quantile(cursor_arrivals.latencies_ms, 0.99),
        "edit p50 ms": quantile(edit_arrivals.latencies_ms, 0.5),
        "edit p99 ms": quantile(edit_arrivals.latencies_ms, 0.99),
        "not delivered": cursor_arrivals.missing(moved) + edit_arrivals.missing(edited),
    }
    await left([keep, writer, *wires])
    return {**figures, **_about(target, used)}


async def joins(target: Target, *, nodes: int, one_by_one: int = 8, together: int = 8) -> Figures:
    """People open a canvas that others have open, first one after the other, then at once."""
    seed, url = canvas_updates(nodes), target.room()
    keep = await seeded(target, url, seed)
    await _settled(target)
    alone: list[float] = []
    size = 0
    with window(target.pid) as used:
        for _ in range(one_by_one):
            took_ms, size = await _join(url)
            alone.append(took_ms)
    begun = time.perf_counter()
    with window(target.pid) as crowded:
        crowd = await asyncio.gather(*(_join(url) for _ in range(together)))
    last_ms = (time.perf_counter() - begun) * 1000
    await left([keep])
    return {
        "document KB": size / 1024,
        "join p50 ms": quantile(alone, 0.5),
        "CPU ms per join": used.cpu_s * 1000 / one_by_one,
        f"{together} at once, p50 ms": quantile([took_ms for took_ms, _ in crowd], 0.5),
        f"{together} at once, last ms": last_ms,
        f"{together} at once, CPU ms per join": crowded.cpu_s * 1000 / together,
    }


async def slow_reader(target: Target, *, stall_s: float = 8.0, control_s: float = 4.0) -> Figures:
    """Four people write 16 KB thirty times a second; then one more stops reading."""
    seed, url = canvas_updates(50), target.room()
    keep = await seeded(target, url, seed)
    await _heavy(target, url, seed, 0, 2.0)  # The allocator and the first pages.
    control, control_p99, _ = await _heavy(target, url, seed, 10, control_s)
    (slow,) = await joined(target, url, 1)
    slow.transport.pause_reading()
    stalled, stalled_p99, sent = await _heavy(target, url, seed, 20, stall_s)
    slow.transport.resume_reading()
    closed = await eventually(slow.ended.done, 1.0)
    caught_up = (
        not closed and _number_at(_document([*seed, await ask(slow, _document(seed).get_state())]), 20) == sent - 1
    )
    await left([keep, slow])
    return {
        "control: memory grew MB": control,
        "memory grew MB": stalled,
        "control: others p99 ms": control_p99,
        "others p99 ms": stalled_p99,
        "closed with": float(slow.close_code or 0) if closed else 0.0,
        "caught up": float(caught_up),
    }


async def many_rooms(target: Target, *, rooms: int = 200, stay_s: float = 2.0) -> Figures:
    """Rooms with two people each: what they cost, and what is given back soon after they left."""
    seed = canvas_updates(5)
    urls = [target.room() for _ in range(rooms)]
    start_mb = usage(target.pid).rss_mb
    first = [await seeded(target, url, seed) for url in urls]
    second = [wire for url in urls for wire in await joined(target, url, 1)]
    await asyncio.sleep(stay_s)
    with window(target.pid) as idle:
        await asyncio.sleep(stay_s)
    open_mb = usage(target.pid).rss_mb
    await left([*first, *second])
    await asyncio.sleep(stay_s)
    return {
        "rooms": rooms,
        "memory at start MB": start_mb,
        "memory open MB": open_mb,
        "KB per room of two": (open_mb - start_mb) * 1024 / rooms,
        "memory after MB": usage(target.pid).rss_mb,
        "idle CPU %": 100 * idle.cpu_s / idle.wall_s,
    }


async def seeded(target: Target, url: str, seed: list[bytes]) -> Wire:
    """A member of the room that brought the document and knows that it arrived."""
    wire = await Wire.connect(url)
    if not target.raw:
        for update in seed:
            wire.send(client_frame(protocol.update_message(update)))
        await ask(wire, _document(seed).get_state())
    return wire


async def joined(target: Target, url: str, clients: int) -> list[Wire]:
    """Members that are in sync."""
    wires = []
    for _ in range(clients):
        wire = await Wire.connect(url)
        if not target.raw:
            await ask(wire)
        wires.append(wire)
    return wires


async def left(wires: Sequence[Wire]) -> None:
    """Everybody leaves."""
    await asyncio.gather(*(wire.close() for wire in wires))


async def _settled(target: Target) -> None:
    """Wait until the server has stored what came, so that only joining is measured."""
    for _ in range(60):
        with window(target.pid) as used:
            await asyncio.sleep(0.5)
        if used.cpu_s < 0.05:
            return


async def _join(url: str) -> tuple[float, int]:
    begun = time.perf_counter()
    wire = await Wire.connect(url)
    update = await ask(wire)
    took_ms = (time.perf_counter() - begun) * 1000
    await wire.close()
    return took_ms, len(update)


async def _heavy(target: Target, url: str, seed: list[bytes], first: int, seconds: float) -> tuple[float, float, int]:
    """Writers of large edits and readers; returns what the server grew by (MB), p99 (ms) and edits per writer."""
    writers, hz = 4, 30
    count = int(hz * seconds) + 8
    frames = [drags(seed, first + index, count, weight=16_384) for index in range(writers)]
    arrivals = Arrivals(EDIT, first + writers, count)
    authors, readers = await joined(target, url, writers), await joined(target, url, 8)
    for wire in readers:
        wire.received = arrivals.receiver(probe=True)
    senders = [arrivals.sender(first + index, frames[index], wire.send) for index, wire in enumerate(authors)]
    peak = start = usage(target.pid).rss_mb
    beating = asyncio.create_task(beat(senders, hz, seconds))
    while not beating.done():
        await asyncio.wait((beating,), timeout=0.5)
        peak = max(peak, usage(target.pid).rss_mb)
    sent = await beating
    await eventually(lambda: arrivals.missing([0] * first + sent) <= 0, 1.0)
    await left([*authors, *readers])
    return peak - start, quantile(arrivals.latencies_ms, 0.99), min(sent)


def _both(first: object, second: object, message: bytes, now: float) -> None:
    assert callable(first)
    assert callable(second)
    first(message, now)
    second(message, now)


async def _shows(url: str, seed: list[bytes], sent: list[int]) -> float:
    """Whether somebody who comes now sees the last edit of every writer."""
    wire = await Wire.connect(url)
    lacking = await ask(wire, _document(seed).get_state())
    await wire.close()
    doc = _document([*seed, lacking])
    return float(all(_number_at(doc, source) == number - 1 for source, number in enumerate(sent)))


def _number_at(doc: CanvasDoc, node: int) -> int:
    """The number of the edit that a node shows."""
    return int(canvas.nodes_of(doc)[f"n{node}"]["position"]["m"][-6:])


def _document(updates: list[bytes]) -> CanvasDoc:
    doc: CanvasDoc = Doc(client_id=random.getrandbits(32))
    for update in updates:
        doc.apply_update(update)
    return doc


def _about(target: Target, used: Window) -> Figures:
    return {"memory MB": usage(target.pid).rss_mb, "load CPU %": used.load_cpu_pct}
