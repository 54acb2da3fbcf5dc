"""Reading requests: bodies and query parameters are checked once, here, before anything is done."""

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Final, NoReturn, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails
from starlette.requests import Request

from crdt.canvas import valid_id
from crdt.errors import NodeNotFound
from crdt.json import Json
from crdt.rooms import ROOM_ID
from crdt.values import holds_picture_bytes, plain
from server.access import TOKEN_PARAMETER
from server.errors import BodyTooLarge, FieldError, InvalidJson, InvalidRequest, UnsupportedMediaType, WorkflowNotFound

Model = TypeVar("Model", bound=BaseModel)

BODY_LIMIT_BYTES: Final = 1024 * 1024
BATCH_LIMIT_BYTES: Final = 8 * 1024 * 1024
DRAIN_LIMIT_BYTES: Final = 64 * 1024 * 1024
DRAIN_LIMIT_S: Final = 10.0
"""How much of a body that is refused is read away, and for how long."""
IDEMPOTENCY_HEADER: Final = "Idempotency-Key"
_KEY = re.compile(r"[\x21-\x7e]{1,200}")
_MOST_ERRORS: Final = 20
_BRANCHES: Final = frozenset({"int", "str", "bool", "float"})
"""Names that pydantic adds to the path of a field which may have one of several types."""


async def read_body(request: Request, model: type[Model], limit_bytes: int = BODY_LIMIT_BYTES) -> Model:
    """The body as a checked model; no body at all counts as `{}`.

    Raises:
        BodyTooLarge: Longer than `limit_bytes`.
        UnsupportedMediaType: Not JSON by its Content-Type.
        InvalidJson: Not JSON by its content.
        InvalidRequest: Names every field that is wrong.

    """
    return check(model, await read_json(request, limit_bytes))


async def read_json(request: Request, limit_bytes: int = BODY_LIMIT_BYTES) -> Json:
    """The body as JSON that every database and browser takes; no body at all counts as `{}`.

    Raises:
        BodyTooLarge, UnsupportedMediaType, InvalidJson: As `read_body`.

    """
    body = await read_bytes(request, limit_bytes)
    if not body:
        return {}
    content_type = request.headers.get("content-type", "")
    if content_type.partition(";")[0].strip().lower() != "application/json":
        raise UnsupportedMediaType(content_type[:100])
    try:
        # Postgres stores neither NUL nor lone surrogates, browsers no big integers: `plain` takes them out.
        return plain(json.loads(body, parse_constant=_refuse_constant))
    except UnicodeDecodeError:
        raise InvalidJson("the body is not UTF-8") from None
    except RecursionError:
        raise InvalidJson("the body is nested too deeply") from None
    except ValueError as error:
        raise InvalidJson(f"the body is not JSON: {error}") from None


def check(model: type[Model], value: Json) -> Model:
    """The value as a checked model.

    Raises:
        InvalidRequest: Names every field that is wrong, by its camelCase path.

    """
    if not isinstance(value, Mapping):
        raise InvalidRequest([FieldError("", "the body must be a JSON object")])
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise InvalidRequest(_field_errors(model, error)) from None


def read_query(request: Request, model: type[Model]) -> Model:
    """The query parameters as a checked model.

    Raises:
        InvalidRequest: Names every parameter that is wrong.

    """
    try:
        given = {name: value for name, value in request.query_params.items() if name != TOKEN_PARAMETER}
        return model.model_validate(given, strict=False)
    except ValidationError as error:
        raise InvalidRequest(_field_errors(model, error)) from None


def workflow_id_of(request: Request) -> str:
    """The workflow named in the path.

    Raises:
        WorkflowNotFound: No workflow can have this id.

    """
    workflow_id: str = request.path_params["workflow_id"]
    if ROOM_ID.fullmatch(workflow_id) is None:
        raise WorkflowNotFound(workflow_id[:140])
    return workflow_id


def node_id_of(request: Request) -> str:
    """The node named in the path.

    Raises:
        NodeNotFound: No node can have this id.

    """
    node_id: str = request.path_params["node_id"]
    if not valid_id(node_id):
        raise NodeNotFound(node_id[:140])
    return node_id


def idempotency_key_of(request: Request) -> str | None:
    """The Idempotency-Key header.

    Raises:
        InvalidRequest: Not 1 to 200 visible ASCII characters.

    """
    key = request.headers.get(IDEMPOTENCY_HEADER)
    if key is not None and _KEY.fullmatch(key) is None:
        raise InvalidRequest([FieldError(IDEMPOTENCY_HEADER, "must be 1 to 200 visible ASCII characters")])
    if key is not None and holds_picture_bytes(key):
        raise InvalidRequest([FieldError(IDEMPOTENCY_HEADER, "must not hold the data of a picture")])
    return key


async def read_bytes(request: Request, limit_bytes: int) -> bytes:
    """The body as it came.

    Raises:
        BodyTooLarge: Longer than `limit_bytes`; no more than that was ever held.

    """
    declared = request.headers.get("content-length", "")
    refused = declared.isdecimal() and int(declared) > limit_bytes
    body = bytearray()
    stream = request.stream()
    async for chunk in stream:
        if not refused:
            body += chunk
        if refused or len(body) > limit_bytes:
            body.clear()
            await _drain(stream)
            raise BodyTooLarge(limit_bytes)
    return bytes(body)


async def _drain(stream: AsyncIterator[bytes]) -> None:
    """Read the rest away: a client that is cut off while it sends never reads why it was refused."""
    left = DRAIN_LIMIT_BYTES
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(DRAIN_LIMIT_S):
            async for chunk in stream:
                left -= len(chunk)
                if left < 0:
                    return


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


def _field_errors(model: type[BaseModel], error: ValidationError) -> list[FieldError]:
    """One error per field: a field of several types is wrong once, not once per type."""
    found: dict[str, FieldError] = {}
    for detail in error.errors(include_url=False, include_input=False)[:_MOST_ERRORS]:
        wrong = _field_error(model, detail)
        known = found.get(wrong.field)
        found[wrong.field] = wrong if known is None else FieldError(wrong.field, f"{known.message}, or {wrong.message}")
    return list(found.values())


def _field_error(model: type[BaseModel], detail: ErrorDetails) -> FieldError:
    path = _path(detail["loc"])
    if detail["type"] == "extra_forbidden":
        return FieldError(path, f"is not a known field{_known_fields(model, detail['loc'])}")
    if detail["type"] == "missing":
        return FieldError(path, "is required")
    message = detail["msg"].removeprefix("Value error, ")
    return FieldError(path, message[:1].lower() + message[1:])


def _path(location: Sequence[int | str]) -> str:
    return ".".join(str(part) for part in location if part not in _BRANCHES)


def _known_fields(model: type[BaseModel], location: Sequence[int | str]) -> str:
    """The fields there are, when the unknown one stands at the top of the body."""
    if len(location) != 1:
        return ""
    names = sorted(field.alias or name for name, field in model.model_fields.items())
    return f"; known: {', '.join(names)}" if names else "; this route takes none"
