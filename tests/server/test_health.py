import re

import sqlalchemy as sa

from jobs.tables import workers
from tests.server.api import Api


async def test_a_working_server_is_alive_and_ready(api: Api) -> None:
    assert (await api.get("/health")).json()["status"] == "ok"
    ready = await api.get("/readyz")
    assert (ready.status_code, ready.json()["checks"]) == (200, {"database": "ok", "images": "ok", "worker": "ok"})


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
        "server": "stopping",
    }
    api.services.images_folder.mkdir()


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
