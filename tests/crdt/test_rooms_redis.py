"""Rooms of two processes over a real Redis and Postgres: edits cross while Redis is gone, and keepers follow."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from crdt import canvas
from crdt.redis_bus import RedisBus
from crdt.redis_sender import BusPace
from crdt.room import Room
from crdt.rooms import RoomLimits, Rooms
from crdt.store import SqlStore
from tests.crdt.builders import Client, database
from tests.support.redis import RedisServer
from tests.support.waiting import eventually

PACE = BusPace(answer_s=0.3, beat_s=0.05, silence_s=0.3, retry_s=0.02, retry_most_s=0.05)
SLOW_TICK = RoomLimits(tick_s=60, unheard_s=0.05)
"""What is seen within a test was brought by the bus, or by the looks that its absence causes."""


@pytest.fixture
async def engine(postgres_url: str) -> AsyncIterator[AsyncEngine]:
    async with database(postgres_url) as opened:
        yield opened


@asynccontextmanager
async def process(engine: AsyncEngine, url: str, name: str, limits: RoomLimits = SLOW_TICK) -> AsyncIterator[Rooms]:
    async with RedisBus(url, name, PACE) as bus:
        rooms = Rooms(SqlStore(engine, name), bus, process_id=name, limits=limits)
        await rooms.start()
        try:
            yield rooms
        finally:
            await rooms.stop()


async def seen(room: Room, node_id: str, patience_s: float = 10.0) -> None:
    await eventually(lambda: node_id in canvas.node_ids(room.doc), patience_s)


@pytest.mark.parametrize("how", ["killed", "frozen"])
async def test_edits_cross_while_redis_is_gone_and_after_it_is_back(
    engine: AsyncEngine, own_redis: RedisServer, how: str
) -> None:
    async with process(engine, own_redis.url, "p1") as first, process(engine, own_redis.url, "p2") as second:
        async with first.use("r") as a, second.use("r") as b:
            Client(a).add_node("before")
            await seen(b, "before")
            (own_redis.kill if how == "killed" else own_redis.pause)()
            # One side only, and no further edit that would show the gap.
            Client(a).add_node("during")
            await seen(b, "during")
            (own_redis.start if how == "killed" else own_redis.resume)()
            Client(b).add_node("after")
            await seen(a, "after")
            await asyncio.gather(first.journal.flushed("r"), second.journal.flushed("r"))
            assert a.doc.get_state() == b.doc.get_state()


async def test_hints_that_nobody_heard_are_asked_for_while_redis_is_gone(
    engine: AsyncEngine, own_redis: RedisServer
) -> None:
    asked = asyncio.Event()

    async def ask() -> None:
        asked.set()

    async with process(engine, own_redis.url, "p1") as rooms:
        rooms.hints_missed = ask
        own_redis.kill()
        async with asyncio.timeout(2):
            await asked.wait()
        asked.clear()
        own_redis.start()
        async with asyncio.timeout(2):
            while not rooms._bus.up:
                asked.clear()
                await asked.wait()
            await asked.wait()


async def test_a_stopped_keeper_hands_over_at_once(engine: AsyncEngine, redis_url: str) -> None:
    async with process(engine, redis_url, "p2") as second:
        async with process(engine, redis_url, "p1") as first:
            await first.open("r")
            b = await second.open("r")
            client = Client(b)
            assert b.fence is None
        await eventually(lambda: b.is_keeper, patience_s=4)  # A lease lasts six seconds.
        client.add_node("n")
        await second.journal.flushed("r")


async def test_a_room_that_another_process_keeps_is_not_taken_at_each_tick(engine: AsyncEngine, redis_url: str) -> None:
    async with process(engine, redis_url, "p1") as first, process(engine, redis_url, "p2") as second:
        async with first.use("r") as a, second.use("r") as b:
            fence = a.fence
            taken = list[str]()

            async def take(room: str) -> None:
                taken.append(room)

            second._store.take = take  # type: ignore[method-assign]
            await second.tick()
            await first.tick()
            assert (a.fence, b.fence, taken) == (fence, None, [])
