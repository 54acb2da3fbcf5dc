"""
A restart under many stock clients: `python -m tests.soak.restart [CLIENTS]`, 1,000 if none are named.

The stock client comes back without jitter, after 200 ms, 400 ms and so on up to 2.5 s: all of them at once, again and
again, until the server is there and has answered each. The server is stopped in order, then killed.
"""

import asyncio
import json
import resource
import signal
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from time import perf_counter

from hatch_build import node
from tests.support.api import canvas_api
from tests.support.node import PEER, install_peer
from tests.support.server import ServerFactory, ServerProcess

CLIENTS = 1_000
CLIENTS_PER_ROOM = 50
NODES = 200
ALLOWED_S = 15.0
PATIENCE_S = 120.0
_FILES = 8_192
"""Sockets on both sides."""


class Crowd:
    """Stock clients, all in one Node.js process, which tells how many of them are in step."""

    def __init__(self, process: asyncio.subprocess.Process, size: int) -> None:
        self._process = process
        self._size = size

    async def until(self, synced: int) -> None:
        """Wait until exactly so many are in step."""
        assert self._process.stdout is not None
        async with asyncio.timeout(PATIENCE_S):
            while json.loads(await self._process.stdout.readline())["synced"] != synced:
                pass

    async def all_in_step(self) -> None:
        """Wait until everyone is."""
        await self.until(self._size)


@asynccontextmanager
async def crowd(server: ServerProcess, rooms: list[str], size: int) -> AsyncIterator[Crowd]:
    """So many clients, shared out over the rooms."""
    command = [str(node()), str(PEER / "crowd.mjs"), server.ws_url, json.dumps(rooms), str(size)]
    process = await asyncio.create_subprocess_exec(*command, cwd=PEER, stdout=asyncio.subprocess.PIPE)
    try:
        yield Crowd(process, size)
    finally:
        process.kill()
        await process.wait()


async def fill(server: ServerProcess, number: int) -> list[str]:
    """Workflows with nodes in them."""
    rooms = []
    for _ in range(number):
        nodes = [
            {"id": f"n{i}", "type": "image", "position": {"x": i, "y": 0}, "data": {"prompt": "a fox in the snow"}}
            for i in range(NODES)
        ]
        async with canvas_api(server.url, nodes=nodes) as api:
            rooms.append(api.workflow_id)
    return rooms


async def measure(size: int, folder: Path) -> bool:
    """Restart it both ways; whether everyone was back in time."""
    factory = ServerFactory(folder)
    good = True
    try:
        server = await factory(env={"DARKROOM_DEMO_DELAY_S": "0"})
        rooms = await fill(server, max(1, size // CLIENTS_PER_ROOM))
        async with crowd(server, rooms, size) as clients:
            started = perf_counter()
            await clients.all_in_step()
            sys.stdout.write(f"{size} clients in {len(rooms)} rooms joined in {perf_counter() - started:.1f} s\n")
            for how in (signal.SIGTERM, signal.SIGKILL):
                told = perf_counter()
                await asyncio.to_thread(server.stop, how)
                await clients.until(0)
                await server.start()
                ready = perf_counter()
                await clients.all_in_step()
                back = perf_counter()
                errors = server.log.count(" 500 ") + server.log.count("Traceback")
                sys.stdout.write(
                    f"{how.name}: away {ready - told:.1f} s, all in step {back - ready:.1f} s after it was ready, "
                    f"{back - told:.1f} s after the signal; errors in the log: {errors}\n"
                )
                good = good and back - ready <= ALLOWED_S and errors == 0
    finally:
        factory.stop_all()
    return good


def main(size: int = CLIENTS) -> int:
    """Run it; the exit code."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(_FILES, hard)), hard))
    install_peer()
    with tempfile.TemporaryDirectory() as folder:
        return int(not asyncio.run(measure(size, Path(folder))))


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:2])))
