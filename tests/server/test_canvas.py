from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from crdt import canvas
from server.settings import read_settings
from tests.server.api import Api, fields, node
from tests.server.conftest import running


async def stored(api: Api, workflow_id: str) -> dict[str, Any]:
    flow = await api.services.catalog.read_flow(workflow_id)
    assert flow is not None
    return flow


async def test_a_node_lands_in_the_document_and_in_sql(api: Api) -> None:
    workflow_id = await api.workflow()
    reply = await api.post(f"/api/workflows/{workflow_id}/nodes", node("n", prompt="a fox"))
    assert reply.status_code == 201
    assert reply.json() == node("n", prompt="a fox")
    async with api.services.rooms.use(workflow_id) as room:
        assert canvas.node_ids(room.doc) == ["n"]
    assert (await stored(api, workflow_id))["nodes"] == [node("n", prompt="a fox")]


async def test_a_node_needs_nothing(api: Api) -> None:
    workflow_id = await api.workflow()
    made = (await api.post(f"/api/workflows/{workflow_id}/nodes")).json()
    assert made == {"id": made["id"], "type": "image", "position": {"x": 0, "y": 0}, "data": {}}


async def test_a_patch_merges_data_key_by_key_and_null_takes_a_key_away(api: Api) -> None:
    workflow_id = await api.workflow({**node("n", prompt="a fox", label="x"), "parentId": "p"})
    patch = {"position": {"x": 5, "y": 7.5}, "parentId": None, "data": {"label": None, "params": {"size": "512x512"}}}
    reply = await api.patch(f"/api/workflows/{workflow_id}/nodes/n", patch)
    assert reply.json() == {
        "id": "n",
        "type": "image",
        "position": {"x": 5, "y": 7.5},
        "data": {"prompt": "a fox", "params": {"size": "512x512"}},
    }
    assert (await stored(api, workflow_id))["nodes"] == [reply.json()]
    assert (await api.get(f"/api/workflows/{workflow_id}/nodes/n")).json() == reply.json()


async def test_server_owned_keys_cannot_be_written(api: Api) -> None:
    workflow_id = await api.workflow()
    forged = node("n", prompt="a fox", status="completed", imageUrl="http://evil.example/x.png")
    assert (await api.post(f"/api/workflows/{workflow_id}/nodes", forged)).json()["data"] == {"prompt": "a fox"}
    patched = await api.patch(f"/api/workflows/{workflow_id}/nodes/n", {"data": {"runId": "r"}})
    assert patched.json()["data"] == {"prompt": "a fox"}


async def test_a_deleted_node_takes_its_edges_along(api: Api) -> None:
    workflow_id = await api.workflow(node("a"), node("b"))
    edge = {"id": "e", "source": "a", "target": "b"}
    assert (await api.post(f"/api/workflows/{workflow_id}/edges", edge)).status_code == 201
    assert (await api.delete(f"/api/workflows/{workflow_id}/nodes/a")).status_code == 204
    left = await stored(api, workflow_id)
    assert [n["id"] for n in left["nodes"]] == ["b"]
    assert left["edges"] == []


async def test_edges_are_made_changed_and_deleted(api: Api) -> None:
    workflow_id = await api.workflow(node("a"), node("b"))
    edges = f"/api/workflows/{workflow_id}/edges"
    made = (await api.post(edges, {"source": "a", "target": "b", "label": "x", "data": {"w": 1}})).json()
    assert made == {"id": made["id"], "source": "a", "target": "b", "label": "x", "data": {"w": 1}}
    changed = (await api.patch(f"{edges}/{made['id']}", {"label": None, "animated": True})).json()
    assert changed == {"id": made["id"], "source": "a", "target": "b", "data": {"w": 1}, "animated": True}
    assert (await stored(api, workflow_id))["edges"] == [changed]
    assert (await api.delete(f"{edges}/{made['id']}")).status_code == 204
    assert (await stored(api, workflow_id))["edges"] == []


async def test_taken_ids_are_refused(api: Api) -> None:
    workflow_id = await api.workflow(node("a"), node("b"))
    again = await api.post(f"/api/workflows/{workflow_id}/nodes", node("a"))
    assert (again.status_code, fields(again)) == (409, ["id"])
    edge = {"id": "e", "source": "a", "target": "b"}
    await api.post(f"/api/workflows/{workflow_id}/edges", edge)
    again = await api.post(f"/api/workflows/{workflow_id}/edges", edge)
    assert (again.status_code, fields(again)) == (409, ["id"])


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("nodes", {"type": 5}, "type"),
        ("nodes", {"type": None}, "type"),
        ("nodes", {"id": ""}, "id"),
        ("nodes", {"position": {"x": 1}}, "position.y"),
        ("nodes", {"colour": "red"}, "colour"),
        ("nodes", {"data": {"prompt": ["x"]}}, "data.prompt"),
        ("edges", {"source": "a"}, "target"),
        ("edges", {"source": "a", "target": "none"}, "target"),
        ("edges", {"source": "a", "target": "a", "weight": 1}, "weight"),
    ],
)
async def test_a_wrong_field_is_named(api: Api, path: str, body: object, field: str) -> None:
    workflow_id = await api.workflow(node("a"))
    before = await stored(api, workflow_id)
    reply = await api.post(f"/api/workflows/{workflow_id}/{path}", body)
    assert (reply.status_code, fields(reply)) == (422, [field])
    assert await stored(api, workflow_id) == before


