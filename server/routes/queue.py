"""The queue by HTTP: what waits, pausing and resuming, and moving a job in it."""

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from crdt.json import Json
from jobs.control import Overview
from jobs.pauses import Pause, Scope
from server.access import Access, Role, caller_of
from server.door import read_body
from server.models import MoveBody, PauseBody, QueueScope
from server.operations import Answer, Operation
from server.records import ImageJobRecord, QueueRecord, iso, job_record
from server.routes.jobs import run_of
from server.routes.runs import person
from server.services import Services, services_of


async def read_queue(request: Request) -> Response:
    """Read how many jobs wait and are at work, and what is paused."""
    return await _overview(request)


async def pause_queue(request: Request) -> Response:
    """Let nothing new begin: of a provider, on a canvas, or at all. What is at work goes on."""
    body = await read_body(request, PauseBody)
    scope, key = await _scope(request, body)
    who = person(request, body.by)
    by = who.get("name") or who.get("id")
    await services_of(request).queue.pause(scope, key, body.until_s, body.reason, by)
    return await _overview(request)


async def resume_queue(request: Request) -> Response:
    """Let jobs begin again, also where a provider had asked for a pause."""
    scope, key = await _scope(request, await read_body(request, QueueScope))
    await services_of(request).queue.resume(scope, key)
    return await _overview(request)


async def move_job(request: Request) -> Response:
    """Put a waiting job before or behind the others of the same person."""
    job_id = (await run_of(request)).id
    body = await read_body(request, MoveBody)
    return JSONResponse(job_record(await services_of(request).queue.move(job_id, body.to)))


async def _scope(request: Request, body: QueueScope) -> tuple[Scope, str]:
    """What is meant, once it is clear that the caller may.

    Raises:
        Forbidden: A provider, and everything, are for admins; a canvas is for those whom its token reaches.
        UnknownProvider, WorkflowNotFound: There is no such thing.

    """
    caller, services = caller_of(request), services_of(request)
    if body.workflow_id is not None:
        caller.require_workflow(body.workflow_id)
        await services.require(body.workflow_id)
        return Scope.WORKFLOW, body.workflow_id
    access: Access = request.app.state.access
    if not access.open:
        caller.require(Role.ADMIN)
        caller.require_every_workflow()
    if body.provider is None:
        return Scope.ALL, ""
    return Scope.PROVIDER, services.registry.get(body.provider).name


async def _overview(request: Request) -> Response:
    services = services_of(request)
    overview = await services.queue.overview()
    reaches = caller_of(request).reaches
    shown = [pause for pause in overview.held.pauses if pause.scope is not Scope.WORKFLOW or reaches(pause.key)]
    names = sorted({provider.name for provider in services.registry.providers} | {*overview.waiting, *overview.running})
    providers = [_provider(services, name, overview) for name in names]
    return JSONResponse({"paused": [_pause(pause) for pause in shown], "providers": providers})


def _pause(pause: Pause) -> dict[str, Json]:
    named = {Scope.PROVIDER: "provider", Scope.WORKFLOW: "workflowId"}
    optional: dict[str, Json] = {
        "until": None if pause.until is None else iso(pause.until),
        "reason": pause.reason or None,
        "by": pause.by,
    }
    return {
        "scope": pause.scope.value,
        **({named[pause.scope]: pause.key} if pause.scope in named else {}),
        "kind": pause.kind.value,
        "at": iso(pause.at),
        **{key: value for key, value in optional.items() if value is not None},
    }


def _provider(services: Services, name: str, overview: Overview) -> dict[str, Json]:
    pause = overview.held.of(name, "")
    limits = services.dispatcher.limits
    own = {scope: str(limit) for scope, limit in limits.scopes.items() if scope.partition(":")[0] == name}
    optional: dict[str, Json] = {
        "pausedUntil": iso(pause.until) if pause is not None and pause.until is not None else None,
        "reason": pause.reason or None if pause is not None else None,
    }
    return {
        "name": name,
        "state": "open" if pause is None else pause.held,
        "waiting": overview.waiting.get(name, 0),
        "running": overview.running.get(name, 0),
        "limits": dict(own),
        **{key: value for key, value in optional.items() if value is not None},
    }


OPERATIONS = (
    Operation(
        "GET",
        "/api/queue",
        read_queue,
        "Read how many jobs wait and are at work at each provider, its limits, and what is paused",
        "queue",
        {200: Answer("The queue.", QueueRecord)},
    ),
    Operation(
        "POST",
        "/api/queue/pause",
        pause_queue,
        "Let nothing new begin: of a provider, on a canvas, or at all (the first and the last are for admins)",
        "queue",
        {200: Answer("The queue.", QueueRecord)},
        bodies=(PauseBody,),
        problems=(404,),
    ),
    Operation(
        "POST",
        "/api/queue/resume",
        resume_queue,
        "Let jobs begin again, also where a provider had asked for a pause",
        "queue",
        {200: Answer("The queue.", QueueRecord)},
        bodies=(QueueScope,),
        problems=(404,),
    ),
    Operation(
        "POST",
        "/api/images/jobs/{job_id}/move",
        move_job,
        "Put a waiting job before or behind the others of the same person and priority",
        "jobs",
        {200: Answer("The job.", ImageJobRecord)},
        bodies=(MoveBody,),
        problems=(404, 409),
    ),
)
