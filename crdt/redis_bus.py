"""Traffic between processes over Redis: a channel for each room, joined while the room is open here."""

import asyncio
import contextlib
import math
from collections import Counter, deque
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any, Final

from crdt.bus import GONE, Frame, Kind, Received, forgotten, unheard
from crdt.redis_sender import PROCESSES, UNREACHABLE, BusPace, RedisSender, channel_of

_PREFIX: Final = channel_of("").removesuffix("}").encode()
_CHUNK: Final = 500
"""Channels in one command."""


class RedisBus(RedisSender):
    """A `Bus` over Redis: two connections, one to publish and one that is subscribed.

    It is up only while a beat of its own comes back: a Redis that takes everything and answers nothing counts as down.

    Args:
        url: Address of Redis.
        process_id: Sender of our frames; what comes back of them is dropped.
        pace: See `BusPace`.

    """

    def __init__(self, url: str, process_id: str, pace: BusPace | None = None) -> None:
        super().__init__(url, process_id, pace)
        self.received: Received = unheard
        self._joined: Counter[str] = Counter()
        self._subscriber: Any = None
        self._writing = asyncio.Lock()
        self._unconfirmed: dict[str, deque[asyncio.Future[None]]] = {}
        self._broken: asyncio.Future[None] | None = None
        self._heard_at = 0.0
        self.gone: Callable[[str], None] = forgotten
        self._heard: dict[str, float] = {}
        """Other processes, and when each was heard last."""

    @property
    def others(self) -> bool:
        """Whether other processes may listen: always, they come and go."""
        return True

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Say that we stop, send what is queued, in bounded time, and disconnect."""
        if self.up:
            self._put(PROCESSES, Frame(Kind.BEAT, self.process_id, payload=GONE))
        await super().__aexit__(kind, error, trace)

    async def join(self, room: str) -> None:
        """Subscribe; returns when confirmed, or at once while the bus is down."""
        self._joined[room] += 1
        if self._joined[room] == 1:
            confirmed = await self._subscribe([room])
        else:
            confirmed = list(self._unconfirmed.get(room, ()))[-1:]
        try:
            async with asyncio.timeout(self.pace.answer_s):
                # Shielded: others wait for the same ones.
                await asyncio.gather(*map(asyncio.shield, confirmed))
        except TimeoutError as error:
            self._break(error)

    async def leave(self, room: str) -> None:
        """Unsubscribe, unless somebody else in this process has joined the room."""
        self._joined[room] -= 1
        if self._joined[room] <= 0:
            del self._joined[room]
            await self._command("UNSUBSCRIBE", [room])

    async def _subscribe(self, rooms: Iterable[str]) -> "list[asyncio.Future[None]]":
        if self._subscriber is None:
            return []
        confirmed = []
        names = list(rooms)
        for room in names:
            future = asyncio.get_running_loop().create_future()
            self._unconfirmed.setdefault(room, deque()).append(future)
            confirmed.append(future)
        await self._command("SUBSCRIBE", names)
        return confirmed

    async def _command(self, name: str, rooms: list[str]) -> None:
        # One at a time: subscribing and leaving must reach Redis in the order they were asked for.
        async with self._writing:
            connection = self._subscriber
            if connection is None:
                return
            try:
                for at in range(0, len(rooms), _CHUNK):
                    await connection.send_command(name, *map(channel_of, rooms[at : at + _CHUNK]))
            except UNREACHABLE as error:
                self._break(error)

    def _break(self, error: BaseException) -> None:
        if self._broken is not None and not self._broken.done():
            self._broken.set_exception(error)

    # The connections

    async def _serve(self) -> None:
        async with self._connected() as publisher, self._connected() as subscriber:
            loop = asyncio.get_running_loop()
            self._broken = loop.create_future()
            self._subscriber, self._heard_at = subscriber, loop.time()
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._hear(subscriber))
                    group.create_task(self._until_broken(self._broken))
                    group.create_task(self._pump(publisher))
                    async with asyncio.timeout(self.pace.silence_s):
                        await asyncio.gather(*await self._subscribe([PROCESSES, *self._joined]))
                    self._set_up(up=True)
                    await self._beat()
            finally:
                self._subscriber = None
                unconfirmed, self._unconfirmed = self._unconfirmed, {}
                for future in (future for futures in unconfirmed.values() for future in futures):
                    # Whoever waits goes on: rooms look at SQL while the bus is down, and again when it is back.
                    if not future.done():
                        future.set_result(None)

    async def _until_broken(self, broken: "asyncio.Future[None]") -> None:
        await broken

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(super()._run())
            group.create_task(self._miss_others())

    async def _miss_others(self) -> None:
        """Find processes that died, also while the bus is down: nobody knows then whether they live."""
        while True:
            await asyncio.sleep(self.pace.beat_s)
            now = asyncio.get_running_loop().time()
            for process in [name for name, at in self._heard.items() if now - at > self.pace.gone_s]:
                del self._heard[process]
                self.gone(process)

    async def _beat(self) -> None:
        loop = asyncio.get_running_loop()
        self._heard_at = loop.time()
        while True:
            self._put(PROCESSES, Frame(Kind.BEAT, self.process_id))
            await asyncio.sleep(self.pace.beat_s)
            if loop.time() - self._heard_at > self.pace.silence_s:
                raise TimeoutError

    async def _hear(self, connection: Any) -> None:
        while True:
            message = await connection.read_response(timeout=math.inf)
            kind, channel = message[0], message[1]
            if kind == b"message":
                self._take(channel, message[2])
            elif kind == b"subscribe":
                self._confirm(channel)

    def _confirm(self, channel: bytes) -> None:
        room = PROCESSES if channel == PROCESSES.encode() else _room_of(channel)
        waiting = self._unconfirmed.get(room)
        if waiting:
            future = waiting.popleft()
            if not waiting:
                del self._unconfirmed[room]
            if not future.done():
                future.set_result(None)

    def _take(self, channel: bytes, data: bytes) -> None:
        frame = Frame.decode(data)
        if frame is None:
            return  # Of a newer release, or not ours at all.
        if frame.sender == self.process_id:
            if frame.kind is Kind.BEAT:
                self._heard_at = asyncio.get_running_loop().time()
            return
        if frame.kind is Kind.BEAT and frame.payload == GONE:
            self._heard.pop(frame.sender, None)
            self.gone(frame.sender)
            return
        self._heard[frame.sender] = asyncio.get_running_loop().time()
        if frame.kind is not Kind.BEAT:
            with contextlib.suppress(UnicodeDecodeError):
                self.received(_room_of(channel), frame)


def _room_of(channel: bytes) -> str:
    return channel[len(_PREFIX) : -1].decode()
