"""Calls of makers as rows: recorded once each, matched with the run they are about, or parked until it is known.

Every function works inside a transaction of `jobs.runs`. Locks are taken in the order remote id, run, node.
"""

import datetime as dt
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final

import sqlalchemy as sa

from crdt.database import insert_into
from crdt.json import Json
from crdt.values import plain, without_data_urls
from jobs.run import Run
from jobs.tables import runs, webhook_deliveries

KEEP: Final = dt.timedelta(hours=120)
"""How long a delivery is known again: makers repeat theirs for up to 75 hours."""
MAX_PARKED: Final = 50
"""Parked calls that one run takes up when its maker's id for it becomes known."""
_PRUNED_AT_ONCE: Final = 1_000
_ENCODED = re.compile(r"[A-Za-z0-9+/_=\r\n-]{1024,}")


class Fate(Enum):
    """What became of a call."""

    DUPLICATE = "duplicate"  # known already; nothing was written
    PARKED = "parked"  # no run is known by this id, yet
    LATE = "late"  # its run has ended, or has moved on to another maker or another job
    HEARD = "heard"  # its run is being worked on: whoever does will look
    WOKEN = "woken"  # its run was waiting for it


@dataclass(frozen=True, slots=True)
class Delivery:
    """A genuine call of a maker.

    Attributes:
        provider: Whose it is.
        id: What it is known by when it comes again.
        remote_id: The maker's id for the job it speaks of.
        run_id: The run that its address named and proved to know.
        state: What it says, in the maker's words.
        payload: Its body.
        headers: Those that say something.

    """

    provider: str
    id: str
    remote_id: str | None
    run_id: str | None
    state: str
    payload: Mapping[str, Json]
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Receipt:
    """What became of a call, and of which run it spoke."""

    fate: Fate
    run: Run | None = None


@dataclass(frozen=True, slots=True)
class Kept:
    """A recorded call; one that is `cut` held something that is not kept in a row, so its maker is to be asked."""

    id: str
    state: str
    payload: Mapping[str, Json]
    headers: Mapping[str, str]
    cut: bool


def lock_remote(connection: sa.Connection, provider: str, remote_id: str) -> None:
    """Hold a maker's id until the transaction ends: a call must not be parked just while its run learns the id."""
    if connection.dialect.name == "postgresql":
        key = sa.func.hashtextextended(f"{provider}:{remote_id}", 0)
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(key)))


def run_of(connection: sa.Connection, delivery: Delivery) -> str | None:
    """The id of the run a call is about."""
    if delivery.run_id is not None:
        return delivery.run_id
    if delivery.remote_id is None:
        return None
    mine = sa.and_(runs.c.provider == delivery.provider, runs.c.remote_id == delivery.remote_id)
    found: str | None = (
        connection.execute(sa.select(runs.c.id).where(mine).order_by(runs.c.id.desc()).limit(1))
    ).scalar_one_or_none()
    return found


def store(connection: sa.Connection, delivery: Delivery, run_id: str | None, at: dt.datetime, *, settled: bool) -> bool:
    """Write a call's row; False where it was there already."""
    values = {
        "provider": delivery.provider,
        "id": delivery.id,
        "remote_id": delivery.remote_id,
        "run_id": run_id,
        "payload": row_payload(delivery),
        "received_at": at,
        "settled_at": at if settled else None,
    }
    insert = insert_into(connection.dialect.name, webhook_deliveries).values(**values)
    returned = insert.on_conflict_do_nothing().returning(webhook_deliveries.c.id)
    return (connection.execute(returned)).scalar_one_or_none() is not None


def row_payload(delivery: Delivery) -> dict[str, Json]:
    """What a row keeps of a call: no picture bytes, whatever they are wrapped in. Pure."""
    body = plain(dict(delivery.payload))
    kept = _without_pictures(without_data_urls(body))
    return {
        "state": delivery.state,
        "body": kept,
        "headers": dict(delivery.headers),
        **({"cut": True} if kept != body else {}),
    }


