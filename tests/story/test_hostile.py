"""What a hostile or mistaken peer writes neither breaks the server nor reaches SQL wrong."""

import base64
import json
from typing import Any

import pytest
import sqlalchemy as sa
from pycrdt import Array, Map, Text

from crdt import canvas
from crdt.canvas import SERVER_KEYS
from crdt.tables import workflow_nodes
from tests.providers.builders import picture as make_picture
from tests.support.api import Api, canvas_api
from tests.support.peer import YPeer
from tests.support.server import ServerProcess


async def node_rows(server: ServerProcess) -> dict[str, dict[str, Any]]:
    """`workflow_nodes` as it is, by node id."""
    return {row.id: dict(row._mapping) for row in await server.rows(sa.select(workflow_nodes))}


async def mirrored(api: Api, marker: str) -> None:
    """Return once everything a peer sent before is in SQL: an edit by HTTP commits and mirrors what came before it."""
    await api.add_node(id=marker, type="image", data={})


async def test_a_faked_result_is_put_right_and_never_mirrored(server: ServerProcess) -> None:
    async with canvas_api(server.url) as api, YPeer(server.ws_url, api.workflow_id).connected() as peer:
        await peer.add_image("n1", "a fox")
        await peer.set_data(
            "n1", status="completed", imageUrl="https://evil.example/x.png", runId="run_evil", costUsd=9
        )
        await peer.until(lambda: not (peer.data("n1").keys() & (SERVER_KEYS - {"status"})))
        assert peer.data("n1").get("status", "idle") == "idle"
        await mirrored(api, "end")
        assert not (await node_rows(server))["n1"]["node_data"].keys() & SERVER_KEYS
        job = (await api.generate("n1", after=None)).json()["jobId"]
        truth = await peer.until_status("n1", "completed")
        await peer.set_data("n1", status="failed", imageUrl="https://evil.example/x.png")
        await peer.until(lambda: peer.data("n1").get("imageUrl") == truth["imageUrl"])
        assert peer.data("n1")["status"] == "completed"
        await mirrored(api, "end2")
        assert (await node_rows(server))["n1"]["node_data"]["runId"] == job


async def test_a_picture_in_the_document_is_moved_to_the_store(server: ServerProcess) -> None:
    async with canvas_api(server.url) as api, YPeer(server.ws_url, api.workflow_id).connected() as peer:
        url = "data:image/png;base64," + base64.b64encode(make_picture(40, 30).data).decode()
        await peer.add_image("n1", "a fox", previousImage=url)
        await peer.set_data("n1", pasted=url, broken="data:image/png;base64,AAAA")
        await peer.until(lambda: str(peer.data("n1").get("pasted")).startswith(server.url))
        await peer.until(lambda: str(peer.data("n1")["params"].get("previousImage")).startswith(server.url))
        await peer.until(lambda: not peer.data("n1").get("broken"))
        picture = await api.client.get(peer.data("n1")["pasted"])
        assert picture.content.startswith(b"\x89PNG")
        await mirrored(api, "end")
        assert "base64" not in json.dumps((await node_rows(server))["n1"]["node_data"])


@pytest.mark.parametrize(
    ("node_id", "node"),
    [
        ("plain", {"type": "image", "position": {"x": 1, "y": 2}, "data": {"prompt": "x"}}),
        ("wrong", Map({"type": 7, "position": "here", "data": Array([1])})),
        ("number", 5),
        ("text", Text("hello")),
        ("json", '{"type":"image","position":{"x":0,"y":0},"data":{}}'),
        ("nan", Map({"type": "image", "position": {"x": float("nan"), "y": float("inf")}, "data": Map()})),
        ("nul\x00id", Map({"data": Map()})),
        ("", Map({"data": Map()})),
        ("x" * 5000, Map({"data": Map()})),
        ("../../etc/passwd?a=b#c%00 ü🦊\"'", Map({"type": "image", "data": Map({"prompt": "nul \x00 inside"})})),
        ("bytes", Map({"data": Map({"blob": b"\x00" * 1000})})),
        ("long", Map({"data": Map({"prompt": "x" * 200_000})})),
    ],
)
async def test_odd_nodes_do_no_harm(shared_server: ServerProcess, node_id: str, node: object) -> None:
    async with canvas_api(shared_server.url) as api, YPeer(shared_server.ws_url, api.workflow_id).connected() as peer:
        await peer.edit(lambda doc: canvas.nodes_of(doc).update({node_id: node}))
        await mirrored(api, "good")
        await peer.until(lambda: peer.data("good") is not None and canvas.read_node(peer.doc, "good"))
        for row in (await node_rows(shared_server)).values():
            json.dumps([row["node_data"], row["position"]], allow_nan=False)
            assert row["position"].keys() == {"x", "y"}
        flow = await api.flow()
        assert "good" in [listed["id"] for listed in flow["nodes"]]


async def test_a_node_with_odd_characters_in_its_id_can_be_run(shared_server: ServerProcess) -> None:
    async with canvas_api(shared_server.url) as api, YPeer(shared_server.ws_url, api.workflow_id).connected() as peer:
        odd = "a b+c%2Fd?e#f&g=ü🦊\"'<>"
        await peer.add_image(odd, "a fox")
        await peer.set_data(odd, request={"after": None, "id": "1"})
        data = await peer.until_status(odd, "completed")
        assert (await api.client.get(data["imageUrl"])).status_code == 200


async def test_whole_numbers_that_arrive_as_floats_stay_whole(shared_server: ServerProcess) -> None:
    async with canvas_api(shared_server.url) as api, YPeer(shared_server.ws_url, api.workflow_id).connected() as peer:
        await peer.add_image("n1", "a fox", seed=5.0, n=2.0, size="512x512")
        await peer.set_data("n1", request={"after": None, "id": "1"})
        data = await peer.until_status("n1", "completed")
        assert len(data["images"]) == 2
        assert (await api.job(data["runId"]))["promptSpec"]["seed"] == 5


async def test_ten_thousand_nodes_in_one_update_are_mirrored(shared_server: ServerProcess) -> None:
    async with canvas_api(shared_server.url) as api, YPeer(shared_server.ws_url, api.workflow_id).connected() as peer:
        nodes = {f"n{i}": Map({"type": "image", "position": {"x": i, "y": 0}, "data": Map()}) for i in range(10_000)}
        await peer.edit(lambda doc: canvas.nodes_of(doc).update(nodes))
        await mirrored(api, "end")
        assert len((await api.flow())["nodes"]) == 10_001


@pytest.mark.parametrize(
    "request_",
    [
        "run it",
        {},
        {"after": 5, "id": 7},
        {"after": "run_unknown", "id": "x"},
        {"cancel": "run_unknown", "id": "x"},
        {"after": None},
        {"after": None, "id": "x", "provider": "nobody"},
    ],
)
async def test_an_intent_that_makes_no_sense_is_taken_away(shared_server: ServerProcess, request_: object) -> None:
    async with canvas_api(shared_server.url) as api, YPeer(shared_server.ws_url, api.workflow_id).connected() as peer:
        await peer.add_image("n1", "a fox")
        await peer.set_data("n1", request=request_)
        await peer.until(lambda: "request" not in peer.data("n1"))
        history = await api.history("n1")
        assert len(history) <= (1 if request_ == {"after": None} else 0)
