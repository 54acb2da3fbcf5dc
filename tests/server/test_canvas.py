from typing import Any

import pytest

from crdt import canvas
from tests.server.api import Api, fields, node


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
