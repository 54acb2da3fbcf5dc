from typing import Any

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator
from pydantic.alias_generators import to_camel
from starlette.routing import Route, WebSocketRoute

from server.app import OPERATIONS, create_app
from server.openapi import build_openapi
from server.settings import read_settings


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    """The description of the API."""
    return build_openapi(OPERATIONS, "1.2.3", "http://127.0.0.1:8000")


def test_the_document_is_openapi_3_1(document: dict[str, Any]) -> None:
    assert document["openapi"].startswith("3.1")
    OpenAPIV31SpecValidator(document).validate()


def test_every_route_is_described(document: dict[str, Any]) -> None:
    described = set()
    for route in create_app(read_settings()).routes:
        if isinstance(route, WebSocketRoute):
            continue
        assert isinstance(route, Route)
        path = route.path.replace(":path", "")
        for name in route.param_convertors:
            path = path.replace(f"{{{name}}}", f"{{{to_camel(name)}}}")
        described.add(path)
    assert described == set(document["paths"])


def test_operations_have_names_of_their_own(document: dict[str, Any]) -> None:
    names = [operation["operationId"] for path in document["paths"].values() for operation in path.values()]
    assert len(names) == len(set(names))


def test_bodies_are_described_as_they_are_checked(document: dict[str, Any]) -> None:
    schema = document["components"]["schemas"]["StartImageJobRequest"]
    assert set(schema["required"]) == {"workflowId", "nodeId"}
    assert schema["additionalProperties"] is False
    assert "promptSpec" in schema["properties"]


def test_what_needs_a_token_says_so_and_with_which_role(document: dict[str, Any]) -> None:
    assert document["components"]["securitySchemes"].keys() == {"bearer", "query"}
    share = document["paths"]["/api/workflows/{workflowId}/share"]["post"]
    assert share["security"] == [{"bearer": []}, {"query": []}]
    assert {"401", "403"} <= share["responses"].keys()
    assert share["description"] == "Needs the role editor."
    open_to_all = {path for path, methods in document["paths"].items() if "security" not in methods.get("get", share)}
    pages = {"/w/{workflowId}", "/assets/{path}", "/{name}", "/images/{key}"}
    assert open_to_all == pages | {"/health", "/readyz", "/openapi.json"}
