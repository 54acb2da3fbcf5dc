"""A plain pycrdt peer behind a real websocket, as a back end or an agent would write one."""

import asyncio
import contextlib
import json
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import websockets
from pycrdt import Doc, Map, Text
from websockets.asyncio.client import ClientConnection

from crdt import canvas, protocol
from crdt.canvas import CanvasDoc
from crdt.protocol import AwarenessUpdate, Durable, SyncStep1, SyncUpdate

PATIENCE_S = 30.0


class YPeer:
    """
    A document that follows a room, and edits it.

    `connected` may be entered again after it was left: what was edited in between is sent then, as any Yjs client does.
    With `ack` the server tells which edits are durable: `await peer.durable()`.
    """

    def __init__(self, ws_url: str, room: str, *, ack: bool = False) -> None:
        self.doc: CanvasDoc = Doc(client_id=secrets.randbits(32))
        self.states: dict[int, Any] = {}
        self.url = f"{ws_url}/{room}{'?ack=1' if ack else ''}"
        self.sent_edits = 0
        self.durable_edits = 0
        """Sync messages with an update on this connection, and how many of them are committed."""
        self._connection: ClientConnection | None = None
        self._changed = asyncio.Condition()
        self._synced = asyncio.Event()

    @asynccontextmanager
    async def connected(self) -> AsyncIterator["YPeer"]:
        """Inside, the peer is online and in sync."""
        self._synced.clear()
        self.sent_edits = self.durable_edits = 0
        async with websockets.connect(self.url, max_size=None) as connection:
            self._connection = connection
            reader = asyncio.create_task(self._read(connection))
            try:
                await connection.send(protocol.step1_message(self.doc.get_state()))
                async with asyncio.timeout(PATIENCE_S):
                    await self._synced.wait()
                yield self
            finally:
                self._connection = None
                reader.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await reader

    async def edit(self, change: Callable[[CanvasDoc], object]) -> None:
        """Change the document in one transaction, and send it when online."""
        before = self.doc.get_state()
        with self.doc.transaction():
            change(self.doc)
        if self._connection is not None:
            self.sent_edits += 1
            await self._connection.send(protocol.update_message(self.doc.get_update(before)))

    async def add_image(self, node_id: str, prompt: str, **params: Any) -> None:
        """Add an image node as a React Flow page does."""
        data = {"prompt": Text(prompt), "params": Map(params)}
        node = {"type": "image", "position": {"x": 0.0, "y": 0.0}, "data": Map(data)}
        await self.edit(lambda doc: canvas.nodes_of(doc).update({node_id: Map(node)}))

    async def set_data(self, node_id: str, **values: Any) -> None:
        """Write keys of a node's data, whoever owns them."""
        await self.edit(lambda doc: canvas.nodes_of(doc)[node_id]["data"].update(values))

    def data(self, node_id: str) -> dict[str, Any]:
        """A node's data as plain JSON; empty while there is no such node."""
        node = canvas.read_node(self.doc, node_id)
        return dict(node.data) if node is not None else {}

    async def until(self, wanted: Callable[[], object], patience_s: float = PATIENCE_S) -> None:
        """Wait until a condition on the document or the awareness states holds."""
        async with asyncio.timeout(patience_s), self._changed:
            await self._changed.wait_for(lambda: bool(wanted()))

    async def durable(self, patience_s: float = PATIENCE_S) -> None:
        """Wait until the server says that everything sent on this connection so far is committed."""
        sent = self.sent_edits
        await self.until(lambda: self.durable_edits >= sent, patience_s)

    async def until_status(self, node_id: str, status: str) -> dict[str, Any]:
        """Wait until the node shows a status; returns its data."""
        await self.until(lambda: self.data(node_id).get("status") == status)
        return self.data(node_id)

    async def _read(self, connection: ClientConnection) -> None:
        with contextlib.suppress(websockets.ConnectionClosed):
            async for frame in connection:
                assert isinstance(frame, bytes)
                for message in protocol.parse(frame):
                    await self._take(connection, message)

    async def _take(self, connection: ClientConnection, message: protocol.Message) -> None:
        async with self._changed:
            if isinstance(message, SyncUpdate):
                self.doc.apply_update(message.update)
                if message.step2:
                    self._synced.set()
            elif isinstance(message, Durable):
                self.durable_edits = message.count
            elif isinstance(message, SyncStep1):
                self.sent_edits += 1
                await connection.send(protocol.step2_message(self.doc.get_update(message.state_vector)))
            elif isinstance(message, AwarenessUpdate):
                self.states.update({entry.client_id: json.loads(entry.state) for entry in message.entries})
            self._changed.notify_all()
