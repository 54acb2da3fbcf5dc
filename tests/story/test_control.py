"""Many runs at once, and what is done about them, on the real server in front of somebody who watches."""

import asyncio
import contextlib

import httpx2

from jobs.tables import runs
from tests.support.api import canvas_api
from tests.support.peer import YPeer
from tests.support.server import ServerFactory, ServerProcess

SMALL = {"promptSpec": {"size": "64x64"}}
NAMES = tuple(f"n{number}" for number in range(6))


async def test_a_batch_is_seen_and_its_cancel_too(start_server: ServerFactory) -> None:
    server = start_server.now(env={"DARKROOM_DEMO_DELAY_S": "600"})
    nodes = [{"id": name, "type": "image", "position": {"x": 0, "y": 0}, "data": {"prompt": "a fox"}} for name in NAMES]
    async with (
        canvas_api(server.url, nodes=nodes) as api,
        YPeer(server.ws_url, api.workflow_id).connected() as watcher,
    ):
        requests = [{"workflowId": api.workflow_id, "nodeId": name, **SMALL} for name in NAMES]
        batch = (await api.client.post("/api/images/generate", json={"requests": requests})).json()
        for name in NAMES:
            await watcher.until_status(name, "running")
        told = await api.client.post(f"/api/images/batches/{batch['batchId']}/cancel")
        assert told.json()["cancelled"] == len(NAMES)
        for name in NAMES:
            await watcher.until_status(name, "cancelled")
        assert await server.terminate() == 0


async def test_an_earlier_picture_is_back_on_every_screen(shared_server: ServerProcess) -> None:
    async with (
        canvas_api(shared_server.url) as api,
        YPeer(shared_server.ws_url, api.workflow_id).connected() as watcher,
    ):
        await api.add_node(id="n1", type="image", data={"prompt": "a fox"})
        earlier = await api.ended((await api.generate("n1", **SMALL)).json()["jobId"])
        later = await api.ended((await api.generate("n1", **SMALL)).json()["jobId"])
        await watcher.until(lambda: watcher.data("n1").get("imageUrl") == later["imageUrl"])
        path = f"/api/workflows/{api.workflow_id}/nodes/n1/runs/{earlier['jobId']}/use"
        used = (await api.client.post(path)).json()
        await watcher.until(lambda: watcher.data("n1").get("imageUrl") == earlier["imageUrl"])
        assert (watcher.data("n1")["runId"], watcher.data("n1")["status"]) == (used["jobId"], "completed")
        assert [run["kind"] for run in await api.history("n1")] == ["restore", "image", "image"]


async def test_a_batch_sent_again_after_a_kill_in_the_middle_is_made_once(start_server: ServerFactory) -> None:
    server = start_server.now(env={"DARKROOM_DEMO_DELAY_S": "600"})
    names = [f"n{number}" for number in range(120)]
    nodes = [{"id": name, "type": "image", "position": {"x": 0, "y": 0}, "data": {"prompt": "a fox"}} for name in names]
    async with canvas_api(server.url, nodes=nodes) as api:
        requests = [{"workflowId": api.workflow_id, "nodeId": name} for name in names]
        headers = {"idempotency-key": "once"}

        async def send() -> httpx2.Response:
            return await api.client.post("/api/images/generate", json={"requests": requests}, headers=headers)

        first = asyncio.create_task(send())
        async with asyncio.timeout(10):
            # The commit is there, or on its way.
            while not first.done() and not await server.count(runs):  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.01)
        await server.kill()
        with contextlib.suppress(httpx2.HTTPError):
            await first
        assert await server.count(runs) in {0, len(names)}
        await server.restart()
        again = await send()
        assert again.status_code == 202, again.text
        assert [job["nodeId"] for job in again.json()["jobs"]] == names
        assert (await send()).json()["batchId"] == again.json()["batchId"]
        assert await server.count(runs) == len(names)
        await api.client.post("/api/images/jobs/cancel", json={})