def unsettled(connection: sa.Connection, run: Run) -> list[Kept]:
    """The calls about a run's present job that nothing has been made of, in the order they came."""
    rows = connection.execute(
        sa.select(webhook_deliveries.c.id, webhook_deliveries.c.payload)
        .where(_about(run), webhook_deliveries.c.settled_at.is_(None))
        .order_by(webhook_deliveries.c.received_at, webhook_deliveries.c.id)
        .limit(MAX_PARKED)
    )
    return [_kept(row) for row in rows]


def adopted_id(connection: sa.Connection, run: Run) -> str | None:
    """The maker's id for a run whose own record of it was lost: its calls tell, if they came."""
    mine = sa.and_(
        webhook_deliveries.c.run_id == run.id,
        webhook_deliveries.c.provider == run.provider,
        webhook_deliveries.c.settled_at.is_(None),
        webhook_deliveries.c.remote_id.is_not(None),
    )
    query = sa.select(webhook_deliveries.c.remote_id).where(mine)
    found: str | None = (
        connection.execute(query.order_by(webhook_deliveries.c.received_at.desc()).limit(1))
    ).scalar_one_or_none()
    return found


def claim_parked(connection: sa.Connection, run: Run) -> list[Kept]:
    """Give a run the calls that came before its maker's id for it was known; returns those it did not have yet."""
    table = webhook_deliveries
    parked = sa.and_(
        table.c.provider == run.provider,
        table.c.remote_id == run.remote_id,
        table.c.run_id.is_(None),
        table.c.settled_at.is_(None),
    )
    query = sa.select(table.c.id, table.c.payload).where(parked).order_by(table.c.received_at, table.c.id)
    calls = [_kept(row) for row in connection.execute(query.limit(MAX_PARKED))]
    if calls:
        mine = sa.and_(parked, table.c.id.in_([call.id for call in calls]))
        connection.execute(sa.update(table).where(mine).values(run_id=run.id))
    return calls


def settle(connection: sa.Connection, run: Run, at: dt.datetime, ids: Sequence[str] | None = None) -> None:
    """Mark calls about a run as done with: these, or all of them."""
    mine = sa.and_(webhook_deliveries.c.run_id == run.id, webhook_deliveries.c.settled_at.is_(None))
    if ids is not None:
        mine = sa.and_(mine, webhook_deliveries.c.provider == run.provider, webhook_deliveries.c.id.in_(list(ids)))
    connection.execute(sa.update(webhook_deliveries).where(mine).values(settled_at=at))


def prune(connection: sa.Connection, before: dt.datetime) -> int:
    """Forget some of the calls that came before; how many, 0 once there are none."""
    table = webhook_deliveries
    old = sa.select(table.c.provider, table.c.id).where(table.c.received_at < before).limit(_PRUNED_AT_ONCE)
    gone = connection.execute(
        sa.delete(table).where(sa.tuple_(table.c.provider, table.c.id).in_(old.subquery().select()))
    )
    return int(gone.rowcount)


def _about(run: Run) -> sa.ColumnElement[bool]:
    table = webhook_deliveries
    same_job = sa.or_(table.c.remote_id.is_(None), table.c.remote_id == run.remote_id)
    return sa.and_(table.c.run_id == run.id, table.c.provider == run.provider, same_job)


def _kept(row: Any) -> Kept:
    payload: dict[str, Any] = row.payload
    body, headers = payload.get("body"), payload.get("headers")
    return Kept(
        row.id,
        str(payload.get("state", "")),
        body if isinstance(body, dict) else {},
        headers if isinstance(headers, dict) else {},
        bool(payload.get("cut")),
    )


def _without_pictures(value: Json) -> Json:
    if isinstance(value, str):
        return None if _ENCODED.fullmatch(value) else value
    if isinstance(value, Mapping):
        return {key: _without_pictures(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_pictures(item) for item in value]
    return value
