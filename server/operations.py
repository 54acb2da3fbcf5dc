"""The route table: what each address does, said once for the router and for the OpenAPI document."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

Endpoint: TypeAlias = Callable[[Request], Awaitable[Response]]


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


def build_routes(operations: Sequence[Operation]) -> list[Route]:
    """One Starlette route per address, so that a 405 names every method the address takes."""
    by_path: dict[str, dict[str, Endpoint]] = {}
    for operation in operations:
        by_path.setdefault(operation.path, {})[operation.method] = operation.endpoint
    return [Route(path, _Dispatch(path, endpoints)) for path, endpoints in by_path.items()]


class _Dispatch:
    """Calls the endpoint of the request's method; HEAD is GET without its body."""

    def __init__(self, path: str, endpoints: Mapping[str, Endpoint]) -> None:
        self._path = path
        self._endpoints = dict(endpoints)
        if "GET" in endpoints:
            self._endpoints.setdefault("HEAD", endpoints["GET"])

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        endpoint = self._endpoints.get(scope["method"])
        if endpoint is None:
            raise HTTPException(405, headers={"Allow": ", ".join(sorted(self._endpoints))})
        response = await endpoint(Request(scope, receive, send))
        await response(scope, receive, send)
