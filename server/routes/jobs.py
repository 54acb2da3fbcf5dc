"""Jobs by HTTP: start one or many, read, cancel, retry."""

import hashlib
import re
import uuid

from pydantic import RootModel
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from jobs.errors import RunNotFound
from jobs.requests import key_in_batch
from jobs.restoring import RESTORE
from jobs.run import Run
from server.access import caller_of
from server.door import BATCH_LIMIT_BYTES, check, idempotency_key_of, read_body, read_json
from server.errors import Forbidden, InBatch
from server.models import BatchRequest, ByBody, RetryBody, StartImageJobRequest
from server.operations import Answer, Operation
from server.orders import Order
from server.records import BatchAccepted, ImageJobRecord, JobAccepted, accepted_record, bill_record, job_record
from server.routes.runs import order_options, person
from server.services import services_of

_JOB = "/api/images/jobs/{job_id}"
_JOB_ID = re.compile(r"[A-Za-z0-9_.:-]{1,64}")


async def generate(request: Request) -> Response:
    """Start one job, or a batch of them."""
    key = idempotency_key_of(request)
    value = await read_json(request, BATCH_LIMIT_BYTES)
    if isinstance(value, dict) and "requests" in value:
        return await _generate_batch(request, check(BatchRequest, value), key)
    body = check(StartImageJobRequest, value)
    caller_of(request).require_workflow(body.workflow_id)
    requested = await services_of(request).orders.start(_order(request, body, key))
    headers = {"Location": f"/api/images/jobs/{requested.run.id}"}
    return JSONResponse(accepted_record(requested.run), 202, headers)


async def _generate_batch(request: Request, body: BatchRequest, key: str | None) -> Response:
    for index, start in enumerate(body.requests):
        try:
            caller_of(request).require_workflow(start.workflow_id)
        except Forbidden as error:
            raise InBatch(index, error) from error
    # The same key makes the same batch again, so a repeated request finds the jobs it made.
    batch_id = uuid.uuid4().hex if key is None else hashlib.sha256(f"batch:{key}".encode()).hexdigest()[:32]
    orders = [
        _order(request, start, None if key is None else key_in_batch(key, index), batch_id)
        for index, start in enumerate(body.requests)
    ]
    runs = await services_of(request).orders.start_batch(orders)
    return JSONResponse({"batchId": batch_id, "jobs": [accepted_record(run) for run in runs]}, 202)


async def read_job(request: Request) -> Response:
    """Read a job, with its bills and what came of it."""
    run = await run_of(request)
    services = services_of(request)
    bills = [bill_record(bill) for bill in await services.spending.bills(run.id) if bill.source != "free"]
    retries = [child.id for child in await services.runs.children(run) if child.kind != RESTORE]
    more = ({"bills": bills} if bills else {}) | ({"retriedAs": retries} if retries else {})
    return JSONResponse(job_record(run) | more)


async def cancel_job(request: Request) -> Response:
    """Cancel a job; one that has ended stays as it is."""
    job_id = (await run_of(request)).id
    body = await read_body(request, ByBody)
    return JSONResponse(job_record(await services_of(request).orders.cancel(job_id, person(request, body.by))))


async def retry_job(request: Request) -> Response:
    """Start a new job that asks for the same as one that has ended."""
    job_id = (await run_of(request)).id
    key = idempotency_key_of(request)
    body = await read_body(request, RetryBody)
    changes = Order("", "", idempotency_key=key, **order_options(request, body))
    requested = await services_of(request).orders.retry(job_id, changes)
    headers = {"Location": f"/api/images/jobs/{requested.run.id}"}
    return JSONResponse(job_record(requested.run), 201 if requested.created else 200, headers)


async def run_of(request: Request) -> Run:
    """The job named in the path.

    Raises:
        RunNotFound: There is none.
        Forbidden: It is of a workflow that the caller does not reach.

    """
    job_id: str = request.path_params["job_id"]
    if _JOB_ID.fullmatch(job_id) is None:
        raise RunNotFound(job_id[:140])
    run = await services_of(request).runs.get(job_id)
    caller_of(request).require_workflow(run.workflow_id)
    return run


def _order(request: Request, body: StartImageJobRequest, key: str | None, batch_id: str | None = None) -> Order:
    return Order(
        workflow_id=body.workflow_id,
        node_id=body.node_id,
        idempotency_key=key,
        batch_id=batch_id,
        **order_options(request, body),
    )


class Accepted(RootModel[JobAccepted | BatchAccepted]):
    """One job, or a batch of them."""


OPERATIONS = (
    Operation(
        "POST",
        "/api/images/generate",
        generate,
        "Start a job, or a batch of 1 to 1000",
        "jobs",
        {202: Answer("It will be worked on.", Accepted)},
        bodies=(StartImageJobRequest, BatchRequest),
        problems=(402, 404, 409),
        idempotent=True,
    ),
    Operation(
        "GET",
        _JOB,
        read_job,
        "Read a job",
        "jobs",
        {200: Answer("The job.", ImageJobRecord)},
        problems=(404,),
    ),
    Operation(
        "POST",
        f"{_JOB}/cancel",
        cancel_job,
        "Cancel a job",
        "jobs",
        {200: Answer("The job.", ImageJobRecord)},
        bodies=(ByBody,),
        problems=(404,),
    ),
    Operation(
        "POST",
        f"{_JOB}/retry",
        retry_job,
        "Ask again for what an ended job was asked for, the same or changed",
        "jobs",
        {201: Answer("A new job.", ImageJobRecord), 200: Answer("An equal request made it before.", ImageJobRecord)},
        bodies=(RetryBody,),
        problems=(402, 404, 409),
        idempotent=True,
    ),
)