@pytest.mark.parametrize("path", ["nodes/none", "edges/none", "nodes/%00"])
async def test_what_is_not_there_is_not_found(api: Api, path: str) -> None:
    workflow_id = await api.workflow()
    for reply in (
        await api.patch(f"/api/workflows/{workflow_id}/{path}", {}),
        await api.delete(f"/api/workflows/{workflow_id}/{path}"),
    ):
        assert (reply.status_code, fields(reply)) == (404, [f"{path[:4]}Id"])


async def test_text_that_databases_refuse_is_mended(api: Api) -> None:
    workflow_id = await api.workflow()
    body = b'{"id": "n", "data": {"label": "a\\u0000b\\ud800", "big": 123456789012345678901234567890}}'
    reply = await api.client.post(
        f"/api/workflows/{workflow_id}/nodes", content=body, headers={"content-type": "application/json"}
    )
    assert reply.status_code == 201
    assert reply.json()["data"] == {"label": "a\ufffdb?", "big": "123456789012345678901234567890"}


async def test_ids_with_a_slash_are_addressed_with_it_encoded(api: Api) -> None:
    odd = ["a/b", "a/runs", "%2F", "a//b/", "\u00fc/\U0001f98a"]
    edges = [{"id": "e/1", "source": "a/b", "target": "a/runs"}]
    nodes = [node(name, prompt="a fox") for name in [*odd, "a"]]
    workflow_id = (await api.post("/api/workflows", {"nodes": nodes, "edges": edges})).json()["id"]
    path = f"/api/workflows/{workflow_id}"
    for name in odd:
        address = f"{path}/nodes/{quote(name, safe='')}"
        assert (await api.get(address)).json()["id"] == name
        assert (await api.patch(address, {"data": {"mark": name}})).status_code == 200
        made = await api.post(f"{address}/runs", {"promptSpec": {"size": "64x64"}})
        assert (made.status_code, made.json()["nodeId"]) == (201, name)
        assert [run["nodeId"] for run in (await api.get(f"{address}/runs")).json()["runs"]] == [name]
        await api.finished(made.json()["jobId"])
    assert (await api.patch(f"{path}/edges/e%2f1", {"label": "x"})).status_code == 200
    assert (await api.delete(f"{path}/edges/e%2F1")).status_code == 204
    assert (await api.delete(f"{path}/nodes/a%2Fb")).status_code == 204
    left = {found["id"] for found in (await api.flow(workflow_id))["nodes"]}
    assert left == {*odd[1:], "a"}
    assert (await api.get(f"{path}/nodes/a/b")).status_code == 404
    assert (await api.get("/api/workflows/..%2F..%2Fx")).status_code == 404


async def test_a_document_that_is_full_takes_no_more_by_http_but_can_be_cleared(tmp_path: Path) -> None:
    settings = read_settings(data=tmp_path / "data", demo_delay_s=0, max_document_bytes=64 * 1024)
    large = "x" * 30_000
    async with running(settings, tmp_path) as api:
        whole = await api.post("/api/workflows", {"nodes": [node(f"n{n}", prompt=large) for n in range(3)]})
        assert (whole.status_code, (await api.get("/api/workflows")).json()["workflows"]) == (413, [])
        workflow_id = await api.workflow(node("a", prompt=large))
        nodes = f"/api/workflows/{workflow_id}/nodes"
        assert (await api.post(nodes, node("b", prompt=large))).status_code == 201
        for reply in (
            await api.post(nodes, node("c", prompt=large)),
            await api.patch(f"{nodes}/a", {"data": {"more": large}}),
            await api.post(f"/api/workflows/{workflow_id}/edges", {"source": "a", "target": "b", "data": {"x": large}}),
        ):
            assert (reply.status_code, reply.json()["type"].rpartition("/")[2]) == (413, "document-full")
            assert "delete something" in reply.json()["detail"]
        assert {found["id"] for found in (await api.flow(workflow_id))["nodes"]} == {"a", "b"}
        assert (await api.patch(f"{nodes}/a", {"data": {"prompt": None}})).status_code == 200
        assert (await api.delete(f"{nodes}/a")).status_code == 204
        assert (await api.patch(f"{nodes}/b", {"data": {"mark": 1}})).status_code == 200
