import asyncio
from pathlib import Path

import pytest

from server.settings import Settings, read_settings
from tests.server.api import Api, fields, node
from tests.server.conftest import running


@pytest.fixture
def slow(tmp_path: Path) -> Settings:
    """Settings of a server whose demo takes so long that runs stay active."""
    return read_settings(data=tmp_path / "slow", demo_delay_s=600)


async def test_a_run_is_made_from_the_nodes_own_data_and_completes(api: Api) -> None:
    data = {"prompt": "a fox", "negativePrompt": "dogs", "params": {"size": "512x512", "seed": 7}}
    workflow_id = await api.workflow(node("n", **data))
    job = await api.run(workflow_id, "n", {"by": {"id": "u1", "name": "Ada"}})
    assert (job["status"], job["after"], job["provider"]) == ("pending", None, "demo")
    assert job["promptSpec"] == {"basePrompt": "a fox", "negativePrompt": "dogs", "size": "512x512", "seed": 7}
    assert job["requestedBy"] == {"id": "u1", "name": "Ada"}
    done = await api.finished(job["jobId"])
    assert done["status"] == "completed"
    assert done["images"][0] | {"url": "", "thumbnailUrl": ""} == {
        "url": "",
        "thumbnailUrl": "",
        "width": 512,
        "height": 512,
        "seed": 7,
    }
    assert done["imageUrl"] == done["images"][0]["url"]
    assert done["startedAt"] <= done["finishedAt"]


async def test_the_node_shows_what_its_run_made(api: Api) -> None:
    workflow_id, node_id = await api.canvas()
    job = await api.finished((await api.run(workflow_id, node_id))["jobId"])
    data = (await api.flow(workflow_id))["nodes"][0]["data"]
    assert (data["status"], data["runId"], data["imageUrl"]) == ("completed", job["jobId"], job["imageUrl"])


async def test_the_body_wins_over_the_node(api: Api) -> None:
    workflow_id = await api.workflow(node("n", prompt="a fox", params={"size": "512x512", "quality": "high"}))
    body = {"promptSpec": {"basePrompt": "an owl", "aspectRatio": "16:9", "quality": None}}
    job = await api.run(workflow_id, "n", body)
    assert job["promptSpec"] == {"basePrompt": "an owl", "aspectRatio": "16:9"}


async def test_two_people_who_regenerate_at_once_get_one_run(api: Api, slow: Settings, tmp_path: Path) -> None:
    del api
    async with running(slow, tmp_path) as api:
        workflow_id, node_id = await api.canvas()
        path = f"/api/workflows/{workflow_id}/nodes/{node_id}/runs"
        first, second = await asyncio.gather(api.post(path, {"after": None}), api.post(path, {"after": None}))
        assert sorted([first.status_code, second.status_code]) == [200, 201]
        assert first.json()["jobId"] == second.json()["jobId"]


async def test_a_request_that_saw_an_older_run_is_stale(api: Api) -> None:
    workflow_id, node_id = await api.canvas()
    path = f"/api/workflows/{workflow_id}/nodes/{node_id}/runs"
    first = await api.finished((await api.run(workflow_id, node_id))["jobId"])
    second = await api.finished((await api.run(workflow_id, node_id, {"after": first["jobId"]}))["jobId"])
    stale = await api.post(path, {"after": "somewhere-else"})
    assert (stale.status_code, fields(stale)) == (409, ["after"])
    assert stale.json()["type"].endswith("/stale-request")
    assert stale.json()["current"] == second
    history = (await api.get(path)).json()["runs"]
    assert [run["jobId"] for run in history] == [second["jobId"], first["jobId"]]
    assert (await api.get(f"{path}?limit=1")).json()["runs"] == [second]


async def test_a_node_at_work_takes_no_second_run_until_it_is_cancelled(slow: Settings, tmp_path: Path) -> None:
    async with running(slow, tmp_path) as api:
        workflow_id, node_id = await api.canvas()
        path = f"/api/workflows/{workflow_id}/nodes/{node_id}/runs"
        job = await api.run(workflow_id, node_id)
        busy = await api.post(path)
        assert (busy.status_code, fields(busy)) == (409, ["nodeId"])
        assert busy.json()["type"].endswith("/run-active")
        assert busy.json()["current"]["jobId"] == job["jobId"]
        assert (await api.post(f"/api/images/jobs/{job['jobId']}/retry")).status_code == 409
        for _ in range(2):
            cancelled = await api.post(f"/api/images/jobs/{job['jobId']}/cancel", {"by": {"name": "Ada"}})
            assert (cancelled.status_code, cancelled.json()["status"]) == (200, "cancelled")
        assert (await api.post(path)).status_code == 201


