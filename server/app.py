"""The ASGI application: routes, middleware and the table of errors put together."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import metadata
from pathlib import Path
from typing import Final

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import WebSocketRoute

from server.access import Access
from server.door import IDEMPOTENCY_HEADER
from server.errors import DoorError
from server.metrics import Metrics
from server.middleware import REQUEST_ID_HEADER, Observe, SameOrigin
from server.openapi import build_openapi
from server.operations import build_routes
from server.origins import Origins
from server.problems import TABLE, handle
from server.routes import canvas, control, events, health, images, jobs, money, page, providers, runs, tokens, workflows
from server.settings import Settings
from server.websocket import websocket_endpoint
from server.wiring import Parts, start

OPERATIONS: Final = (
    *workflows.OPERATIONS,
    *canvas.OPERATIONS,
    *runs.OPERATIONS,
    *control.OPERATIONS,
    *money.OPERATIONS,
    *jobs.OPERATIONS,
    *events.OPERATIONS,
    *providers.OPERATIONS,
    *tokens.OPERATIONS,
    *images.OPERATIONS,
    *health.OPERATIONS,
    *page.OPERATIONS,
)
"""Every address of the server but the websocket; the last one takes any name, so it stays last."""


def create_app(settings: Settings, page_folder: Path | None = None, parts: Parts | None = None) -> Starlette:
    """The application; its lifespan starts and stops everything behind it.

    Args:
        settings: Read once, here and in the wiring.
        page_folder: Where the built page lies; None looks for it.
        parts: What stands in place of the usual parts.

    """
    numbers = Metrics()
    access = Access(settings.token_secret)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with start(settings, numbers, access.revocations, parts) as services:
            app.state.services = services
            yield

    app = Starlette(
        routes=[WebSocketRoute("/ws/{room}", websocket_endpoint), *build_routes(OPERATIONS)],
        middleware=[
            Middleware(Observe, numbers),
            Middleware(
                SameOrigin,
                Origins(settings.public_url, settings.cors_origins, tokens=settings.secret is not None),
            ),
            *_cors(settings),
        ],
        exception_handlers=dict.fromkeys((*TABLE, DoorError), handle),
        lifespan=lifespan,
    )
    app.state.page = page_folder
    app.state.access = access
    app.state.openapi = build_openapi(OPERATIONS, version(), settings.public_url)
    return app


def version() -> str:
    """The version of the installed package."""
    try:
        return metadata.version("darkroom")
    except metadata.PackageNotFoundError:
        return "0+checkout"


def _cors(settings: Settings) -> list[Middleware]:
    if not settings.cors_origins:
        return []
    return [
        Middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=("GET", "POST", "PUT", "PATCH", "DELETE"),
            allow_headers=("Authorization", "Content-Type", IDEMPOTENCY_HEADER, REQUEST_ID_HEADER, "Last-Event-ID"),
            expose_headers=(REQUEST_ID_HEADER, "Location", "WWW-Authenticate"),
        )
    ]
