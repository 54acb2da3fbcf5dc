"""What a hostile client sends ends no server, fills no memory and no log."""

import asyncio
import contextlib
import re
from pathlib import Path

import httpx2
import pytest
import websockets

from crdt import protocol
from crdt.close_codes import Close
from crdt.lib0 import write_text, write_uint
from tests.crdt.test_nesting import value_update
from tests.server.test_websocket import Peer, put
from tests.support.server import ServerFactory, ServerProcess

LIMIT_BYTES = 8 * 1024 * 1024


def nested_maps(depth: int) -> bytes:
    """An update (v1) with maps inside each other."""
    out = bytearray()
    for number in (1, depth, 77, 0):
        write_uint(out, number)
    for level in range(depth):
        out.append(0x27)
        if level == 0:
            out.append(1)
            write_text(out, "nodes")
        else:
            out.append(0)
            write_uint(out, 77)
            write_uint(out, level - 1)
        write_text(out, "k")
        out.append(1)
    out.append(0)
    return bytes(out)


OUTERMOST_DELETED = bytes((0, 1, 77, 1, 0, 1))


async def closed(connection: websockets.ClientConnection) -> int | None:
    async with asyncio.timeout(20):
        with contextlib.suppress(websockets.ConnectionClosed):
            while True:
                await connection.recv()
    return connection.close_code


def peak_bytes(server: ServerProcess) -> int:
    """The most memory the server has held so far."""
    status = Path(f"/proc/{server.pid}/status").read_text()
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert found is not None
    return int(found[1]) * 1024


async def test_a_value_nested_without_end_closes_its_sender_and_ends_nothing(shared_server: ServerProcess) -> None:
    pid = shared_server.pid
    async with websockets.connect(f"{shared_server.ws_url}/deep-value") as hostile:
        await hostile.send(protocol.update_message(value_update(b"u\x01" * 100_000 + b"\x7e")))
        assert await closed(hostile) == Close.BAD_MESSAGE.code
    async with websockets.connect(f"{shared_server.ws_url}/deep-value") as good:
        await Peer(good).sync()
    assert (shared_server.running, shared_server.pid) == (True, pid)


async def test_maps_nested_without_end_can_be_deleted_again(server: ServerProcess) -> None:
    async with websockets.connect(f"{server.ws_url}/deep-maps", max_queue=None, max_size=None) as hostile:
        await hostile.send(protocol.update_message(nested_maps(200_000)))
        await hostile.send(protocol.update_message(OUTERMOST_DELETED))
        await Peer(hostile).connection.send(protocol.step1_message(protocol.EMPTY_STATE_VECTOR))
        async with asyncio.timeout(20):
            while not any(
                isinstance(message, protocol.SyncUpdate) and message.step2
                for message in protocol.parse(await hostile.recv(decode=False))
            ):
                pass
    assert await server.terminate() == 0
    await server.start()
    async with httpx2.AsyncClient(base_url=server.url) as client:
        assert (await client.get("/api/workflows/deep-maps")).json()["nodes"] == []


@pytest.mark.parametrize("fragments", [1, 8], ids=["in one frame", "in fragments"])
async def test_a_message_over_the_limit_is_refused_before_it_is_held(
    start_server: ServerFactory, fragments: int
) -> None:
    server = await start_server(env={"DARKROOM_MAX_MESSAGE_BYTES": str(LIMIT_BYTES)})
    # Once below the limit, so that what the first large message costs by itself is not counted.
    async with websockets.connect(f"{server.ws_url}/large", compression="deflate") as connection:
        assert connection.protocol.extensions == []
        await connection.send(bytes([77]) + bytes(LIMIT_BYTES // 2))
        await Peer(connection).sync()
    before = peak_bytes(server)
    async with websockets.connect(f"{server.ws_url}/large", compression="deflate") as connection:
        piece = bytes(4 * LIMIT_BYTES // fragments)
        with contextlib.suppress(websockets.ConnectionClosed):
            await connection.send([piece] * fragments if fragments > 1 else piece)
        assert await closed(connection) == 1009
    assert peak_bytes(server) - before < 2 * LIMIT_BYTES
    await server.terminate()


async def test_a_client_that_hammers_with_garbage_fills_no_log_and_no_memory(server: ServerProcess) -> None:
    frames: list[bytes | str] = [b"", b"\x00garbage", "text", b"\x00\x02\x05x", b"\x00\x09", b"\x02\x09"]

    async def hammer(times: int) -> None:
        for number in range(times):
            async with websockets.connect(f"{server.ws_url}/hammered") as connection:
                await connection.send(frames[number % len(frames)])
                await closed(connection)

    async with websockets.connect(f"{server.ws_url}/hammered") as good:
        peer = Peer(good)
        await peer.sync()
        await asyncio.gather(*(hammer(30) for _ in range(4)))
        before = peak_bytes(server)
        await asyncio.gather(*(hammer(60) for _ in range(4)))
        await peer.edit(put("n"))
        await peer.sync()
    assert peak_bytes(server) - before < 4 * 1024 * 1024
    lines = [line for line in server.log.splitlines() if "websocket_closed" in line]
    assert 2 <= len(lines) < 120
    async with httpx2.AsyncClient(base_url=server.url) as client:
        text = (await client.get("/metrics")).text
    counted = re.findall(r'^darkroom_websockets_closed_total{code="(?:4400|1003)".*} (\S+)$', text, re.MULTILINE)
    assert sum(map(float, counted)) == 360
