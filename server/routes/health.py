"""For operators: liveness, readiness, metrics, the description of the API."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from crdt.database import read_only
from jobs.tables import runs
from server.errors import Unready
from server.operations import Answer, Operation
from server.records import HealthRecord
from server.running import Running

logger = logging.getLogger(__name__)

_CHECK_S: Final = 3.0
_UNFINISHED: Final = ("pending", "running")
_NO_STORE: Final = {"cache-control": "no-store"}


async def health(_request: Request) -> Response:
    """Tell that the process answers."""
    return JSONResponse({"status": "ok", "checks": {}}, headers=_NO_STORE)


async def ready(request: Request) -> Response:
    """Tell whether this process does its work: the database takes writes, pictures can be stored, jobs are worked on.

    What is wrong and not vital is told too ("degraded"): taking such a process out of use would make it worse.
    """
    running = running_of(request)
    checks = {name: await _checked(name, check.ask) for name, check in running.checks.items()}
    if running.stopping.is_set():
        checks["server"] = "stopping"
    wrong = {name for name, state in checks.items() if state != "ok"}
    if any(name not in running.checks or running.checks[name].vital for name in wrong):
        raise Unready(checks)
    return JSONResponse({"status": "degraded" if wrong else "ok", "checks": checks}, headers=_NO_STORE)


async def metrics(request: Request) -> Response:
    """Tell the numbers, for Prometheus."""
    running = running_of(request)
    running.metrics.unfinished(await _count_unfinished(running))
    body, content_type = running.metrics.render(request.headers.get("accept", ""))
    return Response(body, headers={"content-type": content_type, **_NO_STORE})


async def openapi(request: Request) -> Response:
    """Describe the API."""
    return JSONResponse(request.app.state.openapi)


def running_of(request: Request) -> Running:
    """The process that serves this request."""
    running: Running = request.app.state.running
    return running


async def _checked(name: str, ask: Callable[[], Awaitable[str]]) -> str:
    try:
        async with asyncio.timeout(_CHECK_S):
            state, reason = await ask(), ""
    except (SQLAlchemyError, OSError, TimeoutError) as error:
        state = "does not answer" if isinstance(error, TimeoutError) else "cannot be written"
        reason = type(error).__name__
    if state != "ok":
        facts = {"action": "not_ready", "check": name, "reason": reason or state}
        logger.warning("not ready", extra=facts)
    return state


async def _count_unfinished(running: Running) -> dict[str, int]:
    query = sa.select(runs.c.status, sa.func.count()).where(runs.c.status.in_(_UNFINISHED)).group_by(runs.c.status)
    async with read_only(running.engine).connect() as connection:
        found = {status: count for status, count in await connection.execute(query)}  # noqa: C416 - rows are no tuples
    return dict.fromkeys(_UNFINISHED, 0) | found


OPERATIONS = (
    Operation(
        "GET", "/health", health, "Liveness", "operations", {200: Answer("It answers.", HealthRecord)}, public=True
    ),
    Operation(
        "GET",
        "/readyz",
        ready,
        "Readiness",
        "operations",
        {200: Answer("It does its work; `degraded` where something that it can do without is away.", HealthRecord)},
        problems=(503,),
        public=True,
    ),
    Operation(
        "GET",
        "/metrics",
        metrics,
        "Numbers for Prometheus",
        "operations",
        {200: Answer("Text that Prometheus reads.", media_type="text/plain")},
        everywhere=True,
    ),
    Operation(
        "GET",
        "/openapi.json",
        openapi,
        "This document",
        "operations",
        {200: Answer("OpenAPI 3.1.", media_type="application/json")},
        public=True,
    ),
)
