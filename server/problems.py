"""Problem details (RFC 9457): the one table that gives domain errors an HTTP status."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from typing import Any, Final

from sqlalchemy.exc import SQLAlchemyError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from crdt.errors import (
    DocumentFull,
    EdgeExists,
    EdgeNotFound,
    InvalidNode,
    InvalidRoomId,
    NodeExists,
    NodeNotFound,
    RoomUnavailable,
)
from crdt.json import Json
from jobs.errors import (
    BadKey,
    BatchRefused,
    BudgetExceeded,
    DatabaseAway,
    IdempotencyConflict,
    NothingToUse,
    NotWaiting,
    QueueFull,
    RunActive,
    RunNotFound,
    StaleRequest,
    StorageUnavailable,
)
from jobs.run import MICROS
from providers.errors import BadSignature, InvalidSpec, KeysAway, RequestRefused, UnknownModel, UnknownProvider
from server.errors import (
    BatchNotFound,
    BodyTooLarge,
    BudgetNotFound,
    FieldError,
    Forbidden,
    ForbiddenOrigin,
    ImageNotFound,
    InBatch,
    InvalidJson,
    InvalidRequest,
    NoSecret,
    TooManyStreams,
    Unauthenticated,
    Unready,
    UnsupportedMediaType,
    WorkflowNotFound,
)
from server.records import job_record

logger = logging.getLogger(__name__)

PROBLEM_TYPE: Final = "https://darkroom.dev/problems/"
PROBLEM_MEDIA_TYPE: Final = "application/problem+json"
_RETRY_AFTER_S: Final = "2"


@dataclass(frozen=True, slots=True)
class Problem:
    """A refusal as HTTP tells it; `name` ends its type URI."""

    name: str
    status: int
    detail: str
    errors: tuple[FieldError, ...] = ()
    extra: Mapping[str, Json] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """Its name as words."""
        return self.name.replace("-", " ").capitalize()

    def to_json(self, request_id: str) -> dict[str, Json]:
        """Its body."""
        body: dict[str, Json] = {
            "type": PROBLEM_TYPE + self.name,
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
            "requestId": request_id,
        }
        if self.errors:
            body["errors"] = [{"field": error.field, "message": error.message} for error in self.errors]
        return {**body, **self.extra}


def _invalid(error: InvalidRequest) -> Problem:
    return Problem("invalid-request", 422, str(error), error.errors)


def _in_batch(error: InBatch | BatchRefused) -> Problem:
    problem = problem_of(error.cause)
    if problem is None:
        raise error.cause
    errors = tuple(FieldError(f"requests.{error.index}.{part.field}", part.message) for part in problem.errors)
    return replace(problem, detail=str(error), errors=errors)


def _field(name: str, path: str, message: str, status: int = 422) -> Problem:
    return Problem(name, status, message, (FieldError(path, message),))


def _current(name: str, path: str, error: StaleRequest | RunActive) -> Problem:
    current = job_record(error.current) if error.current is not None else None
    return replace(_field(name, path, str(error), 409), extra={"current": current})


def _budget_exceeded(error: BudgetExceeded) -> Problem:
    asked = error.asked_usd_micros
    budget: dict[str, Json] = {
        "scope": error.scope,
        "key": error.key,
        "period": error.period,
        "limitUsd": error.limit_usd_micros / MICROS,
        "spentUsd": error.spent_usd_micros / MICROS,
        "reservedUsd": error.reserved_usd_micros / MICROS,
        "askedUsd": None if asked is None else asked / MICROS,
    }
    return Problem("budget-exceeded", 402, f"{str(error)[0].upper()}{str(error)[1:]}.", extra={"budget": budget})


def forbidden_origin(error: ForbiddenOrigin) -> Problem:
    """The problem of a page of another site."""
    return _field("forbidden-origin", "Origin", str(error), 403)


def _unauthenticated(error: Unauthenticated) -> Problem:
    # RFC 6750 3.1: a request without any token is not told of an error.
    told = "" if error.why == "missing" else ', error="invalid_token"'
    headers = {"WWW-Authenticate": f'Bearer realm="darkroom"{told}', "Cache-Control": "no-store"}
    return Problem(f"token-{error.why}", 401, str(error), headers=headers)


def _unavailable(error: Exception) -> Problem:
    # The text of a database error quotes statements; people get a sentence, the log gets the rest.
    logger.error("a part this request needs does not answer", extra={"action": "unavailable"}, exc_info=error)
    detail = "The database does not answer now. Try again shortly."
    return Problem("unavailable", 503, detail, headers={"Retry-After": _RETRY_AFTER_S})


def _http(error: HTTPException) -> Problem:
    phrase = HTTPStatus(error.status_code).phrase
    detail = error.detail if error.detail != phrase else f"{phrase}."
    if error.status_code == HTTPStatus.NOT_FOUND:
        detail = "There is nothing at this address."
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED and error.headers:
        detail = f"This address takes {error.headers.get('Allow', '')}."
    return Problem(phrase.lower().replace(" ", "-"), error.status_code, detail, headers=error.headers or {})


TABLE: Final[Mapping[type[Exception], Callable[[Any], Problem]]] = {
    InvalidJson: lambda e: _field("invalid-json", "body", str(e), 400),
    UnsupportedMediaType: lambda e: _field("unsupported-media-type", "Content-Type", str(e), 415),
    BodyTooLarge: lambda e: _field("body-too-large", "body", str(e), 413),
    InvalidRequest: _invalid,
    InBatch: _in_batch,
    BatchRefused: _in_batch,
    BudgetNotFound: lambda e: _field("budget-not-found", "key", str(e), 404),
    BatchNotFound: lambda e: _field("batch-not-found", "batchId", str(e), 404),
    ForbiddenOrigin: forbidden_origin,
    Unauthenticated: _unauthenticated,
    Forbidden: lambda e: Problem("forbidden", 403, str(e)),
    NoSecret: lambda e: Problem("no-secret", 409, str(e)),
    WorkflowNotFound: lambda e: _field("workflow-not-found", "workflowId", str(e), 404),
    ImageNotFound: lambda e: _field("image-not-found", "key", str(e), 404),
    BadSignature: lambda _: Problem("invalid-signature", 401, "The signature is missing or not valid."),
    KeysAway: lambda _: Problem(
        "unavailable", 503, "The keys of the sender cannot be read now.", headers={"Retry-After": _RETRY_AFTER_S}
    ),
    TooManyStreams: lambda e: Problem("too-many-streams", 503, str(e), headers={"Retry-After": _RETRY_AFTER_S}),
    Unready: lambda e: Problem("unready", 503, str(e), extra={"checks": e.checks}),
    DocumentFull: lambda e: Problem("document-full", 413, f"{str(e)[0].upper()}{str(e)[1:]}."),
    InvalidRoomId: lambda e: _field("workflow-not-found", "workflowId", str(e), 404),
    RoomUnavailable: lambda e: Problem("unavailable", 503, str(e), headers={"Retry-After": _RETRY_AFTER_S}),
    InvalidNode: lambda e: _field("invalid-request", e.field, e.message),
    NodeExists: lambda e: _field("node-exists", "id", str(e), 409),
    EdgeExists: lambda e: _field("edge-exists", "id", str(e), 409),
    NodeNotFound: lambda e: _field("node-not-found", "nodeId", str(e), 404),
    EdgeNotFound: lambda e: _field("edge-not-found", "edgeId", str(e), 404),
    InvalidSpec: lambda e: _field("invalid-request", f"promptSpec.{e.field}", e.message),
    RequestRefused: lambda e: _field("request-refused", e.field, e.message),
    UnknownProvider: lambda e: _field("unknown-provider", "provider", str(e)),
    UnknownModel: lambda e: _field("unknown-model", "model", str(e)),
    RunNotFound: lambda e: _field("job-not-found", "jobId", f"there is no job {e.run_id!r}", 404),
    StaleRequest: lambda e: _current("stale-request", "after", e),
    RunActive: lambda e: _current("run-active", "nodeId", e),
    BudgetExceeded: _budget_exceeded,
    NothingToUse: lambda e: _field("nothing-to-use", "runId", str(e), 409),
    IdempotencyConflict: lambda e: _field("idempotency-conflict", "Idempotency-Key", str(e)),
    QueueFull: lambda e: Problem("queue-full", 429, str(e), headers={"Retry-After": f"{e.retry_after_s:.0f}"}),
    NotWaiting: lambda e: replace(_field("not-waiting", "jobId", str(e), 409), extra={"current": job_record(e.run)}),
    BadKey: lambda e: _field("image-not-found", "key", f"there is no image {e.key!r}", 404),
    StorageUnavailable: lambda _: Problem(
        "unavailable", 503, "The image store does not answer now. Try again shortly."
    ),
    DatabaseAway: _unavailable,
    SQLAlchemyError: _unavailable,
    HTTPException: _http,
}
"""What each error of the packages below, and of this one, is to a client; a test proves that none is missing."""


def problem_of(error: Exception) -> Problem | None:
    """The problem an error is, by the nearest class in the table; None for one that nobody foresaw."""
    for kind in type(error).__mro__:
        if kind in TABLE:
            return TABLE[kind](error)
    return None


def problem_response(problem: Problem, request_id: str) -> Response:
    """The problem as an HTTP response."""
    return JSONResponse(
        problem.to_json(request_id), problem.status, dict(problem.headers), media_type=PROBLEM_MEDIA_TYPE
    )


async def handle(request: Request, error: Exception) -> Response:
    """Answer a known error; installed for every class of the table."""
    problem = problem_of(error)
    if problem is None:  # pragma: no cover - only classes of the table are installed
        raise error
    return problem_response(problem, request.state.request_id)


def unforeseen(request_id: str) -> Response:
    """The answer to an error that nobody foresaw; the log has the rest."""
    problem = Problem("internal-error", 500, "Something went wrong here. The log has more under this requestId.")
    return problem_response(problem, request_id)
