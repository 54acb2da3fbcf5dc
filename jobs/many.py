"""Many runs in one transaction, in few statements. Called by `jobs.runs` alone, which is their writer.

Rows are locked in the order of their keys, so that two of these cannot wait for each other.
"""

import datetime as dt
import secrets
import uuid
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, TypeAlias, TypeVar

import sqlalchemy as sa

from crdt.canvas import SERVER_KEYS
from crdt.database import insert_into
from crdt.json import Json
from crdt.tables import workflow_nodes, workflows
from crdt.values import without_data_urls
from jobs.budgets import Reservation, hold
from jobs.errors import BatchRefused, BudgetExceeded, IdempotencyConflict, RequestError, RunActive, StaleRequest
from jobs.ledger import settle
from jobs.outgoing import announce
from jobs.records import event_columns, run_columns, run_from_row
from jobs.requests import Requested, RunRequest, Unset, first_steps, key_of_batch
from jobs.run import Run, applied, node_patch
from jobs.state import Cancelled, Event, Stage
from jobs.tables import run_events, runs

T = TypeVar("T")
Spot: TypeAlias = tuple[str, str]
"""(workflow id, node id)."""
Steps: TypeAlias = list[tuple[Run, Event]]
"""The events of a new run, each with the run as it left it."""

_CHUNK: Final = 500
"""Ids per statement: SQLite has a limit on bound parameters."""


class Overtaken(Exception):
    """Another transaction made one of these runs since they were looked for; nothing may be committed."""


def request_all(connection: sa.Connection, requests: Sequence[RunRequest], now: dt.datetime) -> list[Requested]:
    """Make the runs that are asked for, each on a node of its own, or find those that equal requests made.

    Raises:
        BatchRefused: One of them cannot be made; says which.
        Overtaken: Begin anew.

    """
    spots = [(request.workflow_id, request.node_id) for request in requests]
    shown = _lock_nodes(connection, requests, now)
    current = _current(connection, spots)
    known = _known(connection, requests)
    if requests and any(run is not None and run.idempotency_key is not None for run in known):
        _check_whole(connection, requests, known)
    steps: dict[int, Steps] = {}
    for index, (request, spot) in enumerate(zip(requests, spots, strict=True)):
        if known[index] is None:
            steps[index] = _first(index, request, current.get(spot), now)
    made = {index: of_run[-1][0] for index, of_run in steps.items()}
    try:
        hold(connection, [Reservation.of(run) for run in made.values()], now)
    except BudgetExceeded as error:
        raise BatchRefused(list(made)[error.index], error) from error
    _insert(connection, list(steps.values()))
    _show(connection, list(made.values()), shown)
    return [
        Requested(made[index], created=True) if run is None else Requested(run, created=False)
        for index, run in enumerate(known)
    ]


def cancel_all(
    connection: sa.Connection, run_ids: Collection[str], by: Mapping[str, str], now: dt.datetime, *, waiting: bool
) -> list[tuple[Run, Run]]:
    """Cancel those of these runs that have not ended; each as it was, and as it is.

    Args:
        connection: The transaction.
        run_ids: Whose.
        by: Who cancels.
        now: The time, aware UTC.
        waiting: Leave those alone that somebody has begun to work on meanwhile.

    """
    changed: list[tuple[Run, Run]] = []
    event = Cancelled(dict(by))
    for ids in _chunks(sorted(run_ids)):
        query = sa.select(runs).where(runs.c.id.in_(ids)).order_by(runs.c.id).with_for_update(key_share=True)
        for row in connection.execute(query):
            run = run_from_row(row)
            if not run.status.terminal and not (waiting and run.stage is not Stage.QUEUED):
                changed.append((run, applied(run, event, now)))
    if not changed:
        return []
    after = [run for _, run in changed]
    connection.execute(
        sa.update(runs)
        .where(runs.c.id == sa.bindparam("run_id"))
        .values({name: sa.bindparam(f"new_{name}") for name in _ENDED}),
        [{"run_id": run.id} | {f"new_{name}": _value(run, name) for name in _ENDED} for run in after],
    )
    _record(connection, [(run, event) for run in after])
    for before, run in changed:
        settle(connection, before, run, event)
        announce(connection, run)
    _show(connection, after, _lock([(run.workflow_id, run.node_id) for run in after], connection))
    return changed


