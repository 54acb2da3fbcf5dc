"""What the soaks share: saying what was seen, slopes, and what the server tells of itself."""

import asyncio
import resource
import sys
from collections.abc import Sequence

import httpx2
from prometheus_client.parser import text_string_to_metric_families

from tests.bench.measure import usage

_FILES = 20_000
"""Sockets on one side of 10,000 connections, and some more."""
_LOOK_S = 0.1
_PATIENCE_S = 120.0


def say(line: str) -> None:
    """Print one line at once: a soak takes minutes."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def bound(what: str, seen: float, limit: float, unit: str) -> bool:
    """Print a figure beside its bound; whether it is kept."""
    kept = seen <= limit
    say(f"  {'ok' if kept else 'TOO MUCH':8} {what}: {seen:,.2f} {unit}, at most {limit:,.2f}")
    return kept


def slope(places: Sequence[float], values: Sequence[float]) -> float:
    """How much the values grow per place, by the straight line that fits best."""
    middle, mean = sum(places) / len(places), sum(values) / len(values)
    spread = sum((place - middle) ** 2 for place in places)
    rise = sum((place - middle) * (value - mean) for place, value in zip(places, values, strict=True))
    return rise / spread if spread else 0.0


def allow_sockets() -> None:
    """Let this process and the servers it starts open as many sockets as the system lets us."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(_FILES, hard)), hard))


async def metrics(url: str) -> dict[str, float]:
    """Every number of a server by its name, a step of a histogram as `name_bucket:0.05`."""
    async with httpx2.AsyncClient() as client:
        text = (await client.get(f"{url}/metrics", timeout=_PATIENCE_S)).text
    return {
        f"{sample.name}:{sample.labels['le']}" if "le" in sample.labels else sample.name: sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def until_let_go(url: str) -> None:
    """Wait until no room is open."""
    async with asyncio.timeout(_PATIENCE_S):
        while (await metrics(url))["darkroom_rooms_open"]:  # noqa: ASYNC110 - another process
            await asyncio.sleep(_LOOK_S)


async def watch_memory(pid: int, seconds: float, every_s: float = 1.0) -> tuple[list[float], list[float]]:
    """RSS (MB) over some time: seconds, and what was seen at them."""
    loop = asyncio.get_running_loop()
    begun, places, seen = loop.time(), [], []
    while (at := loop.time() - begun) < seconds:
        places.append(at)
        seen.append(usage(pid).rss_mb)
        await asyncio.sleep(every_s)
    return places, seen
