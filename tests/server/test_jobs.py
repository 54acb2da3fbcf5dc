import pytest

from tests.server.api import Api, fields, node


def start(workflow_id: str, node_id: str, prompt: str = "a fox") -> dict[str, object]:
    return {"workflowId": workflow_id, "nodeId": node_id, "promptSpec": {"basePrompt": prompt}}


async def test_a_job_is_accepted_and_read_to_its_end(api: Api) -> None:
    workflow_id = await api.workflow(node("n"))
    body = start(workflow_id, "n") | {"provider": "demo", "model": "darkroom-1", "metadata": {"ticket": 7}}
    reply = await api.post("/api/images/generate", body)
    accepted = reply.json()
    assert reply.status_code == 202
    assert accepted == {"jobId": accepted["jobId"], "status": "pending", "nodeId": "n", "workflowId": workflow_id}
    assert reply.headers["location"] == f"/api/images/jobs/{accepted['jobId']}"
    job = await api.finished(accepted["jobId"])
    assert job["status"] == "completed"
    assert job["metadata"] == {"ticket": 7}
    assert job["model"] == "darkroom-1"


async def test_a_batch_is_accepted_whole(api: Api) -> None:
    workflow_id = await api.workflow(*(node(f"n{number}") for number in range(5)))
    requests = [start(workflow_id, f"n{number}") for number in range(5)]
    reply = await api.post("/api/images/generate", {"requests": requests})
    batch = reply.json()
    assert reply.status_code == 202
    assert [job["nodeId"] for job in batch["jobs"]] == [f"n{number}" for number in range(5)]
    for job in batch["jobs"]:
        done = await api.finished(job["jobId"])
        assert (done["status"], done["batchId"]) == ("completed", batch["batchId"])


async def test_a_batch_with_a_key_is_made_once(api: Api) -> None:
    workflow_id = await api.workflow(node("a"), node("b"))
    body = {"requests": [start(workflow_id, "a"), start(workflow_id, "b")]}
    first = await api.post("/api/images/generate", body, idempotency_key="batch-1")
    again = await api.post("/api/images/generate", body, idempotency_key="batch-1")
    assert [j["jobId"] for j in again.json()["jobs"]] == [j["jobId"] for j in first.json()["jobs"]]
    assert again.json()["batchId"] == first.json()["batchId"]


@pytest.mark.parametrize(
    ("second", "status", "field"),
    [
        ({"nodeId": "b", "promptSpec": {}}, 422, "requests.1.promptSpec.basePrompt"),
        ({"nodeId": "b", "promptSpec": {"size": "big", "basePrompt": "x"}}, 422, "requests.1.promptSpec.size"),
        ({"nodeId": "b", "provider": "none", "promptSpec": {"basePrompt": "x"}}, 422, "requests.1.provider"),
        ({"nodeId": "none", "promptSpec": {"basePrompt": "x"}}, 404, "requests.1.nodeId"),
        ({"nodeId": "a", "promptSpec": {"basePrompt": "x"}}, 422, "requests.1.nodeId"),
        ({"nodeId": 5}, 422, "requests.1.nodeId"),
        ({"nodeId": "b", "colour": 1}, 422, "requests.1.colour"),
    ],
)
async def test_a_batch_with_one_mistake_starts_nothing(
    api: Api, second: dict[str, object], status: int, field: str
) -> None:
    workflow_id = await api.workflow(node("a"), node("b"))
    body = {"requests": [start(workflow_id, "a"), {"workflowId": workflow_id, **second}]}
    reply = await api.post("/api/images/generate", body)
    assert (reply.status_code, fields(reply)) == (status, [field])
    assert (await api.get(f"/api/workflows/{workflow_id}/nodes/a/runs")).json() == {"runs": []}


@pytest.mark.parametrize("count", [0, 1001])
async def test_a_batch_has_1_to_1000_requests(api: Api, count: int) -> None:
    reply = await api.post("/api/images/generate", {"requests": [start("w", "n")] * count})
    assert (reply.status_code, fields(reply)) == (422, ["requests"])


@pytest.mark.parametrize(
    ("body", "missing"),
    [
        ({}, ["nodeId", "workflowId"]),
        ({"workflowId": "w"}, ["nodeId"]),
        ({"workflowId": "w", "nodeId": "n", "spec": {}}, ["spec"]),
    ],
)
async def test_a_request_says_where_the_picture_belongs(api: Api, body: object, missing: list[str]) -> None:
    reply = await api.post("/api/images/generate", body)
    assert (reply.status_code, sorted(fields(reply))) == (422, missing)


@pytest.mark.parametrize("job_id", ["none", "%00", "x" * 80, "%F0%9F%A6%8A"])
async def test_an_unknown_job_is_not_found(api: Api, job_id: str) -> None:
    for reply in (
        await api.get(f"/api/images/jobs/{job_id}"),
        await api.get(f"/api/images/jobs/{job_id}/events"),
        await api.post(f"/api/images/jobs/{job_id}/cancel"),
        await api.post(f"/api/images/jobs/{job_id}/retry"),
    ):
        assert (reply.status_code, fields(reply)) == (404, ["jobId"])
