"""Who gets into a room: the real server as a process, real websockets, and a stock client."""

import asyncio
import contextlib
import time
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
import websockets

from crdt import canvas, protocol
from crdt.close_codes import Close
from crdt.protocol import Permission, PermissionDenied, TokenTaken
from tests.server.test_websocket import Peer, put
from tests.server.tokens import OTHER_SECRET, SECRET, bearer, token
from tests.support.node import NodePeers
from tests.support.server import ServerFactory, ServerProcess


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server with a secret, which all tests of this module share; it logs all it can."""
    factory = ServerFactory(tmp_path_factory.mktemp("server"))
    yield factory.now(env={"DARKROOM_DEMO_DELAY_S": "0", "DARKROOM_SECRET": SECRET, "DARKROOM_LOG_LEVEL": "debug"})
    factory.stop_all()


@pytest.fixture
async def workflow_id(guarded: ServerProcess) -> str:
    """A workflow with a node "n1"."""
    nodes = [{"id": "n1", "data": {"prompt": "a fox"}}]
    async with httpx2.AsyncClient(base_url=guarded.url, headers=bearer(token())) as client:
        return str((await client.post("/api/workflows", json={"nodes": nodes})).json()["id"])


async def read(guarded: ServerProcess, path: str) -> httpx2.Response:
    async with httpx2.AsyncClient(base_url=guarded.url, headers=bearer(token("admin"))) as client:
        return await client.get(path)


def connect(guarded: ServerProcess, room: str, said: str = "", **options: Any) -> websockets.connect:
    query = f"?token={said}" if said else ""
    return websockets.connect(f"{guarded.ws_url}/{room}{query}", max_size=None, **options)


async def refusal(connection: websockets.ClientConnection) -> tuple[int | None, str]:
    """The code and reason a connection is closed with, and nothing before that."""
    async with asyncio.timeout(10):
        with pytest.raises(websockets.ConnectionClosed):
            await connection.recv()
    return connection.close_code, connection.close_reason or ""


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ("", "missing"),
        ("x.y.z", "invalid"),
        (token(secret=OTHER_SECRET), "invalid"),
        (token(exp=time.time() - 60), "expired"),
        (token("owner"), "invalid"),
    ],
)
async def test_without_a_good_token_nobody_sees_anything(guarded: ServerProcess, said: str, why: str) -> None:
    async with connect(guarded, "never-made", said) as connection:
        code, reason = await refusal(connection)
    assert code == Close.TOKEN_INVALID.code
    assert reason.startswith(f"{why}: ")
    assert (await read(guarded, "/api/workflows/never-made")).status_code == 404


async def test_a_token_for_another_workflow_is_forbidden(guarded: ServerProcess, workflow_id: str) -> None:
    async with connect(guarded, "other", token("admin", [workflow_id])) as connection:
        code, reason = await refusal(connection)
    assert (code, reason.partition(":")[0]) == (Close.FORBIDDEN.code, "forbidden")
    assert (await read(guarded, "/api/workflows/other")).status_code == 404


async def test_a_viewer_makes_no_workflow_by_looking(guarded: ServerProcess) -> None:
    async with connect(guarded, "not-there", token("viewer")) as connection:
        assert (await refusal(connection))[0] == Close.NOT_FOUND.code
    assert (await read(guarded, "/api/workflows/not-there")).status_code == 404


async def test_an_editor_makes_a_workflow_by_coming(guarded: ServerProcess) -> None:
    async with connect(guarded, "new-one", token("editor", ["new-one"])) as connection:
        await Peer(connection).sync()
    assert (await read(guarded, "/api/workflows/new-one")).status_code == 200


@pytest.mark.parametrize("place", ["query", "header", "subprotocol"])
async def test_a_token_is_taken_from_each_of_three_places(guarded: ServerProcess, workflow_id: str, place: str) -> None:
    said = token()
    options: dict[str, dict[str, Any]] = {
        "query": {"said": said},
        "header": {"additional_headers": bearer(said)},
        "subprotocol": {"subprotocols": ["darkroom", f"darkroom.token.{said}"]},
    }
    async with connect(guarded, workflow_id, **options[place]) as connection:
        assert connection.subprotocol == ("darkroom" if place == "subprotocol" else None)
        peer = Peer(connection)
        await peer.sync()
        await peer.has("n1")


async def test_a_refused_browser_that_offered_subprotocols_reads_the_code_too(guarded: ServerProcess) -> None:
    async with connect(guarded, "r", subprotocols=["darkroom", "darkroom.token.x"]) as connection:
        assert connection.subprotocol == "darkroom"
        assert (await refusal(connection))[0] == Close.TOKEN_INVALID.code


async def test_a_viewer_sees_edits_and_makes_none(guarded: ServerProcess, workflow_id: str) -> None:
    async with connect(guarded, workflow_id, token("viewer")) as one, connect(guarded, workflow_id, token()) as two:
        viewer, editor = Peer(one), Peer(two)
        await viewer.sync()
        await editor.sync()
        await viewer.edit(put("mine"))
        await viewer.until(lambda message: isinstance(message, PermissionDenied))
        await viewer.edit(lambda doc: canvas.nodes_of(doc)["n1"]["data"].update({"request": {"id": "i1"}}))
        await viewer.until(lambda message: isinstance(message, PermissionDenied))
        await editor.edit(put("theirs"))
        await viewer.has("theirs")
    flow = (await read(guarded, f"/api/workflows/{workflow_id}")).json()
    assert {node["id"] for node in flow["nodes"]} == {"n1", "theirs"}
    assert (await read(guarded, f"/api/workflows/{workflow_id}/nodes/n1/runs")).json() == {"runs": []}
    refused = [line for line in (await read(guarded, "/metrics")).text.splitlines() if "edits_refused_total" in line]
    assert float(refused[-1].rpartition(" ")[2]) >= 2


async def test_a_token_that_expires_ends_the_websocket(guarded: ServerProcess, workflow_id: str) -> None:
    ends = time.time() + 1
    async with connect(guarded, workflow_id, token(exp=ends)) as connection:
        peer = Peer(connection)
        await peer.sync()
        assert await peer.closed() == Close.TOKEN_INVALID.code
        assert (connection.close_reason or "").startswith("expired: ")
        assert ends <= time.time() <= ends + 5


async def test_an_intent_is_of_whom_the_token_names(guarded: ServerProcess, workflow_id: str) -> None:
    async with connect(guarded, workflow_id, token(name="Ada")) as connection:
        peer = Peer(connection)
        await peer.sync()
        request = {"after": None, "id": "i1", "by": {"id": "boss", "name": "Boss"}}
        await peer.edit(lambda doc: canvas.nodes_of(doc)["n1"]["data"].update({"request": request}))
        await peer.until(lambda _message: "runId" in canvas.nodes_of(peer.doc)["n1"]["data"])
    (run,) = (await read(guarded, f"/api/workflows/{workflow_id}/nodes/n1/runs")).json()["runs"]
    assert run["requestedBy"] == {"id": "u1", "name": "Ada"}


async def test_a_stranger_is_buffered_little_and_not_for_long(guarded: ServerProcess) -> None:
    """Nothing is read of a refused peer that goes on talking, and it is cut off though it never answers the close."""
    host, port = guarded.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(
        f"GET /ws/r HTTP/1.1\r\nHost: {host}:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
    )
    await reader.readuntil(b"\r\n\r\n")
    begun = time.monotonic()
    writer.write(b"\x82\xff" + (8 * 1024 * 1024).to_bytes(8) + b"\0\0\0\0")
    async with asyncio.timeout(10):
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                writer.write(b"x" * 1024)
                await writer.drain()
                await reader.readexactly(1)
    assert time.monotonic() - begun < 10
    writer.close()


async def test_a_stock_client_reads_as_a_viewer_and_is_stopped_without_a_token(
    guarded: ServerProcess, workflow_id: str, node_peer: NodePeers
) -> None:
    editor = await node_peer(guarded.ws_url, workflow_id, params={"token": token()})
    viewer = await node_peer(guarded.ws_url, workflow_id, params={"token": token("viewer")})
    await viewer.wait("nodes", "n1", "data", "prompt", equals="a fox")
    await viewer.add_node("mine")
    await editor.add_node("theirs")
    await viewer.wait("nodes", "theirs")
    await editor.set_awareness({"user": {"name": "Ada"}})
    await viewer.wait("awareness", str(await editor.get("status", "clientId")), "user", "name", equals="Ada")
    assert await viewer.get("status", "closes") == []
    assert {node["id"] for node in (await editor.flow())["nodes"]} == {"n1", "theirs"}
    stranger = await node_peer(guarded.ws_url, workflow_id, params={"token": "x"}, connect=False)
    with pytest.raises(Exception, match="synced"):
        await stranger.connect(timeout_s=1.5)
    assert await stranger.get("status", "closes") == [Close.TOKEN_INVALID.code]


async def offer(peer: Peer, said: str) -> TokenTaken | PermissionDenied:
    """Send a new token in band; the answer."""
    await peer.connection.send(protocol.token_message(said))
    async with asyncio.timeout(10):
        while True:
            (message,) = protocol.parse(await peer.connection.recv(decode=False))
            if isinstance(message, TokenTaken | PermissionDenied):
                return message


async def test_a_new_token_in_band_goes_on_where_the_old_one_ends(guarded: ServerProcess, workflow_id: str) -> None:
    ends = time.time() + 1
    async with connect(guarded, workflow_id, token(exp=ends)) as connection:
        peer = Peer(connection)
        await peer.sync()
        assert await offer(peer, token(name="Ada")) == TokenTaken("editor")
        async with connect(guarded, workflow_id, token(exp=ends)) as witness:
            # The witness has the same end: once it is closed, so would the other be.
            assert await Peer(witness).closed() == Close.TOKEN_EXPIRED.code
        await peer.edit(put("later"))
        async with connect(guarded, workflow_id, token()) as other:
            reader = Peer(other)
            await reader.sync()
            await reader.has("later")


async def test_a_client_that_asked_is_told_when_a_new_token_changes_what_it_may(
    guarded: ServerProcess, workflow_id: str
) -> None:
    async with connect(guarded, workflow_id, f"{token()}&ack=1") as connection:
        peer = Peer(connection)
        await peer.until(lambda message: message == Permission(may_edit=True))
        await connection.send(protocol.token_message(token("viewer")))
        await peer.until(lambda message: message == Permission(may_edit=False))


async def test_a_new_token_changes_what_its_bearer_may_both_ways(guarded: ServerProcess, workflow_id: str) -> None:
    async with connect(guarded, workflow_id, token()) as connection:
        peer = Peer(connection)
        await peer.sync()
        assert await offer(peer, token("viewer")) == TokenTaken("viewer")
        await peer.edit(put("refused"))
        await peer.until(lambda message: isinstance(message, PermissionDenied))
        assert await offer(peer, token("editor")) == TokenTaken("editor")
        await peer.edit(put("taken"))
        await peer.sync()
    flow = (await read(guarded, f"/api/workflows/{workflow_id}")).json()
    assert "taken" in [node["id"] for node in flow["nodes"]]


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ("x", "token-invalid"),
        (token(secret=OTHER_SECRET), "token-invalid"),
        (token(exp=time.time() - 60), "token-expired"),
        (token("admin", ["elsewhere"]), "token-forbidden"),
    ],
)
async def test_a_bad_token_in_band_changes_nothing(
    guarded: ServerProcess, workflow_id: str, said: str, why: str
) -> None:
    async with connect(guarded, workflow_id, token("viewer")) as connection:
        peer = Peer(connection)
        await peer.sync()
        answer = await offer(peer, said)
        assert isinstance(answer, PermissionDenied)
        assert answer.reason.startswith(f"{why}: ")
        await peer.edit(put("refused"))
        await peer.until(lambda message: isinstance(message, PermissionDenied))


@pytest.mark.parametrize("claim", ["jti", "sub"])
async def test_a_token_that_is_called_back_ends_at_once(guarded: ServerProcess, workflow_id: str, claim: str) -> None:
    async with httpx2.AsyncClient(base_url=guarded.url, headers=bearer(token("admin"))) as client:
        wanted = {"role": "editor", "workflows": "*", "sub": f"eve-{claim}"}
        made = (await client.post("/api/tokens", json=wanted)).json()
        async with (
            connect(guarded, workflow_id, made["token"]) as open_one,
            connect(guarded, workflow_id, token()) as ada,
        ):
            eve, other = Peer(open_one), Peer(ada)
            await eve.sync()
            await other.sync()
            body = {"jti": made["id"]} if claim == "jti" else {"sub": wanted["sub"]}
            begun = time.monotonic()
            told = await client.post("/api/tokens/revoke", json=body)
            assert (told.status_code, told.json() | body) == (200, told.json())
            assert await eve.closed() == Close.TOKEN_REVOKED.code
            assert time.monotonic() - begun < 2
            assert (open_one.close_reason or "").startswith("revoked: ")
            await other.edit(put("mine"))
            await other.sync()
        refused = await client.get("/api/workflows", headers=bearer(made["token"]))
        assert (refused.status_code, refused.json()["type"].rpartition("/")[2]) == (401, "token-revoked")
        async with connect(guarded, workflow_id, made["token"]) as again:
            code, reason = await refusal(again)
            assert (code, reason.partition(":")[0]) == (Close.TOKEN_REVOKED.code, "revoked")
        fresh = (await client.post("/api/tokens", json=wanted)).json()["token"]
        assert (await client.get("/api/workflows", headers=bearer(fresh))).status_code == 200


async def test_only_admins_of_everything_call_tokens_back(guarded: ServerProcess) -> None:
    for said, status in [(token(), 403), (token("admin", ["w1"]), 403), (token("admin"), 422)]:
        async with httpx2.AsyncClient(base_url=guarded.url, headers=bearer(said)) as client:
            assert (await client.post("/api/tokens/revoke", json={"jti": "a", "sub": "b"})).status_code == status


async def test_no_token_is_ever_logged(guarded: ServerProcess, workflow_id: str) -> None:
    said = token(sub="logged-or-not")
    async with connect(guarded, workflow_id, said) as connection:
        await Peer(connection).sync()
    async with connect(guarded, workflow_id, subprotocols=["darkroom", f"darkroom.token.{said}"]) as connection:
        await Peer(connection).sync()
    async with httpx2.AsyncClient(base_url=guarded.url) as client:
        assert (await client.get(f"/api/workflows?token={said}")).status_code == 200
        assert (await client.get("/api/workflows", headers=bearer(said))).status_code == 200
    assert '"path": "/api/workflows"' in guarded.log
    assert said not in guarded.log
    assert said.rpartition(".")[2] not in guarded.log
