"""What somebody feels who clicks Generate, on the whole road with the demo provider."""

import asyncio
import time
from typing import TYPE_CHECKING

from tests.bench.measure import quantile, window
from tests.bench.target import Figures, Target
from tests.support.api import Api, canvas_api
from tests.support.peer import YPeer

if TYPE_CHECKING:
    from collections.abc import Sequence

DEMO_DELAY_S = 0.25
"""How long the demo provider takes where single clicks are timed."""
SMALL = "64x64"
"""Where runs are counted, so that the road is measured and not the drawing, which takes 0.2 s of CPU at full size."""


async def clicks(target: Target, *, times: int = 25, cancels: int = 10) -> Figures:
    """One person clicks, another one watches: how soon each state is seen, one run after the other."""
    seen: dict[str, list[float]] = {"answer": [], "pending": [], "running": [], "completed": [], "cancelled": []}
    async with (
        canvas_api(target.http_url) as api,
        YPeer(target.ws_url, api.workflow_id).connected() as author,
        YPeer(target.ws_url, api.workflow_id).connected() as watcher,
    ):
        for number in range(times + cancels):
            node = f"n{number}"
            await author.add_image(node, "a lighthouse at dusk", seed=number)
            await watcher.until(lambda node=node: watcher.data(node))  # type: ignore[misc]
            watching = asyncio.create_task(_watch(watcher, node, cancelled=number >= times))
            begun = time.perf_counter()
            answer = await api.generate(node, after=None)
            assert answer.status_code == 201, answer.text
            seen["answer"].append((time.perf_counter() - begun) * 1000)
            if number >= times:
                await watcher.until_status(node, "running")
                begun = time.perf_counter()
                await api.client.post(f"/api/images/jobs/{answer.json()['jobId']}/cancel")
            for status, at in (await watching).items():
                # A cancelled run is timed from the press on Cancel alone.
                if (status == "cancelled") == (number >= times):
                    seen[status].append((at - begun) * 1000)
    delay_ms = DEMO_DELAY_S * 1000
    figures: Figures = {}
    for status, values in seen.items():
        less = delay_ms if status == "completed" else 0.0
        label = f"{status} (less the provider's {delay_ms:.0f} ms)" if less else status
        figures[f"{label} p50 ms"] = quantile(values, 0.5) - less
        figures[f"{label} p99 ms"] = quantile(values, 0.99) - less
    return figures


async def throughput(target: Target, *, workflows: int = 5, nodes: int = 40, clickers: int = 8) -> Figures:
    """As many runs as go through in a row with a provider that takes no time, each with a picture stored and shown."""
    async with asyncio.TaskGroup() as group:
        ready = [group.create_task(_prepare(target, nodes)) for _ in range(workflows)]
    canvases = [task.result() for task in ready]
    orders: asyncio.Queue[tuple[str, str]] = asyncio.Queue()
    for node in range(nodes):
        for workflow_id in canvases:
            orders.put_nowait((workflow_id, f"n{node}"))
    with window(target.pid) as used:
        async with asyncio.TaskGroup() as group:
            for workflow_id in canvases:
                group.create_task(_all_completed(target, workflow_id, nodes))
            await asyncio.sleep(0.2)
            begun = time.perf_counter()
            for _ in range(clickers):
                group.create_task(_click(target, orders))
        took_s = time.perf_counter() - begun
    count = workflows * nodes
    return {
        "runs": count,
        "runs per s": count / took_s,
        "CPU ms per run": used.cpu_s * 1000 / count,
        "load CPU %": used.load_cpu_pct,
    }


async def _watch(watcher: YPeer, node: str, *, cancelled: bool) -> dict[str, float]:
    """When each state was first seen, or a later one: a state that was skipped was seen with the next."""
    order: Sequence[str] = ("pending", "running", "cancelled" if cancelled else "completed")
    seen: dict[str, float] = {}
    for position, status in enumerate(order):
        later = order[position:]
        await watcher.until(lambda later=later: watcher.data(node).get("status") in later)  # type: ignore[misc]
        seen[status] = time.perf_counter()
    return seen


async def _prepare(target: Target, nodes: int) -> str:
    async with canvas_api(target.http_url) as api, YPeer(target.ws_url, api.workflow_id).connected() as author:
        for number in range(nodes):
            await author.add_image(f"n{number}", "a lighthouse at dusk", seed=number)
        return api.workflow_id


async def _click(target: Target, orders: asyncio.Queue[tuple[str, str]]) -> None:
    async with canvas_api(target.http_url, "none") as api:
        while not orders.empty():
            workflow_id, node = orders.get_nowait()
            answer = await Api(api.client, workflow_id).generate(node, after=None, promptSpec={"size": SMALL})
            assert answer.status_code == 201, answer.text


async def _all_completed(target: Target, workflow_id: str, nodes: int) -> None:
    async with YPeer(target.ws_url, workflow_id).connected() as watcher:
        for number in range(nodes):
            await watcher.until_status(f"n{number}", "completed")
