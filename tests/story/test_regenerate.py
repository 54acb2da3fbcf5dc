"""The whole road, from a click to the picture in everybody's document, on the real server."""

import asyncio
from typing import Any

from crdt import canvas
from jobs.tables import generated_images, runs
from tests.support.api import canvas_api
from tests.support.node import NodePeers
from tests.support.peer import YPeer
from tests.support.server import ServerFactory, ServerProcess


async def test_a_picture_develops_in_front_of_everyone(server: ServerProcess, node_peer: NodePeers) -> None:
    async with canvas_api(server.url) as api, YPeer(server.ws_url, api.workflow_id).connected() as python:
        stock = await node_peer(server.ws_url, api.workflow_id)
        await python.add_image("n1", "a fox in the snow")
        await stock.wait("nodes", "n1", "data", "prompt", equals="a fox in the snow")
        await stock.watch("nodes", "n1", "data", "status")
        answer = await api.generate("n1", after=None, by={"name": "Ada"})
        assert answer.status_code == 201, answer.text
        data = await python.until_status("n1", "completed")
        assert await stock.wait("nodes", "n1", "data", "imageUrl") == data["imageUrl"]
        assert await stock.seen("nodes", "n1", "data", "status") in (
            [None, "pending", "running", "completed"],
            [None, "pending", "completed"],
            [None, "running", "completed"],
        )
        for url in (data["imageUrl"], data["thumbnailUrl"]):
            picture = await api.client.get(url)
            assert picture.headers["content-type"].startswith("image/")
            assert len(picture.content) > 1000
        (mirrored,) = (await api.flow())["nodes"]
        assert mirrored["data"]["imageUrl"] == data["imageUrl"]
        assert mirrored["data"]["runId"] == answer.json()["jobId"]


async def test_two_clicks_at_the_same_moment_are_one_run(server: ServerProcess) -> None:
    async with canvas_api(server.url) as api:
        await api.add_node(id="n1", type="image", data={"prompt": "a fox"})
        answers = await asyncio.gather(*(api.generate("n1", after=None) for _ in range(8)))
        assert sorted(answer.status_code for answer in answers) == [200] * 7 + [201]
        assert len({answer.json()["jobId"] for answer in answers}) == 1
        await api.ended(answers[0].json()["jobId"])
        assert await server.count(runs) == 1
        assert await server.count(generated_images) == 1


async def test_a_click_on_what_is_no_longer_current_is_told_the_current_run(server: ServerProcess) -> None:
    async with canvas_api(server.url) as api:
        await api.add_node(id="n1", type="image", data={"prompt": "a fox"})
        first = (await api.generate("n1", after=None)).json()["jobId"]
        await api.ended(first)
        second = (await api.generate("n1", after=first)).json()["jobId"]
        await api.ended(second)
        assert (await api.generate("n1", after=first)).json()["jobId"] == second
        stale = await api.generate("n1", after="run_of_another_node")
        assert stale.status_code == 409
        assert stale.json()["current"]["jobId"] == second


async def test_a_click_made_offline_runs_on_reconnect(server: ServerProcess, node_peer: NodePeers) -> None:
    async with canvas_api(server.url) as api:
        stock = await node_peer(server.ws_url, api.workflow_id)
        await stock.add_node("n1", data={"prompt": "a lighthouse"})
        watcher = YPeer(server.ws_url, api.workflow_id)
        async with watcher.connected():
            await watcher.until(lambda: watcher.data("n1"))
            await stock.disconnect()
            await stock.set("n1", "data", "request", value={"after": None, "id": "click-1"})
            await stock.call("connect", timeoutMs=10_000)
            data = await watcher.until_status("n1", "completed")
            await watcher.until(lambda: "request" not in watcher.data("n1"))
        assert await stock.wait("nodes", "n1", "data", "runId") == data["runId"]
        assert await server.count(runs) == 1


async def test_the_same_intent_from_two_people_is_one_run(server: ServerProcess, node_peer: NodePeers) -> None:
    async with canvas_api(server.url) as api:
        python = YPeer(server.ws_url, api.workflow_id)
        async with python.connected():
            await python.add_image("n1", "an owl")
        stock = await node_peer(server.ws_url, api.workflow_id)
        await stock.disconnect()
        await stock.set("n1", "data", "request", value={"after": None, "id": "b"})
        await python.set_data("n1", request={"after": None, "id": "a"})
        async with python.connected():
            await stock.call("connect", timeoutMs=10_000)
            await python.until_status("n1", "completed")
            await python.until(lambda: "request" not in python.data("n1"))
        assert await server.count(runs) == 1