_ENDED: Final = ("status", "seq", "worker", "resume_at", "reserved_usd_micros", "updated_at", "finished_at")
"""Columns that a cancel changes."""


def _value(run: Run, name: str) -> Any:
    return run.status.value if name == "status" else getattr(run, name)


def _first(index: int, request: RunRequest, current: Run | None, now: dt.datetime) -> Steps:
    refusal: RequestError | None = None
    if not isinstance(request.after, Unset) and request.after != (current.id if current else None):
        refusal = StaleRequest(current)
    elif current is not None and not current.status.terminal:
        refusal = RunActive(current)
    if refusal is not None:
        raise BatchRefused(index, refusal)
    return first_steps(request, uuid.uuid4().hex, current, now, secrets.token_urlsafe(24))


def _lock_nodes(
    connection: sa.Connection, requests: Sequence[RunRequest], now: dt.datetime
) -> dict[Spot, Mapping[str, Json]]:
    """Lock the rows of these nodes, inserted where they are missing; what each shows."""
    by_spot = {(request.workflow_id, request.node_id): request for request in requests}
    found = _lock(by_spot, connection)
    missing = sorted(by_spot.keys() - found.keys())
    if not missing:
        return found
    at = {"created_at": now, "updated_at": now}
    dialect = connection.dialect.name
    places = [{"id": workflow_id, "title": "", **at} for workflow_id in sorted({spot[0] for spot in missing})]
    connection.execute(insert_into(dialect, workflows).on_conflict_do_nothing(), places)
    rows = [_node_columns(by_spot[spot], at) for spot in missing]
    connection.execute(insert_into(dialect, workflow_nodes).on_conflict_do_nothing(), rows)
    return found | _lock(missing, connection)


def _lock(spots: Iterable[Spot], connection: sa.Connection) -> dict[Spot, Mapping[str, Json]]:
    """Lock what there is of these rows, in the order of their keys."""
    nodes = workflow_nodes.c
    found: dict[Spot, Mapping[str, Json]] = {}
    for workflow_id, ids in _by_workflow(spots):
        query = sa.select(nodes.id, nodes.node_data).where(nodes.workflow_id == workflow_id, nodes.id.in_(ids))
        for row in connection.execute(query.order_by(nodes.id).with_for_update(key_share=True)):
            found[workflow_id, row.id] = row.node_data
    return found


def _node_columns(request: RunRequest, at: Mapping[str, dt.datetime]) -> dict[str, Any]:
    node = request.node
    data = {key: without_data_urls(value) for key, value in node.node_data.items() if key not in SERVER_KEYS}
    return {
        "workflow_id": request.workflow_id,
        "id": request.node_id,
        "node_type": node.node_type,
        "node_data": data,
        "position": dict(node.position),
        "present": True,
        **at,
    }


def _current(connection: sa.Connection, spots: Iterable[Spot]) -> dict[Spot, Run]:
    found: dict[Spot, Run] = {}
    for workflow_id, ids in _by_workflow(spots):
        mine = (runs.c.subject_id == workflow_id, runs.c.node_id.in_(ids))
        newest = sa.select(runs.c.node_id, sa.func.max(runs.c.ordinal).label("ordinal")).where(*mine)
        last = newest.group_by(runs.c.node_id).subquery()
        same = sa.and_(runs.c.node_id == last.c.node_id, runs.c.ordinal == last.c.ordinal)
        for row in connection.execute(sa.select(runs).join(last, same).where(runs.c.subject_id == workflow_id)):
            found[workflow_id, row.node_id] = run_from_row(row)
    return found


