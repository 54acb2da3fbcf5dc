"""Many jobs at once, by HTTP."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from server.settings import read_settings
from tests.server.api import Api, fields, node
from tests.server.conftest import running
from tests.server.tokens import SECRET, bearer, token


@pytest.fixture
async def slow(tmp_path: Path) -> AsyncIterator[Api]:
    """A server whose runs stay active until they are cancelled."""
    async with running(read_settings(data=tmp_path / "slow", demo_delay_s=600), tmp_path) as api:
        yield api
        await api.post("/api/images/jobs/cancel", {})


async def batch(api: Api, *names: str, key: str | None = None, **options: object) -> dict[str, Any]:
    workflow_id = await api.workflow(*(node(name, prompt="a fox") for name in names))
    small = {"promptSpec": {"size": "64x64"}}
    requests = [{"workflowId": workflow_id, "nodeId": name, **small, **options} for name in names]
    headers = {} if key is None else {"idempotency_key": key}
    reply = await api.post("/api/images/generate", {"requests": requests}, **headers)
    assert reply.status_code == 202, reply.text
    return dict(reply.json()) | {"workflowId": workflow_id, "requests": requests}


async def test_a_batch_tells_how_far_it_is(api: Api) -> None:
    made = await batch(api, "a", "b")
    for job in made["jobs"]:
        await api.finished(job["jobId"])
    told = (await api.get(f"/api/images/batches/{made['batchId']}")).json()
    counts = {name: told[name] for name in ("total", "pending", "running", "completed", "failed", "cancelled")}
    assert counts == {"total": 2, "pending": 0, "running": 0, "completed": 2, "failed": 0, "cancelled": 0}
    assert (told["costUsd"], {job["nodeId"] for job in told["jobs"]}) == (0, {"a", "b"})
    assert all(job["imageUrl"] and job["status"] == "completed" for job in told["jobs"])


async def test_a_batch_is_cancelled_and_nothing_else(slow: Api) -> None:
    made, other = await batch(slow, "a", "b", "c"), await batch(slow, "a")
    reply = await slow.post(f"/api/images/batches/{made['batchId']}/cancel", {"by": {"name": "Ada"}})
    told = reply.json()
    assert (told["cancelled"], told["remaining"], len(told["jobs"])) == (3, 0, 3)
    assert (await slow.get(f"/api/images/batches/{made['batchId']}")).json()["cancelled"] == 3
    assert (await slow.get(f"/api/images/batches/{other['batchId']}")).json()["cancelled"] == 0
    for name in "abc":
        job = (await slow.get(f"/api/workflows/{made['workflowId']}/nodes/{name}")).json()
        assert job["data"]["status"] == "cancelled"


async def test_the_same_key_with_another_batch_is_422(slow: Api) -> None:
    made = await batch(slow, "a", "b", key="k1")
    shorter = await slow.post("/api/images/generate", {"requests": made["requests"][:1]}, idempotency_key="k1")
    single = await slow.post("/api/images/generate", made["requests"][0], idempotency_key="k1")
    assert (shorter.status_code, fields(shorter)) == (422, ["requests.0.Idempotency-Key"])
    assert (single.status_code, fields(single)) == (422, ["Idempotency-Key"])
    same = await slow.post("/api/images/generate", {"requests": made["requests"]}, idempotency_key="k1")
    assert same.json()["jobs"] == made["jobs"] or [job["jobId"] for job in same.json()["jobs"]] == [
        job["jobId"] for job in made["jobs"]
    ]


async def test_a_batch_that_meets_an_active_node_starts_nothing(slow: Api) -> None:
    workflow_id = await slow.workflow(node("a", prompt="x"), node("b", prompt="x"))
    busy = await slow.run(workflow_id, "b")
    requests = [{"workflowId": workflow_id, "nodeId": name} for name in "ab"]
    reply = await slow.post("/api/images/generate", {"requests": requests})
    assert (reply.status_code, fields(reply)) == (409, ["requests.1.nodeId"])
    assert reply.json()["current"]["jobId"] == busy["jobId"]
    assert (await slow.get(f"/api/images/jobs?workflowId={workflow_id}&nodeId=a")).json()["jobs"] == []


@pytest.mark.parametrize(
    ("body", "ended"),
    [
        ({"workflowId": "{one}"}, {"one.a", "one.b"}),
        ({"workflowId": "{one}", "nodeId": "a"}, {"one.a"}),
        ({"user": "ada"}, {"one.a", "one.b"}),
        ({"user": "ada", "workflowId": "{two}"}, set()),
        ({"provider": "demo"}, {"one.a", "one.b", "two.a"}),
        ({"provider": "openai"}, set()),
        ({}, {"one.a", "one.b", "two.a"}),
    ],
)
async def test_jobs_are_cancelled_by_what_they_have_in_common(slow: Api, body: dict[str, str], ended: set[str]) -> None:
    one = await batch(slow, "a", "b", by={"id": "ada"})
    two = await batch(slow, "a", by={"id": "bob"})
    names = {"{one}": one["workflowId"], "{two}": two["workflowId"]}
    said = {key: names.get(value, value) for key, value in body.items()}
    reply = await slow.post("/api/images/jobs/cancel", said)
    assert (reply.status_code, reply.json()["cancelled"]) == (200, len(ended))
    listed = (await slow.get("/api/images/jobs?status=cancelled")).json()["jobs"]
    places = {one["workflowId"]: "one", two["workflowId"]: "two"}
    assert {f"{places[job['workflowId']]}.{job['nodeId']}" for job in listed} == ended


async def test_the_list_goes_on_where_a_page_ended(slow: Api) -> None:
    made = await batch(slow, "a", "b", "c")
    await slow.post("/api/images/jobs/cancel", {})
    path = f"/api/images/jobs?workflowId={made['workflowId']}&limit=2"
    first = (await slow.get(path)).json()
    second = (await slow.get(f"{path}&cursor={first['next']}")).json()
    assert (len(first["jobs"]), len(second["jobs"]), "next" in second) == (2, 1, False)
    assert {job["jobId"] for job in first["jobs"] + second["jobs"]} == {job["jobId"] for job in made["jobs"]}
    for wrong in ("cursor=x", "limit=0", "status=none", "colour=red"):
        reply = await slow.get(f"/api/images/jobs?{wrong}")
        assert (reply.status_code, fields(reply)) == (422, [wrong.partition("=")[0]])


async def test_what_is_not_there_is_not_found(slow: Api) -> None:
    for reply in (
        await slow.get("/api/images/batches/none"),
        await slow.get("/api/images/batches/%00"),
        await slow.post("/api/images/batches/none/cancel"),
        await slow.post("/api/images/jobs/cancel", {"batchId": "none"}),
    ):
        assert (reply.status_code, fields(reply)) == (404, ["batchId"])
    reply = await slow.post("/api/images/jobs/cancel", {"nodeId": "a"})
    assert reply.status_code == 422


async def test_nobody_cancels_or_lists_beyond_their_reach(tmp_path: Path) -> None:
    settings = read_settings(data=tmp_path / "data", demo_delay_s=600, secret=SECRET)
    async with running(settings, tmp_path) as api:
        api.client.headers.update(bearer(token("admin", sub="boss")))
        mine, other = await batch(api, "a"), await batch(api, "b")
        api.client.headers.update(bearer(token("editor", [mine["workflowId"]], sub="ada")))
        for body in ({}, {"provider": "demo"}, {"user": "boss"}, {"workflowId": other["workflowId"]},
                     {"batchId": other["batchId"]}):  # fmt: skip
            assert (await api.post("/api/images/jobs/cancel", body)).status_code == 403
        assert (await api.get(f"/api/images/batches/{other['batchId']}")).status_code == 403
        assert (await api.post(f"/api/images/batches/{other['batchId']}/cancel")).status_code == 403
        assert (await api.get(f"/api/images/jobs?workflowId={other['workflowId']}")).status_code == 403
        assert [job["nodeId"] for job in (await api.get("/api/images/jobs")).json()["jobs"]] == ["a"]
        assert (await api.post("/api/images/jobs/cancel", {"user": "ada"})).json()["cancelled"] == 0
        cancel = {"workflowId": mine["workflowId"]}
        assert (await api.post("/api/images/jobs/cancel", cancel)).json()["cancelled"] == 1
        api.client.headers.update(bearer(token("admin", sub="boss")))
        assert (await api.post("/api/images/jobs/cancel", {})).json()["cancelled"] == 1
