import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from server.settings import read_settings
from tests.server.api import Api, fields, node
from tests.server.conftest import running
from tests.server.tokens import SECRET, bearer, token


@pytest.fixture
async def narrow(tmp_path: Path) -> AsyncIterator[Api]:
    """A server that makes one picture at a time, and whose queue takes four runs, three of them of one person."""
    bounds = {"run_limits": "demo=1", "max_queue": 4, "max_queue_per_person": 3}
    settings = read_settings(data=tmp_path / "data", demo_delay_s=0, **bounds)
    async with running(settings, tmp_path / "page") as api:
        yield api


def provider(queue: Any, name: str = "demo") -> Any:
    return next(one for one in queue["providers"] if one["name"] == name)


async def paused(api: Api, **scope: object) -> Any:
    reply = await api.post("/api/queue/pause", scope)
    assert reply.status_code == 200, reply.text
    return reply.json()


async def test_the_queue_says_what_there_is(api: Api) -> None:
    queue = (await api.get("/api/queue")).json()
    assert queue["paused"] == []
    assert provider(queue) == {"name": "demo", "state": "open", "waiting": 0, "running": 0, "limits": {}}


@pytest.mark.parametrize("scope", ["provider", "all", "workflowId"])
async def test_a_paused_run_stays_pending_until_it_is_resumed(api: Api, scope: str) -> None:
    workflow_id = await api.workflow(node("n", prompt="a fox"))
    named = {scope: {"provider": "demo", "all": True, "workflowId": workflow_id}[scope]}
    queue = await paused(api, **named, reason="Cleaning.")
    shown = {key: value for key, value in queue["paused"][0].items() if key != "at"}
    kept = {} if scope == "all" else named
    assert shown == {"scope": scope.removesuffix("Id"), "kind": "operator", "reason": "Cleaning.", **kept}
    job = await api.run(workflow_id, "n")
    if scope != "workflowId":
        queue = (await api.get("/api/queue")).json()
        assert (provider(queue)["state"], provider(queue)["waiting"]) == ("paused", 1)
    assert await api.services.dispatcher.look() == 0
    assert (await api.get(f"/api/images/jobs/{job['jobId']}")).json()["status"] == "pending"
    await api.post("/api/queue/resume", named)
    assert (await api.finished(job["jobId"]))["status"] == "completed"


async def test_without_tokens_a_pause_says_who_it_was_by_their_own_word(api: Api) -> None:
    queue = await paused(api, all=True, by={"id": "a", "name": "Ada"})
    assert queue["paused"][0]["by"] == "Ada"


async def test_a_pause_ends_by_itself(api: Api) -> None:
    workflow_id = await api.workflow(node("n", prompt="a fox"))
    queue = await paused(api, provider="demo", untilS=0.2)
    assert provider(queue)["pausedUntil"] == queue["paused"][0]["until"]
    job = await api.run(workflow_id, "n")
    assert (await api.finished(job["jobId"]))["status"] == "completed"
    assert (await api.get("/api/queue")).json()["paused"] == []


async def test_what_is_paused_on_one_canvas_goes_on_on_another(api: Api) -> None:
    one, other = [await api.workflow(node("n", prompt="a fox")) for _ in range(2)]
    await paused(api, workflowId=one)
    waits = await api.run(one, "n")
    goes = await api.run(other, "n")
    assert (await api.finished(goes["jobId"]))["status"] == "completed"
    assert (await api.get(f"/api/images/jobs/{waits['jobId']}")).json()["status"] == "pending"


@pytest.mark.parametrize(
    ("body", "status", "named"),
    [
        ({}, 422, [""]),
        ({"provider": "demo", "all": True}, 422, [""]),
        ({"all": False}, 422, ["all"]),
        ({"provider": "nobody"}, 422, ["provider"]),
        ({"workflowId": "nowhere"}, 404, ["workflowId"]),
        ({"all": True, "untilS": 0}, 422, ["untilS"]),
        ({"all": True, "reason": "x" * 501}, 422, ["reason"]),
    ],
)
async def test_a_pause_of_nothing_is_refused(api: Api, body: object, status: int, named: list[str]) -> None:
    reply = await api.post("/api/queue/pause", body)
    assert (reply.status_code, fields(reply)) == (status, named)


async def test_the_queue_tells_the_limits(narrow: Api) -> None:
    assert provider((await narrow.get("/api/queue")).json())["limits"] == {"demo": "1 at once"}


