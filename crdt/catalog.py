"""The list of workflows, and reading one from SQL without opening its document."""

import datetime as dt
import secrets
from collections.abc import Collection
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine

from crdt.database import read_only
from crdt.json import Json
from crdt.rows import WorkflowSummary
from crdt.store import SqlStore
from crdt.tables import workflow_edges, workflow_nodes, workflows
from crdt.values import without_picture_bytes

_MOSAIC = 4
"""Pictures that stand for a workflow in the list."""


class Catalog:
    """Workflows as rows: made, listed, renamed and read."""

    def __init__(self, engine: AsyncEngine, store: SqlStore) -> None:
        self._engine = engine
        self._reading = read_only(engine)
        self._store = store

    async def create_workflow(self, title: str = "", workflow_id: str | None = None) -> str:
        """Commit a new, empty workflow and its document; returns its id."""
        room = workflow_id or secrets.token_urlsafe(12).replace("-", "a").replace("_", "b")
        async with self._engine.begin() as connection:
            await self._store.ensure_in(connection, room)
            await connection.execute(
                sa.update(workflows).where(workflows.c.id == room).values(title=without_picture_bytes(title)[:200])
            )
        return room

    async def exists(self, workflow_id: str) -> bool:
        """Whether there is such a workflow."""
        async with self._reading.connect() as connection:
            query = sa.select(workflows.c.id).where(workflows.c.id == workflow_id)
            return (await connection.execute(query)).one_or_none() is not None

    async def list_workflows(
        self, limit: int = 50, before: dt.datetime | None = None, only: Collection[str] | None = None
    ) -> list[WorkflowSummary]:
        """Workflows, last changed first.

        Args:
            limit: At most so many.
            before: Continues a list behind its last `updated_at`.
            only: Ids to choose from; None is every workflow.

        """
        query = sa.select(workflows).order_by(workflows.c.updated_at.desc()).limit(limit)
        if before is not None:
            query = query.where(workflows.c.updated_at < before)
        if only is not None:
            query = query.where(workflows.c.id.in_(only))
        async with self._reading.connect() as connection:
            rows = (await connection.execute(query)).all()
            pictures = await self._pictures(connection, [row.id for row in rows])
        return [_summary(row, pictures.get(row.id, [])) for row in rows]

    async def read_flow(self, workflow_id: str) -> dict[str, Json] | None:
        """The workflow as mirrored in SQL, in React Flow's shape `{id, title, nodes, edges}`; None when unknown."""
        async with self._reading.connect() as connection:
            row = (await connection.execute(sa.select(workflows).where(workflows.c.id == workflow_id))).one_or_none()
            if row is None:
                return None
            table = workflow_nodes
            mine = sa.and_(table.c.workflow_id == workflow_id, table.c.present)
            nodes = (await connection.execute(sa.select(table).where(mine).order_by(table.c.id))).all()
            edge_query = sa.select(workflow_edges).where(workflow_edges.c.workflow_id == workflow_id)
            edges = (await connection.execute(edge_query.order_by(workflow_edges.c.id))).all()
        return {
            "id": workflow_id,
            "title": row.title,
            "nodes": [{"id": n.id, "type": n.node_type, "position": n.position, "data": n.node_data} for n in nodes],
            "edges": [{"id": e.id, "source": e.source, "target": e.target, **e.edge_data} for e in edges],
        }

    async def _pictures(self, connection: Any, ids: list[str]) -> dict[str, list[dict[str, Json]]]:
        table = workflow_nodes
        query = sa.select(table.c.workflow_id, table.c.node_data).where(table.c.workflow_id.in_(ids), table.c.present)
        found: dict[str, list[dict[str, Json]]] = {}
        for workflow_id, data in await connection.execute(query.order_by(table.c.updated_at.desc())):
            found.setdefault(workflow_id, []).append(data)
        return found


def _summary(row: Any, nodes: list[dict[str, Json]]) -> WorkflowSummary:
    thumbnails = [url for data in nodes if isinstance(url := data.get("thumbnailUrl"), str)]
    return WorkflowSummary(
        id=row.id,
        title=row.title,
        created_at=row.created_at,
        updated_at=row.updated_at,
        node_count=len(nodes),
        thumbnails=tuple(thumbnails[:_MOSAIC]),
    )
