"""Writing a document's nodes and edges into `workflow_nodes` and `workflow_edges`."""

import datetime as dt
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from crdt.canvas import SERVER_KEYS
from crdt.json import Json
from crdt.rows import EdgeRow, Mirror, NodeRow
from crdt.tables import workflow_edges, workflow_nodes, workflows

T = TypeVar("T")
Insert = Callable[[sa.Table], Any]
_CHUNK = 500
"""Ids per statement: SQLite has a limit on bound parameters."""


async def write_mirror(
    connection: AsyncConnection, room: str, mirror: Mirror, now: dt.datetime, insert: Insert
) -> None:
    """Apply `mirror` inside the caller's transaction, which has locked the room's row in `documents`."""
    await _write_nodes(connection, room, mirror, now, insert)
    await _write_edges(connection, room, mirror, now, insert)
    values: dict[str, Any] = {"updated_at": now}
    if mirror.title is not None:
        values["title"] = mirror.title[:200]
    await connection.execute(sa.update(workflows).where(workflows.c.id == room).values(**values))


async def _write_nodes(
    connection: AsyncConnection, room: str, mirror: Mirror, now: dt.datetime, insert: Insert
) -> None:
    present = [row for row in mirror.nodes.values() if row is not None]
    gone = [node_id for node_id, row in mirror.nodes.items() if row is None]
    table = workflow_nodes
    if mirror.complete:
        query = sa.select(table.c.id).where(table.c.workflow_id == room, table.c.present)
        known = (await connection.execute(query)).scalars().all()
        gone += [node_id for node_id in known if node_id not in mirror.nodes]
    for ids in _chunks(gone):
        where = sa.and_(table.c.workflow_id == room, table.c.id.in_(ids))
        await connection.execute(sa.update(table).where(where).values(present=False, updated_at=now))
    for chunk in _chunks(present):
        owned = await _server_owned(connection, room, [row.id for row in chunk])
        rows = [_node_values(room, row, owned.get(row.id, {}), now) for row in chunk]
        # Rows as parameters, not in the statement: that one is compiled once and not for every number of rows.
        statement = insert(table)
        changed = {name: statement.excluded[name] for name in ("node_type", "node_data", "position", "updated_at")}
        await connection.execute(
            statement.on_conflict_do_update(index_elements=["workflow_id", "id"], set_={**changed, "present": True}),
            rows,
        )


async def _server_owned(connection: AsyncConnection, room: str, ids: list[str]) -> dict[str, dict[str, Json]]:
    table = workflow_nodes
    query = sa.select(table.c.id, table.c.node_data).where(table.c.workflow_id == room, table.c.id.in_(ids))
    # The row lock keeps a run that is being recorded from losing its keys to this write, and the other way round.
    rows = await connection.execute(query.order_by(table.c.id).with_for_update())
    return {row.id: {key: value for key, value in row.node_data.items() if key in SERVER_KEYS} for row in rows}


def _node_values(room: str, row: NodeRow, owned: Mapping[str, Json], now: dt.datetime) -> dict[str, Any]:
    data = {key: value for key, value in row.node_data.items() if key not in SERVER_KEYS}
    return {
        "workflow_id": room,
        "id": row.id,
        "node_type": row.node_type,
        "node_data": {**data, **owned},
        "position": dict(row.position),
        "present": True,
        "created_at": now,
        "updated_at": now,
    }


async def _write_edges(
    connection: AsyncConnection, room: str, mirror: Mirror, now: dt.datetime, insert: Insert
) -> None:
    present = [row for row in mirror.edges.values() if row is not None]
    gone = [edge_id for edge_id, row in mirror.edges.items() if row is None]
    table = workflow_edges
    if mirror.complete:
        known = (await connection.execute(sa.select(table.c.id).where(table.c.workflow_id == room))).scalars().all()
        gone += [edge_id for edge_id in known if edge_id not in mirror.edges]
    for ids in _chunks(gone):
        await connection.execute(sa.delete(table).where(table.c.workflow_id == room, table.c.id.in_(ids)))
    for chunk in _chunks(present):
        statement = insert(table)
        rows = [_edge_values(room, row, now) for row in chunk]
        changed = {name: statement.excluded[name] for name in ("source", "target", "edge_data", "updated_at")}
        upsert = statement.on_conflict_do_update(index_elements=["workflow_id", "id"], set_=changed)
        await connection.execute(upsert, rows)


def _edge_values(room: str, row: EdgeRow, now: dt.datetime) -> dict[str, Any]:
    return {
        "workflow_id": room,
        "id": row.id,
        "source": row.source,
        "target": row.target,
        "edge_data": dict(row.edge_data),
        "created_at": now,
        "updated_at": now,
    }


def _chunks(items: list[T]) -> list[list[T]]:
    return [items[at : at + _CHUNK] for at in range(0, len(items), _CHUNK)]
