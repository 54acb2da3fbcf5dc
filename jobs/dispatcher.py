"""Gives waiting runs their places at makers, one look at a time; see ARCHITECTURE.md.

A run waits as a row of SQL, not in a queue: it is given to the workers when it can start. Any process may look; a lock
in the database lets one look at a time. Whatever is lost, late or doubled is found by the next look.
"""

import asyncio
import contextlib
import datetime as dt
import logging
import math
import random
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Final, Protocol

import sqlalchemy as sa

from jobs import admission
from jobs.admission import HORIZON_S, WAITS, Look, moment
from jobs.errors import QueueAway
from jobs.limits import Limits
from jobs.liveness import LEASE_S, database_now
from jobs.outage import Patience, outlast
from jobs.pauses import refuse
from jobs.run import Run
from jobs.runs import Runs
from jobs.standing import Standing
from jobs.trouble import log_trouble
from jobs.turns import Choice, choose

logger = logging.getLogger(__name__)

LIMIT_S: Final = 20.0
"""Time one look may take: behind a black hole it never answers."""
MAX_UNQUEUED: Final = 10_000


class Queue(Protocol):
    """Takes runs that have a place to a worker."""

    async def enqueue_many(self, jobs: Sequence[tuple[str, dt.datetime | None]]) -> bool:
        """See `JobQueue.enqueue_many`."""

    async def cancel(self, run_id: str) -> bool:
        """See `JobQueue.cancel`."""


class Places(Protocol):
    """What an attempt asks of whoever gives places away."""

    async def enter(self, run: Run) -> bool:
        """Wait for the moment of the run's call, a fraction of a second; False: it waits for a place again."""

    async def refused(self, run: Run, retry_after_s: float | None) -> dt.datetime:
        """The maker asked for fewer calls; returns when it may be asked again."""


@dataclass(frozen=True, slots=True)
class Rhythm:
    """How often the dispatcher looks (seconds).

    Attributes:
        tick_s: At least so often while anything waits.
        rest: After a look that left runs waiting it rests so many times as long as the look took: what a look costs
            grows with the number of lines, and this bounds the part of a core they may take.
        forget_s: Between two deletions of what nobody looks back at.
        trouble_s: After a failure.

    """

    tick_s: float = 1.0
    rest: float = 4.0
    forget_s: float = 15.0
    trouble_s: float = 0.5


