"""Updates that a document could not take, kept for whoever has to find out why."""

import asyncio
import datetime as dt
import hashlib
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from enum import Enum
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from crdt.tables import quarantined_updates

logger = logging.getLogger(__name__)

MAX_BYTES: Final = 1024 * 1024
"""Of one update; a larger one is only logged."""
KEEP: Final = 20
"""Updates kept of one room, the newest: somebody who sends nothing but garbage fills no disk."""
PER_MINUTE: Final = 10
"""Updates written for one process and minute; more are only logged."""


class Why(Enum):
    """What was wrong."""

    REFUSED = "refused"
    """The document refused it; nothing was changed."""
    PANIC = "panic"
    """It broke the document in memory, which was loaded anew."""
    STORED = "stored"
    """It was found in the log and left out when the document was loaded."""


class Quarantine:
    """Keeps them in SQL, in bounded number.

    Args:
        engine: From `crdt.database.create_engine`.
        spawn: Runs a coroutine in a task that somebody owns.
        clock: The time, aware UTC.

    """

    def __init__(
        self,
        engine: AsyncEngine,
        spawn: Callable[[Coroutine[Any, Any, None]], Awaitable[object]],
        clock: Callable[[], dt.datetime] = lambda: dt.datetime.now(dt.UTC),
    ) -> None:
        self._engine = engine
        self._spawn = spawn
        self._clock = clock
        self._recent: deque[dt.datetime] = deque(maxlen=PER_MINUTE)
        self._writes: deque[Awaitable[object]] = deque(maxlen=PER_MINUTE)

    def note(self, room: str, update: bytes, why: Why, reason: str) -> None:
        """Log an update and keep it; never waits, and is content when the database is away.

        Args:
            room: Where it was sent to.
            update: As it came.
            why: What was wrong.
            reason: What the library said.

        """
        self.log(room, update, why, reason)
        now = self._clock()
        full = len(self._recent) == PER_MINUTE and now - self._recent[0] < dt.timedelta(minutes=1)
        if len(update) <= MAX_BYTES and not full:
            self._recent.append(now)
            self._writes.append(self._spawn(self._keep_quietly(room, update, why, reason)))

    async def settle(self) -> None:
        """Wait until what was noted is written: a server that stops keeps it too."""
        await asyncio.gather(*self._writes)

    async def keep(self, room: str, update: bytes, why: Why, reason: str) -> None:
        """Commit an update, and forget the oldest of its room beyond `KEEP`."""
        table = quarantined_updates
        async with self._engine.begin() as connection:
            row = {"room": room, "at": self._clock(), "why": why.value, "reason": reason[:500], "update": update}
            await connection.execute(sa.insert(table).values(**row))
            newest = sa.select(table.c.id).where(table.c.room == room).order_by(table.c.id.desc()).limit(KEEP)
            old = sa.and_(table.c.room == room, table.c.id.not_in(newest))
            await connection.execute(sa.delete(table).where(old))

    def log(self, room: str, update: bytes, why: Why, reason: str) -> None:
        """Say that an update was set aside."""
        facts = {"action": "update_quarantined", "room": room, "bytes": len(update), "why": why.value}
        digest = hashlib.sha256(update).hexdigest()
        logger.error("an update was set aside", extra={**facts, "reason": reason, "sha256": digest})

    async def _keep_quietly(self, room: str, update: bytes, why: Why, reason: str) -> None:
        try:
            await self.keep(room, update, why, reason)
        except (SQLAlchemyError, OSError) as error:
            facts = {"action": "quarantine_failed", "room": room, "reason": type(error).__name__}
            logger.warning("an update was not kept", extra=facts)