async def test_cancel_works_by_http_and_from_the_document(start_server: ServerFactory) -> None:
    server = await start_server(env={"DARKROOM_DEMO_DELAY_S": "60"})
    async with canvas_api(server.url) as api, YPeer(server.ws_url, api.workflow_id).connected() as peer:
        for node_id in ("http", "document"):
            await peer.add_image(node_id, "a slow picture")
        await peer.set_data("document", request={"after": None, "id": "1"})
        running = await peer.until_status("document", "running")
        http = (await api.generate("http")).json()["jobId"]
        await peer.until_status("http", "running")
        answer = await api.client.post(f"/api/images/jobs/{http}/cancel", json={})
        assert answer.json()["status"] == "cancelled"
        await peer.set_data("document", request={"cancel": running["runId"], "id": "2"})
        for node_id in ("http", "document"):
            await peer.until_status(node_id, "cancelled")
        assert await server.count(generated_images) == 0


async def test_progress_is_presence_of_the_server_and_never_document(start_server: ServerFactory) -> None:
    server = await start_server(env={"DARKROOM_DEMO_DELAY_S": "1"})
    async with canvas_api(server.url) as api, YPeer(server.ws_url, api.workflow_id).connected() as peer:
        await peer.add_image("n1", "a slow picture")
        job = (await api.generate("n1", by={"name": "Ada"})).json()["jobId"]

        def told() -> Any:
            states = [state for state in peer.states.values() if state and state.get("server")]
            return next((state["runs"]["n1"] for state in states if "n1" in state.get("runs", {})), None)

        await peer.until(lambda: (told() or {}).get("previewUrl") and told()["progress"])
        assert told()["runId"] == job
        assert told()["by"] == "Ada"
        preview = await api.client.get(told()["previewUrl"])
        assert preview.headers["content-type"].startswith("image/")
        await peer.until_status("n1", "completed")
        await peer.until(lambda: told() is None)
        node = canvas.nodes_of(peer.doc)["n1"]["data"]
        assert "progress" not in node
        assert "previewUrl" not in node


async def test_a_failed_run_tells_why_and_can_be_retried(server: ServerProcess) -> None:
    async with canvas_api(server.url) as api, YPeer(server.ws_url, api.workflow_id).connected() as peer:
        await peer.add_image("n1", "something forbidden")
        job = (await api.generate("n1")).json()["jobId"]
        data = await peer.until_status("n1", "failed")
        assert data["error"]["message"]
        assert data["error"]["retryable"] is False
        again = await api.generate("n1", after=job, promptSpec={"basePrompt": "something fine"})
        assert again.status_code == 201
        assert (await peer.until_status("n1", "completed"))["error"] is None


async def test_the_picture_of_a_node_stays_while_it_is_regenerated(start_server: ServerFactory) -> None:
    server = await start_server(env={"DARKROOM_DEMO_DELAY_S": "0.5"})
    async with canvas_api(server.url) as api, YPeer(server.ws_url, api.workflow_id).connected() as peer:
        await peer.add_image("n1", "a fox")
        first = (await api.generate("n1")).json()["jobId"]
        before = await peer.until_status("n1", "completed")
        await api.generate("n1", after=first, promptSpec={"basePrompt": "an owl"})
        running = await peer.until_status("n1", "running")
        assert running["imageUrl"] == before["imageUrl"]
        after = await peer.until_status("n1", "completed")
        assert after["imageUrl"] != before["imageUrl"]
        assert [run["jobId"] for run in await api.history("n1")] == [after["runId"], first]


async def test_a_restart_shows_the_same_canvas_to_clients_that_reconnect(
    server: ServerProcess, node_peer: NodePeers
) -> None:
    async with canvas_api(server.url) as api:
        stock = await node_peer(server.ws_url, api.workflow_id)
        await stock.add_node("n1", data={"prompt": "a fox"})
        await stock.wait("status", "synced", equals=True)
        job = (await api.generate("n1", promptSpec={"basePrompt": "a fox"})).json()["jobId"]
        await api.ended(job)
        await stock.wait("nodes", "n1", "data", "status", equals="completed")
        before = await api.flow()
        await server.kill()
        await stock.set("n1", "position", value={"x": 5, "y": 6})
        await server.start()
        await stock.wait("status", "connected", equals=True)
        fresh = YPeer(server.ws_url, api.workflow_id)
        async with fresh.connected():
            await fresh.until(lambda: (node := canvas.read_node(fresh.doc, "n1")) and node.position == {"x": 5, "y": 6})
            assert fresh.data("n1")["imageUrl"] == before["nodes"][0]["data"]["imageUrl"]
