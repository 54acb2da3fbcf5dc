"""Frames on their way to Redis: a bounded queue, and a connection that is made again for as long as it takes.

Nothing here keeps anybody waiting. What could not be sent is said again in short once it can be: a number in place of
updates, and the names of runs; how far runs were is out of date by then.
"""

import asyncio
import contextlib
import logging
import random
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self

from redis.asyncio import ConnectionPool
from redis.exceptions import RedisError

from crdt.bus import HEAD_BYTES, Frame, Kind, unchanged

logger = logging.getLogger(__name__)

UNREACHABLE: Final = (RedisError, OSError, TimeoutError)
MAX_QUEUED: Final = 20_000
MAX_QUEUED_BYTES: Final = 8 * 1024 * 1024
MAX_MISSED: Final = 20_000
PROCESSES: Final = "dr:processes"
"""Where every process says that it lives; no room has such a name."""
_BATCH: Final = 256


@dataclass(frozen=True, slots=True)
class BusPace:
    """How long a bus waits (seconds).

    Attributes:
        answer_s: For an answer of Redis.
        beat_s: Between two beats of our own.
        silence_s: From the last beat of ours that came back until the bus counts as down.
        gone_s: From the last beat of another process until its clients count as gone.
        retry_s: Before the first new connection; doubled each time, up to `retry_most_s`, half of it by chance.
        retry_most_s: The longest.

    """

    answer_s: float = 2.0
    beat_s: float = 2.0
    silence_s: float = 5.0
    gone_s: float = 10.0
    retry_s: float = 0.1
    retry_most_s: float = 2.0


def channel_of(room: str) -> str:
    """Where a room's frames go; the braces keep it in one slot of a Redis Cluster."""
    return PROCESSES if room == PROCESSES else f"dr:room:{{{room}}}"


class RedisSender:
    """Sends frames, and hears none: what a worker needs. Connected while the context is entered.

    Args:
        url: Address of Redis.
        process_id: Sender of our frames.
        pace: See `BusPace`.

    """

    def __init__(self, url: str, process_id: str, pace: BusPace | None = None) -> None:
        self.pace = pace or BusPace()
        self.process_id = process_id
        self.changed: Callable[[], None] = unchanged
        # Redis pushes messages to subscribers of RESP 3 in a way that hiredis leaks; see its issue 235.
        self._pool = ConnectionPool.from_url(
            url, protocol=2, socket_timeout=self.pace.answer_s, socket_connect_timeout=self.pace.answer_s
        )
        self._queue: deque[tuple[str, Frame, bytes]] = deque()
        self._queued_bytes = 0
        self._filled = asyncio.Event()
        self._missed: dict[tuple[str, Kind, bytes], Frame] = {}
        self._drained = asyncio.Event()
        self._drained.set()
        self._up = False
        self._came = asyncio.Event()
        self._tries = 0
        self._task: asyncio.Task[None] | None = None

    @property
    def up(self) -> bool:
        """Whether frames are believed to arrive at present."""
        return self._up

    async def __aenter__(self) -> Self:
        """Start connecting; a Redis that does not answer at once keeps nobody from starting."""
        self._task = asyncio.create_task(self._run(), name="bus")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.pace.answer_s):
                await self._came.wait()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Send what is queued, in bounded time, and disconnect."""
        if self._task is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self.pace.answer_s):
                    await self._drained.wait()
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def send(self, room: str, frame: Frame) -> None:
        """Send to every other process that has the room open; never waits, never raises, may drop."""
        if len(frame.payload) > HEAD_BYTES:
            if frame.seq == 0:
                return  # It comes again with its number.
            frame = Frame(Kind.HEAD, frame.sender, frame.seq)
        if not self._up:
            self._miss(room, frame)
        else:
            self._put(room, frame)

    def _put(self, room: str, frame: Frame) -> None:
        data = frame.encode()
        if len(self._queue) >= MAX_QUEUED or self._queued_bytes + len(data) > MAX_QUEUED_BYTES:
            self._miss(room, frame)
            return
        self._queue.append((room, frame, data))
        self._queued_bytes += len(data)
        self._filled.set()
        self._drained.clear()

    def _miss(self, room: str, frame: Frame) -> None:
        """Remember what is to be said once frames get through again."""
        if frame.kind in {Kind.UPDATE, Kind.HEAD}:
            key = (room, Kind.HEAD, b"")
            before = self._missed.get(key)
            frame = Frame(Kind.HEAD, frame.sender, max(frame.seq, before.seq if before is not None else 0))
        elif frame.kind is Kind.HINT:
            key = (room, Kind.HINT, frame.payload)
        else:
            return
        if key in self._missed or len(self._missed) < MAX_MISSED:
            self._missed[key] = frame

    def _tell_missed(self) -> None:
        missed, self._missed = self._missed, {}
        for (room, _, _), frame in missed.items():
            self._put(room, frame)

    # The connection

    async def _run(self) -> None:
        while True:
            try:
                await self._serve()
            except* UNREACHABLE as errors:
                self._down(_first(errors))
            except* Exception:
                logger.exception("the bus broke, and is started again", extra={"action": "bus_broken"})
            finally:
                self._set_up(up=False)
            wait_s = min(self.pace.retry_s * 2**self._tries, self.pace.retry_most_s)
            self._tries = min(self._tries + 1, 16)
            await asyncio.sleep(wait_s * random.uniform(0.5, 1.0))  # noqa: S311 - not a secret

    async def _serve(self) -> None:
        """Send until the connection fails."""
        async with self._connected() as connection, asyncio.TaskGroup() as group:
            group.create_task(self._pump(connection))
            self._set_up(up=True)
            await self._beat()

    async def _pump(self, connection: Any) -> None:
        while True:
            await self._filled.wait()
            batch = [self._queue.popleft() for _ in range(min(_BATCH, len(self._queue)))]
            self._queued_bytes -= sum(len(data) for _, _, data in batch)
            if not self._queue:
                self._filled.clear()
            try:
                commands = [("PUBLISH", channel_of(room), data) for room, _, data in batch]
                await connection.send_packed_command(connection.pack_commands(commands))
                for _ in batch:
                    await connection.read_response()
            except BaseException:
                for room, frame, _ in batch:
                    self._miss(room, frame)
                raise
            if self._missed and self._up and not self._queue:
                self._tell_missed()
            if not self._queue:
                self._drained.set()

    async def _beat(self) -> None:
        """Say that we live, and so find out whether Redis does."""
        while True:
            self._put(PROCESSES, Frame(Kind.BEAT, self.process_id))
            await asyncio.sleep(self.pace.beat_s)

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[Any]:
        connection: Any = self._pool.make_connection()  # type: ignore[no-untyped-call]
        try:
            await connection.connect()
            yield connection
        finally:
            await connection.disconnect(nowait=True)

    def _set_up(self, *, up: bool) -> None:
        if self._up == up:
            return
        self._up = up
        if up:
            self._came.set()
            if self._tries:
                logger.info("the bus is back", extra={"action": "bus_restored"})
            self._tries = 0
            self._tell_missed()
        else:
            for room, frame, _ in self._queue:
                self._miss(room, frame)
            self._queue.clear()
            self._queued_bytes = 0
            self._filled.clear()
            self._drained.set()
        self.changed()

    def _down(self, error: BaseException) -> None:
        if self._up or not self._tries:
            facts = {"action": "bus_lost", "reason": type(error).__name__}
            logger.warning("Redis does not answer: other processes are heard through the database", extra=facts)


def _first(errors: BaseExceptionGroup[Any]) -> BaseException:
    error: BaseException = errors
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
