from pathlib import Path

import pytest

from server.settings import read_settings
from tests.server.api import Api, fields
from tests.server.conftest import running


@pytest.mark.parametrize(
    ("origin", "host", "status"),
    [
        ("http://127.0.0.1:8000", "127.0.0.1:8000", 201),
        ("http://localhost:9000", "localhost:9000", 201),
        ("http://evil.example", "127.0.0.1:8000", 403),
        ("http://localhost:3000", "127.0.0.1:8000", 403),
        ("http://evil.example:8000", "evil.example:8000", 403),
        ("null", "127.0.0.1:8000", 403),
    ],
)
async def test_pages_of_other_sites_change_nothing(api: Api, origin: str, host: str, status: int) -> None:
    reply = await api.post("/api/workflows", origin=origin, host=host)
    assert reply.status_code == status
    assert "access-control-allow-origin" not in reply.headers
    if status == 403:
        assert fields(reply) == ["Origin"]
        assert (await api.get("/api/workflows")).json() == {"workflows": []}


async def test_sites_that_are_allowed_may_use_the_api(tmp_path: Path) -> None:
    site = "https://app.example"
    settings = read_settings(data=tmp_path / "data", demo_delay_s=0, cors_origins=(site,))
    async with running(settings, tmp_path) as api:
        preflight = await api.client.options(
            "/api/workflows", headers={"origin": site, "access-control-request-method": "POST"}
        )
        assert preflight.headers["access-control-allow-origin"] == site
        reply = await api.post("/api/workflows", origin=site)
        assert (reply.status_code, reply.headers["access-control-allow-origin"]) == (201, site)


async def test_answers_are_logged_once_and_questions_of_machines_quietly(
    api: Api, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    await api.get("/api/workflows?limit=1")
    await api.get("/health")
    lines = [vars(record) for record in caplog.records if vars(record).get("action") == "http_request"]
    assert [(line["method"], line["path"], line["status"]) for line in lines] == [("GET", "/api/workflows", 200)]


async def test_no_prompt_is_logged(api: Api, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    workflow_id, node_id = await api.canvas(prompt="a most private fox")
    await api.finished((await api.run(workflow_id, node_id))["jobId"])
    ours = [r for r in caplog.records if r.name.split(".")[0] in {"server", "jobs", "crdt", "providers", "darkroom"}]
    assert ours
    assert not [record for record in ours if "private fox" in str(vars(record))]
