"""A database that is gone for seconds while makers work: refused, and behind a black hole."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import sqlalchemy as sa

from crdt.database import create_engine
from jobs.tables import generated_images, run_costs, runs
from tests.emulators.openai import Behaviour, Hold, OpenAIEmulator
from tests.support.api import canvas_api
from tests.support.proxy import Proxy
from tests.support.server import ServerFactory


@pytest.mark.parametrize(
    ("leave", "come_back"), [(Proxy.refuse, Proxy.accept), (Proxy.stall, Proxy.resume)], ids=["refused", "black hole"]
)
async def test_a_picture_that_was_paid_for_outlives_a_database_that_is_gone(
    postgres_url: str,
    start_server: ServerFactory,
    leave: Callable[[Proxy], None],
    come_back: Callable[[Proxy], None],
) -> None:
    address = sa.make_url(postgres_url)
    assert address.port is not None
    async with OpenAIEmulator().serving() as vendor, Proxy(address.port).running() as way:
        through = address.set(port=way.port).render_as_string(hide_password=False)
        server = await start_server(
            env={
                "DATABASE_URL": through,
                "OPENAI_API_KEY": "sk-away",
                "OPENAI_BASE_URL": vendor.base_url,
                "DARKROOM_LIMITS": "openai=none",
            }
        )
        nodes = [{"id": name, "data": {"prompt": f"picture {name}"}} for name in ("a", "b", "c")]
        vendor.script(*(Behaviour(hold=Hold.ANSWER, match=f"picture {node['id']}") for node in nodes))
        async with canvas_api(server.url, nodes=nodes) as api:
            jobs = [(await api.generate(str(node["id"]))).json()["jobId"] for node in nodes]
            await vendor.wait_held(len(jobs))
            leave(way)
            vendor.release()
            async with asyncio.timeout(20):
                while (await api.client.get("/readyz")).status_code != 503:
                    pass
            come_back(way)
            ended = await asyncio.gather(*map(api.ended, jobs))
        assert {record["status"] for record in ended} == {"completed"}
        assert len(vendor.calls) == len(jobs)
        await asyncio.to_thread(server.stop)
        async with database_rows(postgres_url) as count:
            for table in (runs, generated_images, run_costs):
                assert await count(table) == len(jobs), table.name


@asynccontextmanager
async def database_rows(url: str) -> AsyncIterator[Callable[[sa.Table], Awaitable[int]]]:
    """Counts the rows of tables, past the proxy."""
    engine = create_engine(url)

    async def count(table: sa.Table) -> int:
        async with engine.connect() as connection:
            return int((await connection.execute(sa.select(sa.func.count()).select_from(table))).scalar_one())

    try:
        yield count
    finally:
        await engine.dispose()