class Dispatcher:
    """Looks while `serving` is entered.

    Args:
        runs: The truth.
        limits: Of makers and models.
        me: Id of the worker of this process; a process without one looks only when it is poked.
        rhythm: How often it looks.
        standing: Tells rooms what place their runs have; None tells nobody.
        lease_s: Seconds without a beat after which a worker's places do not count.
        jitter: Draws from [0, 1).

    """

    def __init__(  # noqa: PLR0913 - its seams
        self,
        runs: Runs,
        limits: Limits | None = None,
        *,
        me: str | None = None,
        rhythm: Rhythm | None = None,
        standing: Standing | None = None,
        lease_s: float = LEASE_S,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.limits = limits or Limits()
        self._runs = runs
        self._me = me
        self._rhythm = rhythm or Rhythm()
        self._standing = standing
        self._lease_s = lease_s
        self._jitter = jitter
        self._wanted = False
        self._changed = asyncio.Event()
        self._due = math.inf
        self._not_before = -math.inf
        self._forgot_at = -math.inf
        self._left = True
        self._unqueued: dict[str, None] = {}
        self._queue: Queue | None = None

    @asynccontextmanager
    async def serving(self, queue: Queue) -> AsyncIterator[None]:
        """Look, and give what can start to this queue, while inside."""
        self._queue = queue
        self.poke()
        task = asyncio.create_task(self._look_forever(), name="dispatcher")
        try:
            yield
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    def poke(self, when: dt.datetime | None = None) -> None:
        """Have a look soon, or at that time: something waits, or a place is free. Never waits; many are one."""
        if when is None:
            self._wanted = True
        else:
            self._due = min(self._due, time.monotonic() + (when - dt.datetime.now(dt.UTC)).total_seconds())
        self._changed.set()

    def freed(self) -> None:
        """A place may be free: have a look soon if the last one left runs waiting. Never waits.

        What was asked for since then is looked at anyway, and what other processes left waiting by the next tick.
        """
        if self._left:
            self.poke()

    async def look(self) -> int:
        """Give away the places there are now; returns how many runs got one.

        Raises:
            Whatever the database raises.

        """
        began = time.monotonic()
        async with asyncio.timeout(LIMIT_S):
            seen, choice, granted = await self._runs.transact(self._give)
        if choice.next_at is not None:
            self._poke_at(moment(choice.next_at - HORIZON_S), seen.now)
        if seen.held.next_end is not None:
            self._poke_at(seen.held.next_end, seen.now)
        ended = time.monotonic()
        self._left = choice.left or seen.limits_hold
        if self._left:
            self._not_before = ended + min((ended - began) * self._rhythm.rest, self._rhythm.tick_s)
        await self._hand_over(granted)
        return len(granted)

    async def enter(self, run: Run) -> bool:
        """See `Places`. A call that leaves later than its moment allows gets another moment, or none."""
        slack_s = self.limits.slack_s(run.provider, run.model)
        if slack_s is None:
            return True
        while True:
            start = run.start_at.timestamp() if run.start_at is not None else -math.inf
            asked = time.monotonic()
            now = (await outlast(lambda _: self._shared_now(), Patience())).timestamp()
            await asyncio.sleep(max(start - now, 0.0))
            # The clock was read after it was asked for: it is at most this late.
            if now + (time.monotonic() - asked) <= start + slack_s:
                return True
            again = await outlast(partial(self._reserve_again, run), Patience())
            if again is None:
                logger.info("the moment of its call passed", extra={"action": "place_lost", "run_id": run.id})
                self.poke()
                return False
            run = replace(run, start_at=again)

    async def refused(self, run: Run, retry_after_s: float | None) -> dt.datetime:
        """See `Places`. All workers leave the maker alone until then."""
        until = await outlast(lambda _: self._pause(run.provider, retry_after_s), Patience())
        facts = {"action": "provider_paused", "provider": run.provider, "until": until.isoformat()}
        logger.warning("the provider asked for fewer calls", extra=facts)
        return until

    async def _shared_now(self) -> dt.datetime:
        async with self._runs.reading() as connection:
            return await connection.run_sync(database_now)

    async def _reserve_again(self, run: Run, _again: bool) -> dt.datetime | None:  # noqa: FBT001 - see `outlast`
        def write(connection: sa.Connection) -> float | None:
            now = admission.lock(connection)
            seen = admission.look(connection, self.limits, now, self._lease_s)
            return admission.reserve_again(connection, run, seen, HORIZON_S)

        start = await self._runs.transact(write)
        return None if start is None else moment(start)

    async def _pause(self, provider: str, retry_after_s: float | None) -> dt.datetime:
        jitter = self._jitter()

        def write(connection: sa.Connection) -> dt.datetime:
            return refuse(connection, provider, retry_after_s, database_now(connection), jitter)

        return await self._runs.transact(write)

    def _give(self, connection: sa.Connection) -> tuple[Look, Choice, list[str]]:
        """Give away the places there are now: what was seen, what was decided, and the ids of runs that got one."""
        now = admission.lock(connection)
        seen = admission.look(connection, self.limits, now, self._lease_s)
        if not seen.desk.free or seen.held.everything:
            return seen, Choice((), None, left=True), []
        soon = now + dt.timedelta(seconds=0.02)
        waiting = admission.waiting(connection, seen, soon, each=seen.desk.free + 1)
        choice = choose(waiting, seen.desk, HORIZON_S)
        taken = admission.admit(connection, choice.grants, seen, contended=choice.left)
        return seen, choice, [grant.waiting.run_id for grant in taken]

    def _poke_at(self, when: dt.datetime, now: dt.datetime) -> None:
        """Have a look at a time of the clock that all processes share, which shows `now`."""
        self.poke(dt.datetime.now(dt.UTC) + (when - now))

    async def _hand_over(self, granted: Iterable[str]) -> None:
        """Give runs to the workers; what the queue does not take is offered again, and found by the sweep at last."""
        self._unqueued |= dict.fromkeys(granted)
        if not self._unqueued or self._queue is None:
            return
        ids = list(self._unqueued)
        self._unqueued.clear()
        if not await self._queue.enqueue_many([(run_id, None) for run_id in ids]):
            self._unqueued |= dict.fromkeys(ids[:MAX_UNQUEUED])
            raise QueueAway

    async def _look_forever(self) -> None:
        while True:
            await self._until_wanted()
            try:
                await self.look()
                await self._tell_places()
                await self._forget_sometimes()
            except Exception as error:  # noqa: BLE001 - the edge of a task that must not end
                log_trouble(logger, "look_failed", error)
                await asyncio.sleep(self._rhythm.trouble_s)
                self._wanted = True

    async def _until_wanted(self) -> None:
        tick_s = self._rhythm.tick_s if self._me is not None else math.inf
        while not self._wanted:
            self._changed.clear()
            wait_s = min(self._due - time.monotonic(), tick_s)
            if wait_s > 0 and not await _set_within(self._changed, wait_s):
                self._wanted = self._due <= time.monotonic() or await self._anything_to_do()
            if self._due <= time.monotonic():
                self._wanted, self._due = True, math.inf
        await asyncio.sleep(max(self._not_before - time.monotonic(), 0.0))
        # Whatever is asked for from here on may come too late for the look that follows.
        self._wanted = False

    async def _anything_to_do(self) -> bool:
        if self._unqueued:
            return True
        try:
            async with asyncio.timeout(LIMIT_S):
                await self.end_overdue()
                async with self._runs.reading() as connection:
                    return bool((await connection.execute(sa.select(sa.exists().where(WAITS)))).scalar_one())
        except Exception as error:  # noqa: BLE001 - as above
            log_trouble(logger, "look_failed", error)
            return False

    def took(self, provider: str, seconds: float) -> None:
        """Learn how long a run of a maker took, for estimates."""
        if self._standing is not None:
            self._standing.took(provider, seconds)

    async def _tell_places(self) -> None:
        standing = self._standing
        if standing is None or not self._left or not standing.due:
            return

        def tell(connection: sa.Connection) -> None:
            now = database_now(connection)
            standing.tell(connection, admission.look(connection, self.limits, now, self._lease_s))

        async with asyncio.timeout(LIMIT_S), self._runs.reading() as connection:
            await connection.run_sync(tell)

    async def end_overdue(self) -> int:
        """Fail the runs whose deadline has passed, wherever they are; returns how many."""
        async with self._runs.reading() as connection:
            overdue = await connection.run_sync(admission.overdue, dt.datetime.now(dt.UTC))
        ended = 0
        for run_id in overdue:
            if await self._runs.expire(run_id) is not None and self._queue is not None:
                ended += 1
                await self._queue.cancel(run_id)
        if ended:
            self.poke()
        return ended

    async def _forget_sometimes(self) -> None:
        if self._me is None or time.monotonic() < self._forgot_at + self._rhythm.forget_s:
            return
        self._forgot_at = time.monotonic()

        def write(connection: sa.Connection) -> None:
            admission.forget(connection, self.limits, database_now(connection))

        async with asyncio.timeout(LIMIT_S):
            await self._runs.transact(write)


async def _set_within(event: asyncio.Event, timeout_s: float) -> bool:
    try:
        async with asyncio.timeout(None if math.isinf(timeout_s) else timeout_s):
            await event.wait()
    except TimeoutError:
        return False
    return True
