import pytest

from tests.server.api import Api, fields, node


async def test_a_workflow_is_made_with_its_nodes_and_edges_and_read_back(api: Api) -> None:
    body = {
        "title": "Foxes",
        "nodes": [node("a", prompt="a fox"), {**node("b"), "parentId": "a", "width": 300}],
        "edges": [{"id": "e", "source": "a", "target": "b", "animated": True}],
    }
    reply = await api.post("/api/workflows", body)
    assert reply.status_code == 201
    made = reply.json()
    assert reply.headers["location"] == f"/api/workflows/{made['id']}"
    assert made["title"] == "Foxes"
    assert [n["id"] for n in made["nodes"]] == ["a", "b"]
    assert made["nodes"][0]["data"] == {"prompt": "a fox"}
    assert made["nodes"][1]["parentId"] == "a"
    assert made["edges"] == [{"id": "e", "source": "a", "target": "b", "animated": True}]
    assert await api.flow(made["id"]) == made


async def test_what_is_answered_is_in_sql(api: Api) -> None:
    workflow_id = await api.workflow(node("a", prompt="a fox"), title="Foxes")
    stored = await api.services.catalog.read_flow(workflow_id)
    assert stored is not None
    assert stored["title"] == "Foxes"
    assert stored["nodes"] == [node("a", prompt="a fox")]


async def test_nodes_without_ids_get_them(api: Api) -> None:
    reply = await api.post("/api/workflows", {"nodes": [{}, {}]})
    assert len({n["id"] for n in reply.json()["nodes"]}) == 2


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"name": "x"}, "name"),
        ({"title": 5}, "title"),
        ({"title": "x" * 201}, "title"),
        ({"nodes": {}}, "nodes"),
        ({"nodes": [{"id": "a", "colour": "red"}]}, "nodes.0.colour"),
        ({"nodes": [{"position": {"x": "0", "y": 0}}]}, "nodes.0.position.x"),
        ({"nodes": [{"data": []}]}, "nodes.0.data"),
        ({"nodes": [node("a", prompt=7)]}, "nodes.0.data.prompt"),
        ({"nodes": [node("a"), node("a")]}, "nodes.1.id"),
        ({"edges": [{"id": "e", "source": "a", "target": "b"}]}, "edges.0.source"),
        ({"edges": [{"id": "e", "target": "b"}]}, "edges.0.source"),
    ],
)
async def test_a_wrong_field_is_named_and_nothing_is_written(api: Api, body: object, field: str) -> None:
    reply = await api.post("/api/workflows", body)
    assert reply.status_code == 422
    assert fields(reply) == [field]
    assert (await api.get("/api/workflows")).json() == {"workflows": []}


async def test_the_list_goes_on_where_a_page_ends(api: Api) -> None:
    made = [await api.workflow(title=f"w{number}") for number in range(3)]
    first = (await api.get("/api/workflows?limit=2")).json()
    assert [w["title"] for w in first["workflows"]] == ["w2", "w1"]
    second = (await api.get(f"/api/workflows?limit=2&before={first['next']}")).json()
    assert [w["id"] for w in second["workflows"]] == made[:1]
    assert "next" not in second


async def test_the_list_counts_nodes_and_shows_pictures(api: Api) -> None:
    workflow_id, node_id = await api.canvas()
    job = await api.finished((await api.run(workflow_id, node_id))["jobId"])
    line = (await api.get("/api/workflows")).json()["workflows"][0]
    assert line["nodeCount"] == 1
    assert line["thumbnails"] == [job["thumbnailUrl"]]


@pytest.mark.parametrize(("query", "field"), [("limit=0", "limit"), ("limit=x", "limit"), ("page=2", "page")])
async def test_a_wrong_query_is_named(api: Api, query: str, field: str) -> None:
    reply = await api.get(f"/api/workflows?{query}")
    assert reply.status_code == 422
    assert fields(reply) == [field]


async def test_a_workflow_is_renamed_everywhere(api: Api) -> None:
    workflow_id = await api.workflow(title="old")
    reply = await api.patch(f"/api/workflows/{workflow_id}", {"title": " new "})
    assert reply.json() == {"id": workflow_id, "title": "new"}
    assert (await api.flow(workflow_id))["title"] == "new"
    assert (await api.get("/api/workflows")).json()["workflows"][0]["title"] == "new"


@pytest.mark.parametrize("workflow_id", ["none", "%00", "a%20b", "x" * 200])
async def test_an_unknown_workflow_is_not_made_by_asking_for_it(api: Api, workflow_id: str) -> None:
    for reply in (
        await api.get(f"/api/workflows/{workflow_id}"),
        await api.patch(f"/api/workflows/{workflow_id}", {"title": "x"}),
        await api.post(f"/api/workflows/{workflow_id}/nodes", {}),
    ):
        assert reply.status_code == 404
        assert fields(reply) == ["workflowId"]
    assert (await api.get("/api/workflows")).json()["workflows"] == []
