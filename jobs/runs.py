"""The only writer of runs and their events: one transaction for each event, then one hint.

Locks are taken in the order run, node, budget; a request takes no run. No two of them can wait for each other.
"""

import datetime as dt
import secrets
import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Final, TypeVar

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncEngine

from crdt.canvas import SERVER_KEYS
from crdt.tables import workflow_nodes, workflows
from crdt.transactions import Transactions
from crdt.values import without_data_urls
from jobs import deliveries
from jobs.budgets import Reservation, hold
from jobs.commits import NotedTransactions, Told, nobody
from jobs.deliveries import Delivery, Fate, Receipt
from jobs.doors import clean_event, clean_people
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
from jobs.policy import deadline_passed, worker_lost
from jobs.reading import RunReader, first_run, of_node, utcnow
from jobs.records import RunEvent, changed_columns, event_columns, image_columns, run_columns, run_from_row
from jobs.requests import UNSET, Requested, RunRequest, Unset, first_steps, key_in_batch
from jobs.restoring import restore
from jobs.run import Run, applied, changes_node, node_patch, parked, resumed
from jobs.state import (
    Accepted,
    Cancelled,
    Completed,
    Event,
    Failed,
    FellBack,
    Heard,
    Started,
    Status,
    event_payload,
)
from jobs.state import Requested as RequestedEvent
from jobs.tables import generated_images, run_events, runs

__all__ = ["UNSET", "Requested", "Run", "RunEvent", "RunRequest", "Runs", "Unset", "node_patch"]

T = TypeVar("T")
MAX_CRASHES: Final = 3
"""Attempts that end with the death of their worker before the run is given up."""
MAX_HEARD_SEQ: Final = 1_000
"""A maker that calls about a run that has so many events is not listened to any more; the run is polled."""


