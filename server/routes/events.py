"""What happens to a job: a list, or a stream that goes on until the job has ended."""

import json
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, Self

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from crdt.json import Json
from jobs.records import RunEvent
from jobs.run import Run
from jobs.state import Status
from server.access import Access, Caller, caller_of
from server.door import read_query
from server.models import EventsQuery
from server.operations import Answer, Operation
from server.records import EventList, event_record, iso
from server.routes.jobs import run_of
from server.services import Services, services_of
from server.signals import Watch

EVENT_STREAM: Final = "text/event-stream"
KEEPALIVE_S: Final = 15.0
POLL_S: Final = 2.0
"""How often SQL is asked without a hint: the run may be worked on by another process."""
RETRY_MS: Final = 2_000
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
    services.streams.check(run.workflow_id)
    return streaming(stream(services, run, after, Lease.of(request)))


@dataclass(frozen=True, slots=True)
class Lease:
    """For how long somebody may go on listening: until their token ends or is called back, or the server stops."""

    services: Services
    access: Access
    caller: Caller

    @classmethod
    def of(cls, request: Request) -> Self:
        """That of whoever sent a request."""
        return cls(services_of(request), request.app.state.access, caller_of(request))

    @property
    def over(self) -> bool:
        """Whether it has ended."""
        return self.services.stopping.is_set() or self.caller.expired or self.access.revoked(self.caller)

    @contextmanager
    def waking(self, watch: Watch) -> Iterator[None]:
        """Wake a listener when a token is called back: it may be theirs."""
        self.access.revocations.watchers.add(watch.wake)
        try:
            yield
        finally:
            self.access.revocations.watchers.discard(watch.wake)

    def wait_s(self, longest_s: float) -> float:
        """Seconds to wait for news, no longer than to the end of the token."""
        left_s = self.caller.seconds_left()
        return longest_s if left_s is None else max(0.0, min(longest_s, left_s))


def streaming(lines: AsyncIterator[str]) -> Response:
    """Server-sent events as an answer."""
    headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
    return StreamingResponse(lines, headers=headers, media_type=EVENT_STREAM)


async def stream(services: Services, run: Run, after: int, lease: Lease) -> AsyncIterator[str]:
    """Events behind `after` and progress between them, as server-sent events; it ends with the run, or the lease."""
    yield f"retry: {RETRY_MS}\n\n"
    told_at = time.monotonic()
    async with services.news.follow(run) as watch:
        with services.streams.opened(run.workflow_id), lease.waking(watch):
            while not lease.over:
                for event in await services.runs.events(run.id, after):
                    after, told_at = event.seq, time.monotonic()
                    yield f"id: {event.seq}\ndata: {line(event_json(run.workflow_id, run.node_id, event))}\n\n"
                    if _STATUS_AFTER.get(event.kind, Status.RUNNING).terminal:
                        return
                progress = watch.take_progress()
                if progress is not None:
                    told_at = time.monotonic()
                    about = _about(run.id, run.workflow_id, run.node_id)
                    yield f"data: {line(about | {'kind': 'progress', 'status': 'running'} | dict(progress))}\n\n"
                await watch.wait(lease.wait_s(POLL_S))
                if time.monotonic() - told_at > KEEPALIVE_S:
                    told_at = time.monotonic()
                    yield ": still here\n\n"


def event_json(workflow_id: str, node_id: str, event: RunEvent) -> dict[str, Json]:
    """A recorded event as an `ImageProgressEvent`."""
    status = _STATUS_AFTER.get(event.kind, Status.RUNNING)
    told: dict[str, Json] = {
        **_about(event.run_id, workflow_id, node_id),
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


def _about(run_id: str, workflow_id: str, node_id: str) -> dict[str, Json]:
    return {"jobId": run_id, "workflowId": workflow_id, "nodeId": node_id}


def line(value: Mapping[str, Json]) -> str:
    """JSON on one line."""
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
        problems=(404, 422, 503),
    ),
)
