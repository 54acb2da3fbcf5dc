"""Frames between processes over a real Redis, and what happens when it goes, hangs, or comes back empty."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
from redis.asyncio import Redis

from crdt.bus import HEAD_BYTES, Frame, Kind
from crdt.redis_bus import RedisBus
from crdt.redis_sender import MAX_QUEUED, MAX_QUEUED_BYTES, BusPace, RedisSender, channel_of
from tests.support.redis import RedisServer

QUICK = BusPace(answer_s=0.3, beat_s=0.05, silence_s=0.3, retry_s=0.02, retry_most_s=0.05)


class Listener:
    """A bus, and everything it heard."""

    def __init__(self, url: str, name: str, pace: BusPace | None = None) -> None:
        self.bus = RedisBus(url, name, pace)
        self.heard: asyncio.Queue[tuple[str, Frame]] = asyncio.Queue()
        self.changes: asyncio.Queue[bool] = asyncio.Queue()
        self.bus.received = lambda room, frame: self.heard.put_nowait((room, frame))
        self.bus.changed = lambda: self.changes.put_nowait(self.bus.up)

    async def next(self) -> tuple[str, Frame]:
        async with asyncio.timeout(5):
            return await self.heard.get()

    async def until(self, *, up: bool) -> None:
        async with asyncio.timeout(6):
            while self.bus.up is not up:
                await self.changes.get()

    def send(self, room: str, kind: Kind = Kind.UPDATE, seq: int = 1, payload: bytes = b"x") -> Frame:
        frame = Frame(kind, self.bus.process_id, seq, payload)
        self.bus.send(room, frame)
        return frame


@asynccontextmanager
async def two(url: str, pace: BusPace | None = None) -> AsyncIterator[tuple[Listener, Listener]]:
    one, other = Listener(url, "one", pace), Listener(url, "other", pace)
    async with AsyncExitStack() as stack:
        for listener in (one, other):
            await stack.enter_async_context(listener.bus)
            assert listener.bus.up
        yield one, other


async def test_a_joined_room_hears_what_is_sent_right_after_and_nothing_of_others_or_of_itself(redis_url: str) -> None:
    async with two(redis_url) as (one, other):
        for listener in (one, other):
            await listener.bus.join("r")
        one.send("elsewhere")
        frames = [one.send("r", seq=number, payload=b"%d" % number) for number in range(300)]
        assert [await other.next() for _ in frames] == [("r", frame) for frame in frames]
        other.send("r", Kind.HINT, payload=b"run")
        assert (await one.next())[1].kind is Kind.HINT
        assert other.heard.empty()


async def test_a_room_joined_twice_is_heard_until_it_was_left_twice(redis_url: str) -> None:
    async with two(redis_url) as (one, other):
        await asyncio.gather(other.bus.join("r"), other.bus.join("r"))
        await other.bus.join("s")
        await other.bus.leave("r")
        one.send("r", seq=1)
        assert (await other.next())[1].seq == 1
        await other.bus.leave("r")
        await other.bus.join("t")  # Confirmed behind the leaving: Redis has done both.
        one.send("r", seq=2)
        one.send("s", seq=3)
        assert (await other.next())[1].seq == 3


async def test_left_and_joined_again_at_once_is_joined(redis_url: str) -> None:
    async with two(redis_url) as (one, other):
        for _ in range(20):
            await other.bus.join("r")
            leaving = asyncio.create_task(other.bus.leave("r"))
            joining = asyncio.create_task(other.bus.join("r"))
            await asyncio.gather(leaving, joining)
            sent = one.send("r")
            assert await other.next() == ("r", sent)
            await other.bus.leave("r")


async def test_an_update_too_large_for_the_bus_goes_as_its_number(redis_url: str) -> None:
    async with two(redis_url) as (one, other):
        await other.bus.join("r")
        one.send("r", seq=0, payload=bytes(HEAD_BYTES + 1))
        one.send("r", seq=7, payload=bytes(HEAD_BYTES + 1))
        assert await other.next() == ("r", Frame(Kind.HEAD, "one", 7))


@pytest.mark.parametrize(
    "data", [b"", b"\x01", b"\x02\x01\x01a\x00", b"\x01\xee\x01a\x00", b"\x01\x01\x09a", b"\xff" * 9]
)
async def test_frames_of_a_newer_release_and_noise_are_passed_over(redis_url: str, data: bytes) -> None:
    async with two(redis_url) as (one, other), Redis.from_url(redis_url) as redis:
        await other.bus.join("r")
        assert await redis.publish(channel_of("r"), data) == 1
        sent = one.send("r")
        assert await other.next() == ("r", sent)


async def test_a_redis_that_comes_back_empty_is_joined_again_and_told_what_was_missed(own_redis: RedisServer) -> None:
    async with two(own_redis.url, QUICK) as (one, other):
        await other.bus.join("r")
        own_redis.kill()
        await one.until(up=False)
        await other.until(up=False)
        await other.bus.join("s")
        for number in (5, 6, 0):
            one.send("r", seq=number)
        one.send("s", Kind.PROGRESS)
        one.send("s", Kind.HINT, payload=b"run")
        # Whoever comes back last has heard nothing; it looks at SQL then. The other one tells in short what it missed.
        one.bus._pool.connection_kwargs["port"] = 1
        own_redis.start()
        await other.until(up=True)
        assert not one.bus.up
        one.bus._pool.connection_kwargs["port"] = own_redis.port
        await one.until(up=True)
        assert [await other.next(), await other.next()] == [
            ("r", Frame(Kind.HEAD, "one", 6)),
            ("s", Frame(Kind.HINT, "one", 1, b"run")),
        ]


async def test_a_redis_that_answers_nothing_is_noticed_and_sending_to_it_costs_nothing(own_redis: RedisServer) -> None:
    async with two(own_redis.url, QUICK) as (one, other):
        own_redis.pause()
        for number in range(MAX_QUEUED + 100):
            one.send("r", seq=number + 1, payload=bytes(1000))
        assert one.bus._queued_bytes <= MAX_QUEUED_BYTES
        await one.until(up=False)
        await other.until(up=False)
        async with asyncio.timeout(0.1):
            await other.bus.join("r")
        one.bus._pool.connection_kwargs["port"] = 1
        own_redis.resume()
        await other.until(up=True)
        one.bus._pool.connection_kwargs["port"] = own_redis.port
        await one.until(up=True)
        last = one.send("r", seq=MAX_QUEUED + 200)
        async with asyncio.timeout(5):
            while (await other.next())[1] != last:
                pass


async def test_a_silent_redis_is_noticed_without_anything_to_send(own_redis: RedisServer) -> None:
    """What we publish arrives, what we should hear does not: only our own beat tells."""
    async with two(own_redis.url, QUICK) as (one, _):
        await one.bus._command("UNSUBSCRIBE", ["dr:processes"])
        await one.until(up=False)
        await one.until(up=True)


async def test_a_start_without_redis_waits_a_moment_and_goes_on(own_redis: RedisServer) -> None:
    own_redis.kill()
    listener = Listener(own_redis.url, "one", QUICK)
    async with asyncio.timeout(2), listener.bus:
        await listener.bus.join("r")
        assert not listener.bus.up
        own_redis.start()
        await listener.until(up=True)


async def test_a_worker_only_sends_and_what_is_queued_at_its_end_is_sent(redis_url: str) -> None:
    listener = Listener(redis_url, "one")
    async with listener.bus:
        await listener.bus.join("r")
        async with RedisSender(redis_url, "worker") as sender:
            for number in range(2_000):
                sender.send("r", Frame(Kind.HINT, "worker", payload=b"%d" % number))
        assert [(await listener.next())[1].payload for _ in range(2_000)] == [b"%d" % n for n in range(2_000)]
