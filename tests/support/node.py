"""A stock y-websocket client on Node.js, driven from a test: what the canvas looks like to everybody else's code."""

import asyncio
import itertools
import json
import os
import signal
import threading
from collections.abc import Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from hatch_build import ROOT, install_packages, node
from tests.support.processes import spawn, stop

if TYPE_CHECKING:
    import subprocess

PEER = ROOT / "tests" / "story" / "node"
# Over the time limit of a wait inside the peer, whose message says more.
_ANSWER_TIMEOUT_S = 60.0


class PeerError(Exception):
    """The peer could not do it, or what it waited for did not come; the text says what it saw instead."""


class NodePeer:
    """
    One person's document: yjs with y-websocket's provider in a process of its own, offline until `connect`.

    A path starts at one of `nodes`, `edges`, `meta`, `awareness` (by client id), `server` (the server's awareness
    state) or `status` (`clientId`, `connected`, `synced`, `closes`): `("nodes", "n1", "data", "status")`.
    """

    def __init__(self, ws_url: str, room: str, params: Mapping[str, str], log: Path) -> None:
        command = [str(node()), str(PEER / "peer.mjs"), ws_url, room, json.dumps(dict(params))]
        self._process: subprocess.Popen[bytes] = spawn(command, log=log, env=os.environ, cwd=PEER, pipes=True)
        self._log = log
        self._numbers = itertools.count(1)
        self._answers: dict[int, Future[Any]] = {}
        self._lock = threading.Lock()
        self._ended = False
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    async def connect(self, timeout_s: float = 10.0) -> Self:
        """Connect and wait until the document is in step with the server."""
        await self.call("connect", timeoutMs=timeout_s * 1000)
        return self

    async def disconnect(self) -> None:
        """Go offline; edits stay in the document."""
        await self.call("disconnect")

    async def flow(self) -> dict[str, list[dict[str, Any]]]:
        """The document as React Flow JSON: `nodes` and `edges`."""
        flow: dict[str, list[dict[str, Any]]] = await self.call("flow")
        return flow

    async def get(self, *path: str) -> Any:
        """The value at a path now, None when there is none."""
        return await self.call("get", path=path)

    async def wait(self, *path: str, timeout_s: float = 10.0, **wish: Any) -> Any:
        """
        The value at a path once it is there; it is looked at again whenever anything changes.

        Args:
            path: Where.
            timeout_s: How long to wait before PeerError.
            wish: `equals=value`, `oneOf=[...]` or `absent=True`; without one, any value but null will do.
        """
        return await self.call("wait", path=path, timeoutMs=timeout_s * 1000, **wish)

    async def watch(self, *path: str) -> None:
        """Note every value that a path takes from now on, for `seen`."""
        await self.call("watch", path=path)

    async def seen(self, *path: str) -> list[Any]:
        """The values that a watched path took, in order."""
        values: list[Any] = await self.call("seen", path=path)
        return values

    async def add_node(self, node_id: str, *, plain: bool = False, **fields: Any) -> None:
        """Add a node of type `image` at the origin unless told otherwise; `plain` as old clients do, one JSON value."""
        value = {"type": "image", "position": {"x": 0, "y": 0}, "data": {}, **fields, "id": node_id}
        await self.call("addPlainNode" if plain else "addNode", node=value)

    async def set(self, node_id: str, *path: str, value: Any) -> None:
        """Set a key of a node: `set("n1", "data", "label", value="Cat")`."""
        await self.call("set", nodeId=node_id, path=path, value=value)

    async def set_prompt(self, node_id: str, text: str) -> None:
        """Put a new prompt in place of a node's."""
        await self.call("setPrompt", nodeId=node_id, text=text)

    async def awareness(self) -> dict[str, Any]:
        """The awareness states by client id."""
        states: dict[str, Any] = await self.call("awareness")
        return states

    async def set_awareness(self, state: Mapping[str, Any] | None) -> None:
        """Set the peer's own awareness state; None leaves."""
        await self.call("setAwareness", state=state)

    async def call(self, name: str, **fields: Any) -> Any:
        """Send one command to `peer.mjs` and wait for its answer; commands may overlap."""
        number = next(self._numbers)
        answer: Future[Any] = Future()
        assert self._process.stdin is not None
        with self._lock:
            if self._ended:
                raise PeerError(self._last_words())
            self._answers[number] = answer
            self._process.stdin.write(json.dumps({"id": number, "do": name, **fields}).encode() + b"\n")
            self._process.stdin.flush()
        async with asyncio.timeout(_ANSWER_TIMEOUT_S):
            return await asyncio.wrap_future(answer)

    def close(self) -> None:
        """End the process."""
        stop(self._process, signal.SIGKILL)
        self._reader.join()

    def _read(self) -> None:
        """Hand each answer to whoever waits for it; runs in a thread of its own."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            message = json.loads(line)
            with self._lock:
                answer = self._answers.pop(message["id"])
            if "error" in message:
                answer.set_exception(PeerError(message["error"]))
            else:
                answer.set_result(message["ok"])
        with self._lock:
            self._ended = True
            for answer in self._answers.values():
                answer.set_exception(PeerError(self._last_words()))
            self._answers.clear()

    def _last_words(self) -> str:
        return f"the peer has ended: {self._log.read_text(errors='replace')}"


class NodePeers:
    """Starts peers and ends all of them afterwards: `peer = await node_peer(server.ws_url, "room")`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._peers: list[NodePeer] = []

    async def __call__(
        self,
        ws_url: str,
        room: str,
        *,
        params: Mapping[str, str] | None = None,
        connect: bool = True,
    ) -> NodePeer:
        """
        Start one more person in a room.

        Args:
            ws_url: `ServerProcess.ws_url`.
            room: The workflow id.
            params: Query parameters of the connection: `{"token": ...}`.
            connect: False leaves the peer offline.
        """
        peer = NodePeer(ws_url, room, params or {}, self._folder / f"peer-{len(self._peers) + 1}.log")
        self._peers.append(peer)
        return await peer.connect() if connect else peer

    def close_all(self) -> None:
        """End every peer."""
        for peer in self._peers:
            peer.close()


def install_peer() -> None:
    """Install what `peer.mjs` imports, once per checkout."""
    install_packages(PEER)
