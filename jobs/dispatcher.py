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
from jobs.admission import HORIZON_S, moment
from jobs.errors import QueueAway
from jobs.limits import Limits
from jobs.liveness import LEASE_S, database_now
from jobs.outage import Patience, outlast
from jobs.pauses import refuse
from jobs.run import Run
from jobs.runs import Runs
from jobs.standing import News, Standing
from jobs.trouble import log_trouble
from jobs.turns import choose

logger = logging.getLogger(__name__)

LIMIT_S: Final = 20.0
"""Time one look may take: behind a black hole it never answers."""
AT_ONCE_S: Final = 0.02
"""A run that is to be tried again in less than this can go now: clocks and timers are no better."""
BELIEVED_S: Final = 0.25
"""So long nobody looks again only because a run has ended: another process may have left runs waiting since."""
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
        longest_rest_s: No rest is longer.
        forget_s: Between two deletions of what nobody looks back at.
        trouble_s: After a failure.

    """

    tick_s: float = 1.0
    rest: float = 4.0
    longest_rest_s: float = 0.5
    forget_s: float = 15.0
    trouble_s: float = 0.5


@dataclass(frozen=True, slots=True)
class _Seen:
    """What a look did, and when the next is worth it, by the clock that all processes share."""

    now: dt.datetime
    granted: tuple[str, ...]
    next_at: dt.datetime | None
    left: bool


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
        self._ended_at = -math.inf
        self._left = True
        self._looked_at = -math.inf
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
        """A place may be free: have a look soon, unless one saw a moment ago that nothing waits. Never waits."""
        if self._left or time.monotonic() >= self._looked_at + BELIEVED_S:
            self.poke()

    async def look(self) -> int:
        """Give away the places there are now; returns how many runs got one.

        Raises:
            Whatever the database raises.

        """
        began = time.monotonic()
        async with asyncio.timeout(LIMIT_S):
            seen = await self._runs.transaction(self._give)
        ended = time.monotonic()
        if seen.next_at is not None:
            self.poke(dt.datetime.now(dt.UTC) + (seen.next_at - seen.now))
        self._left, self._looked_at = seen.left, ended
        if seen.left:
            self._not_before = ended + min((ended - began) * self._rhythm.rest, self._rhythm.longest_rest_s)
        granted = seen.granted
        await self._hand_over(granted)
        return len(granted)

    def _give(self, connection: sa.Connection) -> _Seen:
        now = admission.lock(connection)
        look = admission.look(connection, self.limits, now, self._lease_s)
        moments = [] if look.held.next_end is None else [look.held.next_end]
        if not look.desk.free or look.held.everything:
            return _Seen(now, (), min(moments, default=None), left=True)
        soon = now + dt.timedelta(seconds=AT_ONCE_S)
        waiting = admission.waiting(connection, look, soon, each=look.desk.free + 1)
        choice = choose(waiting, look.desk, HORIZON_S)
        taken = admission.admit(connection, choice.grants, look, contended=choice.left)
        if choice.next_at is not None:
            moments.append(moment(choice.next_at - HORIZON_S))
        left = choice.left or look.limits_hold
        return _Seen(now, tuple(grant.waiting.run_id for grant in taken), min(moments, default=None), left=left)

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
        return await self._runs.read(database_now)

    async def _reserve_again(self, run: Run, _again: bool) -> dt.datetime | None:  # noqa: FBT001 - see `outlast`
        def write(connection: sa.Connection) -> float | None:
            now = admission.lock(connection)
            look = admission.look(connection, self.limits, now, self._lease_s)
            return admission.reserve_again(connection, run, look, HORIZON_S)

        start = await self._runs.transaction(write)
        return None if start is None else moment(start)

    async def _pause(self, provider: str, retry_after_s: float | None) -> dt.datetime:
        jitter = self._jitter()
        return await self._runs.transaction(
            lambda connection: refuse(connection, provider, retry_after_s, database_now(connection), jitter)
        )

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
                await self._end_overdue_sometimes()
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
            await self._end_overdue_sometimes()
            async with asyncio.timeout(LIMIT_S):
                return await self._runs.read(admission.anything_waits)
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

        def read(connection: sa.Connection) -> News | None:
            look = admission.look(connection, self.limits, database_now(connection), self._lease_s)
            return standing.read(connection, look)

        async with asyncio.timeout(LIMIT_S):
            standing.tell(await self._runs.read(read))

    async def end_overdue(self) -> int:
        """Fail the runs whose deadline has passed, wherever they are; returns how many."""
        overdue = await self._runs.read(lambda connection: admission.overdue(connection, dt.datetime.now(dt.UTC)))
        ended = 0
        for run_id in overdue:
            if await self._runs.expire(run_id) is not None and self._queue is not None:
                ended += 1
                await self._queue.cancel(run_id)
        if ended:
            self.poke()
        return ended

    async def _end_overdue_sometimes(self) -> None:
        # After looks too: a server that never comes to rest has deadlines as well.
        if self._me is not None and time.monotonic() >= self._ended_at + self._rhythm.tick_s:
            self._ended_at = time.monotonic()
            async with asyncio.timeout(LIMIT_S):
                await self.end_overdue()

    async def _forget_sometimes(self) -> None:
        if self._me is None or time.monotonic() < self._forgot_at + self._rhythm.forget_s:
            return
        self._forgot_at = time.monotonic()
        async with asyncio.timeout(LIMIT_S):
            await self._runs.transaction(
                lambda connection: admission.forget(connection, self.limits, database_now(connection))
            )


async def _set_within(event: asyncio.Event, timeout_s: float) -> bool:
    try:
        async with asyncio.timeout(None if math.isinf(timeout_s) else timeout_s):
            await event.wait()
    except TimeoutError:
        return False
    return True
