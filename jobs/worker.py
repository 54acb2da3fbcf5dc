"""Runs jobs: takes them from the queue, finds those the queue has lost, and stops without tearing any."""

import asyncio
import contextlib
import datetime as dt
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self

import docket

from jobs.actor import Actor, Done, Later
from jobs.dispatcher import Dispatcher
from jobs.errors import QueueAway
from jobs.liveness import BEAT_S, Liveness
from jobs.queue import Handlers, JobQueue, Next
from jobs.reading import utcnow
from jobs.run import Run
from jobs.runs import Runs
from jobs.trouble import log_trouble

logger = logging.getLogger(__name__)

PAGE: Final = 500
SETTLED_S: Final = 5.0
"""Runs touched more recently are left to whoever touched them."""
SCHEDULING_S: Final = 0.5
"""How exactly jobs that were put off come back (seconds); nothing people wait for goes this way."""
MAX_UNTOLD: Final = 100
"""Runs whose makers a stop would still tell of their cancel."""
LIMIT_S: Final = 20.0
"""Time one look at the database may take: behind a black hole it never answers."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How often a worker looks after things (seconds).

    Attributes:
        sweep_s: Between two sweeps for runs that nobody works on.
        beat_s: Between two signs of life.
        redelivery_s: A job whose worker did not renew it for so long goes to another.
        grace_s: At a stop, running attempts may take so long to end by themselves.
        check_s: The queue is asked at least so often; new jobs and woken ones do not wait for it.
        trouble_s: After a failure of the worker's own.

    """

    sweep_s: float = 10.0
    beat_s: float = BEAT_S
    redelivery_s: float = 4.0
    grace_s: float = 10.0
    check_s: float = 1.0
    trouble_s: float = 1.0


@dataclass(frozen=True, slots=True)
class _Hold:
    task: asyncio.Task[Any]
    run: Run | None

    @property
    def attempt(self) -> int | None:
        return self.run.attempt if self.run is not None else None


