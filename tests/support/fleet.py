"""Web processes and workers on one Postgres, one Redis and one folder."""

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from crdt.database import create_engine
from tests.support.server import ServerFactory, ServerProcess


class Fleet:
    """
    Processes of one installation; the first web process is the public address.

    Args:
        factory: Starts them, and stops them at the end.
        folder: Where the data folder that they share is made.
        database_url: An empty Postgres database.
        redis_url: An empty Redis.
        env: Settings of all of them.
    """

    def __init__(
        self,
        factory: ServerFactory,
        folder: Path,
        database_url: str,
        redis_url: str,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.database_url = database_url
        self.webs: list[ServerProcess] = []
        self.workers: list[ServerProcess] = []
        self._factory = factory
        self._data = folder / "shared"
        self._env = {"DARKROOM_DEMO_DELAY_S": "0", **(env or {})}
        self._env |= {"DATABASE_URL": database_url, "REDIS_URL": redis_url}

    def describe(self, role: str) -> ServerProcess:
        """One more process, not started yet."""
        env = {"APP_URL": self.webs[0].url, **self._env} if self.webs else self._env
        server = self._factory.describe(env=env, data=self._data, args=["--role", role])
        (self.workers if role == "worker" else self.webs).append(server)
        return server

    def start_now(self, *roles: str) -> None:
        """Start one process of each role, side by side."""
        for server in [self.describe(role) for role in roles]:
            server.launch()
        for server in self.all:
            server.await_ready()

    @property
    def all(self) -> Sequence[ServerProcess]:
        """Every process."""
        return [*self.webs, *self.workers]

    async def rows(self, query: sa.Select[Any]) -> list[sa.Row[Any]]:
        """What the database answers to a query."""
        engine = create_engine(self.database_url)
        try:
            async with engine.connect() as connection:
                return list(await connection.execute(query))
        finally:
            await engine.dispose()

    async def start(self, *servers: ServerProcess) -> None:
        """Start processes that are not running."""
        for server in servers:
            if not server.running:
                server.launch()
        await asyncio.gather(*(asyncio.to_thread(server.await_ready) for server in servers))
