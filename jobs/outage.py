"""Writes that outlast an outage of the database, and that a cancel cannot tear."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import sqlalchemy as sa

from jobs.errors import DatabaseAway

T = TypeVar("T")
logger = logging.getLogger(__name__)

_UNAVAILABLE: Final = (sa.exc.OperationalError, sa.exc.InterfaceError, sa.exc.TimeoutError, OSError, TimeoutError)
"""What the drivers raise when the database cannot be reached, is starting, or is busy for too long."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a write is tried again (seconds).

    Attributes:
        total_s: Then the write is given up.
        first_s: First wait; it doubles.
        longest_s: No wait is longer.
        write_limit_s: Time one try may take; a database behind a black hole never answers.

    """

    total_s: float = 300.0
    first_s: float = 0.05
    longest_s: float = 1.0
    write_limit_s: float = 20.0


async def outlast(
    write: Callable[[bool], Coroutine[Any, Any, T]],
    patience: Patience,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> T:
    """Write, and try again while the database is away. Between tries it can be cancelled, during one it cannot.

    Args:
        write: Called with whether it was tried before: that try may have been committed.
        patience: For how long.
        sleep: Waits so many seconds.

    Raises:
        DatabaseAway: Patience ran out.

    """
    waited, pause = 0.0, patience.first_s
    again = False
    while True:
        try:
            return await uncancelled(_limited(write(again), patience.write_limit_s))
        except Exception as error:
            if not unavailable(error):
                raise
            if waited >= patience.total_s:
                raise DatabaseAway(type(error).__name__) from error
            logger.warning(
                "the database is away; a write waits",
                extra={"action": "write_delayed", "reason": type(error).__name__, "waited_s": round(waited, 2)},
            )
        again = True
        await sleep(pause)
        waited += pause
        pause = min(pause * 2, patience.longest_s)


async def uncancelled(work: Coroutine[Any, Any, T]) -> T:
    """Do work to its end even if the caller is cancelled meanwhile; the cancel is raised afterwards, never lost."""
    task = asyncio.ensure_future(work)
    cancel: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            cancel = error
    if cancel is not None:
        if not task.cancelled() and (lost := task.exception()) is not None:
            logger.warning(
                "a write failed after its caller was cancelled",
                extra={"action": "write_lost", "reason": type(lost).__name__},
            )
        raise cancel
    return task.result()


async def _limited(work: Coroutine[Any, Any, T], limit_s: float) -> T:
    async with asyncio.timeout(limit_s):
        return await work


def unavailable(error: BaseException) -> bool:
    """Whether an error says that the database is away for now."""
    return isinstance(error, _UNAVAILABLE) or (isinstance(error, sa.exc.DBAPIError) and error.connection_invalidated)
