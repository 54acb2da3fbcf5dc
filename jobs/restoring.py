"""Going back to what an earlier run made, as a run of its own: the node's history stays a chain."""

import datetime as dt
import secrets
import uuid
from collections.abc import Mapping
from dataclasses import replace

import sqlalchemy as sa

from crdt.rows import NodeRow
from crdt.tables import workflow_nodes
from jobs.doors import clean_people
from jobs.errors import NothingToUse, RunActive, RunNotFound
from jobs.reading import first_run, of_node
from jobs.records import event_columns, run_columns
from jobs.requests import Requested, RunRequest, first_state
from jobs.run import Run, applied
from jobs.state import Requested as RequestedEvent
from jobs.state import Restored, Status
from jobs.tables import run_events, runs

RESTORE = "restore"
"""The kind of such a run."""


def restore(connection: sa.Connection, earlier_id: str, by: Mapping[str, str], now: dt.datetime) -> Requested:
    """Make a completed run that shows the pictures of an earlier one of the same node; commits nothing.

    What the node shows already is found, and not made again.

    Raises:
        RunNotFound: There is no such run.
        NothingToUse: It made no picture.
        RunActive: The node's current run has not ended.

    """
    earlier = first_run(connection.execute(sa.select(runs).where(runs.c.id == earlier_id)))
    if earlier is None:
        raise RunNotFound(earlier_id)
    if earlier.status is not Status.COMPLETED or earlier.image_url is None:
        raise NothingToUse(earlier_id)
    nodes = workflow_nodes.c
    mine = sa.and_(nodes.workflow_id == earlier.workflow_id, nodes.id == earlier.node_id)
    connection.execute(sa.select(nodes.id).where(mine).with_for_update(key_share=True))
    query = of_node(earlier.workflow_id, earlier.node_id).order_by(runs.c.ordinal.desc()).limit(1)
    current = first_run(connection.execute(query)) or earlier
    if not current.status.terminal:
        raise RunActive(current)
    if current.id == earlier_id or (current.kind == RESTORE and current.parent_id == earlier_id):
        return Requested(current, created=False)
    begun = _begun(earlier, current, clean_people(by), now)
    event = Restored(earlier_id, dict(earlier.payload))
    run = applied(begun, event, now)
    connection.execute(sa.insert(runs).values(**run_columns(run)))
    rows = [event_columns(begun, RequestedEvent(begun.requested_by)), event_columns(run, event)]
    connection.execute(sa.insert(run_events), rows)
    return Requested(run, created=True)


def _begun(earlier: Run, current: Run, by: Mapping[str, str], now: dt.datetime) -> Run:
    request = RunRequest(
        workflow_id=earlier.workflow_id,
        node_id=earlier.node_id,
        spec=earlier.spec,
        provider=earlier.provider,
        model=earlier.model,
        after=current.id,
        node=NodeRow(earlier.node_id, "", {}, {}),
        requested_by=by,
        parent_id=earlier.id,
    )
    begun = first_state(request, uuid.uuid4().hex, current, now, secrets.token_urlsafe(24))
    return replace(begun, kind=RESTORE)
