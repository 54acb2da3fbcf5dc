"""The real server as a process, for story, kill and browser tests."""

import asyncio
import http.client
import itertools
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import sqlalchemy as sa

from crdt.database import create_engine
from tests.support.processes import LOOPBACK, PRODUCT_VARIABLE, ROOT, StartError, ended_within, free_port, spawn, stop

if TYPE_CHECKING:
    import subprocess

_READY_TIMEOUT_S = 60.0
_POLL_S = 0.02
_ANSWER_TIMEOUT_S = 5.0
_HELD_TIMEOUT_S = 20.0
DRAIN_S = "0.2"
"""A stop sends away whoever is still there over so many seconds, unless a test says otherwise."""


class ServerProcess:
    """
    `python -m server serve` on a loopback port with its own data folder.

    Port and data stay the same over `kill`, `terminate` and `start`, so a restart is what clients of a real server see.
    """

    _numbers = itertools.count(1)

    def __init__(
        self,
        data: Path,
        *,
        env: Mapping[str, str] | None = None,
        args: Sequence[str] = (),
        module: str = "server",
    ) -> None:
        """
        Describe a server; nothing runs before `start`.

        Args:
            data: Its DARKROOM_DATA, made when missing. Its log is captured beside it.
            env: Settings over the defaults; nothing of the shell's own settings is passed on.
            args: Further arguments of `serve`.
            module: What is run; it may be changed between two starts.
        """
        self.data = data
        self.module = module
        self.env = dict(env or {})
        self.args = tuple(args)
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._log = data.with_name(f"{data.name}-{next(self._numbers)}.log")

    @property
    def url(self) -> str:
        """The address of the server, without a slash at the end."""
        return f"http://{LOOPBACK}:{self.port}"

    @property
    def ws_url(self) -> str:
        """What a y-websocket provider is given as its server."""
        return f"ws://{LOOPBACK}:{self.port}/ws"

    @property
    def database_url(self) -> str:
        """Its SQLite file, as a SQLAlchemy URL."""
        return f"sqlite+aiosqlite:///{self.data / 'darkroom.db'}"

    @property
    def log(self) -> str:
        """All that the server printed so far, over all its starts."""
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    @property
    def pid(self) -> int:
        """The process id of the running server."""
        assert self._process is not None, "the server is not running"
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the process is there."""
        return self._process is not None and self._process.poll() is None

    async def rows(self, query: sa.Select[Any]) -> list[sa.Row[Any]]:
        """What its SQLite file answers to a query, whether it is running or not."""
        engine = create_engine(self.database_url)
        try:
            async with engine.connect() as connection:
                return list(await connection.execute(query))
        finally:
            await engine.dispose()

    async def count(self, table: sa.Table) -> int:
        """Rows in a table of its SQLite file."""
        ((counted,),) = await self.rows(sa.select(sa.func.count()).select_from(table))
        return int(counted)

    async def held_at(self, point: str) -> None:
        """
        Wait until something is held at one of `held_server.POINTS`.

        Raises:
            StartError: It ended instead; with its log.
        """
        process, sign = self._process, self.data / f"at-{point}"
        assert process is not None, "the server is not running"
        async with asyncio.timeout(_HELD_TIMEOUT_S):
            while not sign.exists():
                if await asyncio.to_thread(ended_within, process, _POLL_S):
                    raise StartError(f"the server ended; its log:\n{self.log}")

    async def start(self, timeout_s: float = _READY_TIMEOUT_S) -> Self:
        """
        Start the process and wait until /readyz answers 200.

        Raises:
            StartError: It ended first, or was not ready in time; with its log.
        """
        self.launch()
        await asyncio.to_thread(self.await_ready, timeout_s)
        return self

    async def kill(self) -> None:
        """End it by SIGKILL, as the kernel or a power cut would."""
        await asyncio.to_thread(self.stop, signal.SIGKILL)

    async def terminate(self, patience_s: float = 20.0) -> int:
        """Ask it to stop by SIGTERM and return its exit code (-9 when it had to be killed)."""
        return await asyncio.to_thread(self.stop, signal.SIGTERM, patience_s)

    async def restart(self, how: signal.Signals = signal.SIGTERM) -> Self:
        """Stop it and start it again on the same port and data."""
        await asyncio.to_thread(self.stop, how)
        return await self.start()

    def start_now(self, timeout_s: float = _READY_TIMEOUT_S) -> Self:
        """As `start`, for code that has no event loop."""
        self.launch()
        self.await_ready(timeout_s)
        return self

    def stop(self, how: signal.Signals = signal.SIGTERM, patience_s: float = 20.0) -> int:
        """Stop it by a signal; returns the exit code, 0 when it was not running."""
        if self._process is None:
            return 0
        process, self._process = self._process, None
        return stop(process, how, patience_s)

    def launch(self) -> None:
        """Start the process without waiting. On the main thread only: the child ends with the thread that starts it."""
        assert not self.running, "the server is running already"
        self.data.mkdir(parents=True, exist_ok=True)
        inherited = {name: value for name, value in os.environ.items() if not PRODUCT_VARIABLE.fullmatch(name)}
        settings = {"DARKROOM_DATA": str(self.data), "APP_URL": self.url, "PYTHONUNBUFFERED": "1"}
        settings |= {"DARKROOM_DRAIN_S": DRAIN_S, **self.env}
        command = [sys.executable, "-m", self.module, "serve", "--host", LOOPBACK, "--port", str(self.port), *self.args]
        self._process = spawn(command, log=self._log, env={**inherited, **settings}, cwd=ROOT)

    def await_ready(self, timeout_s: float = _READY_TIMEOUT_S) -> None:
        """Wait until /readyz answers 200; raises StartError."""
        process = self._process
        assert process is not None
        for _ in range(int(timeout_s / _POLL_S)):
            if self._ready():
                return
            if ended_within(process, _POLL_S):
                break
        self.stop(signal.SIGKILL)
        raise StartError(f"the server did not become ready; its log:\n{self.log}")

    def _ready(self) -> bool:
        connection = http.client.HTTPConnection(LOOPBACK, self.port, timeout=_ANSWER_TIMEOUT_S)
        try:
            connection.request("GET", "/readyz")
            return connection.getresponse().status == http.HTTPStatus.OK
        except (http.client.HTTPException, OSError):
            return False
        finally:
            connection.close()


class ServerFactory:
    """Starts servers in one folder and stops all of them at the end."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._numbers = itertools.count(1)
        self._servers: list[ServerProcess] = []

    async def __call__(
        self,
        *,
        env: Mapping[str, str] | None = None,
        data: Path | None = None,
        args: Sequence[str] = (),
    ) -> ServerProcess:
        """Start one more server; servers given the same `data` folder share it."""
        return await self.describe(env=env, data=data, args=args).start()

    def now(
        self,
        *,
        env: Mapping[str, str] | None = None,
        data: Path | None = None,
        args: Sequence[str] = (),
    ) -> ServerProcess:
        """As calling it, for code that has no event loop."""
        return self.describe(env=env, data=data, args=args).start_now()

    def describe(
        self,
        *,
        env: Mapping[str, str] | None = None,
        data: Path | None = None,
        args: Sequence[str] = (),
    ) -> ServerProcess:
        """A server that is not started yet, to be stopped with the others."""
        number = next(self._numbers)
        server = ServerProcess(data or self._folder / f"server-{number}", env=env, args=args)
        self._servers.append(server)
        return server

    def held(self, *, env: Mapping[str, str] | None = None) -> ServerProcess:
        """A server that is not started yet and can be held at the points of `tests.support.held_server`."""
        server = self.describe(env=env)
        server.module = "tests.support.held_server"
        return server

    def stop_all(self) -> None:
        """Stop every server, politely first."""
        for server in self._servers:
            server.stop()
