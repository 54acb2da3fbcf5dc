"""The test support itself: databases and queues are empty for each test, peers talk, nothing reaches the outside."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import pytest
import redis.asyncio
import redis.exceptions
import websockets.asyncio.server
from docket import Docket
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from tests.support.node import NodePeers, PeerError
from tests.support.postgres import PostgresServer
from tests.support.processes import ROOT
from tests.support.redis import RedisServer


@pytest.mark.parametrize("turn", [1, 2])
async def test_each_test_has_an_empty_database(database_url: str, turn: int) -> None:
    engine = create_async_engine(database_url)
    async with engine.begin() as connection:
        await connection.execute(text("CREATE TABLE things (turn integer)"))
        await connection.execute(text("INSERT INTO things VALUES (:turn)"), {"turn": turn})
    async with engine.connect() as connection:
        assert (await connection.execute(text("SELECT turn FROM things"))).scalars().all() == [turn]
    await engine.dispose()


async def test_a_database_goes_even_with_a_connection_left_open(postgres_server: PostgresServer) -> None:
    name = postgres_server.create()
    connection = await asyncpg.connect(postgres_server.url(name).replace("+asyncpg", ""))
    postgres_server.drop(name)
    with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, ConnectionError)):
        await connection.execute("SELECT 1")
    await connection.close()


@pytest.mark.parametrize("turn", [1, 2])
async def test_each_test_has_an_empty_redis(redis_url: str, turn: int) -> None:
    client = redis.asyncio.from_url(redis_url)
    assert await client.keys() == []
    await client.set("turn", turn)
    await client.aclose()


async def test_each_test_has_an_empty_queue(docket_url: str) -> None:
    async with Docket(name="darkroom", url=docket_url) as docket:
        assert (await docket.snapshot()).total_tasks == 0


async def test_a_redis_of_ones_own_can_go_down_and_come_back(own_redis: RedisServer) -> None:
    client = redis.asyncio.from_url(own_redis.url)
    await client.set("key", "value")
    own_redis.kill()
    with pytest.raises(redis.exceptions.ConnectionError):
        await client.get("key")
    own_redis.start()
    assert await client.get("key") is None
    await client.aclose()


def test_no_test_reaches_another_machine() -> None:
    with socket.socket() as outward, pytest.raises(OSError, match="loopback"):
        outward.connect(("192.0.2.1", 80))


def test_children_end_with_a_killed_test_run(tmp_path: Path) -> None:
    program = (
        "from tests.support.redis import RedisServer; s = RedisServer(); s.start(); "
        "print(s._process.pid, flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as run:
        assert run.stdout is not None
        child = os.pidfd_open(int(run.stdout.readline()))
        run.send_signal(signal.SIGKILL)
    ended = asyncio.run(_readable(child))
    os.close(child)
    assert ended


async def test_two_peers_meet(node_peer: NodePeers) -> None:
    async with _relay() as ws_url:
        ada, bob = await node_peer(ws_url, "room"), await node_peer(ws_url, "room", params={"token": "t"})
        await ada.watch("nodes", "n1", "data", "label")
        await bob.add_node("n1", data={"prompt": "a cat", "label": "Cat"})
        assert await ada.wait("nodes", "n1", "data", "prompt") == "a cat"
        await bob.set("n1", "data", "label", value="Dog")
        await ada.wait("nodes", "n1", "data", "label", equals="Dog")
        assert await ada.seen("nodes", "n1", "data", "label") == [None, "Cat", "Dog"]
        await ada.set_prompt("n1", "a dog")
        await bob.wait("nodes", "n1", "data", "prompt", equals="a dog")
        await bob.call("removeNode", nodeId="n1")
        await ada.wait("nodes", "n1", absent=True)
        assert await bob.call("undo")
        expected = {"id": "n1", "type": "image", "position": {"x": 0, "y": 0}, "data": {"prompt": "", "label": "Dog"}}
        assert await ada.wait("nodes", "n1", "data", "label") == "Dog"
        assert (await ada.flow())["nodes"][0].keys() == expected.keys()


async def test_an_offline_peer_catches_up(node_peer: NodePeers) -> None:
    async with _relay() as ws_url:
        ada, bob = await node_peer(ws_url, "room"), await node_peer(ws_url, "room", connect=False)
        await ada.add_node("n1", plain=True)
        assert await bob.get("nodes", "n1") is None
        await bob.connect()
        await bob.wait("nodes", "n1", "position", equals={"x": 0, "y": 0})
        await bob.set_awareness({"user": {"name": "Bob"}})
        await ada.wait("awareness", str(await bob.get("status", "clientId")), "user", "name", equals="Bob")


async def test_a_wait_in_vain_says_what_is_there(node_peer: NodePeers) -> None:
    peer = await node_peer("ws://127.0.0.1:1", "room", connect=False)
    await peer.add_node("n1", data={"status": "idle"})
    with pytest.raises(PeerError, match=r'"idle" after 50 ms'):
        await peer.wait("nodes", "n1", "data", "status", equals="completed", timeout_s=0.05)


async def _readable(descriptor: int) -> bool:
    """Whether a process descriptor becomes readable, which is when its process ends."""
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(descriptor, ended.set)
    try:
        async with asyncio.timeout(10):
            return await ended.wait()
    finally:
        loop.remove_reader(descriptor)


@asynccontextmanager
async def _relay() -> AsyncIterator[str]:
    """A websocket server that sends everybody everything, which is enough for peers to find each other."""
    connections: set[websockets.asyncio.server.ServerConnection] = set()

    async def serve(connection: websockets.asyncio.server.ServerConnection) -> None:
        connections.add(connection)
        try:
            async for message in connection:
                websockets.asyncio.server.broadcast(connections, message)
        finally:
            connections.discard(connection)

    async with websockets.asyncio.server.serve(serve, "127.0.0.1", 0) as server:
        host, port = server.sockets[0].getsockname()
        yield f"ws://{host}:{port}"
