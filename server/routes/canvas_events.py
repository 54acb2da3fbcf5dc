"""What happens to all jobs of a canvas: a list, or a stream that goes on; both can be read on from any place."""

import time
from collections.abc import AsyncIterator

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from jobs.timeline import CanvasEvent, Cursor
from server.door import read_query, workflow_id_of
from server.errors import FieldError, InvalidRequest
from server.models import CanvasEventsQuery
from server.operations import Answer, Operation
from server.records import CanvasEventList
from server.routes.events import EVENT_STREAM, KEEPALIVE_S, RETRY_MS, Lease, event_json, line, streaming
from server.services import Services, services_of

SCAN_S = 4.0
"""How often SQL is asked for everything: runs may be worked on by other processes, and hints may be lost."""


async def read_canvas_events(request: Request) -> Response:
    """List the events of a canvas's jobs, or stream them with `Accept: text/event-stream`."""
    workflow_id = workflow_id_of(request)
    query = read_query(request, CanvasEventsQuery)
    services = services_of(request)
    await services.require(workflow_id)
    last = request.headers.get("last-event-id", "")
    cursor = _cursor(services, "Last-Event-ID", last) if last else _cursor(services, "after", query.after)
    if EVENT_STREAM in request.headers.get("accept", ""):
        services.streams.check(workflow_id)
        lease = Lease.of(request)
        return streaming(stream(services, workflow_id, cursor or services.timeline.now(), lease))
    events, place = [], cursor or Cursor()
    async for found, behind in services.timeline.read(workflow_id, place):
        place = behind
        if found is not None:
            events.append(event_json(workflow_id, found.node_id, found.event))
        if len(events) >= query.limit:
            break
    return JSONResponse({"events": events, "next": str(place)})


async def stream(services: Services, workflow_id: str, cursor: Cursor, lease: Lease) -> AsyncIterator[str]:
    """Events behind a cursor as server-sent events, for as long as the lease lasts."""
    # The place comes first: whoever is cut off before anything happened goes on from here all the same.
    yield f"retry: {RETRY_MS}\nid: {cursor}\n\n"
    told_at, scan_at = time.monotonic(), 0.0
    async with services.news.follow_canvas(workflow_id) as watch:
        with services.streams.opened(workflow_id), lease.waking(watch):
            while not lease.over:
                changed = watch.take_changed()
                if changed is None or time.monotonic() >= scan_at:
                    async for found, behind in services.timeline.read(workflow_id, cursor):
                        cursor = behind
                        if found is not None:
                            told_at = time.monotonic()
                            yield _told(workflow_id, found, cursor)
                    scan_at = time.monotonic() + SCAN_S
                elif changed:
                    for found in await services.timeline.of_runs(workflow_id, changed, cursor):
                        cursor, told_at = cursor.past(found.event), time.monotonic()
                        yield _told(workflow_id, found, cursor)
                if time.monotonic() - told_at > KEEPALIVE_S:
                    told_at = time.monotonic()
                    yield f"id: {cursor}\n: still here\n\n"
                await watch.wait(lease.wait_s(max(0.0, scan_at - time.monotonic())))


def _told(workflow_id: str, found: CanvasEvent, cursor: Cursor) -> str:
    return f"id: {cursor}\ndata: {line(event_json(workflow_id, found.node_id, found.event))}\n\n"


def _cursor(services: Services, name: str, text: str | None) -> Cursor | None:
    try:
        return services.timeline.parse(text) if text else None
    except ValueError as error:
        raise InvalidRequest([FieldError(name, str(error))]) from error


OPERATIONS = (
    Operation(
        "GET",
        "/api/workflows/{workflow_id}/events",
        read_canvas_events,
        "List the events of all jobs of a workflow; with Accept: text/event-stream those that come are streamed, "
        "resumable by Last-Event-ID",
        "jobs",
        {200: Answer("Events, oldest first.", CanvasEventList, EVENT_STREAM)},
        query=CanvasEventsQuery,
        problems=(404, 422, 503),
    ),
)
