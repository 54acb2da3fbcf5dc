"""Many jobs by HTTP: list them, cancel them together, follow a batch."""

import re
from collections.abc import Sequence
from typing import Final

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from jobs.run import Run
from jobs.selection import Place, Selection
from jobs.state import Status
from server.access import caller_of, require_admin
from server.control import Cancelling
from server.door import read_body, read_query
from server.errors import BatchNotFound, FieldError, InvalidRequest
from server.models import ByBody, CancelBody, JobsQuery
from server.operations import Answer, Operation
from server.records import BatchRecord, CancelledRecord, JobList, batch_record, job_record
from server.routes.runs import person
from server.services import services_of

_BATCH: Final = "/api/images/batches/{batch_id}"
_BATCH_ID: Final = re.compile(r"[A-Za-z0-9_.:-]{1,64}")


async def list_jobs(request: Request) -> Response:
    """List jobs, newest first."""
    query = read_query(request, JobsQuery)
    caller = caller_of(request)
    if query.workflow_id is not None:
        caller.require_workflow(query.workflow_id)
    selection = Selection(
        workflow_id=query.workflow_id,
        node_id=query.node_id,
        batch_id=query.batch_id,
        user_id=query.user,
        provider=query.provider,
        status=None if query.status is None else Status(query.status),
        workflows=caller.workflows,
    )
    found = await services_of(request).runs.select(selection, query.limit + 1, _behind(query.cursor))
    page = found[: query.limit]
    more = {"next": Place.of(page[-1]).to_text()} if len(found) > len(page) else {}
    return JSONResponse({"jobs": [job_record(run) for run in page], **more})


async def cancel_jobs(request: Request) -> Response:
    """Cancel every job of a node, a canvas, a batch, a person, a provider, or all."""
    body = await read_body(request, CancelBody)
    caller = caller_of(request)
    if body.workflow_id is not None:
        caller.require_workflow(body.workflow_id)
    elif body.batch_id is not None:
        await _batch(request, body.batch_id)
    elif body.user is None or body.user != caller.id:
        require_admin(request)
    selection = Selection(
        workflow_id=body.workflow_id,
        node_id=body.node_id,
        batch_id=body.batch_id,
        user_id=body.user,
        provider=body.provider,
        workflows=caller.workflows,
        waiting=body.only == "waiting",
    )
    return _told(await services_of(request).control.cancel(selection, person(request, body.by)))


async def read_batch(request: Request) -> Response:
    """Read how far a batch is."""
    batch_id: str = request.path_params["batch_id"]
    return JSONResponse(batch_record(batch_id, await _batch(request, batch_id)))


async def cancel_batch(request: Request) -> Response:
    """Cancel what a batch has not finished."""
    batch_id: str = request.path_params["batch_id"]
    await _batch(request, batch_id)
    body = await read_body(request, ByBody)
    selection = Selection(batch_id=batch_id)
    return _told(await services_of(request).control.cancel(selection, person(request, body.by)))


async def _batch(request: Request, batch_id: str) -> Sequence[Run]:
    """The runs of a batch.

    Raises:
        BatchNotFound: There are none.
        Forbidden: Some are of a workflow that the caller does not reach.

    """
    found = await services_of(request).runs.batch(batch_id) if _BATCH_ID.fullmatch(batch_id) else []
    if not found:
        raise BatchNotFound(batch_id[:140])
    for workflow_id in {run.workflow_id for run in found}:
        caller_of(request).require_workflow(workflow_id)
    return found


def _behind(cursor: str | None) -> Place | None:
    try:
        return None if cursor is None else Place.from_text(cursor)
    except ValueError as error:
        raise InvalidRequest([FieldError("cursor", str(error))]) from None


def _told(done: Cancelling) -> Response:
    return JSONResponse({"cancelled": done.cancelled, "jobs": done.run_ids, "remaining": done.remaining})


OPERATIONS = (
    Operation(
        "GET",
        "/api/images/jobs",
        list_jobs,
        "List jobs, newest first, those of the workflows that the caller reaches",
        "jobs",
        {200: Answer("A page of jobs.", JobList)},
        query=JobsQuery,
        problems=(422,),
    ),
    Operation(
        "POST",
        "/api/images/jobs/cancel",
        cancel_jobs,
        "Cancel every job of a node, workflow, batch, person or provider; by other people's, or of all: admins",
        "jobs",
        {200: Answer("What was cancelled.", CancelledRecord)},
        bodies=(CancelBody,),
        problems=(404,),
    ),
    Operation(
        "GET",
        _BATCH,
        read_batch,
        "Read how far a batch is",
        "jobs",
        {200: Answer("The batch.", BatchRecord)},
        problems=(404,),
    ),
    Operation(
        "POST",
        f"{_BATCH}/cancel",
        cancel_batch,
        "Cancel what a batch has not finished",
        "jobs",
        {200: Answer("What was cancelled.", CancelledRecord)},
        bodies=(ByBody,),
        problems=(404,),
    ),
)
