"""Cursors cross from one process to another, and go with whoever they belong to."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from crdt import protocol
from crdt.bus import Frame, Kind, MemoryBus, MemoryHub
from crdt.redis_bus import RedisBus
from crdt.redis_sender import BusPace
from crdt.room import Room
from crdt.rooms import RoomLimits, Rooms
from crdt.shared_presence import FRAME_BYTES
from crdt.store import SqlStore
from tests.crdt.builders import Client, awareness, database, running_rooms
from tests.support.redis import RedisServer
from tests.support.waiting import eventually


def states(room: Room) -> dict[int, str]:
    return {entry.client_id: entry.state for entry in room.presence.everyone()}


class Ear(MemoryBus):
    """A member that joins nothing and notes what others are sent."""

    def __init__(self, frames: list[Frame]) -> None:
        super().__init__(MemoryHub())
        self.rooms["r"] = 1
        self.received = lambda _room, frame: frames.append(frame)


@asynccontextmanager
async def two_rooms(engine: AsyncEngine) -> AsyncIterator[tuple[Room, Room, list[Frame]]]:
    """One room in two processes, and every frame of presence between them."""
    hub, frames = MemoryHub(), list[Frame]()
    async with running_rooms(engine, process_id="p1", hub=hub) as first:
        async with running_rooms(engine, process_id="p2", hub=hub) as second:
            hub.members.append(Ear(frames))
            async with first.use("r") as a, second.use("r") as b:
                yield a, b, frames


async def test_a_cursor_is_seen_in_the_other_process_and_vanishes_with_its_client(sqlite_engine: AsyncEngine) -> None:
    async with two_rooms(sqlite_engine) as (a, b, frames):
        here, there = Client(a), Client(b)
        a.receive(here.peer, awareness(77, 1, '{"cursor":1}'))
        await eventually(lambda: states(b) == {77: '{"cursor":1}'})
        b.flush()
        (told,) = [message for message in there.pull() if isinstance(message, protocol.AwarenessUpdate)]
        assert told.entries[0].client_id == 77
        a.leave(here.peer)
        await eventually(lambda: states(b) == {})
        assert {frame.sender for frame in frames if frame.kind is Kind.PRESENCE} == {"p1"}, "it came back"


async def test_many_moves_are_few_frames_and_the_last_one_arrives(sqlite_engine: AsyncEngine) -> None:
    async with two_rooms(sqlite_engine) as (a, b, frames):
        here = Client(a)
        for clock in range(1, 400):
            a.receive(here.peer, awareness(77, clock, f'{{"cursor":{clock}}}'))
            a.flush()
            await asyncio.sleep(0)  # A turn of the loop for each, as on a wire.
        await eventually(lambda: states(b) == {77: '{"cursor":399}'})
        # Twenty in a second at most, and a busy machine may take a second or two for this.
        assert sum(frame.kind is Kind.PRESENCE for frame in frames) <= 40


async def test_whoever_opens_the_room_later_is_told_who_is_there(sqlite_engine: AsyncEngine) -> None:
    hub = MemoryHub()
    async with (
        running_rooms(sqlite_engine, process_id="p1", hub=hub) as first,
        running_rooms(sqlite_engine, process_id="p2", hub=hub) as second,
        first.use("r") as a,
    ):
        large = "x" * (FRAME_BYTES // 3)
        for client_id in range(10):
            a.receive(Client(a).peer, awareness(client_id, 1, f'{{"name":"{large}"}}'))
        async with second.use("r") as b:
            await eventually(lambda: len(states(b)) == 10)


async def test_what_another_process_shows_cannot_be_taken_over_by_a_peer(sqlite_engine: AsyncEngine) -> None:
    async with two_rooms(sqlite_engine) as (a, b, _):
        a.receive(Client(a).peer, awareness(77, 1, '{"name":"Ada"}'))
        await eventually(lambda: 77 in states(b))
        thief = Client(b)
        b.receive(thief.peer, awareness(77, 9, '{"name":"Eve"}'))
        b.flush()
        assert states(b) == {77: '{"name":"Ada"}'}
        b.forget_distant("p1")
        assert states(b) == {77: '{"name":"Eve"}'}, "a client that came over from a process that died"


async def test_a_keeper_that_lost_its_room_no_longer_tells_how_far_runs_are(sqlite_engine: AsyncEngine) -> None:
    async with running_rooms(sqlite_engine, process_id="p1") as rooms, rooms.use("r") as room:
        room.set_server_state({"server": True, "runs": {"n": {"progress": 0.5}}})
        rooms._store.take = nobody  # type: ignore[method-assign, assignment]
        await rooms._take_again(room)
        assert (room.is_keeper, states(room)) == (False, {})


async def nobody(_room: str) -> None:
    """Another process has the lease."""


@pytest.mark.parametrize("how", ["stopped", "killed"])
async def test_a_process_that_is_gone_takes_its_clients_with_it(
    postgres_url: str, own_redis: RedisServer, how: str
) -> None:
    # One that stops says so: silence would take too long.
    gone_s = 0.4 if how == "killed" else 60.0
    pace = BusPace(beat_s=0.05, gone_s=gone_s, answer_s=0.3, silence_s=0.3, retry_s=0.02, retry_most_s=0.05)
    dead = BusPace(beat_s=60, silence_s=60)
    async with database(postgres_url) as engine, RedisBus(own_redis.url, "p2", pace) as bus:
        rooms = Rooms(SqlStore(engine, "p2"), bus, process_id="p2", limits=RoomLimits())
        await rooms.start()
        async with rooms.use("r") as room:
            other = RedisBus(own_redis.url, "p1", dead if how == "killed" else pace)
            async with other:
                body = protocol.awareness_body([protocol.AwarenessEntry(7, 1, '{"name":"Ada"}')])
                other.send("r", Frame(Kind.PRESENCE, "p1", payload=body))
                await eventually(lambda: 7 in states(room))
                if how == "killed":
                    assert other._task is not None
                    other._task.cancel()
                    other._set_up(up=False)
                    await eventually(lambda: states(room) == {})
            await eventually(lambda: states(room) == {})
        await rooms.stop()
