"""Whether those who asked to be told of a job's end have been told."""

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from server.operations import Answer, Operation
from server.records import CallList, call_record
from server.routes.jobs import run_of
from server.services import services_of


async def list_calls(request: Request) -> Response:
    """List the calls to a job's webhookUrl."""
    run = await run_of(request)
    calls = await services_of(request).calls.of_run(run.id)
    return JSONResponse({"calls": [call_record(call) for call in calls]})


OPERATIONS = (
    Operation(
        "GET",
        "/api/images/jobs/{job_id}/calls",
        list_calls,
        "List the calls to a job's webhookUrl: how often each was tried, and what came of it",
        "jobs",
        {200: Answer("The calls, oldest first.", CallList)},
        problems=(404,),
    ),
)
