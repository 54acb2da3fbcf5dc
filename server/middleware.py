"""What happens to every request: an id, a line in the log, a count, the rule about other sites' pages."""

import logging
import re
import time
import uuid
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.errors import ForbiddenOrigin
from server.logs import request_id
from server.metrics import Metrics
from server.origins import Origins
from server.problems import forbidden_origin, problem_response, unforeseen

logger = logging.getLogger("darkroom.access")

REQUEST_ID_HEADER: Final = "X-Request-Id"
_REQUEST_ID = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_CLIENT_GONE: Final = 499
_QUIET_PATHS: Final = frozenset({"/health", "/readyz", "/metrics"})
"""Asked every few seconds by machines: told at debug level only."""


class Observe:
    """Gives each request an id, logs and counts its answer, and answers the errors that nobody foresaw."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        current = _given_id(scope) or uuid.uuid4().hex
        scope.setdefault("state", {})["request_id"] = current
        token = request_id.set(current)
        begun = time.perf_counter()
        status = _CLIENT_GONE

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)[REQUEST_ID_HEADER] = current
            await send(message)

        try:
            await self._app(scope, receive, answer)
        except ClientDisconnect:
            pass
        except Exception:
            logger.exception("request failed", extra={"action": "request_failed", "path": scope["path"]})
            if status != _CLIENT_GONE:
                raise  # The answer is under way: only cutting the connection tells that it is incomplete.
            await unforeseen(current)(scope, receive, answer)
        finally:
            self._tell(scope, status, time.perf_counter() - begun)
            request_id.reset(token)

    def _tell(self, scope: Scope, status: int, duration_s: float) -> None:
        route = getattr(scope.get("route"), "path", "unknown")
        self._metrics.request_done(scope["method"], route, status, duration_s)
        level = logging.DEBUG if scope["path"] in _QUIET_PATHS else logging.INFO
        told = {
            "action": "http_request",
            "method": scope["method"],
            "path": scope["path"],
            "status": status,
            "duration_ms": round(duration_s * 1000, 1),
        }
        logger.log(level, "%s %s %s", scope["method"], scope["path"], status, extra=told)


class SameOrigin:
    """Refuses changes that pages of other sites ask for; see `Origins`."""

    def __init__(self, app: ASGIApp, origins: Origins) -> None:
        self._app = app
        self._origins = origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] == "http" and scope["method"] not in _SAFE_METHODS:
            headers = Headers(scope=scope)
            origin = headers.get("origin", "")
            if not self._origins.trusts(origin, headers.get("host", "")):
                problem = forbidden_origin(ForbiddenOrigin(origin[:200]))
                await problem_response(problem, scope["state"]["request_id"])(scope, receive, send)
                return
        await self._app(scope, receive, send)


def _given_id(scope: Scope) -> str | None:
    given = Headers(scope=scope).get(REQUEST_ID_HEADER, "")
    return given if _REQUEST_ID.fullmatch(given) else None
