"""Who can make pictures here."""

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from server.operations import Answer, Operation
from server.records import ProviderList
from server.services import services_of


async def list_providers(request: Request) -> Response:
    """List the configured providers and their models."""
    registry = services_of(request).registry
    provider, model = registry.default
    default = {"provider": provider.name, "model": model.id}
    return JSONResponse({"providers": registry.describe(), "default": default})


OPERATIONS = (
    Operation(
        "GET",
        "/api/providers",
        list_providers,
        "List providers and models",
        "providers",
        {200: Answer("The configured providers.", ProviderList)},
    ),
)
