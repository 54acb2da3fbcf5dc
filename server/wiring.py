"""The composition root: it alone reads settings, picks implementations and starts what a role needs."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from server.ground import lay
from server.metrics import Metrics
from server.parts import Parts
from server.revocations import Revocations
from server.running import Running
from server.settings import Settings
from server.web_role import start_web
from server.worker_role import start_worker

logger = logging.getLogger(__name__)


@asynccontextmanager
async def start(
    settings: Settings, metrics: Metrics, revocations: Revocations, parts: Parts | None = None
) -> AsyncIterator[Running]:
    """Everything behind the doors, started in order and stopped in the opposite order, each step in bounded time.

    Raises:
        StartupError: One line that says what to do.

    """
    async with lay(settings, metrics, revocations, parts) as ground:
        role = start_worker(ground) if settings.role == "worker" else start_web(ground, works=settings.role == "all")
        async with role as running:
            facts = {"action": "started", "process_id": ground.process_id, "role": settings.role}
            logger.info("started", extra=facts)
            try:
                yield running
            finally:
                running.stop()
