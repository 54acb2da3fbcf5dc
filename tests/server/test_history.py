"""A node's history: pages, jobs tried again, earlier pictures used again."""

from pathlib import Path

import pytest

from server.settings import read_settings
from tests.server.api import Api, fields, node
from tests.server.conftest import running

SMALL = {"promptSpec": {"size": "64x64"}}


async def test_a_history_has_pages(api: Api) -> None:
    workflow_id, node_id = await api.canvas()
    made = [(await api.finished((await api.run(workflow_id, node_id, SMALL))["jobId"]))["jobId"] for _ in range(3)]
    path = f"/api/workflows/{workflow_id}/nodes/{node_id}/runs?limit=2"
    first = (await api.get(path)).json()
    second = (await api.get(f"{path}&before={first['next']}")).json()
    assert [job["jobId"] for job in first["runs"] + second["runs"]] == made[::-1]
    assert "next" not in second
    assert (await api.get(f"{path}&before=x")).status_code == 422


async def test_an_earlier_picture_is_used_again(api: Api) -> None:
    workflow_id, node_id = await api.canvas()
    earlier = await api.finished((await api.run(workflow_id, node_id, SMALL))["jobId"])
    later = await api.finished((await api.run(workflow_id, node_id, SMALL))["jobId"])
    path = f"/api/workflows/{workflow_id}/nodes/{node_id}/runs"
    reply = await api.post(f"{path}/{earlier['jobId']}/use", {"by": {"name": "Ada"}})
    used = reply.json()
    assert (reply.status_code, used["status"], used["kind"]) == (201, "completed", "restore")
    assert (used["restoredFrom"], used["after"], used["requestedBy"]) == (
        earlier["jobId"],
        later["jobId"],
        {"name": "Ada"},
    )
    assert (used["imageUrl"], used["images"], "costUsd" in used) == (earlier["imageUrl"], earlier["images"], False)
    data = (await api.flow(workflow_id))["nodes"][0]["data"]
    assert (data["runId"], data["imageUrl"], data["status"]) == (used["jobId"], earlier["imageUrl"], "completed")
    told = await api.stream(used["jobId"])
    assert [(event["kind"], event["status"]) for event in told] == [("requested", "pending"), ("restored", "completed")]
    assert told[1]["imageUrl"] == earlier["imageUrl"]
    twice = await api.post(f"{path}/{earlier['jobId']}/use")
    assert (twice.status_code, twice.json()["jobId"]) == (200, used["jobId"])
    back = await api.post(f"{path}/{later['jobId']}/use")
    assert (back.status_code, back.json()["imageUrl"]) == (201, later["imageUrl"])
    again = await api.run(workflow_id, node_id, SMALL)
    assert (again["after"], (await api.finished(again["jobId"]))["status"]) == (back.json()["jobId"], "completed")


async def test_what_has_no_picture_or_is_not_the_nodes_cannot_be_used(api: Api) -> None:
    workflow_id = await api.workflow(node("a", prompt="forbidden"), node("b", prompt="a fox"))
    failed = await api.finished((await api.run(workflow_id, "a"))["jobId"])
    good = await api.finished((await api.run(workflow_id, "b", SMALL))["jobId"])
    path = f"/api/workflows/{workflow_id}/nodes"
    reply = await api.post(f"{path}/a/runs/{failed['jobId']}/use")
    assert (reply.status_code, fields(reply)) == (409, ["runId"])
    for where, job in (("a", good["jobId"]), ("b", "none")):
        reply = await api.post(f"{path}/{where}/runs/{job}/use")
        assert (reply.status_code, fields(reply)) == (404, ["jobId"])
    reply = await api.post(f"{path}/none/runs/{good['jobId']}/use")
    assert (reply.status_code, fields(reply)) == (404, ["nodeId"])


async def test_an_earlier_picture_is_not_used_while_another_is_made(tmp_path: Path) -> None:
    data = tmp_path / "data"
    async with running(read_settings(data=data, demo_delay_s=0), tmp_path) as api:
        workflow_id, node_id = await api.canvas()
        earlier = await api.finished((await api.run(workflow_id, node_id, SMALL))["jobId"])
    async with running(read_settings(data=data, demo_delay_s=600), tmp_path) as api:
        active = await api.run(workflow_id, node_id, SMALL)
        path = f"/api/workflows/{workflow_id}/nodes/{node_id}/runs/{earlier['jobId']}/use"
        reply = await api.post(path)
        assert (reply.status_code, reply.json()["current"]["jobId"]) == (409, active["jobId"])
        await api.post(f"/api/images/jobs/{active['jobId']}/cancel")
        assert (await api.post(path)).status_code == 201


async def test_a_job_is_tried_again_with_changes_and_both_name_each_other(api: Api) -> None:
    workflow_id, node_id = await api.canvas()
    spec = {"size": "64x64", "seed": 7, "styleModifiers": ["oil"]}
    first = await api.finished((await api.run(workflow_id, node_id, {"promptSpec": spec}))["jobId"])
    body = {"promptSpec": {"basePrompt": "an owl", "seed": None, "aspectRatio": "16:9"}, "by": {"name": "Ada"}}
    reply = await api.post(f"/api/images/jobs/{first['jobId']}/retry", body)
    again = reply.json()
    assert (reply.status_code, again["retryOf"], again["requestedBy"]) == (201, first["jobId"], {"name": "Ada"})
    assert again["promptSpec"] == {"basePrompt": "an owl", "styleModifiers": ["oil"], "aspectRatio": "16:9"}
    await api.finished(again["jobId"])
    assert (await api.get(f"/api/images/jobs/{first['jobId']}")).json()["retriedAs"] == [again["jobId"]]


async def test_an_older_job_is_tried_again_behind_the_current_one(api: Api) -> None:
    workflow_id, node_id = await api.canvas()
    older = await api.finished((await api.run(workflow_id, node_id, SMALL))["jobId"])
    current = await api.finished((await api.run(workflow_id, node_id, SMALL))["jobId"])
    path = f"/api/images/jobs/{older['jobId']}/retry"
    again = await api.post(path, {"after": current["jobId"]})
    assert (again.status_code, again.json()["after"], again.json()["retryOf"]) == (
        201,
        current["jobId"],
        older["jobId"],
    )
    stale = await api.post(path, {"after": "none"})
    assert (stale.status_code, fields(stale)) == (409, ["after"])


@pytest.mark.parametrize(
    ("body", "field"),
    [({"provider": "none"}, "provider"), ({"promptSpec": {"n": 99}}, "promptSpec.n"), ({"prompt": "x"}, "prompt")],
)
async def test_a_change_that_cannot_be_made_is_named(api: Api, body: object, field: str) -> None:
    workflow_id, node_id = await api.canvas()
    first = await api.finished((await api.run(workflow_id, node_id, SMALL))["jobId"])
    reply = await api.post(f"/api/images/jobs/{first['jobId']}/retry", body)
    assert (reply.status_code, fields(reply)) == (422, [field])
