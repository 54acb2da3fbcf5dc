"""The only writer of runs and their events: one transaction for each event, then one hint.

Locks are taken in the order run, then node; a request takes its node only. No two of them can wait for each other.
"""

import asyncio
import datetime as dt
import secrets
import uuid
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, nullcontext
from dataclasses import replace
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from crdt.canvas import SERVER_KEYS
from crdt.tables import workflow_nodes, workflows
from crdt.values import without_data_urls
from jobs import deliveries
from jobs.deliveries import Delivery, Fate, Receipt
from jobs.errors import IdempotencyConflict, RunActive, RunBusy, RunFinished, RunNotFound, StaleAttempt, StaleRequest
from jobs.gathering import Gathering
from jobs.ledger import settle
from jobs.liveness import LEASE_S, WorkerIdentity, alive_until
from jobs.outgoing import announce
from jobs.policy import worker_lost
from jobs.reading import RunReader, first_run, of_node, utcnow
from jobs.records import RunEvent, changed_columns, event_columns, image_columns, run_columns
from jobs.requests import UNSET, Requested, RunRequest, Unset, first_state
from jobs.run import Run, applied, changes_node, node_patch, parked, resumed
from jobs.state import (
    Accepted,
    Cancelled,
    Completed,
    Event,
    Failed,
    Heard,
    Started,
    Status,
    event_payload,
)
from jobs.state import Requested as RequestedEvent
from jobs.tables import generated_images, run_events, runs

