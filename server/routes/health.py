"""For operators: liveness, readiness, metrics, the description of the API."""

import asyncio
import logging
import os
import tempfile
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Final

import anyio.to_thread
import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from crdt.database import read_only
from crdt.tables import processes
from jobs.liveness import alive_until
from server.errors import Unready
from server.operations import Answer, Operation
from server.records import HealthRecord
from server.services import Services, services_of

logger = logging.getLogger(__name__)

_CHECK_S: Final = 3.0
OLDEST_EDIT_S: Final = 5.0
"""From this age on, an edit that is not stored says that something is wrong."""
_NO_STORE: Final = {"cache-control": "no-store"}


async def health(_request: Request) -> Response:
    """Tell that the process answers."""
    return JSONResponse({"status": "ok", "checks": {}}, headers=_NO_STORE)


async def ready(request: Request) -> Response:
    """Tell whether requests would be served: the database takes writes, pictures can be stored, jobs are worked on."""
    services = services_of(request)
    checks = {
        "database": await _checked("database", partial(_write_database, services)),
        "images": await _checked("images", partial(_write_images, services)),
        "worker": await _checked("worker", partial(_hear_worker, services)),
        "edits": _edits(services),
    }
    if services.stopping.is_set():
        checks["server"] = "stopping"
    if any(state != "ok" for state in checks.values()):
        raise Unready(checks)
    return JSONResponse({"status": "ok", "checks": checks}, headers=_NO_STORE)


async def metrics(request: Request) -> Response:
    """Tell the numbers, for Prometheus."""
    services = services_of(request)
    await services.metrics.runs.sample(services.engine)
    body, content_type = services.metrics.render(request.headers.get("accept", ""))
    return Response(body, headers={"content-type": content_type, **_NO_STORE})


async def openapi(request: Request) -> Response:
    """Describe the API."""
    return JSONResponse(request.app.state.openapi)


async def _checked(name: str, check: Callable[[], Awaitable[None]]) -> str:
    try:
        async with asyncio.timeout(_CHECK_S):
            await check()
    except (SQLAlchemyError, OSError, TimeoutError) as error:
        logger.warning("not ready", extra={"action": "not_ready", "check": name, "reason": type(error).__name__})
        return "does not answer" if isinstance(error, TimeoutError) else "cannot be written"
    return "ok"


def _edits(services: Services) -> str:
    """Whether edits are committed as they come: the log may fail while the rest of the database answers."""
    journal = services.rooms.journal
    age_s = journal.age_s
    if age_s < OLDEST_EDIT_S:
        return "ok"
    why = "the database refuses them" if journal.failing else "the database is slow"
    logger.warning("not ready", extra={"action": "not_ready", "check": "edits", "age_s": round(age_s, 1)})
    return f"not stored for {age_s:.0f} s: {why}"


async def _write_database(services: Services) -> None:
    async with services.engine.begin() as connection:
        mine = processes.c.id == services.process_id
        await connection.execute(sa.update(processes).where(mine).values(seen_at=processes.c.seen_at))


async def _hear_worker(services: Services) -> None:
    async with read_only(services.engine).connect() as connection:
        if await connection.run_sync(alive_until, services.worker_id) is None:
            raise TimeoutError


async def _write_images(services: Services) -> None:
    await anyio.to_thread.run_sync(probe_folder, services.images_folder)


def probe_folder(folder: Path) -> None:
    """Write and remove a file.

    Raises:
        OSError: The folder cannot be written.

    """
    handle, name = tempfile.mkstemp(prefix=".probe-", dir=folder)
    os.close(handle)
    Path(name).unlink(missing_ok=True)


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
        {200: Answer("Requests are served.", HealthRecord)},
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
