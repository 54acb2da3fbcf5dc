"""Group commit of edits: what rooms applied goes to SQL in one transaction per short window."""

import asyncio
import logging
from collections.abc import Callable
from time import monotonic

from sqlalchemy.exc import SQLAlchemyError

from crdt.receipts import Receipt
from crdt.store import SqlStore

logger = logging.getLogger(__name__)

WINDOW_S = 0.05
"""Time between commits while edits keep coming; the window fills on while a commit runs."""
QUIET_WINDOW_S = 0.005
"""How long an edit that comes after a quiet time waits for company."""
MAX_PENDING_BYTES = 64 * 1024 * 1024
"""Edits kept in memory while SQL does not take them; beyond it rooms refuse more."""
_RETRY_FIRST_S, _RETRY_MOST_S = 0.1, 2.0

Committed = Callable[[str, int, tuple[bytes, ...]], None]
"""Called with room, number and the updates in that row, after each commit."""


class Journal:
    """Appends the edits of all rooms of this process; a failed commit keeps them and is tried again.

    Args:
        store: Where to.
        committed: Called on the loop after each commit.
        window_s: Time between commits (seconds, at most 0.05 by design).

    """

    def __init__(self, store: SqlStore, committed: Committed, window_s: float = WINDOW_S) -> None:
        self._store = store
        self._committed = committed
        self._window_s = window_s
        self._pending: dict[str, list[bytes]] = {}
        self._writing: dict[str, tuple[bytes, ...]] = {}
        self._wake = asyncio.Event()
        self._waiters: dict[str, list[asyncio.Future[None]]] = {}
        # Per room and receipt how many edits it counted: at most one entry per peer, however many edits wait.
        self._owed: dict[str, dict[Receipt, int]] = {}
        self._owed_now: dict[str, dict[Receipt, int]] = {}
        self._closing = False
        self._pending_at = self._writing_at = 0.0
        self.pending_bytes = 0
        self.failing = False

    @property
    def full(self) -> bool:
        """Whether more edits would outgrow the memory set aside for a database that does not answer."""
        return self.pending_bytes > MAX_PENDING_BYTES

    def add(self, room: str, update: bytes) -> None:
        """Take an edit (Yjs update v1) that was applied in a room of this process."""
        if not self._pending:
            self._pending_at = monotonic()
        self._pending.setdefault(room, []).append(update)
        self.pending_bytes += len(update)
        self._wake.set()

    @property
    def age_s(self) -> float:
        """How long the oldest edit has waited to be committed (seconds)."""
        if self._writing:
            return monotonic() - self._writing_at
        return monotonic() - self._pending_at if self._pending else 0.0

    @property
    def rooms(self) -> tuple[str, ...]:
        """Rooms with edits that are not committed yet."""
        return tuple({**self._writing, **self._pending})

    def holds(self, room: str) -> bool:
        """Whether edits of this room are not committed yet."""
        return room in self._pending or room in self._writing

    def confirm(self, room: str, receipt: Receipt) -> None:
        """Confirm what a receipt counts now, once every edit of the room that was added so far is committed.

        Also an edit that brought nothing waits for what is pending: what it repeats may be among that.
        """
        if room in self._pending:
            self._owed.setdefault(room, {})[receipt] = receipt.taken
        elif room in self._writing:
            self._owed_now.setdefault(room, {})[receipt] = receipt.taken
        else:
            receipt.confirm(receipt.taken)

    async def flushed(self, room: str) -> None:
        """Return once every edit of the room that was added so far is committed."""
        while self.holds(room):
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.setdefault(room, []).append(waiter)
            await waiter

    async def run(self) -> None:
        """Commit until `close`; owned by the task group of `Rooms`."""
        loop = asyncio.get_running_loop()
        due = 0.0
        while not (self._closing and not self._pending):
            await self._wake.wait()
            self._wake.clear()
            if not self._closing:
                await asyncio.sleep(max(QUIET_WINDOW_S, due - loop.time()))
            due = loop.time() + self._window_s
            if self._pending:
                await self._commit()

    def close(self) -> None:
        """Commit what is left at once, then let `run` return."""
        self._closing = True
        self._wake.set()

    async def _commit(self) -> None:
        self._writing = {room: tuple(updates) for room, updates in self._pending.items()}
        self._writing_at = self._pending_at
        self._pending = {}
        self._owed, self._owed_now = {}, self._owed
        delay = _RETRY_FIRST_S
        while True:
            try:
                numbers = await self._store.append(self._writing)
                break
            except (SQLAlchemyError, OSError) as error:
                self.failing = True
                rooms = len(self._writing)
                logger.warning(
                    "commit of edits failed", extra={"action": "append_failed", "rooms": rooms}, exc_info=error
                )
                await asyncio.sleep(delay)
                delay = min(delay * 2, _RETRY_MOST_S)
        self.failing = False
        written, self._writing = self._writing, {}
        self.pending_bytes -= sum(len(update) for updates in written.values() for update in updates)
        for room, updates in written.items():
            self._committed(room, numbers[room], updates)
            for receipt, taken in self._owed_now.pop(room, {}).items():
                receipt.confirm(taken)
            for waiter in self._waiters.pop(room, []):
                if not waiter.done():
                    waiter.set_result(None)
        if self._pending:
            self._wake.set()
