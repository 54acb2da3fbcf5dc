import re
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import sqlalchemy as sa
from pycrdt import Map
from pydantic import SecretStr

from crdt import canvas
from jobs.tables import workers
from server.parts import CountedStore, Parts
from server.settings import Settings
from server.web_role import OLDEST_EDIT_S
from tests.server.api import Api, node
from tests.server.conftest import running
from tests.support.redis import RedisServer
from tests.support.waiting import eventually


async def test_a_working_server_is_alive_and_ready(api: Api) -> None:
    assert (await api.get("/health")).json()["status"] == "ok"
    ready = await api.get("/readyz")
    assert (ready.status_code, ready.json()["checks"]) == (
        200,
        {"database": "ok", "images": "ok", "worker": "ok", "edits": "ok"},
    )


async def test_a_lost_folder_a_dead_worker_and_a_stop_are_told(api: Api) -> None:
    api.services.images_folder.rmdir()
    async with api.services.engine.begin() as connection:
        await connection.execute(sa.delete(workers))
    api.services.stop()
    reply = await api.get("/readyz")
    assert reply.status_code == 503
    assert reply.json()["checks"] == {
        "database": "ok",
        "images": "cannot be written",
        "worker": "does not answer",
        "edits": "ok",
        "server": "stopping",
    }
    api.services.images_folder.mkdir()


class Failing(CountedStore):
    """A log that refuses edits while the rest of the database answers."""

    refuses = False

    async def append(self, updates: Mapping[str, Sequence[bytes]]) -> dict[str, int]:
        if self.refuses:
            raise OSError("no space left on device")
        return await super().append(updates)


async def test_edits_that_are_not_stored_are_told_until_they_are(settings: Settings, tmp_path: Path) -> None:
    async with running(settings, tmp_path, Parts(documents=Failing)) as api:
        workflow_id, _ = await api.canvas()
        rooms = api.services.rooms
        store = rooms._store
        assert isinstance(store, Failing)
        store.refuses = True
        async with rooms.use(workflow_id) as room:
            with room.transact() as doc:
                canvas.nodes_of(doc)["n2"] = Map({"data": Map()})
            while not rooms.journal.failing:
                assert (await api.get("/readyz")).status_code == 200
            rooms.journal._writing_at -= OLDEST_EDIT_S
            reply = await api.get("/readyz")
            assert reply.status_code == 503
            assert reply.json()["checks"]["edits"] == "not stored for 5 s: the database refuses them"
            text = (await api.get("/metrics")).text
            assert float(re.findall(r"^darkroom_edits_pending_seconds (\S+)$", text, re.MULTILINE)[0]) >= OLDEST_EDIT_S
            store.refuses = False
            await rooms.flush(workflow_id)
            assert (await api.get("/readyz")).status_code == 200


async def test_metrics_tell_how_rooms_keep_up_and_name_few_of_them(api: Api) -> None:
    ids = [await api.workflow(*[node(f"n{index}") for index in range(size)]) for size in range(8)]
    async with AsyncExitStack() as stack:
        for workflow_id in ids:
            room = await stack.enter_async_context(api.services.rooms.use(workflow_id))
            with room.transact() as doc:
                canvas.nodes_of(doc)["more"] = Map({"data": Map()})
            room.flush()
        text = (await api.get("/metrics")).text
    named = re.findall(r'^darkroom_document_bytes{room="(\S+)"} (\S+)$', text, re.MULTILINE)
    assert [room for room, _ in named] == ids[:-6:-1]
    total = float(re.findall(r"^darkroom_documents_bytes (\S+)$", text, re.MULTILINE)[0])
    assert total > sum(float(size) for _, size in named)
    turns = re.findall(r'^darkroom_fanout_seconds_bucket{le="\+Inf"} (\S+)$', text, re.MULTILINE)
    assert float(turns[0]) >= len(ids)
    for name in ("connections", "queued_bytes", "slow_readers", "resyncs_total", "rate_limited_total"):
        assert f"\ndarkroom_{name} 0.0" in text


async def test_metrics_count_requests_runs_and_rooms(api: Api) -> None:
    workflow_id, node_id = await api.canvas()
    await api.finished((await api.run(workflow_id, node_id))["jobId"])
    await api.get("/api/workflows/none")
    reply = await api.get("/metrics")
    assert reply.headers["content-type"].startswith("text/plain")
    numbers = dict(re.findall(r"^(\S+) (\S+)$", reply.text, re.MULTILINE))
    route = 'route="/api/workflows/{workflow_id}"'
    assert float(numbers[f'darkroom_http_requests_total{{method="GET",{route},status="404"}}']) == 1
    assert float(numbers['darkroom_runs_requested_total{provider="demo"}']) == 1
    assert float(numbers["darkroom_rooms_open"]) == 1
    assert float(numbers['darkroom_runs_unfinished{status="running"}']) == 0
    assert float(numbers["darkroom_document_updates_total"]) >= 1


async def test_metrics_have_no_address_in_them(api: Api) -> None:
    await api.get("/secret-address/with/parts")
    assert "secret-address" not in (await api.get("/metrics")).text


async def test_providers_are_listed_with_the_default(api: Api) -> None:
    reply = (await api.get("/api/providers")).json()
    assert reply["default"] == {"provider": "demo", "model": "darkroom-1"}
    assert [(p["name"], p["demo"]) for p in reply["providers"]] == [("demo", True)]
    assert reply["providers"][0]["models"][0]["defaultSize"]


async def test_the_api_describes_itself(api: Api) -> None:
    document = (await api.get("/openapi.json")).json()
    assert "/api/images/generate" in document["paths"]
    assert document["servers"] == [{"url": "http://127.0.0.1:8000"}]


async def test_without_redis_people_go_on_and_it_is_told(
    settings: Settings, tmp_path: Path, own_redis: RedisServer
) -> None:
    with_redis = settings.model_copy(update={"redis_url": SecretStr(own_redis.url)})
    async with running(with_redis, tmp_path) as api:
        assert (await api.get("/readyz")).json()["checks"]["redis"] == "ok"
        own_redis.kill()
        await eventually(lambda: not api.services.rooms._bus.up)
        reply = await api.get("/readyz")
        assert (reply.status_code, reply.json()["status"]) == (200, "degraded")
        assert reply.json()["checks"]["redis"].startswith("does not answer")
        workflow_id, _ = await api.canvas()
        assert (await api.flow(workflow_id))["nodes"]
