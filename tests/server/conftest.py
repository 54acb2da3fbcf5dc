import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2
import pytest

from server.app import create_app
from server.parts import Parts
from server.settings import Settings, read_settings
from tests.server.api import Api


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Settings of a server on scratch data whose demo provider answers at once."""
    return read_settings(data=tmp_path / "data", demo_delay_s=0)


@pytest.fixture
async def api(settings: Settings, tmp_path: Path) -> AsyncIterator[Api]:
    """The real application, in this process."""
    async with running(settings, tmp_path / "page") as api:
        yield api


@asynccontextmanager
async def running(settings: Settings, page: Path, parts: Parts | None = None) -> AsyncIterator[Api]:
    """The application with its lifespan in a task of its own, as a server runs it."""
    app = create_app(settings, page, parts)
    ready, stop = asyncio.Event(), asyncio.Event()

    async def live() -> None:
        async with app.router.lifespan_context(app):
            ready.set()
            await stop.wait()

    task = asyncio.create_task(live())
    started = asyncio.create_task(ready.wait())
    await asyncio.wait([task, started], return_when=asyncio.FIRST_COMPLETED)
    if task.done():
        started.cancel()
        await task
    transport = httpx2.ASGITransport(app, raise_app_exceptions=False)
    async with httpx2.AsyncClient(transport=transport, base_url=settings.public_url) as client:
        yield Api(client, app)
    stop.set()
    await task
