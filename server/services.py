"""What the routes work with; made by `server.wiring`."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from sqlalchemy.ext.asyncio import AsyncEngine
from starlette.requests import Request

from crdt import canvas
from crdt.canvas import SERVER_KEYS, CanvasDoc
from crdt.catalog import Catalog
from crdt.errors import RoomUnavailable
from crdt.json import Json
from crdt.room import Room
from crdt.rooms import Rooms
from jobs.calls import Calls
from jobs.control import QueueControl
from jobs.dispatcher import Dispatcher
from jobs.queue import JobQueue
from jobs.run import node_patch
from jobs.runs import Runs
from jobs.spending import Spending
from jobs.storage import DiskStore
from jobs.timeline import Timeline
from jobs.worker import Worker
from providers.registry import Registry
from server.closings import Closings
from server.control import Control
from server.crowd import Crowd
from server.errors import WorkflowNotFound
from server.metrics import Metrics
from server.news import RunNews
from server.orders import Orders
from server.origins import Origins
from server.proxies import Proxies
from server.revocations import RevocationLog
from server.signals import RunSignals
from server.streams import Streams
from server.webhooks import Webhooks

_FLUSH_S: Final = 10.0
"""How long an edit by HTTP waits to be committed before it is answered 503."""


@dataclass(frozen=True, slots=True)
class Services:
    """Every part of a running server."""

    app_url: str
    process_id: str
    engine: AsyncEngine
    catalog: Catalog
    rooms: Rooms
    runs: Runs
    calls: Calls
    timeline: Timeline
    registry: Registry
    images: DiskStore
    images_folder: Path
    jobs: Worker | JobQueue
    dispatcher: Dispatcher
    queue: QueueControl
    orders: Orders
    control: Control
    spending: Spending
    signals: RunSignals
    news: RunNews
    metrics: Metrics
    origins: Origins
    proxies: Proxies
    crowd: Crowd
    closings: Closings
    revocations: RevocationLog
    webhooks: Webhooks
    streams: Streams = field(default_factory=Streams)
    stopping: asyncio.Event = field(default_factory=asyncio.Event)

    def stop(self) -> None:
        """End what would go on for ever: event streams."""
        self.stopping.set()
        self.signals.close()

    async def require(self, workflow_id: str) -> None:
        """Check that there is such a workflow: opening its room would make one.

        Raises:
            WorkflowNotFound: There is none.

        """
        if self.rooms.opened(workflow_id) is None and not await self.catalog.exists(workflow_id):
            raise WorkflowNotFound(workflow_id)

    @asynccontextmanager
    async def edit(self, workflow_id: str, adds: Json = None) -> AsyncIterator[CanvasDoc]:
        """One edit of a workflow's document; nothing may wait inside. It is in SQL when this returns.

        Args:
            workflow_id: Whose document.
            adds: What is to be written, None where something is only taken away.

        Raises:
            WorkflowNotFound: There is no such workflow.
            DocumentFull: With it the document would be larger than it may be.
            RoomUnavailable: The edit is in the document, but the database does not take it now.

        """
        await self.require(workflow_id)
        async with self.rooms.use(workflow_id) as room:
            if adds is not None:
                room.require_space(weight_of(adds))
            with room.transact() as doc:
                yield doc
            await self._flush(room)

    async def read_flow(self, workflow_id: str, node_id: str | None = None) -> dict[str, Json]:
        """A workflow (or one node of it) in React Flow's shape; what the server owns comes from SQL.

        Raises:
            WorkflowNotFound: There is no such workflow.

        """
        await self.require(workflow_id)
        async with self.rooms.use(workflow_id) as room:
            if node_id is None:
                flow: dict[str, Any] = canvas.read_flow(room.doc)
            else:
                node = canvas.read_node(room.doc, node_id)
                flow = {"nodes": [] if node is None else [node.to_json()], "edges": []}
            title = canvas.read_title(room.doc) or ""
        current = await self.runs.current(workflow_id, None if node_id is None else [node_id])
        owned = {name: node_patch(run) for name, run in current.items()}
        nodes = [{**node, "data": _with_truth(node["data"], owned.get(node["id"], {}))} for node in flow["nodes"]]
        return {"id": workflow_id, "title": title, "nodes": nodes, "edges": flow["edges"]}

    async def _flush(self, room: Room) -> None:
        try:
            async with asyncio.timeout(_FLUSH_S):
                await self.rooms.flush(room.id)
        except TimeoutError:
            raise RoomUnavailable(
                room.id, "the database does not answer; the edit is kept and will be stored"
            ) from None


def weight_of(value: Json) -> int:
    """Bytes that a value takes in a document, about."""
    return len(json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode(errors="replace"))


def services_of(request: Request) -> Services:
    """The services of the application that serves this request."""
    services: Services = request.app.state.services
    return services


def _with_truth(data: Mapping[str, Json], owned: Mapping[str, Json]) -> dict[str, Json]:
    """A node's data with the server-owned keys of its current run in SQL: the document may be a moment behind."""
    return {key: value for key, value in data.items() if key not in SERVER_KEYS} | dict(owned)
