"""Two web processes and two workers: what happens in one is seen in the others, and nothing happens twice."""

import time
from collections.abc import Iterator

import httpx2
import pytest

from tests.support.api import canvas_api
from tests.support.fleet import Fleet
from tests.support.node import NodePeers
from tests.support.postgres import PostgresServer
from tests.support.redis import RedisServer
from tests.support.server import ServerFactory


@pytest.fixture(scope="module")
def fleet(
    tmp_path_factory: pytest.TempPathFactory, postgres_server: PostgresServer, redis_server: RedisServer
) -> Iterator[Fleet]:
    """Two web processes and two workers that the tests of this module share."""
    folder = tmp_path_factory.mktemp("fleet")
    factory = ServerFactory(folder)
    redis_server.flush()
    fleet = Fleet(factory, folder, postgres_server.url(postgres_server.create()), redis_server.url)
    try:
        fleet.start_now("web", "web", "worker", "worker")
        yield fleet
    finally:
        factory.stop_all()


async def test_a_run_asked_for_at_one_web_process_develops_at_the_other(fleet: Fleet, node_peer: NodePeers) -> None:
    one, two = fleet.webs
    async with canvas_api(one.url) as api, canvas_api(two.url, api.workflow_id) as other:
        await api.add_node(id="n1", type="image", data={"prompt": "a fox in the snow"})
        stock = await node_peer(two.ws_url, api.workflow_id)
        await stock.wait("nodes", "n1", "data", "prompt", equals="a fox in the snow")
        started = time.monotonic()
        job = (await api.generate("n1", after=None)).json()["jobId"]
        record = await other.ended(job)
        await stock.wait("nodes", "n1", "data", "status", equals="completed")
        took = time.monotonic() - started
        assert await stock.wait("nodes", "n1", "data", "imageUrl") == record["imageUrl"]
        assert (await other.client.get(record["imageUrl"])).status_code == 200
        assert took < 2, f"{took:.2f} s: over the database, not over the bus"


async def test_people_at_different_web_processes_see_each_others_cursors(fleet: Fleet, node_peer: NodePeers) -> None:
    one, two = fleet.webs
    async with canvas_api(one.url) as api:
        here, there = await node_peer(one.ws_url, api.workflow_id), await node_peer(two.ws_url, api.workflow_id)
        await here.set_awareness({"user": {"name": "Ada"}})
        ada = str((await here.get("status"))["clientId"])
        await there.wait("awareness", ada, "user", "name", equals="Ada", timeout_s=2)
        late = await node_peer(two.ws_url, api.workflow_id)
        await late.wait("awareness", ada, "user", "name", equals="Ada", timeout_s=2)
        await here.disconnect()
        await there.wait("awareness", ada, absent=True, timeout_s=2)


async def test_a_worker_serves_nothing_but_how_it_is(fleet: Fleet) -> None:
    async with httpx2.AsyncClient(base_url=fleet.workers[0].url) as client:
        ready = (await client.get("/readyz")).json()
        assert ready == {
            "status": "ok",
            "checks": {"database": "ok", "images": "ok", "worker": "ok", "redis": "ok"},
        }
        assert "darkroom_runs_at_work" in (await client.get("/metrics")).text
        assert (await client.get("/health")).status_code == 200
        for path in ("/", "/api/workflows", "/api/providers", "/images/x.png"):
            assert (await client.get(path)).status_code == 404