async def test_a_moved_job_goes_first_and_one_that_had_its_turn_cannot_be_moved(narrow: Api) -> None:
    workflow_id = await narrow.workflow(*(node(name, prompt="a fox") for name in "abc"))
    await paused(narrow, all=True)
    made = {name: (await narrow.run(workflow_id, name))["jobId"] for name in "abc"}
    assert (await narrow.post(f"/api/images/jobs/{made['c']}/move", {"to": "front"})).status_code == 200
    assert (await narrow.post(f"/api/images/jobs/{made['a']}/move", {"to": "back"})).status_code == 200
    await narrow.post("/api/queue/resume", {"all": True})
    ended = [await narrow.finished(made[name]) for name in "cba"]
    assert sorted(ended, key=lambda job: job["startedAt"]) == ended
    reply = await narrow.post(f"/api/images/jobs/{made['c']}/move", {"to": "front"})
    assert (reply.status_code, reply.json()["current"]["jobId"]) == (409, made["c"])
    assert fields(reply) == ["jobId"]
    assert (await narrow.post(f"/api/images/jobs/{made['c']}/move", {"to": "up"})).status_code == 422
    assert (await narrow.post("/api/images/jobs/none/move", {"to": "front"})).status_code == 404


async def test_a_full_queue_refuses_and_says_when_to_come_back(narrow: Api) -> None:
    ours, theirs = [await narrow.workflow(*(node(name, prompt="a fox") for name in "abcd")) for _ in range(2)]
    await paused(narrow, all=True)
    first = await narrow.run(ours, "a", idempotency_key="first")
    await narrow.run(ours, "b")
    await narrow.run(ours, "c")
    runs = f"/api/workflows/{ours}/nodes/d/runs"
    reply = await narrow.post(runs)
    assert (reply.status_code, reply.headers["retry-after"]) == (429, "10")
    assert reply.json()["type"].endswith("/queue-full")
    assert "3 of your jobs are waiting" in reply.json()["detail"]
    await narrow.run(theirs, "a")
    reply = await narrow.post(f"/api/workflows/{theirs}/nodes/b/runs")
    assert "4 jobs are waiting" in reply.json()["detail"]
    batch = [{"workflowId": theirs, "nodeId": name} for name in "bc"]
    assert (await narrow.post("/api/images/generate", {"requests": batch})).status_code == 429
    again = await narrow.post(f"/api/workflows/{ours}/nodes/a/runs", {}, idempotency_key="first")
    assert (again.status_code, again.json()["jobId"]) == (200, first["jobId"])
    await narrow.post("/api/queue/resume", {"all": True})
    assert (await narrow.finished(first["jobId"]))["status"] == "completed"


async def test_a_job_past_its_deadline_has_failed(api: Api) -> None:
    workflow_id = await api.workflow(node("n", prompt="a fox"))
    await paused(api, all=True)
    job = await api.run(workflow_id, "n", {"deadlineS": 1, "priority": 5})
    async with asyncio.timeout(10):
        failed = await api.finished(job["jobId"])
    assert (failed["status"], failed["error"]["code"], failed["error"]["action"]) == ("failed", "deadline", "retry")


@pytest.mark.parametrize(
    ("body", "named"),
    [({"priority": 101}, "priority"), ({"priority": "high"}, "priority"), ({"deadlineS": 0}, "deadlineS")],
)
async def test_priority_and_deadline_have_bounds(api: Api, body: object, named: str) -> None:
    workflow_id = await api.workflow(node("n", prompt="a fox"))
    reply = await api.post(f"/api/workflows/{workflow_id}/nodes/n/runs", body)
    assert (reply.status_code, fields(reply)) == (422, [named])


async def test_with_tokens_a_canvas_is_for_its_editors_and_the_rest_for_admins(tmp_path: Path) -> None:
    settings = read_settings(data=tmp_path / "data", demo_delay_s=0, secret=SECRET)
    async with running(settings, tmp_path / "page") as api:
        admin, editor = bearer(token("admin", name="Ada")), bearer(token("editor"))
        await api.client.post("/api/workflows", json={}, headers=editor)
        workflow_id = (await api.client.get("/api/workflows", headers=editor)).json()["workflows"][0]["id"]
        guest, viewer = bearer(token("editor", ["other"])), bearer(token("viewer"))
        for scope, who, status in [
            ({"all": True}, editor, 403),
            ({"provider": "demo"}, editor, 403),
            ({"provider": "demo"}, bearer(token("admin", [workflow_id])), 403),
            ({"workflowId": workflow_id}, viewer, 403),
            ({"workflowId": workflow_id}, guest, 403),
            ({"workflowId": workflow_id}, editor, 200),
            ({"provider": "demo"}, admin, 200),
        ]:
            reply = await api.client.post("/api/queue/pause", json=scope, headers=who)
            assert reply.status_code == status, (scope, reply.text)
        seen = (await api.client.get("/api/queue", headers=admin)).json()["paused"]
        assert [(pause["scope"], pause["by"]) for pause in seen] == [("provider", "Ada"), ("workflow", "u1")]
        assert len((await api.client.get("/api/queue", headers=guest)).json()["paused"]) == 1