class Runs(RunReader):
    """Runs and their events, in SQL.

    Args:
        engine: From `crdt.database.create_engine`.
        hint: Called with (workflow id, run id) after each commit that recorded an event; must not wait.
        clock: The time, aware UTC.
        me: The worker of this process, so that the dead of this machine are known at once.
        lease_s: Seconds without a beat after which a worker counts as dead.
        transactions: Shared with whoever else writes in this process.
        told: Hears every event that was committed here, for counting.

    """

    def __init__(  # noqa: PLR0913 - its seams
        self,
        engine: AsyncEngine,
        *,
        hint: Callable[[str, str], None],
        clock: Callable[[], dt.datetime] = utcnow,
        me: WorkerIdentity | None = None,
        lease_s: float = LEASE_S,
        transactions: Transactions | None = None,
        told: Told = nobody,
    ) -> None:
        super().__init__(engine, clock)
        self._engine = engine
        self._hint = hint
        self._me = me
        self._lease_s = lease_s
        self._transactions = NotedTransactions(transactions or Transactions(engine), told)

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
                answers = await self._transactions.run(partial(self._request_all, requests=requests))
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

    async def known(self, request: RunRequest) -> Run | None:
        """The run that an equal request made before.

        Raises:
            IdempotencyConflict: The key was used with another body.

        """
        return await self.read(lambda connection: _known(connection, request))

    async def begin_attempt(self, run_id: str, worker: str, *, placed: bool = False) -> Run | None:
        """Commit that a worker works on the run from now on.

        A run that was parked while its maker works goes on with the same attempt; any other gets the next number,
        which fences whoever worked on it before. One that took `MAX_CRASHES` workers with it has failed.

        Args:
            run_id: Of the run.
            worker: Who begins.
            placed: Whether the run needs a place at its maker, see `jobs.dispatcher`.

        Returns:
            None when the run has ended, is not there, or waits for a place.

        Raises:
            RunBusy: Another worker, believed alive, works on it.

        """
        before, begun = await self._transactions.run(
            lambda connection: self._begin(connection, run_id, worker, placed=placed)
        )
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
            after_seq: Number of an event before it. Given when the write is tried again after one whose end is not
                known: if that one was committed, nothing is written, and the run is returned.

        Raises:
            RunNotFound: No run has this id.
            RunFinished: The run has ended.
            StaleAttempt: The attempt is not the run's current one, or has been closed.
            IllegalTransition: The event cannot happen now.

        """

        def write(connection: sa.Connection) -> tuple[Run, bool]:
            if isinstance(event, Accepted):
                deliveries.lock_remote(connection, self._provider(connection, run_id), event.remote_id)
            if after_seq is not None:
                written = self._written(connection, run_id, after_seq, event)
                if written is not None:
                    return written, False
            return self._apply(connection, self._attempted(connection, run_id, attempt), event), True

        run, changed = await self._transactions.run(write)
        if changed:
            self._hint(run.workflow_id, run.id)
        return run

    async def park(
        self,
        run_id: str,
        attempt: int,
        resume_at: dt.datetime,
        *,
        polled: bool = True,
        heard: Sequence[str] | None = None,
    ) -> Run:
        """Commit that the run is unfinished and when to look again; no event, no hint.

        Args:
            run_id: Of the run.
            attempt: Whose write it is.
            resume_at: When to look again; at once where its maker has called meanwhile.
            polled: Whether its maker was asked.
            heard: The calls of its maker that were considered; None where it makes none.

        Raises:
            RunNotFound, RunFinished, StaleAttempt: As `record`.

        """

        def write(connection: sa.Connection) -> Run:
            run = self._attempted(connection, run_id, attempt)
            now, when = self._clock(), resume_at
            if heard is not None:
                deliveries.settle(connection, run, now, heard)
                if deliveries.unsettled(connection, run):
                    when = now
            waiting = parked(run, when, now, polled=polled)
            self._update(connection, run, waiting)
            return waiting

        return await self._transactions.run(write)

    async def hear(self, delivery: Delivery) -> Receipt:
        """Commit that a maker called: its row and, while the run it is about works, an event of that run.

        A call that is known already changes nothing, nor does one about a run that has ended. One that no run is known
        for is kept until a run turns out to be meant.
        """

        def write(connection: sa.Connection) -> tuple[Receipt, bool]:
            if delivery.remote_id is not None:
                deliveries.lock_remote(connection, delivery.provider, delivery.remote_id)
            run_id = deliveries.run_of(connection, delivery)
            run = None if run_id is None else self._locked(connection, run_id)
            fate = _fate(run, delivery)
            known_as = None if run is None else run.id
            if not deliveries.store(connection, delivery, known_as, self._clock(), settled=fate is Fate.LATE):
                return Receipt(Fate.DUPLICATE, run), False
            if run is None or fate not in {Fate.HEARD, Fate.WOKEN}:
                return Receipt(fate, run), False
            return Receipt(fate, self._apply(connection, run, Heard(delivery.id, delivery.state))), True

        receipt, changed = await self._transactions.run(write)
        if changed and receipt.run is not None:
            self._hint(receipt.run.workflow_id, receipt.run.id)
        return receipt

    async def prune_deliveries(self) -> int:
        """Commit that calls older than `deliveries.KEEP` are forgotten; how many."""
        gone = 0
        before = self._clock() - deliveries.KEEP
        while some := await self._transactions.run(partial(deliveries.prune, before=before)):
            gone += some
        return gone

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

    async def expire(self, run_id: str) -> Run | None:
        """Commit that the run has failed because its deadline has passed; None if it has ended, or has time left."""

        def write(connection: sa.Connection) -> Run | None:
            run = self._locked(connection, run_id)
            late = run is not None and run.deadline_at is not None and run.deadline_at <= self._clock()
            if run is None or run.status.terminal or not late:
                return None
            return self._apply(connection, run, Failed(deadline_passed(run.stage)))

        run = await self._transactions.run(write)
        if run is not None:
            self._hint(run.workflow_id, run.id)
        return run

    async def transaction(self, work: Callable[[sa.Connection], T]) -> T:
        """Commit what `work` does; it takes its turn among the writers of runs: for what they do not write, places."""
        return await self._transactions.run(work)

    async def cancel_many(
        self, run_ids: Collection[str], by: Mapping[str, str], *, waiting: bool = False
    ) -> list[tuple[Run, Run]]:
        """Commit, in one transaction, that these runs are cancelled, those that have not ended; each before and after.

        Args:
            run_ids: Few enough for one transaction.
            by: Who cancels.
            waiting: Leave those alone that somebody works on by now.

        """

        def write(connection: sa.Connection) -> list[tuple[Run, Run]]:
            changed = cancel_all(connection, run_ids, by, self._clock(), waiting=waiting)
            for before, after in changed:
                self._transactions.note(connection, before, after, Cancelled(clean_people(by)))
            return changed

        changed = await self._transactions.run(write)
        for _, run in changed:
            self._hint(run.workflow_id, run.id)
        return changed

    def _begin(
        self, connection: sa.Connection, run_id: str, worker: str, *, placed: bool
    ) -> tuple[Run | None, Run | None]:
        """The run before and after a worker begins; twice the same when it has ended."""
        run = self._locked(connection, run_id)
        if run is None or run.status.terminal:
            return run, run
        if placed and run.waits:
            return run, None
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

    def _request_all(self, connection: sa.Connection, requests: Sequence[RunRequest]) -> list[Requested]:
        answers = request_all(connection, requests, self._clock())
        for answer in answers:
            if answer.created:
                self._transactions.note(connection, None, answer.run, RequestedEvent(dict(answer.run.requested_by)))
        return answers

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
        before: Run | None = None
        for after, event in steps:
            self._transactions.note(connection, before, after, event)
            before = after
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

    def _provider(self, connection: sa.Connection, run_id: str) -> str:
        query = sa.select(runs.c.provider).where(runs.c.id == run_id)
        return connection.execute(query).scalar_one_or_none() or ""

    def _written(self, connection: sa.Connection, run_id: str, after_seq: int, event: Event) -> Run | None:
        """The run, if this very event is recorded behind this number; a maker may have called before or after it."""
        run = self._locked(connection, run_id)
        behind = sa.and_(run_events.c.run_id == run_id, run_events.c.seq > after_seq, run_events.c.kind == event.kind)
        rows = connection.execute(sa.select(run_events.c.payload).where(behind))
        return run if event_payload(clean_event(event)) in [row.payload for row in rows] else None

    def _apply(self, connection: sa.Connection, run: Run, event: Event) -> Run:
        event = clean_event(event)
        after = applied(run, event, self._clock())
        if isinstance(event, FellBack):
            hold(connection, [Reservation.of(after)], after.updated_at)
        self._update(connection, run, after)
        connection.execute(sa.insert(run_events).values(**event_columns(after, event)))
        self._transactions.note(connection, run, after, event)
        if isinstance(event, Completed) and event.images:
            rows = [image_columns(after, image) for image in event.images]
            connection.execute(sa.insert(generated_images), rows)
        settle(connection, run, after, event)
        if isinstance(event, Accepted):
            for call in deliveries.claim_parked(connection, after):
                after = self._apply(connection, after, Heard(call.id, call.state))
            if after.resume_at != after.updated_at and deliveries.unsettled(connection, after):
                due = replace(after, resume_at=after.updated_at)
                self._update(connection, after, due)
                after = due
        elif run.remote_id is not None and (after.status.terminal or after.remote_id is None):
            deliveries.settle(connection, run, after.updated_at)
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


def _fate(run: Run | None, delivery: Delivery) -> Fate:
    """What a new call means for the run it is about."""
    if run is None:
        return Fate.PARKED
    other_job = None not in {run.remote_id, delivery.remote_id} and run.remote_id != delivery.remote_id
    if run.status.terminal or run.provider != delivery.provider or other_job or run.seq >= MAX_HEARD_SEQ:
        return Fate.LATE
    if run.status is Status.PENDING:
        return Fate.PARKED
    return Fate.WOKEN if run.parked_remotely else Fate.HEARD


def _known(connection: sa.Connection, request: RunRequest) -> Run | None:
    """The run that an equal request made before."""
    if request.idempotency_key is not None:
        # A batch that was sent with this key is another body.
        keys = (request.idempotency_key, key_in_batch(request.idempotency_key, 0))
        found = (connection.execute(sa.select(runs).where(runs.c.idempotency_key.in_(keys)))).all()
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
