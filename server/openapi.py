"""The OpenAPI 3.1 document, made of the route table and the models at the door."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from pydantic import BaseModel
from pydantic.alias_generators import to_camel
from pydantic.json_schema import models_json_schema

from server.operations import Answer, Operation
from server.problems import PROBLEM_MEDIA_TYPE
from server.records import ProblemRecord

_REF: Final = "#/components/schemas/{model}"
_PARAMETER = re.compile(r"\{(\w+)(?::\w+)?\}")
_PROBLEMS: Final = {
    400: "The body is not JSON.",
    401: "The access token is missing, not valid or expired.",
    402: "A budget has no room for it; `budget` says which, what is spent and what is reserved.",
    403: "The access token does not allow this, or a page of another site asked for a change.",
    404: "There is no such thing.",
    409: "Something else stands in the way; `current` is the node's current job.",
    413: "The body is too long.",
    415: "The body is not application/json.",
    416: "The file is shorter than that.",
    422: "Fields are wrong; `errors` names each.",
    503: "A part the request needs does not answer; try again.",
}
_SECURITY_SCHEMES: Final = {
    "bearer": {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "JWT",
        "description": "HS256 with sub, name, role, workflows and exp; not needed where no DARKROOM_SECRET is set.",
    },
    "query": {"type": "apiKey", "in": "query", "name": "token", "description": "The same, for what sends no headers."},
}
_SECURITY: Final[Sequence[Mapping[str, Sequence[str]]]] = [{"bearer": []}, {"query": []}]
_BODY_PROBLEMS: Final = (400, 413, 415, 422)


def build_openapi(operations: Sequence[Operation], version: str, server_url: str) -> dict[str, Any]:
    """The document; pure."""
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        path = _PARAMETER.sub(lambda found: "{" + to_camel(found[1]) + "}", operation.path)
        paths.setdefault(path, {})[operation.method.lower()] = _operation(operation)
    _, definitions = models_json_schema(
        [(model, "validation") for model in _models(operations)], by_alias=True, ref_template=_REF
    )
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Darkroom",
            "version": version,
            "summary": "Realtime collaborative canvas backend for AI images.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": server_url}],
        "paths": paths,
        "components": {"schemas": definitions.get("$defs", {}), "securitySchemes": _SECURITY_SCHEMES},
    }


def operation_id(operation: Operation) -> str:
    """A name for generated clients: the endpoint's own, in camelCase."""
    return to_camel(getattr(operation.endpoint, "__name__", operation.path))


def _models(operations: Iterable[Operation]) -> list[type[BaseModel]]:
    found: dict[type[BaseModel], None] = {ProblemRecord: None}
    for operation in operations:
        found.update(dict.fromkeys(operation.bodies))
        found.update({answer.model: None for answer in operation.answers.values() if answer.model is not None})
    return list(found)


def _operation(operation: Operation) -> dict[str, Any]:
    described: dict[str, Any] = {
        "operationId": operation_id(operation),
        "summary": operation.summary,
        "tags": [operation.tag],
        "parameters": _parameters(operation),
        "responses": {str(status): _answer(answer) for status, answer in operation.answers.items()},
    }
    if operation.bodies:
        described["requestBody"] = {"content": {"application/json": {"schema": _one_of(operation.bodies)}}}
    problems = {*operation.problems, *(_BODY_PROBLEMS if operation.bodies else ())}
    if operation.method not in {"GET", "HEAD"}:
        problems |= {403, 503}
    if not operation.public:
        problems |= {401, 403}
        described["security"] = _SECURITY
        described["description"] = _who(operation)
    for status in sorted(problems):
        content = {PROBLEM_MEDIA_TYPE: {"schema": _ref(ProblemRecord)}}
        described["responses"][str(status)] = {"description": _PROBLEMS[status], "content": content}
    return described


def _who(operation: Operation) -> str:
    where = " of every workflow" if operation.everywhere else ""
    return f"Needs the role {operation.least_role.value}{where}."


def _parameters(operation: Operation) -> list[dict[str, Any]]:
    parameters = [
        {"name": to_camel(name), "in": "path", "required": True, "schema": {"type": "string"}}
        for name in _PARAMETER.findall(operation.path)
    ]
    if operation.query is not None:
        properties = operation.query.model_json_schema(by_alias=True)["properties"]
        parameters += [{"name": name, "in": "query", "schema": schema} for name, schema in properties.items()]
    if operation.idempotent:
        schema = {"type": "string", "maxLength": 200}
        parameters.append({"name": "Idempotency-Key", "in": "header", "schema": schema})
    return parameters


def _answer(answer: Answer) -> dict[str, Any]:
    described: dict[str, Any] = {"description": answer.description}
    content: dict[str, Any] = {}
    if answer.model is not None:
        content["application/json"] = {"schema": _ref(answer.model)}
    if answer.media_type is not None:
        content[answer.media_type] = {"schema": {"type": "string"}}
    return {**described, "content": content} if content else described


def _one_of(models: tuple[type[BaseModel], ...]) -> dict[str, Any]:
    refs = [_ref(model) for model in models]
    return refs[0] if len(refs) == 1 else {"oneOf": refs}


def _ref(model: type[BaseModel]) -> dict[str, str]:
    return {"$ref": _REF.format(model=model.__name__)}