async def test_a_retry_asks_for_the_same_and_follows_its_parent(api: Api) -> None:
    workflow_id = await api.workflow(node("n", prompt="a fox", params={"size": "512x512"}))
    first = await api.finished((await api.run(workflow_id, "n", {"metadata": {"k": [1]}}))["jobId"])
    await api.patch(
        f"/api/workflows/{workflow_id}/nodes/n", {"data": {"prompt": "an owl", "params": {"quality": "low"}}}
    )
    reply = await api.post(f"/api/images/jobs/{first['jobId']}/retry")
    again = reply.json()
    assert reply.status_code == 201
    assert (again["after"], again["parentId"]) == (first["jobId"], first["jobId"])
    assert (again["promptSpec"], again["metadata"]) == (first["promptSpec"], {"k": [1]})
    twice = await api.post(f"/api/images/jobs/{first['jobId']}/retry")
    assert (twice.status_code, twice.json()["jobId"]) == (200, again["jobId"])


@pytest.mark.parametrize(
    ("data", "body", "status", "field"),
    [
        ({}, {}, 422, "promptSpec.basePrompt"),
        ({"prompt": "  "}, {}, 422, "promptSpec.basePrompt"),
        ({"prompt": "x"}, {"promptSpec": {"basePrompt": None}}, 422, "promptSpec.basePrompt"),
        ({"prompt": "x"}, {"promptSpec": {"basePrompt": 5}}, 422, "promptSpec.basePrompt"),
        ({"prompt": "x"}, {"promptSpec": {"style": "y"}}, 422, "promptSpec.style"),
        ({"prompt": "x"}, {"promptSpec": {"size": "large"}}, 422, "promptSpec.size"),
        ({"prompt": "x"}, {"promptSpec": {"size": "1x1"}}, 422, "promptSpec.size"),
        ({"prompt": "x"}, {"promptSpec": {"n": 99}}, 422, "promptSpec.n"),
        ({"prompt": "x"}, {"promptSpec": {"seed": 1.5}}, 422, "promptSpec.seed"),
        ({"prompt": "x"}, {"promptSpec": "y"}, 422, "promptSpec"),
        ({"prompt": "x", "params": {"size": "large"}}, {}, 422, "data.params.size"),
        ({"prompt": "x", "params": {"size": "1x1"}}, {}, 422, "data.params.size"),
        ({"prompt": "x", "provider": "none"}, {}, 422, "data.provider"),
        ({"prompt": "x", "model": "none"}, {}, 422, "data.model"),
        ({"prompt": "x"}, {"provider": "none"}, 422, "provider"),
        ({"prompt": "x"}, {"model": "none"}, 422, "model"),
        ({"prompt": "x"}, {"provider": "demo", "model": "none"}, 422, "model"),
        ({"prompt": "x"}, {"prompt": "y"}, 422, "prompt"),
        ({"prompt": "x"}, {"by": {"name": 5}}, 422, "by.name"),
        ({"prompt": "x"}, {"webhookUrl": "ftp://x"}, 422, "webhookUrl"),
        ({"prompt": "x"}, {"after": "none"}, 409, "after"),
    ],
)
async def test_a_run_that_cannot_be_made_names_the_field_and_leaves_no_trace(
    api: Api, data: dict[str, object], body: object, status: int, field: str
) -> None:
    workflow_id = await api.workflow(node("n", **data))
    path = f"/api/workflows/{workflow_id}/nodes/n/runs"
    reply = await api.post(path, body)
    assert (reply.status_code, fields(reply)) == (status, [field])
    assert (await api.get(path)).json() == {"runs": []}


async def test_an_unknown_provider_is_answered_with_the_configured_ones(api: Api) -> None:
    workflow_id, node_id = await api.canvas()
    reply = await api.post(f"/api/workflows/{workflow_id}/nodes/{node_id}/runs", {"provider": "openai"})
    assert "Configured: demo" in reply.json()["detail"]


async def test_unknown_places_are_not_found(api: Api) -> None:
    workflow_id = await api.workflow()
    no_node = await api.post(f"/api/workflows/{workflow_id}/nodes/none/runs")
    assert (no_node.status_code, fields(no_node)) == (404, ["nodeId"])
    no_workflow = await api.post("/api/workflows/none/nodes/n/runs")
    assert (no_workflow.status_code, fields(no_workflow)) == (404, ["workflowId"])
    assert (await api.get("/api/workflows/none/nodes/n/runs")).status_code == 404


async def test_an_idempotency_key_makes_twice_once_even_after_the_end(api: Api) -> None:
    workflow_id, node_id = await api.canvas()
    path = f"/api/workflows/{workflow_id}/nodes/{node_id}/runs"
    first = await api.run(workflow_id, node_id, idempotency_key="k1")
    await api.finished(first["jobId"])
    again = await api.post(path, idempotency_key="k1")
    assert (again.status_code, again.json()["jobId"]) == (200, first["jobId"])
    other = await api.post(path, {"promptSpec": {"basePrompt": "an owl"}}, idempotency_key="k1")
    assert (other.status_code, fields(other)) == (422, ["Idempotency-Key"])
    bad = await api.post(path, idempotency_key="a b")
    assert (bad.status_code, fields(bad)) == (422, ["Idempotency-Key"])
