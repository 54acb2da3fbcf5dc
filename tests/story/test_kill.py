"""kill -9 in each stage of a run: after the restart it ends as if nothing had happened."""

import asyncio
import http.server
import threading
from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from crdt.database import create_engine
from crdt.rows import NodeRow
from jobs.runs import RunRequest, Runs
from jobs.tables import generated_images, runs
from providers.base import PromptSpec
from tests.support.api import Api, canvas_api
from tests.support.held_server import picture
from tests.support.node import NodePeer, NodePeers
from tests.support.server import ServerFactory, ServerProcess


class SlowPictures:
    """A site with one picture that can be held back."""

    def __init__(self) -> None:
        self.asked = threading.Event()
        self.open = threading.Event()
        site = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                site.asked.set()
                site.open.wait(30)
                try:
                    self.send_response(200)
                    self.send_header("Content-Type", "image/png")
                    self.end_headers()
                    self.wfile.write(picture())
                except OSError:
                    pass  # Whoever asked was killed.

            def log_message(self, *_arguments: object) -> None:
                """Say nothing."""

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/picture.png"


@pytest.fixture
def slow_pictures() -> Iterator[SlowPictures]:
    site = SlowPictures()
    thread = threading.Thread(target=site.server.serve_forever)
    thread.start()
    yield site
    site.open.set()
    site.server.shutdown()
    thread.join()
    site.server.server_close()


@pytest.fixture
def held(start_server: ServerFactory, slow_pictures: SlowPictures) -> ServerProcess:
    return start_server.held(env={"HELD_PICTURE_URL": slow_pictures.url, "DARKROOM_FETCH_ALLOW": "127.0.0.1"})


async def ended_well(server: ServerProcess, api: Api, watcher: NodePeer, job: str) -> None:
    """The run is completed, once, and the page that stayed open shows it without a reload."""
    assert (await api.ended(job))["status"] == "completed"
    record = await api.job(job)
    await watcher.wait("nodes", "n1", "data", "status", equals="completed", timeout_s=20)
    await watcher.wait("nodes", "n1", "data", "imageUrl", equals=record["imageUrl"])
    await watcher.wait("server", absent=True)
    events = await api.events(job)
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    kinds = [event["kind"] for event in events]
    assert kinds[0] == "requested"
    assert kinds[-1] == "completed"
    assert kinds.count("completed") == 1
    assert await server.count(generated_images) == 1
    assert [row.status for row in await server.rows(sa.select(runs.c.status))] == ["completed"]
    assert (await api.client.get(record["imageUrl"])).status_code == 200
    assert (await api.client.get(record["thumbnailUrl"])).status_code == 200


@pytest.mark.parametrize(
    ("point", "model", "billed"), [("generating", "bytes", 2), ("accepted", "later", 1), ("uploading", "bytes", 2)]
)
async def test_killed_while_a_run_is_at_work(
    held: ServerProcess, node_peer: NodePeers, point: str, model: str, billed: int
) -> None:
    await held.start()
    gate = held.data / f"hold-{point}"
    gate.touch()
    async with canvas_api(held.url) as api:
        watcher = await node_peer(held.ws_url, api.workflow_id)
        await api.add_node(id="n1", type="image", data={"prompt": "a fox"})
        job = (await api.generate("n1", provider="held", model=model)).json()["jobId"]
        await held.held_at(point)
        await held.kill()
        gate.unlink()
        await held.start()
        await ended_well(held, api, watcher, job)
    # One more call than without the kill, at most: the answer of a maker that has no ids died with the process.
    assert len((held.data / "billed").read_text().split()) == billed


async def test_killed_while_downloading(held: ServerProcess, node_peer: NodePeers, slow_pictures: SlowPictures) -> None:
    await held.start()
    async with canvas_api(held.url) as api:
        watcher = await node_peer(held.ws_url, api.workflow_id)
        await api.add_node(id="n1", type="image", data={"prompt": "a fox"})
        job = (await api.generate("n1", provider="held", model="url")).json()["jobId"]
        assert await asyncio.to_thread(slow_pictures.asked.wait, 20)
        await held.kill()
        slow_pictures.open.set()
        await held.start()
        await ended_well(held, api, watcher, job)


async def test_killed_between_the_row_and_the_queue(held: ServerProcess, node_peer: NodePeers) -> None:
    await held.start()
    async with canvas_api(held.url) as api:
        watcher = await node_peer(held.ws_url, api.workflow_id)
        await api.add_node(id="n1", type="image", data={"prompt": "a fox"})
        await held.kill()
        engine = create_engine(held.database_url)
        accepted = await Runs(engine, hint=lambda _workflow, _run: None).request_run(
            RunRequest(
                workflow_id=api.workflow_id,
                node_id="n1",
                spec=PromptSpec(base_prompt="a fox"),
                provider="held",
                model="bytes",
                after=None,
                node=NodeRow("n1", "image", {}, {"x": 0, "y": 0}),
            )
        )
        await engine.dispose()
        await held.start()
        await ended_well(held, api, watcher, accepted.run.id)


async def test_killed_between_commit_and_projection(held: ServerProcess, node_peer: NodePeers) -> None:
    """The run is completed in SQL while the document's log never learned of it."""
    await held.start()
    async with canvas_api(held.url) as api:
        watcher = await node_peer(held.ws_url, api.workflow_id)
        await api.add_node(id="n1", type="image", data={"prompt": "a fox"})
        (held.data / "hold-commit").touch()
        job = (await api.generate("n1", provider="held", model="bytes")).json()["jobId"]
        assert (await api.ended(job))["status"] == "completed"
        await watcher.disconnect()
        await held.kill()
        (held.data / "hold-commit").unlink()
        await held.start()
        fresh = await node_peer(held.ws_url, api.workflow_id)
        await ended_well(held, api, fresh, job)
        await watcher.connect()
        await watcher.wait("nodes", "n1", "data", "status", equals="completed")
