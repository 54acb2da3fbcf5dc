"""Runs of one node by HTTP."""

from collections.abc import Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from jobs.requests import UNSET
from server.access import caller_of
from server.door import idempotency_key_of, node_id_of, read_body, read_query, workflow_id_of
from server.models import ByBody, HistoryQuery, Person, RetryBody, RunBody, RunOptions
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
    query = read_query(request, HistoryQuery)
    services = services_of(request)
    await services.require(workflow_id)
    found = await services.runs.history(workflow_id, node_id, query.limit + 1, query.before)
    runs = found[: query.limit]
    more = {"next": str(runs[-1].ordinal)} if len(found) > len(runs) else {}
    return JSONResponse({"runs": [job_record(run) for run in runs], **more})


async def use_run(request: Request) -> Response:
    """Have a node show again what an earlier job made."""
    workflow_id, node_id = workflow_id_of(request), node_id_of(request)
    body = await read_body(request, ByBody)
    run_id: str = request.path_params["run_id"]
    used = await services_of(request).orders.use(workflow_id, node_id, run_id[:140], person(request, body.by))
    headers = {"Location": f"/api/images/jobs/{used.run.id}"}
    return JSONResponse(job_record(used.run), 201 if used.created else 200, headers)


def order_options(request: Request, body: RetryBody) -> dict[str, Any]:
    """The fields of an `Order` that a request for a picture may give."""
    fallbacks = body.fallbacks
    given: dict[str, Any] = {
        "after": body.after if "after" in body.model_fields_set else UNSET,
        "spec": body.prompt_spec.given() if body.prompt_spec else {},
        "provider": body.provider,
        "model": body.model,
        "by": person(request, body.by),
        "fallbacks": None if fallbacks is None else [(maker.provider, maker.model) for maker in fallbacks],
    }
    if isinstance(body, RunOptions):
        given |= {"metadata": body.metadata or {}, "webhook_url": body.webhook_url}
    return given


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
        problems=(402, 404, 409),
        idempotent=True,
    ),
    Operation(
        "GET",
        _RUNS,
        list_runs,
        "List the jobs of a node, newest first",
        "jobs",
        {200: Answer("The jobs.", RunList)},
        query=HistoryQuery,
        problems=(404, 422),
    ),
    Operation(
        "POST",
        f"{_RUNS}/{{run_id}}/use",
        use_run,
        "Have a node show again what an earlier job made, at no cost",
        "jobs",
        {
            201: Answer("A completed job with the earlier pictures.", ImageJobRecord),
            200: Answer("The node shows them already.", ImageJobRecord),
        },
        bodies=(ByBody,),
        problems=(404, 409),
    ),
)