class Worker:
    """Works while the context is entered.

    Args:
        docket_url: "redis://...", or "memory://" for a queue inside this process.
        runs: The truth.
        actor: Makes the attempts.
        dispatcher: Says which runs may go; shared with the doors of this process.
        name: Of the queue; all workers and doors of one installation share it.
        concurrency: Attempts at once; nearly all of their time is waiting for makers.
        liveness: This worker's sign of life; without one others may take its runs when they see them.
        pace: How often it looks after things.
        clock: The time, aware UTC.

    """

    def __init__(  # noqa: PLR0913 - the seams of a whole process
        self,
        docket_url: str,
        runs: Runs,
        actor: Actor,
        dispatcher: Dispatcher,
        *,
        name: str = "darkroom-jobs",
        concurrency: int = 100,
        liveness: Liveness | None = None,
        pace: Pace | None = None,
        clock: Callable[[], dt.datetime] = utcnow,
    ) -> None:
        self.queue = JobQueue(docket_url, name=name, handlers=Handlers(self._advance, self._abandon))
        self._runs = runs
        self._actor = actor
        self._dispatcher = dispatcher
        self._concurrency = concurrency
        self._liveness = liveness
        if liveness is not None:
            liveness.concurrency = concurrency
        self._pace = pace or Pace()
        self._clock = clock
        self._held: dict[str, _Hold] = {}
        self._again: set[str] = set()
        self.swept = asyncio.Event()
        """Set once the first sweep has found what others left behind."""
        # Cancelled here, and their makers not told yet as far as we know.
        self._untold: dict[str, None] = {}
        self._stack = AsyncExitStack()
        self._stopping = False
        self._doubt = asyncio.Event()

    @property
    def active(self) -> frozenset[str]:
        """Ids of the runs this worker is at."""
        return frozenset(self._held)

    async def enqueue(self, run_id: str) -> None:
        """Have a run that was just made looked at; see `Dispatcher.poke`."""
        del run_id  # Whoever has the best claim goes first.
        self._dispatcher.poke()

    async def enqueue_many(self, jobs: Sequence[tuple[str, dt.datetime | None]]) -> bool:
        """See `JobQueue.enqueue_many`."""
        return await self.queue.enqueue_many(jobs)

    async def wake(self, run_id: str) -> bool:
        """See `JobQueue.wake`."""
        return await self.queue.wake(run_id)

    async def cancel(self, run_id: str) -> bool:
        """Stop the job of a run whose cancel is committed; see `JobQueue.cancel`."""
        self._untold[run_id] = None
        if len(self._untold) > MAX_UNTOLD:
            del self._untold[next(iter(self._untold))]
        taken = await self.queue.cancel(run_id)
        hold = self._held.get(run_id)
        if hold is not None and (self._stopping or not taken):
            # A stop takes no more from the queue, cancels included.
            hold.task.cancel()
        # Its place is free.
        self._dispatcher.poke()
        return taken

    async def cancel_many(self, run_ids: Sequence[str]) -> None:
        """See `JobQueue.cancel_many`."""
        await self.queue.cancel_many(run_ids, self.cancel)
        # The places of those that nobody began are free, too.
        self._dispatcher.poke()

    async def __aenter__(self) -> Self:
        try:
            if self._liveness is not None:
                await self._liveness.beat()
                self._stack.push_async_callback(self._retire, self._liveness)
            await self._stack.enter_async_context(self.queue)
            await self._stack.enter_async_context(self._dispatcher.serving(self.queue))
            group = await self._stack.enter_async_context(asyncio.TaskGroup())
            self._tasks = [group.create_task(self._sweep_forever(), name="sweep")]
            if self._liveness is not None:
                self._tasks.append(group.create_task(self._beat_forever(self._liveness), name="beat"))
            self._work = group.create_task(self._work_forever(), name="work")
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Take no more jobs; let attempts end for `grace_s`, interrupt the rest, and record that."""
        self._stopping = True
        self._tasks[0].cancel()
        try:
            await self._drain()
        finally:
            for task in (*self._tasks, self._work):
                task.cancel()
            await self._stack.__aexit__(kind, error, trace)

    def doubt_queue(self) -> None:
        """The queue was away: it may have come back empty, and jobs meant for it were lost. Sweep everything now."""
        self._doubt.set()

    async def sweep(self, *, everything: bool = False) -> int:
        """Queue every run that has a place and nobody seems to work on, and let go of those that were taken from us.

        Args:
            everything: At a start: also what was touched just now, because its worker may have been killed since.

        Returns:
            How many runs were queued, or were so already.

        Raises:
            QueueAway: The queue does not answer.

        """
        lost = await self._runs.overtaken({id_: hold.attempt for id_, hold in self._held.items() if hold.attempt})
        for run_id in lost & self.active:
            self._held[run_id].task.cancel()
        idle_since = None if everything else self._clock() - dt.timedelta(seconds=SETTLED_S)
        found, after = 0, ""
        while page := await self._runs.unfinished(PAGE, after_id=after, idle_since=idle_since, placed=True):
            after = page[-1].id
            jobs = [(run.id, run.resume_at) for run in page if run.id not in self._held]
            if jobs and not await self.queue.enqueue_many(jobs):
                raise QueueAway
            found += len(jobs)
        self._dispatcher.poke()
        return found

    async def _advance(self, run_id: str) -> Next:
        task = asyncio.current_task()
        again_s = self._pace.redelivery_s
        if (hold := self._held.get(run_id)) is not None:
            # Given to us twice: the first one goes on. It may be about to park, and this entry to be its maker's call.
            done, _ = await asyncio.wait([hold.task], timeout=again_s)
            again_s = 0.0 if done else again_s
        if task is None or run_id in self._held or self._stopping:
            # It looks in again in case the first one dies.
            self._again.add(run_id)
            return Next(self._clock() + dt.timedelta(seconds=again_s))
        self._held[run_id] = _Hold(task, None)

        def began(run: Run) -> None:
            self._held[run_id] = _Hold(task, run)

        try:
            after = await self._actor.advance(run_id, began)
        except Exception as error:  # noqa: BLE001 - the edge of a job
            # Never raised to the queue: the job would come back at once, for ever.
            log_trouble(logger, "attempt_broken", error, run_id=run_id)
            return Next(self._clock() + dt.timedelta(seconds=self._pace.trouble_s))
        finally:
            run = self._held.pop(run_id).run
            self._dispatcher.freed()
        if isinstance(after, Done) and run is not None and run.started_at is not None:
            self._dispatcher.took(run.provider, (self._clock() - run.started_at).total_seconds())
        return await self._after(run_id, after)

    async def _after(self, run_id: str, after: Done | Later) -> Next:
        if run_id in self._again:
            # It was given a place again before this job was over; that entry need not wait until it looks in.
            self._again.discard(run_id)
            await self.queue.wake(run_id)
        if isinstance(after, Later) and after.waits:
            self._dispatcher.poke(after.when)
            return Next(None)
        return Next(after.when if isinstance(after, Later) else None)

    async def _abandon(self, run_id: str) -> None:
        self._untold.pop(run_id, None)
        await self._actor.abandon(run_id)

    async def _work_forever(self) -> None:
        while not self._stopping:
            worker = docket.Worker(
                self.queue.docket,
                name=self._actor.worker_id,
                concurrency=self._concurrency,
                redelivery_timeout=dt.timedelta(seconds=self._pace.redelivery_s),
                reconnection_delay=dt.timedelta(seconds=self._pace.trouble_s),
                minimum_check_interval=dt.timedelta(seconds=self._pace.check_s),
                scheduling_resolution=dt.timedelta(seconds=min(self._pace.check_s, SCHEDULING_S)),
                schedule_automatic_tasks=False,
            )
            async with self._surviving("worker_broken"), worker:
                await worker.run_forever()

    async def _sweep_forever(self) -> None:
        everything = True
        while True:
            async with self._surviving("sweep_failed"), asyncio.timeout(LIMIT_S):
                found = await self.sweep(everything=everything)
                everything = False
                self.swept.set()
                if found:
                    logger.info("swept", extra={"action": "swept", "runs": found})
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._pace.trouble_s if everything else self._pace.sweep_s):
                    await self._doubt.wait()
                everything = True
            self._doubt.clear()

    async def _beat_forever(self, liveness: Liveness) -> None:
        while True:
            await asyncio.sleep(self._pace.beat_s)
            async with self._surviving("beat_failed"), asyncio.timeout(LIMIT_S):
                await liveness.beat()

    @contextlib.asynccontextmanager
    async def _surviving(self, action: str) -> AsyncIterator[None]:
        try:
            yield
        except Exception as error:  # noqa: BLE001 - the edge of a task that must not end
            log_trouble(logger, action, error)
            await asyncio.sleep(self._pace.trouble_s)

    async def _drain(self) -> None:
        """Docket ends on a cancel once its jobs have ended: they are given time, then cancelled, and record that."""
        logger.info("stopping", extra={"action": "worker_stopping", "runs": len(self._held)})
        self._work.cancel()
        for run_id in self._untold.keys() & self._held.keys():
            self._held[run_id].task.cancel()
        await asyncio.wait([self._work], timeout=self._pace.grace_s)
        for hold in tuple(self._held.values()):
            hold.task.cancel()
        await asyncio.wait([self._work], timeout=self._pace.grace_s)
        await self._tell_the_rest()

    async def _tell_the_rest(self) -> None:
        """Tell makers of what was cancelled just before the stop: a queue in memory ends with the process."""
        try:
            async with asyncio.timeout(self._pace.grace_s):
                await asyncio.gather(*map(self._abandon, tuple(self._untold)))
        except Exception as error:  # noqa: BLE001 - the runs have ended; their makers may do what they like
            log_trouble(logger, "makers_not_told", error)

    async def _retire(self, liveness: Liveness) -> None:
        try:
            async with asyncio.timeout(LIMIT_S):
                await liveness.retire()
        except Exception as error:  # noqa: BLE001 - the edge of the process
            log_trouble(logger, "retire_failed", error)
