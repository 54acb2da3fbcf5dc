"""Workflows by HTTP: make, list, read, rename."""

import datetime as dt
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from pycrdt import Doc
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from crdt import canvas
from crdt.canvas import CanvasDoc
from crdt.errors import DocumentFull, EdgeExists, InvalidNode, NodeExists
from crdt.json import Json
from server.access import caller_of
from server.door import read_body, read_query, workflow_id_of
from server.errors import FieldError, InvalidRequest
from server.models import PageQuery, WorkflowBody, WorkflowPatch
from server.operations import Answer, Operation
from server.records import FlowRecord, TitleRecord, WorkflowList, iso, summary_record
from server.services import Services, services_of, weight_of

_SCHEMA_VERSION = 1


async def create_workflow(request: Request) -> Response:
    """Make a workflow, empty or with nodes and edges; all of it is checked before any of it is stored."""
    body = await read_body(request, WorkflowBody)
    nodes = [_with_id("node", index, node.given()) for index, node in enumerate(body.nodes)]
    edges = [_with_id("edge", index, edge.given()) for index, edge in enumerate(body.edges)]
    rehearse(nodes, edges)
    workflow_id = await make_workflow(services_of(request), body.title.strip(), nodes, edges)
    flow = await services_of(request).read_flow(workflow_id)
    return JSONResponse(flow, 201, {"Location": f"/api/workflows/{workflow_id}"})


async def list_workflows(request: Request) -> Response:
    """List workflows, last changed first."""
    query = read_query(request, PageQuery)
    catalog = services_of(request).catalog
    before = query.before and _aware(query.before)
    found = await catalog.list_workflows(query.limit, before, caller_of(request).workflows)
    page: dict[str, Json] = {"workflows": [summary_record(summary) for summary in found]}
    if len(found) == query.limit:
        page["next"] = iso(found[-1].updated_at)
    return JSONResponse(page)


async def read_workflow(request: Request) -> Response:
    """Read a workflow as React Flow JSON."""
    return JSONResponse(await services_of(request).read_flow(workflow_id_of(request)))


async def rename_workflow(request: Request) -> Response:
    """Give a workflow another title."""
    workflow_id = workflow_id_of(request)
    body = await read_body(request, WorkflowPatch)
    title = body.title.strip()
    if not title:
        raise InvalidRequest([FieldError("title", "cannot be empty")])
    async with services_of(request).edit(workflow_id) as doc:
        _set_meta(doc, {"title": title})
    return JSONResponse({"id": workflow_id, "title": title})


async def make_workflow(
    services: Services,
    title: str = "",
    nodes: Sequence[Mapping[str, Json]] = (),
    edges: Sequence[Mapping[str, Json]] = (),
) -> str:
    """Store a new workflow, its nodes and edges rehearsed before; returns its id."""
    adds: Json = [dict(part) for part in (*nodes, *edges)]
    if weight_of(adds) > services.rooms.limits.max_document_bytes:
        # Before there is a workflow: an empty one would be left.
        raise DocumentFull
    workflow_id = await services.catalog.create_workflow(title)
    if title or nodes or edges:
        async with services.edit(workflow_id, adds) as doc:
            created = int(dt.datetime.now(dt.UTC).timestamp() * 1000)
            _set_meta(
                doc, {"schemaVersion": _SCHEMA_VERSION, "createdAt": created, **({"title": title} if title else {})}
            )
            for node in nodes:
                canvas.add_node(doc, node)
            for edge in edges:
                canvas.add_edge(doc, edge)
    return workflow_id


def rehearse(nodes: Sequence[Mapping[str, Json]], edges: Sequence[Mapping[str, Json]]) -> None:
    """Put nodes and edges into a document that is thrown away.

    Raises:
        InvalidRequest: Names the node or edge, and its field.

    """
    doc: CanvasDoc = Doc()
    with doc.transaction():
        for index, node in enumerate(nodes):
            with _naming(f"nodes.{index}"):
                canvas.add_node(doc, node)
        for index, edge in enumerate(edges):
            with _naming(f"edges.{index}"):
                canvas.add_edge(doc, edge)


@contextmanager
def _naming(place: str) -> Iterator[None]:
    try:
        yield
    except InvalidNode as error:
        raise InvalidRequest([FieldError(f"{place}.{error.field}", error.message)]) from error
    except (NodeExists, EdgeExists) as error:
        raise InvalidRequest([FieldError(f"{place}.id", "is used twice")]) from error


def _with_id(kind: str, index: int, item: Mapping[str, Json]) -> dict[str, Json]:
    return {"id": f"{kind}-{index + 1}", **item}


def _set_meta(doc: CanvasDoc, facts: Mapping[str, Json]) -> None:
    meta = canvas.meta_of(doc)
    for name, fact in facts.items():
        if meta.get(name) != fact:
            meta[name] = fact


def _aware(at: dt.datetime) -> dt.datetime:
    return at if at.tzinfo is not None else at.replace(tzinfo=dt.UTC)


OPERATIONS = (
    Operation(
        "POST",
        "/api/workflows",
        create_workflow,
        "Make a workflow",
        "workflows",
        {201: Answer("The workflow.", FlowRecord)},
        bodies=(WorkflowBody,),
        everywhere=True,
    ),
    Operation(
        "GET",
        "/api/workflows",
        list_workflows,
        "List workflows, last changed first",
        "workflows",
        {200: Answer("A page of the list.", WorkflowList)},
        query=PageQuery,
        problems=(422,),
    ),
    Operation(
        "GET",
        "/api/workflows/{workflow_id}",
        read_workflow,
        "Read a workflow as React Flow JSON",
        "workflows",
        {200: Answer("The workflow.", FlowRecord)},
        problems=(404,),
    ),
    Operation(
        "PATCH",
        "/api/workflows/{workflow_id}",
        rename_workflow,
        "Rename a workflow",
        "workflows",
        {200: Answer("Its id and new title.", TitleRecord)},
        bodies=(WorkflowPatch,),
        problems=(404,),
    ),
)
