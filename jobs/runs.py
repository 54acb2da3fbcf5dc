"""The only writer of runs and their events: one transaction for each event, then one hint.

Locks are taken in the order run, node, budget; a request takes no run. No two of them can wait for each other.
"""

import datetime as dt
import secrets
import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncEngine

from crdt.canvas import SERVER_KEYS
from crdt.tables import workflow_nodes, workflows
from crdt.transactions import Transactions
from crdt.values import without_data_urls
from jobs.budgets import Reservation, hold
from jobs.errors import (
    BatchRefused,
    IdempotencyConflict,
    RunActive,
    RunBusy,
    RunFinished,
    RunNotFound,
    StaleAttempt,
    StaleRequest,
)
from jobs.ledger import settle
from jobs.liveness import LEASE_S, WorkerIdentity, alive_until
from jobs.many import Overtaken, cancel_all, request_all
from jobs.outgoing import announce
from jobs.policy import worker_lost
from jobs.reading import RunReader, first_run, of_node, utcnow
from jobs.records import RunEvent, changed_columns, event_columns, image_columns, run_columns, run_from_row
from jobs.requests import UNSET, Requested, RunRequest, Unset, first_steps, key_in_batch
from jobs.restoring import restore
from jobs.run import Run, applied, changes_node, node_patch, parked, resumed
from jobs.state import Cancelled, Completed, Event, Failed, FellBack, Started, event_payload
from jobs.tables import generated_images, run_events, runs

__all__ = ["UNSET", "Requested", "Run", "RunEvent", "RunRequest", "Runs", "Unset", "node_patch"]

MAX_CRASHES: Final = 3
"""Attempts that end with the death of their worker before the run is given up."""


