"""Runs of one node by HTTP."""

from collections.abc import Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from jobs.requests import UNSET
from server.access import caller_of
from server.door import idempotency_key_of, node_id_of, read_body, read_query, workflow_id_of
from server.models import LimitQuery, Person, RunBody, RunOptions
from server.operations import Answer, Operation
from server.orders import Order
from server.records import ImageJobRecord, RunList, job_record
from server.services import services_of

_RUNS = "/api/workflows/{workflow_id}/nodes/{node_id}/runs"


async def create_run(request: Request) -> Response:
    """Generate or regenerate a node's picture."""
    workflow_id, node_id = workflow_id_of(request), node_id_of(request)
    key = idempotency_key_of(request)
    body = await read_body(request, RunBody)
    order = Order(workflow_id=workflow_id, node_id=node_id, idempotency_key=key, **order_options(request, body))
    requested = await services_of(request).orders.start(order)
    headers = {"Location": f"/api/images/jobs/{requested.run.id}"}
    return JSONResponse(job_record(requested.run), 201 if requested.created else 200, headers)


async def list_runs(request: Request) -> Response:
    """List the runs of a node, newest first."""
    workflow_id, node_id = workflow_id_of(request), node_id_of(request)
    query = read_query(request, LimitQuery)
    services = services_of(request)
    await services.require(workflow_id)
    runs = await services.runs.history(workflow_id, node_id, query.limit)
    return JSONResponse({"runs": [job_record(run) for run in runs]})


def order_options(request: Request, body: RunOptions) -> dict[str, Any]:
    """The fields of an `Order` that every request for a picture may give."""
    return {
        "after": body.after if "after" in body.model_fields_set else UNSET,
        "spec": body.prompt_spec.given() if body.prompt_spec else {},
        "provider": body.provider,
        "model": body.model,
        "by": person(request, body.by),
        "metadata": body.metadata or {},
        "webhook_url": body.webhook_url,
        "priority": body.priority,
        "deadline_s": body.deadline_s,
    }


def person(request: Request, by: Person | None) -> Mapping[str, str]:
    """Who asks, as `Order.by`: whom the token names, and only without one what the body says."""
    known = caller_of(request).person()
    if known is not None:
        return known
    named = {} if by is None else {"id": by.id, "name": by.name}
    return {key: value for key, value in named.items() if value}


OPERATIONS = (
    Operation(
        "POST",
        _RUNS,
        create_run,
        "Generate or regenerate a node's picture, from its own data and what the body says",
        "jobs",
        {201: Answer("A new job.", ImageJobRecord), 200: Answer("An equal request made it before.", ImageJobRecord)},
        bodies=(RunBody,),
        problems=(404, 409, 429),
        idempotent=True,
    ),
    Operation(
        "GET",
        _RUNS,
        list_runs,
        "List the jobs of a node, newest first",
        "jobs",
        {200: Answer("The jobs.", RunList)},
        query=LimitQuery,
        problems=(404, 422),
    ),
)
