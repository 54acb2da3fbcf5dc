"""The route table: what each address does, said once for the router and for the OpenAPI document."""

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias
from urllib.parse import unquote

from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match, Route
from starlette.types import Receive, Scope, Send

from server.access import Access, Caller, Role
from server.errors import Forbidden, Unauthenticated

_WITH_IDS: Final = b"/api/workflows/"
_SLASH: Final = "\udc2f"

Endpoint: TypeAlias = Callable[[Request], Awaitable[Response]]
Door: TypeAlias = Callable[[Request, Unauthenticated | Forbidden], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer of an operation: JSON of `model`, or another media type."""

    description: str
    model: type[BaseModel] | None = None
    media_type: str | None = None


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of one address.

    Attributes:
        path: Starlette's form, parameters in snake_case.
        bodies: Models the body may have.
        problems: Statuses that are answered with problem details.
        idempotent: Whether the Idempotency-Key header is honoured.
        public: Whether it needs no access token.
        role: The least role that may do this; None by method: viewers read, editors change.
        everywhere: Whether a token for some workflows is not enough.
        steering: Whether everyone may do it where no tokens are used, whatever role it needs elsewhere.
        door: What a browser is shown that may not come in; everybody else gets problem details.

    """

    method: str
    path: str
    endpoint: Endpoint
    summary: str
    tag: str
    answers: Mapping[int, Answer]
    bodies: tuple[type[BaseModel], ...] = ()
    query: type[BaseModel] | None = None
    problems: tuple[int, ...] = ()
    idempotent: bool = False
    public: bool = False
    role: Role | None = None
    everywhere: bool = False
    steering: bool = False
    door: Door | None = None

    @property
    def least_role(self) -> Role:
        """The least role that may do this."""
        return self.role or (Role.VIEWER if self.method == "GET" else Role.EDITOR)


def build_routes(operations: Sequence[Operation]) -> list[Route]:
    """One Starlette route per address, so that a 405 names every method the address takes."""
    by_path: dict[str, dict[str, Operation]] = {}
    for operation in operations:
        by_path.setdefault(operation.path, {})[operation.method] = operation
    return [_Address(path, _Dispatch(methods)) for path, methods in by_path.items()]


class _Address(Route):
    """A route whose parameters may hold a slash, sent as %2F: nodes and edges have the ids that people give them."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Match the address as it was sent: decoded, it would have one part more."""
        raw: bytes = scope.get("raw_path") or b""
        if not raw.startswith(_WITH_IDS) or b"%2f" not in raw.lower():
            return super().matches(scope)
        # A lone surrogate stands for the slash meanwhile: nothing that was sent decodes to one.
        path = _SLASH.join(map(unquote, re.split("%2[fF]", raw.decode("latin-1"))))
        match, found = super().matches({**scope, "path": path})
        parameters = found.get("path_params", {})
        named = {name: value.replace(_SLASH, "/") for name, value in parameters.items()}
        return match, {**found, "path_params": named} if found else found


class _Dispatch:
    """Calls the endpoint of the request's method, if the caller may; HEAD is GET without its body."""

    def __init__(self, operations: Mapping[str, Operation]) -> None:
        self._operations = dict(operations)
        if "GET" in operations:
            self._operations.setdefault("HEAD", operations["GET"])

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        operation = self._operations.get(scope["method"])
        if operation is None:
            raise HTTPException(405, headers={"Allow": ", ".join(sorted(self._operations))})
        request = Request(scope, receive, send)
        response = await _answer(operation, request)
        await response(scope, receive, send)


async def _answer(operation: Operation, request: Request) -> Response:
    try:
        if not operation.public:
            request.state.caller = _admit(operation, request)
    except (Unauthenticated, Forbidden) as error:
        if operation.door is None or "text/html" not in request.headers.get("accept", ""):
            raise
        return await operation.door(request, error)
    return await operation.endpoint(request)


def _admit(operation: Operation, request: Request) -> Caller:
    """Who asks, once it is clear that they may: nothing of the request was read or done before.

    Raises:
        Unauthenticated: Without a good token.
        Forbidden: Their role, or the workflows of their token, are not enough.

    """
    access: Access = request.app.state.access
    caller = access.caller(request)
    if not (access.open and operation.steering):
        caller.require(operation.least_role)
    if operation.everywhere:
        caller.require_every_workflow()
    workflow_id = request.path_params.get("workflow_id")
    if workflow_id is not None:
        caller.require_workflow(workflow_id)
    return caller
