"""The queue of runs to advance, in Redis or in this process: hints. A lost entry is found again by the sweep."""

import asyncio
import contextlib
import datetime as dt
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

from docket import Docket
from docket.dependencies import Perpetual
from redis.exceptions import ConnectionError as ConnectionLost
from redis.exceptions import RedisError

logger = logging.getLogger(__name__)

UNREACHABLE: Final = (RedisError, OSError, TimeoutError)
"""What the queue raises while Redis is away."""
CANCELS_AT_ONCE: Final = 20
"""Calls to the queue at a time when many runs are cancelled together."""
TRIES: Final = 3
_RECORD_TTL: Final = dt.timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class Next:
    """When a job comes back; None when it is done."""

    when: dt.datetime | None


@dataclass(frozen=True, slots=True)
class Handlers:
    """What a worker does with the jobs; a process that only adds them has none."""

    advance: Callable[[str], Awaitable[Next]]
    abandon: Callable[[str], Awaitable[None]]


class JobQueue:
    """Adds, wakes and cancels jobs, each in bounded time; a queue that is away is logged, and costs nobody an answer.

    A job is known by its run's id, so adding it twice is adding it once, and carries nothing else: arguments are
    pickled, and whoever can write to Redis is trusted.

    Args:
        url: "redis://...", or "memory://" for a queue inside this process.
        name: Prefix of every key.
        handlers: Given by a worker.
        limit_s: Time one call may take.

    """

    def __init__(
        self, url: str, *, name: str = "darkroom-jobs", handlers: Handlers | None = None, limit_s: float = 3.0
    ) -> None:
        self.docket = Docket(name=name, url=url, execution_ttl=_RECORD_TTL)
        self._limit_s = limit_s
        self._stack = AsyncExitStack()

        async def advance_run(run_id: str, perpetual: Perpetual = Perpetual()) -> None:  # noqa: B008 - docket's way
            """Make an attempt and, where it says so, come back later under the same key."""
            after = await handlers.advance(run_id) if handlers is not None else Next(None)
            if after.when is None:
                perpetual.cancel()
            else:
                perpetual.at(after.when)

        async def abandon_run(run_id: str) -> None:
            """Tell the maker of a cancelled run to stop."""
            if handlers is not None:
                await handlers.abandon(run_id)

        self._advance = advance_run
        self._abandon = abandon_run
        self.docket.register(advance_run)
        self.docket.register(abandon_run)

    async def __aenter__(self) -> Self:
        await self._stack.enter_async_context(self.docket)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def enqueue(self, run_id: str, when: dt.datetime | None = None) -> bool:
        """Have the run advanced, now or at a time; nothing happens when it is queued or at work already.

        Returns:
            Whether the queue took it; if not, the sweep will find the run.

        """
        return await self._bounded(lambda: self._add(run_id, when), "enqueue_lost", run_id)

    async def enqueue_many(self, jobs: Sequence[tuple[str, dt.datetime | None]]) -> bool:
        """As `enqueue`, for many runs in few round trips."""
        calls = [self.docket.call(self._advance, when=when, key=run_id)(run_id) for run_id, when in jobs]
        return await self._bounded(lambda: self.docket.add_many(calls), "enqueue_lost", f"{len(jobs)} runs")

    async def wake(self, run_id: str) -> bool:
        """Have a parked run advanced now instead of later, as when its maker calls back."""
        now = dt.datetime.now(dt.UTC)
        replace = self.docket.replace(self._advance, now, run_id)
        return await self._bounded(lambda: replace(run_id), "wake_lost", run_id)

    async def cancel(self, run_id: str) -> bool:
        """Stop the job of a run whose cancel is committed, wherever it is, and have its maker told."""
        return await self._bounded(lambda: self._cancel(run_id), "cancel_lost", run_id)

    async def cancel_many(self, run_ids: Sequence[str], cancel: Callable[[str], Awaitable[bool]] | None = None) -> None:
        """As `cancel`, for many runs that were begun; so many at once, each in bounded time.

        Args:
            run_ids: Their cancel is committed.
            cancel: Stops one; by default `cancel`.

        """
        turns = asyncio.Semaphore(CANCELS_AT_ONCE)

        async def stop(run_id: str) -> None:
            async with turns:
                await (cancel or self.cancel)(run_id)

        await asyncio.gather(*map(stop, run_ids))

    async def _add(self, run_id: str, when: dt.datetime | None) -> None:
        await self.docket.add(self._advance, when=when, key=run_id)(run_id)

    async def _cancel(self, run_id: str) -> None:
        await self.docket.cancel(run_id)
        await self.docket.add(self._abandon, key=f"abandon-{run_id}")(run_id)

    async def _bounded(self, work: Callable[[], Awaitable[object]], action: str, run_id: str) -> bool:
        try:
            async with asyncio.timeout(self._limit_s):
                await _insist(work)
        except UNREACHABLE as error:
            facts = {"action": action, "run_id": run_id, "reason": type(error).__name__}
            logger.warning("the job queue does not answer", extra=facts)
            return False
        return True


async def _insist(work: Callable[[], Awaitable[object]]) -> None:
    """Do it, on another connection where one turns out to be dead: after an outage the pool is full of those."""
    for _ in range(TRIES - 1):
        with contextlib.suppress(ConnectionLost):
            await work()
            return
    await work()
