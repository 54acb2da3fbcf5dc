"""Writing a document's nodes and edges into `workflow_nodes` and `workflow_edges`."""

import datetime as dt
from collections.abc import Mapping
from functools import cache
from typing import Any, TypeVar

import sqlalchemy as sa

from crdt.canvas import SERVER_KEYS
from crdt.database import insert_into
from crdt.json import Json
from crdt.rows import EdgeRow, Mirror, NodeRow
from crdt.tables import workflow_edges, workflow_nodes, workflows

T = TypeVar("T")
_CHUNK = 500
"""Ids per statement: SQLite has a limit on bound parameters."""


def write_mirror(connection: sa.Connection, room: str, mirror: Mirror, now: dt.datetime) -> None:
    """Apply `mirror` inside the caller's transaction, which has locked the room's row in `documents`."""
    _write_nodes(connection, room, mirror, now)
    _write_edges(connection, room, mirror, now)
    values: dict[str, Any] = {"updated_at": now}
    if mirror.title is not None:
        values["title"] = mirror.title[:200]
    connection.execute(sa.update(workflows).where(workflows.c.id == room).values(**values))


def _write_nodes(connection: sa.Connection, room: str, mirror: Mirror, now: dt.datetime) -> None:
    present = [row for row in mirror.nodes.values() if row is not None]
    gone = [node_id for node_id, row in mirror.nodes.items() if row is None]
    table = workflow_nodes
    if mirror.complete:
        query = sa.select(table.c.id).where(table.c.workflow_id == room, table.c.present)
        known = (connection.execute(query)).scalars().all()
        gone += [node_id for node_id in known if node_id not in mirror.nodes]
    for ids in _chunks(gone):
        where = sa.and_(table.c.workflow_id == room, table.c.id.in_(ids))
        connection.execute(sa.update(table).where(where).values(present=False, updated_at=now))
    for chunk in _chunks(present):
        owned = _server_owned(connection, room, [row.id for row in chunk])
        rows = [_node_values(room, row, owned.get(row.id, {}), now) for row in chunk]
        connection.execute(_upsert_nodes(connection.dialect.name), rows)


def _server_owned(connection: sa.Connection, room: str, ids: list[str]) -> dict[str, dict[str, Json]]:
    table = workflow_nodes
    query = sa.select(table.c.id, table.c.node_data).where(table.c.workflow_id == room, table.c.id.in_(ids))
    # The row lock keeps a run that is being recorded from losing its keys to this write, and the other way round.
    rows = connection.execute(query.order_by(table.c.id).with_for_update())
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


def _write_edges(connection: sa.Connection, room: str, mirror: Mirror, now: dt.datetime) -> None:
    present = [row for row in mirror.edges.values() if row is not None]
    gone = [edge_id for edge_id, row in mirror.edges.items() if row is None]
    table = workflow_edges
    if mirror.complete:
        known = (connection.execute(sa.select(table.c.id).where(table.c.workflow_id == room))).scalars().all()
        gone += [edge_id for edge_id in known if edge_id not in mirror.edges]
    for ids in _chunks(gone):
        connection.execute(sa.delete(table).where(table.c.workflow_id == room, table.c.id.in_(ids)))
    for chunk in _chunks(present):
        rows = [_edge_values(room, row, now) for row in chunk]
        connection.execute(_upsert_edges(connection.dialect.name), rows)


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


# Rows are parameters, and each statement is made once: making one costs more than running it.


@cache
def _upsert_nodes(dialect: str) -> Any:
    statement = insert_into(dialect, workflow_nodes)
    changed = {name: statement.excluded[name] for name in ("node_type", "node_data", "position", "updated_at")}
    return statement.on_conflict_do_update(index_elements=["workflow_id", "id"], set_={**changed, "present": True})


@cache
def _upsert_edges(dialect: str) -> Any:
    statement = insert_into(dialect, workflow_edges)
    changed = {name: statement.excluded[name] for name in ("source", "target", "edge_data", "updated_at")}
    return statement.on_conflict_do_update(index_elements=["workflow_id", "id"], set_=changed)


def _chunks(items: list[T]) -> list[list[T]]:
    return [items[at : at + _CHUNK] for at in range(0, len(items), _CHUNK)]
