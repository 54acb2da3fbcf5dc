"""kill -9 at each point on an edit's way into SQL: what the server called durable is there after the restart."""

import asyncio
import datetime as dt
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import sqlalchemy as sa

from crdt.database import create_engine
from crdt.tables import processes
from tests.support.api import canvas_api
from tests.support.peer import YPeer
from tests.support.server import ServerFactory, ServerProcess

ROOM = "kept"


@pytest.fixture(params=["sqlite", "postgres"])
def held(request: pytest.FixtureRequest, start_server: ServerFactory) -> ServerProcess:
    env = {"DATABASE_URL": request.getfixturevalue("postgres_url")} if request.param == "postgres" else {}
    return start_server.held(env=env)


async def forgotten(server: ServerProcess) -> None:
    """On Postgres, let the leases of the killed server run out at once; on SQLite nobody waits for them."""
    if url := server.env.get("DATABASE_URL"):
        engine = create_engine(url)
        async with engine.begin() as connection:
            await connection.execute(sa.update(processes).values(seen_at=sa.func.now() - dt.timedelta(hours=1)))
        await engine.dispose()


@asynccontextmanager
async def killed_at(server: ServerProcess, point: str) -> AsyncIterator[None]:
    """Inside, the server stops at the point; it is killed there and started again behind it."""
    (server.data / f"hold-{point}").touch()
    yield
    await server.held_at(point)
    await server.kill()
    await forgotten(server)
    (server.data / f"hold-{point}").unlink()
    await server.start()


async def nodes_in(server: ServerProcess) -> set[str]:
    async with canvas_api(server.url, ROOM) as api:
        return {node["id"] for node in (await api.flow())["nodes"]}


async def test_killed_on_the_way_of_an_edit_into_sql(held: ServerProcess) -> None:
    await held.start()
    peer = YPeer(held.ws_url, ROOM, ack=True)
    async with killed_at(held, "trimming"):
        async with peer.connected():
            await peer.add_image("first", "a heron")
            await peer.durable()
    safe = {"first"}
    assert await nodes_in(held) == safe
    for point in ("commit", "appending", "committed"):
        async with peer.connected():
            # What the killed server had not stored comes along, and is durable once it is said to be.
            await peer.add_image(f"before-{point}", "a fox")
            await peer.durable()
            safe |= {f"before-{point}"}
            acknowledged = peer.durable_edits
            async with killed_at(held, point):
                await peer.add_image(f"at-{point}", "an owl")
            # Not a word on that edit, not even after its commit.
            assert peer.durable_edits == acknowledged
        kept = await nodes_in(held)
        assert kept == (safe | {"at-committed"} if point == "committed" else safe)
        safe |= {f"at-{point}"}
    async with peer.connected():
        await peer.durable()
    await held.kill()
    await forgotten(held)
    await held.start()
    assert await nodes_in(held) == safe


@pytest.mark.parametrize("held", ["sqlite"], indirect=True)
async def test_an_edit_made_while_a_snapshot_is_written_outlives_it(held: ServerProcess) -> None:
    """Nothing follows that edit: neither another one nor an orderly end."""
    await held.start()
    first, second = (YPeer(held.ws_url, ROOM, ack=True) for _ in range(2))
    gate, done = held.data / "hold-snapshot", held.data / "hold-snapshotted"
    gate.touch()
    done.touch()
    async with first.connected():
        await first.add_image("n1", "a fox")
        await first.durable()
    await held.held_at("snapshot")
    async with second.connected():
        await second.add_image("n2", "an owl")
        await second.durable()
        gate.unlink()
        await held.held_at("snapshotted")
        await held.kill()
    done.unlink()
    await held.start()
    assert await nodes_in(held) == {"n1", "n2"}


@pytest.mark.parametrize("held", ["sqlite"], indirect=True)
async def test_while_commits_fail_nothing_is_durable_and_nothing_is_lost(held: ServerProcess) -> None:
    await held.start()
    broken = held.data / "fail-commit"
    peer = YPeer(held.ws_url, ROOM, ack=True)
    async with peer.connected():
        await peer.durable()
        broken.touch()
        await peer.add_image("n1", "a fox")
        async with asyncio.timeout(20):
            while held.log.count("append_failed") < 2:
                await asyncio.to_thread(broken.exists)
        assert peer.durable_edits < peer.sent_edits
        broken.unlink()
        await peer.durable()
    await held.kill()
    await held.start()
    assert await nodes_in(held) == {"n1"}
