"""What happens to a job: a list, or a stream that goes on until the job has ended."""

import json
import time
from collections.abc import AsyncIterator, Mapping
from typing import Final

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from crdt.json import Json
from jobs.records import RunEvent
from jobs.run import Run
from jobs.state import Status
from server.access import Caller, caller_of
from server.door import read_query
from server.models import EventsQuery
from server.operations import Answer, Operation
from server.records import EventList, event_record, iso
from server.routes.jobs import run_of
from server.services import Services, services_of

EVENT_STREAM: Final = "text/event-stream"
KEEPALIVE_S: Final = 15.0
POLL_S: Final = 2.0
"""How often SQL is asked without a hint: the run may be worked on by another process."""
_RETRY_MS: Final = 2_000
_STATUS_AFTER: Final[Mapping[str, Status]] = {
    "requested": Status.PENDING,
    "completed": Status.COMPLETED,
    "restored": Status.COMPLETED,
    "failed": Status.FAILED,
    "cancelled": Status.CANCELLED,
}
"""Status after an event of this kind; any other leaves the run running."""


async def read_events(request: Request) -> Response:
    """List a job's events, or stream them with `Accept: text/event-stream`."""
    run = await run_of(request)
    query = read_query(request, EventsQuery)
    services = services_of(request)
    last = request.headers.get("last-event-id", "")
    after = int(last) if last.isdecimal() and len(last) < 10 else query.after  # noqa: PLR2004 - no number of ours is longer
    if EVENT_STREAM not in request.headers.get("accept", ""):
        events = await services.runs.events(run.id, after)
        return JSONResponse({"events": [event_record(event) for event in events]})
    if run.status.terminal and after >= run.seq:
        # An EventSource connects again after the end; 204 tells it to stop.
        return Response(status_code=204)
    headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
    return StreamingResponse(stream(services, run, after, caller_of(request)), headers=headers, media_type=EVENT_STREAM)


async def stream(services: Services, run: Run, after: int, caller: Caller) -> AsyncIterator[str]:
    """Events behind `after` and progress between them, as server-sent events.

    It ends with the run, the caller's token, or the server.
    """
    yield f"retry: {_RETRY_MS}\n\n"
    told_at = time.monotonic()
    with services.signals.watch(run.id) as watch:
        while not services.stopping.is_set() and not caller.expired:
            for event in await services.runs.events(run.id, after):
                after, told_at = event.seq, time.monotonic()
                yield f"id: {event.seq}\ndata: {_line(_event(run, event))}\n\n"
                if _STATUS_AFTER.get(event.kind, Status.RUNNING).terminal:
                    return
            progress = watch.take_progress()
            if progress is not None:
                told_at = time.monotonic()
                yield f"data: {_line(_about(run) | {'kind': 'progress', 'status': 'running'} | dict(progress))}\n\n"
            await watch.wait(POLL_S)
            if time.monotonic() - told_at > KEEPALIVE_S:
                told_at = time.monotonic()
                yield ": still here\n\n"


def _event(run: Run, event: RunEvent) -> dict[str, Json]:
    """A recorded event as an `ImageProgressEvent`."""
    status = _STATUS_AFTER.get(event.kind, Status.RUNNING)
    told: dict[str, Json] = {
        **_about(run),
        "seq": event.seq,
        "ts": iso(event.ts),
        "kind": event.kind,
        "status": status.value,
        **event.payload,
    }
    images = event.payload.get("images")
    if status is Status.COMPLETED and isinstance(images, list) and images:
        told |= {"imageUrl": images[0]["url"], "thumbnailUrl": images[0]["thumbnailUrl"]}
    return told


def _about(run: Run) -> dict[str, Json]:
    return {"jobId": run.id, "workflowId": run.workflow_id, "nodeId": run.node_id}


def _line(value: Mapping[str, Json]) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


OPERATIONS = (
    Operation(
        "GET",
        "/api/images/jobs/{job_id}/events",
        read_events,
        "List a job's events; with Accept: text/event-stream they are streamed, resumable by Last-Event-ID",
        "jobs",
        {
            200: Answer("Events, oldest first.", EventList, EVENT_STREAM),
            204: Answer("The job has ended and there is nothing more to stream."),
        },
        query=EventsQuery,
        problems=(404, 422),
    ),
)
