"""Calls of makers by HTTP."""

import asyncio
from typing import Final

from starlette.background import BackgroundTask
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from jobs.deliveries import Fate
from jobs.errors import DatabaseAway
from providers.errors import BadSignature
from server.door import read_bytes
from server.operations import Answer, Operation
from server.records import ReceivedRecord
from server.services import services_of
from server.webhooks import Call

LIMIT_BYTES: Final = 256 * 1024
READ_LIMIT_S: Final = 15.0
RECORD_LIMIT_S: Final = 8.0
"""Makers wait for 15 to 30 s; one that is told to come again loses nothing."""


async def receive(request: Request) -> Response:
    """Record a call of a maker, if it proves where it comes from."""
    provider: str = request.path_params["provider"]
    webhooks, counted = services_of(request).webhooks, services_of(request).metrics.runs.webhook
    if not webhooks.serves(provider):
        raise HTTPException(404)
    try:
        async with asyncio.timeout(READ_LIMIT_S):
            body = await read_bytes(request, LIMIT_BYTES)
    except TimeoutError:
        raise HTTPException(408) from None
    query = request.query_params
    headers = {name.lower(): value for name, value in request.headers.items()}
    call = Call(provider, headers, body, query.get("run", ""), query.get("token", ""))
    try:
        async with asyncio.timeout(RECORD_LIMIT_S):
            receipt = await webhooks.receive(call)
    except BadSignature:
        counted(provider, "refused")
        raise
    except (OSError, TimeoutError) as error:
        counted(provider, "away")
        raise DatabaseAway(type(error).__name__) from error
    counted(provider, receipt.fate.value)
    woken = receipt.run if receipt.fate is Fate.WOKEN else None
    # After the answer; should it be lost, the sweep finds the run due.
    work = None if woken is None else BackgroundTask(services_of(request).jobs.wake, woken.id)
    return JSONResponse({"received": True}, background=work)


OPERATIONS = (
    Operation(
        "POST",
        "/webhooks/{provider}",
        receive,
        "Take a call of a maker: signed by it, or with the token of the run it is about",
        "webhooks",
        {200: Answer("It is recorded, or was so already.", ReceivedRecord)},
        problems=(400, 401, 404, 408, 413, 415, 503),
        public=True,
    ),
)
