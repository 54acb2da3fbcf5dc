"""Nodes and edges by HTTP: the same edits that people make, in the same document."""

import secrets
from collections.abc import Iterable, Mapping

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from crdt import canvas
from crdt.canvas import SharedMap
from crdt.errors import EdgeNotFound, NodeNotFound
from crdt.json import Json
from server.door import node_id_of, read_body, workflow_id_of
from server.models import EdgeBody, EdgePatch, NodeBody, NodePatch
from server.operations import Answer, Operation
from server.records import EdgeRecord, NodeRecord
from server.services import services_of

_NODES = "/api/workflows/{workflow_id}/nodes"
_EDGES = "/api/workflows/{workflow_id}/edges"


async def create_node(request: Request) -> Response:
    """Put a node on the canvas."""
    workflow_id = workflow_id_of(request)
    body = await read_body(request, NodeBody)
    node = {"id": f"node-{secrets.token_hex(8)}", **body.given()}
    async with services_of(request).edit(workflow_id, node) as doc:
        added = canvas.add_node(doc, node)
    path = request.url.path
    return JSONResponse(added.to_json(), 201, {"Location": f"{path}/{added.id}"} if added.id.isalnum() else None)


async def read_node(request: Request) -> Response:
    """Read a node with what the server knows of it."""
    workflow_id, node_id = workflow_id_of(request), node_id_of(request)
    flow = await services_of(request).read_flow(workflow_id, node_id)
    nodes = flow["nodes"]
    if not isinstance(nodes, list) or not nodes:
        raise NodeNotFound(node_id)
    return JSONResponse(nodes[0])


async def update_node(request: Request) -> Response:
    """Change keys of a node."""
    workflow_id, node_id = workflow_id_of(request), node_id_of(request)
    patch = (await read_body(request, NodePatch)).given()
    kept, dropped = _split(patch)
    async with services_of(request).edit(workflow_id, kept or None) as doc:
        canvas.update_node(doc, node_id, kept)
        _drop(canvas.nested_node(doc, node_id), dropped)
        changed = canvas.read_node(doc, node_id)
    if changed is None:
        raise NodeNotFound(node_id)
    return JSONResponse(changed.to_json())


async def delete_node(request: Request) -> Response:
    """Take a node off the canvas, and its edges."""
    workflow_id, node_id = workflow_id_of(request), node_id_of(request)
    async with services_of(request).edit(workflow_id) as doc:
        if not canvas.remove_node(doc, node_id):
            raise NodeNotFound(node_id)
    return Response(status_code=204)


async def create_edge(request: Request) -> Response:
    """Connect two nodes."""
    workflow_id = workflow_id_of(request)
    body = await read_body(request, EdgeBody)
    edge = {"id": f"edge-{secrets.token_hex(8)}", **body.given()}
    async with services_of(request).edit(workflow_id, edge) as doc:
        added = canvas.add_edge(doc, edge)
    return JSONResponse(canvas.edge_json(added), 201)


async def update_edge(request: Request) -> Response:
    """Change keys of an edge."""
    workflow_id, edge_id = workflow_id_of(request), _edge_id_of(request)
    patch = (await read_body(request, EdgePatch)).given()
    kept, dropped = _split(patch)
    async with services_of(request).edit(workflow_id, kept or None) as doc:
        canvas.update_edge(doc, edge_id, kept)
        _drop(canvas.edges_of(doc)[edge_id], dropped)
        changed = canvas.read_edge(doc, edge_id)
    if changed is None:
        raise EdgeNotFound(edge_id)
    return JSONResponse(canvas.edge_json(changed))


async def delete_edge(request: Request) -> Response:
    """Take an edge away."""
    workflow_id, edge_id = workflow_id_of(request), _edge_id_of(request)
    async with services_of(request).edit(workflow_id) as doc:
        if not canvas.remove_edge(doc, edge_id):
            raise EdgeNotFound(edge_id)
    return Response(status_code=204)


def _edge_id_of(request: Request) -> str:
    edge_id: str = request.path_params["edge_id"]
    if not canvas.valid_id(edge_id):
        raise EdgeNotFound(edge_id[:140])
    return edge_id


def _split(patch: Mapping[str, Json]) -> tuple[dict[str, Json], list[str]]:
    """What is to be written, and the keys that null takes away."""
    return {key: value for key, value in patch.items() if value is not None}, [k for k, v in patch.items() if v is None]


def _drop(shared: SharedMap, keys: Iterable[str]) -> None:
    for key in keys:
        if key in shared:
            del shared[key]


OPERATIONS = (
    Operation(
        "POST",
        _NODES,
        create_node,
        "Put a node on the canvas",
        "canvas",
        {201: Answer("The node.", NodeRecord)},
        bodies=(NodeBody,),
        problems=(404, 409),
    ),
    Operation(
        "GET",
        f"{_NODES}/{{node_id}}",
        read_node,
        "Read a node",
        "canvas",
        {200: Answer("The node.", NodeRecord)},
        problems=(404,),
    ),
    Operation(
        "PATCH",
        f"{_NODES}/{{node_id}}",
        update_node,
        "Change a node; its data is merged key by key",
        "canvas",
        {200: Answer("The node.", NodeRecord)},
        bodies=(NodePatch,),
        problems=(404,),
    ),
    Operation(
        "DELETE",
        f"{_NODES}/{{node_id}}",
        delete_node,
        "Take a node off the canvas, and its edges",
        "canvas",
        {204: Answer("It is gone.")},
        problems=(404,),
    ),
    Operation(
        "POST",
        _EDGES,
        create_edge,
        "Connect two nodes",
        "canvas",
        {201: Answer("The edge.", EdgeRecord)},
        bodies=(EdgeBody,),
        problems=(404, 409),
    ),
    Operation(
        "PATCH",
        f"{_EDGES}/{{edge_id}}",
        update_edge,
        "Change an edge",
        "canvas",
        {200: Answer("The edge.", EdgeRecord)},
        bodies=(EdgePatch,),
        problems=(404,),
    ),
    Operation(
        "DELETE",
        f"{_EDGES}/{{edge_id}}",
        delete_edge,
        "Take an edge away",
        "canvas",
        {204: Answer("It is gone.")},
        problems=(404,),
    ),
)
