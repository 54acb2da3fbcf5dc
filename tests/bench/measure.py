"""What the figures are made of: process accounts from /proc, quantiles, a steady beat."""

import asyncio
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

TICKS_PER_S = os.sysconf("SC_CLK_TCK")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class Usage:
    """What a process and its children used so far."""

    cpu_s: float
    """User and system, children included (seconds)."""
    rss_mb: float


@dataclass(slots=True)
class Window:
    """A measured stretch of time; filled in when it ends."""

    wall_s: float = 0.0
    cpu_s: float = 0.0
    grown_mb: float = 0.0
    load_cpu_pct: float = 0.0
    """How busy the load generator was (percent of a core): near 100 its own latencies are worthless."""


def usage(pid: int) -> Usage:
    """The accounts of a process and all that it started."""
    ticks, pages = 0, 0
    for one in _family(pid):
        fields = _stat(one)
        if fields:
            ticks += sum(map(int, fields[11:15]))
            pages += int(fields[21])
    return Usage(ticks / TICKS_PER_S, pages * PAGE_BYTES / 2**20)


@contextmanager
def window(pid: int) -> Iterator[Window]:
    """Measure what a server uses inside the block."""
    measured = Window()
    before, own, begun = usage(pid), time.process_time(), time.perf_counter()
    yield measured
    measured.wall_s = time.perf_counter() - begun
    after = usage(pid)
    measured.cpu_s = after.cpu_s - before.cpu_s
    measured.grown_mb = after.rss_mb - before.rss_mb
    measured.load_cpu_pct = 100 * (time.process_time() - own) / measured.wall_s


def quantile(values: Sequence[float], share: float) -> float:
    """The value that this share of all values does not exceed; not a number when there are none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("nan")


async def beat(senders: Sequence[Callable[[int], None]], hz: float, seconds: float) -> list[int]:
    """
    Call each sender `hz` times a second with 0, 1, 2, ..., all spread evenly over the period.

    Returns:
        How often each was called.
    """
    loop = asyncio.get_running_loop()
    begun = loop.time()
    due = [begun + index / len(senders) / hz for index in range(len(senders))]
    counts = [0] * len(senders)
    while (now := loop.time()) < begun + seconds:
        for index, sender in enumerate(senders):
            while due[index] <= now:
                sender(counts[index])
                counts[index] += 1
                due[index] += 1 / hz
        await asyncio.sleep(0.002)
    return counts


async def eventually(wanted: Callable[[], bool], patience_s: float) -> bool:
    """Whether a condition came to hold in time."""
    loop = asyncio.get_running_loop()
    end = loop.time() + patience_s
    while not wanted():
        if loop.time() > end:
            return False
        await asyncio.sleep(0.01)
    return True


def _family(pid: int) -> list[int]:
    family = [pid]
    for one in family:
        for task in _entries(_PROC / str(one) / "task"):
            family += map(int, _text(task / "children").split())
    return family


def _stat(pid: int) -> list[str]:
    return _text(_PROC / str(pid) / "stat").rpartition(")")[2].split()


def _entries(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:
        return []  # It ended meanwhile.


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
