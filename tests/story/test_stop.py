"""SIGTERM with people connected and a log that is slow or fails: told to come back, stored or told, in bounded time."""

import asyncio
import time
from contextlib import AsyncExitStack

import pytest
import websockets

from crdt import canvas
from tests.server.test_websocket import Peer, put
from tests.support.api import canvas_api
from tests.support.peer import YPeer
from tests.support.server import ServerFactory, ServerProcess

STOP_S = 1.0


@pytest.fixture
async def held(start_server: ServerFactory) -> ServerProcess:
    return await start_server.held(env={"DARKROOM_STOP_S": str(STOP_S), "DARKROOM_DRAIN_S": "1"}).start()


async def closed(connection: websockets.ClientConnection) -> tuple[float, int | None, str | None]:
    """When and how a connection is closed."""
    await connection.wait_closed()
    return time.monotonic(), connection.close_code, connection.close_reason


async def test_everybody_is_told_to_come_back_not_all_at_once_and_everything_is_stored(held: ServerProcess) -> None:
    async with canvas_api(held.url) as api, AsyncExitStack() as stack:
        url = f"{held.ws_url}/{api.workflow_id}"
        connections = [await stack.enter_async_context(websockets.connect(url, max_queue=None)) for _ in range(30)]
        writer = Peer(connections[0])
        await writer.sync()
        ends = asyncio.gather(*map(closed, connections))
        stopping = asyncio.create_task(held.terminate())
        number = 0
        while not ends.done() and connections[0].close_code is None:
            try:
                await writer.edit(put(f"n{number}"))
                await writer.sync()
            except websockets.ConnectionClosed:
                break
            number += 1
        assert {(code, reason) for _, code, reason in await ends} == {
            (1012, "restart: the server is stopping, come back in a moment")
        }
        times = sorted(at for at, _, _ in await ends)
        assert times[-1] - times[0] > 0.1
        assert await stopping == 0
        await held.start()
        nodes = {node["id"] for node in (await api.flow())["nodes"]}
        assert nodes >= {f"n{index}" for index in range(number)}


async def test_a_log_that_is_slow_is_waited_for(held: ServerProcess) -> None:
    gate = held.data / "hold-commit"
    async with canvas_api(held.url) as api, YPeer(held.ws_url, api.workflow_id).connected() as peer:
        gate.touch()
        await peer.add_image("n1", "a fox")
        async with asyncio.timeout(20):
            while not (held.data / "at-commit").exists():
                await peer.edit(lambda doc: canvas.nodes_of(doc)["n1"]["data"].update({"x": 1}))
        async with websockets.connect(f"{held.ws_url}/other") as other:
            stopping = asyncio.create_task(held.terminate())
            await other.wait_closed()
        gate.unlink()
        assert await stopping == 0
        await held.start()
        assert "n1" in [node["id"] for node in (await api.flow())["nodes"]]


async def test_a_log_that_fails_ends_the_stop_in_time_with_a_code_and_a_line_that_say_so(held: ServerProcess) -> None:
    async with canvas_api(held.url) as api, YPeer(held.ws_url, api.workflow_id).connected() as peer:
        (held.data / "fail-commit").touch()
        await peer.add_image("n1", "a fox")
        async with asyncio.timeout(20):
            while "append_failed" not in held.log:
                await peer.edit(lambda doc: canvas.nodes_of(doc)["n1"]["data"].update({"x": 1}))
        begun = time.monotonic()
        assert await held.terminate() == 1
        assert time.monotonic() - begun < STOP_S + 12
    lost = [line for line in held.log.splitlines() if '"edits_lost"' in line]
    assert len(lost) == 1
    assert api.workflow_id in lost[0]
    (held.data / "fail-commit").unlink()
    await held.start()
    async with peer.connected():
        async with canvas_api(held.url) as other:
            assert other.workflow_id != api.workflow_id
        await peer.until(lambda: peer.data("n1"))
    assert "n1" in [node["id"] for node in (await read(held, api.workflow_id))]


async def read(held: ServerProcess, workflow_id: str) -> list[dict[str, str]]:
    """The nodes of a workflow, by HTTP."""
    async with canvas_api(held.url) as api:
        reply = await api.client.get(f"/api/workflows/{workflow_id}")
        return list(reply.json()["nodes"])