def _known(connection: sa.Connection, requests: Sequence[RunRequest]) -> list[Run | None]:
    """For each request the run that an equal one made before."""
    keys = [request.idempotency_key for request in requests if request.idempotency_key is not None]
    by_key: dict[str, Run] = {}
    for chunk in _chunks([*keys, *{key_of_batch(key) for key in keys}]):
        for row in connection.execute(sa.select(runs).where(runs.c.idempotency_key.in_(chunk))):
            by_key[row.idempotency_key] = run_from_row(row)
    after = {(r.workflow_id, r.node_id): r.after or "" for r in requests if not isinstance(r.after, Unset)}
    by_after: dict[tuple[str, str, str], Run] = {}
    for workflow_id, ids in _by_workflow(after):
        wanted = sorted({after[workflow_id, node_id] for node_id in ids})
        query = sa.select(runs).where(
            runs.c.subject_id == workflow_id, runs.c.node_id.in_(ids), runs.c.after.in_(wanted)
        )
        for row in connection.execute(query):
            by_after[workflow_id, row.node_id, row.after] = run_from_row(row)
    found: list[Run | None] = []
    for index, request in enumerate(requests):
        key = request.idempotency_key
        if key is not None and (key_of_batch(key) != key and key_of_batch(key) in by_key):
            raise BatchRefused(index, IdempotencyConflict(key))
        run = by_key.get(key) if key is not None else None
        if run is not None and key is not None and run.request_hash != request.hash():
            raise BatchRefused(index, IdempotencyConflict(key))
        spot = (request.workflow_id, request.node_id)
        found.append(run or (by_after.get((*spot, after[spot])) if spot in after else None))
    return found


def _check_whole(connection: sa.Connection, requests: Sequence[RunRequest], known: Sequence[Run | None]) -> None:
    """A batch is made whole or not at all: one that is known in part was another batch."""
    batch_id = requests[0].batch_id
    count = sa.select(sa.func.count()).where(runs.c.batch_id == batch_id)
    total = (connection.execute(count)).scalar_one()
    for index, (request, run) in enumerate(zip(requests, known, strict=True)):
        key = request.idempotency_key
        if key is not None and (run is None or run.idempotency_key != key or total != len(requests)):
            raise BatchRefused(index, IdempotencyConflict(key))


def _insert(connection: sa.Connection, steps: Sequence[Steps]) -> None:
    if not steps:
        return
    made = [of_run[-1][0] for of_run in steps]
    # Another transaction may use one of the idempotency keys right now: this waits for it to end.
    insert = insert_into(connection.dialect.name, runs).on_conflict_do_nothing().returning(runs.c.id)
    inserted = (connection.execute(insert, [run_columns(run) for run in made])).scalars().all()
    if len(inserted) < len(made):
        raise Overtaken
    _record(connection, [step for of_run in steps for step in of_run])


def _record(connection: sa.Connection, steps: Sequence[tuple[Run, Event]]) -> None:
    connection.execute(sa.insert(run_events), [event_columns(run, event) for run, event in steps])


def _show(connection: sa.Connection, changed: Sequence[Run], shown: Mapping[Spot, Mapping[str, Json]]) -> None:
    """Put what the nodes show into their rows, which are locked."""
    if not changed:
        return
    nodes = workflow_nodes.c
    update = (
        sa.update(workflow_nodes)
        .where(nodes.workflow_id == sa.bindparam("workflow"), nodes.id == sa.bindparam("node"))
        .values(node_data=sa.bindparam("data"), updated_at=sa.bindparam("at"))
    )
    rows = [
        {
            "workflow": run.workflow_id,
            "node": run.node_id,
            "data": {**shown[run.workflow_id, run.node_id], **node_patch(run)},
            "at": run.updated_at,
        }
        for run in changed
    ]
    connection.execute(update, rows)


def _by_workflow(spots: Iterable[Spot]) -> Iterator[tuple[str, list[str]]]:
    """The node ids of each workflow, both sorted, so many at a time."""
    gathered: dict[str, set[str]] = {}
    for workflow_id, node_id in spots:
        gathered.setdefault(workflow_id, set()).add(node_id)
    for workflow_id in sorted(gathered):
        for chunk in _chunks(sorted(gathered[workflow_id])):
            yield workflow_id, chunk


def _chunks(items: Sequence[T]) -> Iterator[list[T]]:
    for at in range(0, len(items), _CHUNK):
        yield list(items[at : at + _CHUNK])