__all__ = ["UNSET", "Requested", "Run", "RunEvent", "RunRequest", "Runs", "Unset", "node_patch"]

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

    """

    def __init__(
        self,
        engine: AsyncEngine,
        *,
        hint: Callable[[str, str], None],
        clock: Callable[[], dt.datetime] = utcnow,
        me: WorkerIdentity | None = None,
        lease_s: float = LEASE_S,
    ) -> None:
        super().__init__(engine, clock)
        self._engine = engine
        self._hint = hint
        self._me = me
        self._lease_s = lease_s
        # SQLite takes one writer at a time, and lets the others poll for their turn: queueing here is quicker.
        self._turn = asyncio.Lock() if engine.dialect.name == "sqlite" else None
        self._hearing = Gathering(self._hear_all)

    async def request_run(self, request: RunRequest) -> Requested:
        """Make the run that is asked for, or find the one an equal request made; commits run, event and node row.

        Raises:
            StaleRequest: `after` is not the node's current run, nor was a run requested after it.
            RunActive: The node's current run has not ended.
            IdempotencyConflict: The key was used with another body.

        """
        async with self._writing() as connection:
            requested = await self._request(connection, request)
        if requested.created:
            self._hint(requested.run.workflow_id, requested.run.id)
        return requested

    async def begin_attempt(self, run_id: str, worker: str) -> Run | None:
        """Commit that a worker works on the run from now on.

        A run that was parked while its maker works goes on with the same attempt; any other gets the next number,
        which fences whoever worked on it before. One that took `MAX_CRASHES` workers with it has failed.

        Returns:
            None when the run has ended, or is not there.

        Raises:
            RunBusy: Another worker, believed alive, works on it.

        """
        async with self._writing() as connection:
            run = await self._locked(connection, run_id)
            if run is None or run.status.terminal:
                return None
            if run.worker is not None and run.worker != worker:
                until = await alive_until(connection, run.worker, self._me, self._lease_s)
                if until is not None:
                    raise RunBusy(run_id, run.worker, until)
            if run.crashes < MAX_CRASHES and run.parked_remotely:
                begun = resumed(run, worker, self._clock())
                await self._update(connection, run, begun)
                return begun
            event = Started(worker) if run.crashes < MAX_CRASHES else Failed(worker_lost(run.stage, run.crashes))
            begun = await self._apply(connection, run, event)
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
        async with self._writing() as connection:
            if isinstance(event, Accepted):
                provider = await self._provider(connection, run_id)
                await deliveries.lock_remote(connection, provider, event.remote_id)
            if after_seq is not None:
                written = await self._written(connection, run_id, after_seq, event)
                if written is not None:
                    return written
            run = await self._attempted(connection, run_id, attempt)
            run = await self._apply(connection, run, event)
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
        async with self._writing() as connection:
            run = await self._attempted(connection, run_id, attempt)
            now = self._clock()
            if heard is not None:
                await deliveries.settle(connection, run, now, heard)
                if await deliveries.unsettled(connection, run):
                    resume_at = now
            waiting = parked(run, resume_at, now, polled=polled)
            await self._update(connection, run, waiting)
            return waiting

    async def hear(self, delivery: Delivery) -> Receipt:
        """Commit that a maker called: its row and, while the run it is about works, an event of that run.

        A call that is known already changes nothing, nor does one about a run that has ended. One that no run is known
        for is kept until a run turns out to be meant.
        """
        # SQLite commits one after the other, and each waits for the disk: those that come meanwhile share the next.
        receipt = await (self._hearing.do(delivery) if self._turn is not None else self._hear(delivery))
        if receipt.run is not None and receipt.fate in {Fate.HEARD, Fate.WOKEN}:
            self._hint(receipt.run.workflow_id, receipt.run.id)
        return receipt

    async def prune_deliveries(self) -> int:
        """Commit that calls older than `deliveries.KEEP` are forgotten; how many."""
        gone = 0
        while True:
            async with self._writing() as connection:
                some = await deliveries.prune(connection, self._clock() - deliveries.KEEP)
            gone += some
            if not some:
                return gone

    async def cancel(self, run_id: str, by: Mapping[str, str]) -> Run:
        """Commit that the run is cancelled; one that has ended is left, and returned, as it is.

        Raises:
            RunNotFound: No run has this id.

        """
        async with self._writing() as connection:
            run = await self._locked(connection, run_id)
            if run is None:
                raise RunNotFound(run_id)
            if run.status.terminal:
                return run
            run = await self._apply(connection, run, Cancelled(dict(by)))
        self._hint(run.workflow_id, run.id)
        return run

    async def _hear_all(self, calls: Sequence[Delivery]) -> list[Receipt]:
        async with self._writing() as connection:
            return [await self._heard(connection, delivery) for delivery in calls]

    async def _hear(self, delivery: Delivery) -> Receipt:
        async with self._writing() as connection:
            return await self._heard(connection, delivery)

    async def _heard(self, connection: AsyncConnection, delivery: Delivery) -> Receipt:
        if delivery.remote_id is not None:
            await deliveries.lock_remote(connection, delivery.provider, delivery.remote_id)
        run_id = await deliveries.run_of(connection, delivery)
        run = None if run_id is None else await self._locked(connection, run_id)
        fate = _fate(run, delivery)
        known_as = None if run is None else run.id
        if not await deliveries.store(connection, delivery, known_as, self._clock(), settled=fate is Fate.LATE):
            return Receipt(Fate.DUPLICATE, run)
        if run is None or fate not in {Fate.HEARD, Fate.WOKEN}:
            return Receipt(fate, run)
        return Receipt(fate, await self._apply(connection, run, Heard(delivery.id, delivery.state)))

    @asynccontextmanager
    async def _writing(self) -> AsyncIterator[AsyncConnection]:
        async with self._turn or nullcontext(), self._engine.begin() as connection:
            yield connection

    async def _request(self, connection: AsyncConnection, request: RunRequest) -> Requested:
        now = self._clock()
        await self._ensure_node(connection, request, now)
        query = of_node(request.workflow_id, request.node_id).order_by(runs.c.ordinal.desc()).limit(1)
        current = first_run(await connection.execute(query))
        known = await _known(connection, request)
        if known is not None:
            return Requested(known, created=False)
        if not isinstance(request.after, Unset) and request.after != (current.id if current else None):
            raise StaleRequest(current)
        if current is not None and not current.status.terminal:
            raise RunActive(current)
        run = first_state(request, uuid.uuid4().hex, current, now, secrets.token_urlsafe(24))
        # Another request, on another node and in another transaction, may use the same idempotency key right now:
        # this waits for it to end, and inserts nothing if it committed.
        insert = self._insert(runs).values(**run_columns(run)).on_conflict_do_nothing().returning(runs.c.id)
        if (await connection.execute(insert)).scalar_one_or_none() is None:
            known = await _known(connection, request)
            if known is None:
                raise StaleRequest(current)
            return Requested(known, created=False)
        event = RequestedEvent(dict(request.requested_by))
        await connection.execute(sa.insert(run_events).values(**event_columns(run, event)))
        await self._show(connection, run)
        return Requested(run, created=True)

    async def _ensure_node(self, connection: AsyncConnection, request: RunRequest, now: dt.datetime) -> None:
        """Lock the node's row, inserted where it is missing; every request for the node goes through this lock."""
        mine = _node_where(request.workflow_id, request.node_id)
        lock = sa.select(workflow_nodes.c.id).where(mine).with_for_update(key_share=True)
        if (await connection.execute(lock)).scalar_one_or_none() is not None:
            return
        values: dict[str, Any] = {"created_at": now, "updated_at": now}
        workflow = self._insert(workflows).values(id=request.workflow_id, title="", **values)
        await connection.execute(workflow.on_conflict_do_nothing())
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
        await connection.execute(node.on_conflict_do_nothing())
        await connection.execute(lock)

    async def _locked(self, connection: AsyncConnection, run_id: str) -> Run | None:
        # The weaker lock: a request that names this run as its parent, or a new event, need not wait for it.
        query = sa.select(runs).where(runs.c.id == run_id).with_for_update(key_share=True)
        return first_run(await connection.execute(query))

    async def _attempted(self, connection: AsyncConnection, run_id: str, attempt: int) -> Run:
        run = await self._locked(connection, run_id)
        if run is None:
            raise RunNotFound(run_id)
        if run.status.terminal:
            raise RunFinished(run)
        if run.attempt != attempt or run.worker is None:
            raise StaleAttempt(run)
        return run

    async def _provider(self, connection: AsyncConnection, run_id: str) -> str:
        query = sa.select(runs.c.provider).where(runs.c.id == run_id)
        return (await connection.execute(query)).scalar_one_or_none() or ""

    async def _written(self, connection: AsyncConnection, run_id: str, after_seq: int, event: Event) -> Run | None:
        """The run, if this very event is recorded behind this number; a maker may have called before or after it."""
        run = await self._locked(connection, run_id)
        behind = sa.and_(run_events.c.run_id == run_id, run_events.c.seq > after_seq, run_events.c.kind == event.kind)
        rows = await connection.execute(sa.select(run_events.c.payload).where(behind))
        return run if event_payload(event) in [row.payload for row in rows] else None

    async def _apply(self, connection: AsyncConnection, run: Run, event: Event) -> Run:
        after = applied(run, event, self._clock())
        await self._update(connection, run, after)
        await connection.execute(sa.insert(run_events).values(**event_columns(after, event)))
        if isinstance(event, Completed) and event.images:
            rows = [image_columns(after, image) for image in event.images]
            await connection.execute(sa.insert(generated_images), rows)
        await settle(connection, after, event)
        if isinstance(event, Accepted):
            for call in await deliveries.claim_parked(connection, after):
                after = await self._apply(connection, after, Heard(call.id, call.state))
            if after.resume_at != after.updated_at and await deliveries.unsettled(connection, after):
                due = replace(after, resume_at=after.updated_at)
                await self._update(connection, after, due)
                after = due
        elif run.remote_id is not None and (after.status.terminal or after.remote_id is None):
            await deliveries.settle(connection, run, after.updated_at)
        if after.status.terminal:
            await announce(connection, after)
        if changes_node(event):
            await self._show(connection, after)
        return after

    async def _update(self, connection: AsyncConnection, before: Run, after: Run) -> None:
        changed = changed_columns(before, after)
        await connection.execute(sa.update(runs).where(runs.c.id == after.id).values(**changed))

    async def _show(self, connection: AsyncConnection, run: Run) -> None:
        """Put what the node shows into its row; the keeper puts the same into the document."""
        mine = _node_where(run.workflow_id, run.node_id)
        query = sa.select(workflow_nodes.c.node_data).where(mine).with_for_update(key_share=True)
        data: Mapping[str, Any] = (await connection.execute(query)).scalar_one()
        shown = {**data, **node_patch(run)}
        if shown != data:
            update = sa.update(workflow_nodes).where(mine).values(node_data=shown, updated_at=run.updated_at)
            await connection.execute(update)

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


async def _known(connection: AsyncConnection, request: RunRequest) -> Run | None:
    """The run that an equal request made before."""
    if request.idempotency_key is not None:
        query = sa.select(runs).where(runs.c.idempotency_key == request.idempotency_key)
        run = first_run(await connection.execute(query))
        if run is not None and run.request_hash != request.hash():
            raise IdempotencyConflict(request.idempotency_key)
        if run is not None:
            return run
    if isinstance(request.after, Unset):
        return None
    query = of_node(request.workflow_id, request.node_id).where(runs.c.after == (request.after or ""))
    return first_run(await connection.execute(query))


def _node_where(workflow_id: str, node_id: str) -> sa.ColumnElement[bool]:
    return sa.and_(workflow_nodes.c.workflow_id == workflow_id, workflow_nodes.c.id == node_id)
