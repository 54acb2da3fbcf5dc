"""How soon makers are answered that call 100 times a second, while people drag and runs go on."""

import asyncio
import base64
import hashlib
import hmac
import json
import time
from contextlib import AsyncExitStack

import httpx2

from crdt import canvas
from tests.bench.measure import quantile, window
from tests.bench.target import Figures, Target
from tests.support.api import Api, canvas_api
from tests.support.peer import YPeer

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
SMALL = "64x64"


async def calls(
    target: Target, *, seconds: float = 15.0, per_s: int = 100, editors: int = 10, runs_per_s: float = 5.0
) -> Figures:
    """Signed calls at a fixed rate, none waiting for the one before, beside editors at 20 Hz and demo runs."""
    url = f"{target.http_url}/webhooks/openai"
    took: list[float] = []
    control: list[float] = []
    statuses: set[int] = set()
    async with AsyncExitStack() as stack:
        api = await stack.enter_async_context(canvas_api(target.http_url))
        people = [
            await stack.enter_async_context(YPeer(target.ws_url, api.workflow_id).connected()) for _ in range(editors)
        ]
        for number, person in enumerate(people):
            await person.add_image(f"dragged-{number}", "a lighthouse at dusk", seed=number)
        limits = httpx2.Limits(max_connections=per_s, max_keepalive_connections=per_s)
        client = await stack.enter_async_context(httpx2.AsyncClient(limits=limits, timeout=30, trust_env=False))

        async def beside() -> None:
            while not stop.is_set():
                begun = time.perf_counter()
                await client.get(f"{target.http_url}/health")
                control.append((time.perf_counter() - begun) * 1000)
                await asyncio.sleep(0.05)

        async def call(number: int) -> None:
            body, headers = _signed(number)
            begun = time.perf_counter()
            answer = await client.post(url, content=body, headers=headers)
            took.append((time.perf_counter() - begun) * 1000)
            statuses.add(answer.status_code)

        stop = asyncio.Event()
        with window(target.pid) as used:
            async with asyncio.TaskGroup() as group:
                for number, person in enumerate(people):
                    group.create_task(_drag(person, f"dragged-{number}", stop))
                group.create_task(beside())
                group.create_task(_run(api, stop, runs_per_s))
                begun = asyncio.get_running_loop().time()
                for number in range(int(seconds * per_s)):
                    await asyncio.sleep(max(0.0, begun + number / per_s - asyncio.get_running_loop().time()))
                    group.create_task(call(number))
                stop.set()
    assert statuses == {200}, statuses
    return {
        "calls": len(took),
        "answered p50 ms": quantile(took, 0.5),
        "answered p99 ms": quantile(took, 0.99),
        "answered longest ms": max(took),
        "GET /health beside it p99 ms": quantile(control, 0.99),
        "server CPU %": used.cpu_s / seconds * 100,
        "load CPU %": used.load_cpu_pct,
    }


async def _drag(person: YPeer, node: str, stop: asyncio.Event) -> None:
    step = 0
    while not stop.is_set():
        step += 1
        await person.edit(lambda doc, x=float(step): canvas.nodes_of(doc)[node].update({"position": {"x": x, "y": x}}))  # type: ignore[misc]
        await asyncio.sleep(0.05)


async def _run(api: Api, stop: asyncio.Event, per_s: float) -> None:
    number = 0
    while not stop.is_set():
        number += 1
        node = await api.add_node(type="image", data={"prompt": "a lighthouse at dusk"})
        answer = await api.generate(node["id"], promptSpec={"size": SMALL}, provider="demo")
        assert answer.status_code == 201, answer.text
        await asyncio.sleep(1 / per_s)


def _signed(number: int) -> tuple[bytes, dict[str, str]]:
    body = json.dumps(
        {
            "id": f"evt_{number}",
            "object": "event",
            "created_at": int(time.time()),
            "type": "response.completed",
            "data": {"id": f"resp_{number}"},
        }
    ).encode()
    moment = str(int(time.time()))
    key = base64.b64decode(SECRET.removeprefix("whsec_"))
    digest = hmac.new(key, f"evt_{number}.{moment}.".encode() + body, hashlib.sha256).digest()
    return body, {
        "content-type": "application/json",
        "webhook-id": f"evt_{number}",
        "webhook-timestamp": moment,
        "webhook-signature": f"v1,{base64.b64encode(digest).decode()}",
    }