class Runs(RunReader):
    """Runs and their events, in SQL.

    Args:
        engine: From `crdt.database.create_engine`.
        hint: Called with (workflow id, run id) after each commit that recorded an event; must not wait.
        clock: The time, aware UTC.
        me: The worker of this process, so that the dead of this machine are known at once.
        lease_s: Seconds without a beat after which a worker counts as dead.
        transactions: Shared with whoever else writes in this process.

    """

    def __init__(
        self,
        engine: AsyncEngine,
        *,
        hint: Callable[[str, str], None],
        clock: Callable[[], dt.datetime] = utcnow,
        me: WorkerIdentity | None = None,
        lease_s: float = LEASE_S,
        transactions: Transactions | None = None,
    ) -> None:
        super().__init__(engine, clock)
        self._engine = engine
        self._hint = hint
        self._me = me
        self._lease_s = lease_s
        self._transactions = transactions or Transactions(engine)

    async def request_run(self, request: RunRequest) -> Requested:
        """Make the run that is asked for, or find the one an equal request made; commits run, event and node row.

        Raises:
            StaleRequest: `after` is not the node's current run, nor was a run requested after it.
            RunActive: The node's current run has not ended.
            IdempotencyConflict: The key was used with another body.
            BudgetExceeded: There is no room for it.

        """
        requested = await self._transactions.run(lambda connection: self._request(connection, request))
        if requested.created:
            self._hint(requested.run.workflow_id, requested.run.id)
        return requested

    async def request_many(self, requests: Sequence[RunRequest]) -> list[Requested]:
        """As `request_run`, for many nodes at once: all are made, in one transaction, or none.

        Raises:
            BatchRefused: Names the first that cannot be made, and the error that `request_run` would raise.

        """
        for last in (False, False, True):
            try:
                answers = await self._transactions.run(
                    lambda connection: request_all(connection, requests, self._clock())
                )
                break
            except Overtaken:
                if last:
                    raise BatchRefused(0, StaleRequest(None)) from None
        for answer in answers:
            if answer.created:
                self._hint(answer.run.workflow_id, answer.run.id)
        return answers

    async def restore(self, run_id: str, by: Mapping[str, str]) -> Requested:
        """Commit that the node of an earlier run shows its pictures again, as a run of its own; see `jobs.restoring`.

        Raises:
            RunNotFound, NothingToUse, RunActive: As `jobs.restoring.restore`.

        """

        def write(connection: sa.Connection) -> Requested:
            restored = restore(connection, run_id, by, self._clock())
            if restored.created:
                self._show(connection, restored.run)
            return restored

        restored = await self._transactions.run(write)
        if restored.created:
            self._hint(restored.run.workflow_id, restored.run.id)
        return restored

    async def begin_attempt(self, run_id: str, worker: str) -> Run | None:
        """Commit that a worker works on the run from now on.

        A run that was parked while its maker works goes on with the same attempt; any other gets the next number,
        which fences whoever worked on it before. One that took `MAX_CRASHES` workers with it has failed.

        Returns:
            None when the run has ended, or is not there.

        Raises:
            RunBusy: Another worker, believed alive, works on it.

        """
        before, begun = await self._transactions.run(lambda connection: self._begin(connection, run_id, worker))
        if before is None or begun is None:
            return None
        if begun.seq > before.seq:
            self._hint(begun.workflow_id, begun.id)
        return None if begun.status.terminal else begun

    async def record(self, run_id: str, attempt: int, event: Event, *, after_seq: int | None = None) -> Run:
        """Commit an event: the run, the event, its pictures, and what its node shows.

        Args:
            run_id: Of the run.
            attempt: Whose event it is.
            event: What happened.
            after_seq: Number of the event before it. Given when the write is tried again after one whose end is not
                known: if that one was committed, nothing is written, and the run is returned.

        Raises:
            RunNotFound: No run has this id.
            RunFinished: The run has ended.
            StaleAttempt: The attempt is not the run's current one, or has been closed.
            IllegalTransition: The event cannot happen now.

        """

        def write(connection: sa.Connection) -> tuple[Run, bool]:
            if after_seq is not None:
                written = self._written(connection, run_id, after_seq + 1, event)
                if written is not None:
                    return written, False
            return self._apply(connection, self._attempted(connection, run_id, attempt), event), True

        run, changed = await self._transactions.run(write)
        if changed:
            self._hint(run.workflow_id, run.id)
        return run

    async def park(self, run_id: str, attempt: int, resume_at: dt.datetime) -> Run:
        """Commit that a poll found the run unfinished and when to ask again; no event, no hint.

        Raises:
            RunNotFound, RunFinished, StaleAttempt: As `record`.

        """

        def write(connection: sa.Connection) -> Run:
            run = self._attempted(connection, run_id, attempt)
            waiting = parked(run, resume_at, self._clock())
            self._update(connection, run, waiting)
            return waiting

        return await self._transactions.run(write)

    async def cancel(self, run_id: str, by: Mapping[str, str]) -> Run:
        """Commit that the run is cancelled; one that has ended is left, and returned, as it is.

        Raises:
            RunNotFound: No run has this id.

        """

        def write(connection: sa.Connection) -> tuple[Run, bool]:
            run = self._locked(connection, run_id)
            if run is None:
                raise RunNotFound(run_id)
            if run.status.terminal:
                return run, False
            return self._apply(connection, run, Cancelled(dict(by))), True

        run, changed = await self._transactions.run(write)
        if changed:
            self._hint(run.workflow_id, run.id)
        return run

    async def cancel_many(
        self, run_ids: Collection[str], by: Mapping[str, str], *, waiting: bool = False
    ) -> list[tuple[Run, Run]]:
        """Commit, in one transaction, that these runs are cancelled, those that have not ended; each before and after.

        Args:
            run_ids: Few enough for one transaction.
            by: Who cancels.
            waiting: Leave those alone that somebody works on by now.

        """
        changed = await self._transactions.run(
            lambda connection: cancel_all(connection, run_ids, by, self._clock(), waiting=waiting)
        )
        for _, run in changed:
            self._hint(run.workflow_id, run.id)
        return changed

    def _begin(self, connection: sa.Connection, run_id: str, worker: str) -> tuple[Run | None, Run | None]:
        """The run before and after a worker begins; twice the same when it has ended."""
        run = self._locked(connection, run_id)
        if run is None or run.status.terminal:
            return run, run
        if run.worker is not None and run.worker != worker:
            until = alive_until(connection, run.worker, self._me, self._lease_s)
            if until is not None:
                raise RunBusy(run_id, run.worker, until)
        if run.crashes < MAX_CRASHES and run.parked_remotely:
            begun = resumed(run, worker, self._clock())
            self._update(connection, run, begun)
            return run, begun
        event = Started(worker) if run.crashes < MAX_CRASHES else Failed(worker_lost(run.stage, run.crashes))
        return run, self._apply(connection, run, event)

    def _request(self, connection: sa.Connection, request: RunRequest) -> Requested:
        now = self._clock()
        self._ensure_node(connection, request, now)
        query = of_node(request.workflow_id, request.node_id).order_by(runs.c.ordinal.desc()).limit(1)
        current = first_run(connection.execute(query))
        known = _known(connection, request)
        if known is not None:
            return Requested(known, created=False)
        if not isinstance(request.after, Unset) and request.after != (current.id if current else None):
            raise StaleRequest(current)
        if current is not None and not current.status.terminal:
            raise RunActive(current)
        steps = first_steps(request, uuid.uuid4().hex, current, now, secrets.token_urlsafe(24))
        run = steps[-1][0]
        hold(connection, [Reservation.of(run)], now)
        # Another request, on another node and in another transaction, may use the same idempotency key right now:
        # this waits for it to end, and inserts nothing if it committed.
        insert = self._insert(runs).values(**run_columns(run)).on_conflict_do_nothing().returning(runs.c.id)
        if (connection.execute(insert)).scalar_one_or_none() is None:
            known = _known(connection, request)
            if known is None:
                raise StaleRequest(current)
            return Requested(known, created=False)
        connection.execute(sa.insert(run_events), [event_columns(*step) for step in steps])
        self._show(connection, run)
        return Requested(run, created=True)

    def _ensure_node(self, connection: sa.Connection, request: RunRequest, now: dt.datetime) -> None:
        """Lock the node's row, inserted where it is missing; every request for the node goes through this lock."""
        mine = _node_where(request.workflow_id, request.node_id)
        lock = sa.select(workflow_nodes.c.id).where(mine).with_for_update(key_share=True)
        if (connection.execute(lock)).scalar_one_or_none() is not None:
            return
        values: dict[str, Any] = {"created_at": now, "updated_at": now}
        workflow = self._insert(workflows).values(id=request.workflow_id, title="", **values)
        connection.execute(workflow.on_conflict_do_nothing())
        data = {key: without_data_urls(v) for key, v in request.node.node_data.items() if key not in SERVER_KEYS}
        node = self._insert(workflow_nodes).values(
            workflow_id=request.workflow_id,
            id=request.node_id,
            node_type=request.node.node_type,
            node_data=data,
            position=dict(request.node.position),
            present=True,
            **values,
        )
        connection.execute(node.on_conflict_do_nothing())
        connection.execute(lock)

    def _locked(self, connection: sa.Connection, run_id: str) -> Run | None:
        # The weaker lock: a request that names this run as its parent, or a new event, need not wait for it.
        query = sa.select(runs).where(runs.c.id == run_id).with_for_update(key_share=True)
        return first_run(connection.execute(query))

    def _attempted(self, connection: sa.Connection, run_id: str, attempt: int) -> Run:
        run = self._locked(connection, run_id)
        if run is None:
            raise RunNotFound(run_id)
        if run.status.terminal:
            raise RunFinished(run)
        if run.attempt != attempt or run.worker is None:
            raise StaleAttempt(run)
        return run

    def _written(self, connection: sa.Connection, run_id: str, seq: int, event: Event) -> Run | None:
        """The run, if this very event is recorded under this number."""
        run = self._locked(connection, run_id)
        query = sa.select(run_events).where(run_events.c.run_id == run_id, run_events.c.seq == seq)
        row = (connection.execute(query)).one_or_none()
        same = row is not None and (row.kind, row.payload) == (event.kind, event_payload(event))
        return run if same else None

    def _apply(self, connection: sa.Connection, run: Run, event: Event) -> Run:
        after = applied(run, event, self._clock())
        if isinstance(event, FellBack):
            hold(connection, [Reservation.of(after)], after.updated_at)
        self._update(connection, run, after)
        connection.execute(sa.insert(run_events).values(**event_columns(after, event)))
        if isinstance(event, Completed) and event.images:
            rows = [image_columns(after, image) for image in event.images]
            connection.execute(sa.insert(generated_images), rows)
        settle(connection, run, after, event)
        if after.status.terminal:
            announce(connection, after)
        if changes_node(event):
            self._show(connection, after)
        return after

    def _update(self, connection: sa.Connection, before: Run, after: Run) -> None:
        changed = changed_columns(before, after)
        connection.execute(sa.update(runs).where(runs.c.id == after.id).values(**changed))

    def _show(self, connection: sa.Connection, run: Run) -> None:
        """Put what the node shows into its row; the keeper puts the same into the document."""
        mine = _node_where(run.workflow_id, run.node_id)
        query = sa.select(workflow_nodes.c.node_data).where(mine).with_for_update(key_share=True)
        data: Mapping[str, Any] = (connection.execute(query)).scalar_one()
        shown = {**data, **node_patch(run)}
        if shown != data:
            update = sa.update(workflow_nodes).where(mine).values(node_data=shown, updated_at=run.updated_at)
            connection.execute(update)

    def _insert(self, table: sa.Table) -> Any:
        return sqlite.insert(table) if self._engine.dialect.name == "sqlite" else postgresql.insert(table)


def _known(connection: sa.Connection, request: RunRequest) -> Run | None:
    """The run that an equal request made before."""
    if request.idempotency_key is not None:
        # A batch that was sent with this key is another body.
        keys = (request.idempotency_key, key_in_batch(request.idempotency_key, 0))
        found = connection.execute(sa.select(runs).where(runs.c.idempotency_key.in_(keys))).all()
        if any(row.request_hash != request.hash() or row.idempotency_key != keys[0] for row in found):
            raise IdempotencyConflict(request.idempotency_key)
        if found:
            return run_from_row(found[0])
    if isinstance(request.after, Unset):
        return None
    query = of_node(request.workflow_id, request.node_id).where(runs.c.after == (request.after or ""))
    return first_run(connection.execute(query))


def _node_where(workflow_id: str, node_id: str) -> sa.ColumnElement[bool]:
    return sa.and_(workflow_nodes.c.workflow_id == workflow_id, workflow_nodes.c.id == node_id)
