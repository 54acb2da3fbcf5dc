"""Two web processes and two workers: one sees what the other does, nothing is made twice, and who dies is replaced."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator

import httpx2
import pytest
import sqlalchemy as sa

from crdt.database import create_engine
from jobs.tables import generated_images, runs, workers
from tests.emulators.openai import Behaviour, Hold, OpenAIEmulator
from tests.support.api import Api, canvas_api
from tests.support.fleet import Fleet
from tests.support.node import NodePeers
from tests.support.postgres import PostgresServer
from tests.support.processes import free_port
from tests.support.redis import RedisServer
from tests.support.server import ServerFactory, ServerProcess

PORT = free_port()
"""Of the vendor, which each test starts anew."""


@pytest.fixture(scope="module")
def fleet_redis() -> Iterator[RedisServer]:
    server = RedisServer()
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="module")
def fleet(
    tmp_path_factory: pytest.TempPathFactory, postgres_server: PostgresServer, fleet_redis: RedisServer
) -> Iterator[Fleet]:
    """Two web processes and two workers that the tests of this module share."""
    folder = tmp_path_factory.mktemp("fleet")
    factory = ServerFactory(folder)
    env = {"OPENAI_API_KEY": "sk-fleet", "OPENAI_BASE_URL": f"http://127.0.0.1:{PORT}/v1"}
    env["DARKROOM_LIMITS"] = "openai=1000/1s"
    fleet = Fleet(factory, folder, postgres_server.url(postgres_server.create()), fleet_redis.url, env)
    try:
        fleet.start_now("web", "web", "worker", "worker")
        yield fleet
    finally:
        factory.stop_all()


@pytest.fixture
async def vendor() -> AsyncIterator[OpenAIEmulator]:
    async with OpenAIEmulator().serving(PORT) as emulator:
        yield emulator


async def canvas(api: Api, *nodes: str) -> None:
    for node in nodes:
        await api.add_node(id=node, type="image", data={"prompt": f"picture {node}", "provider": "openai"})


async def holders(fleet: Fleet) -> dict[str, ServerProcess]:
    """Which process works on which run."""
    by_pid = {server.pid: server for server in fleet.workers}
    query = sa.select(runs.c.id, workers.c.pid).join(workers, workers.c.id == runs.c.worker)
    return {row.id: by_pid[row.pid] for row in await fleet.rows(query.where(runs.c.status == "running"))}


async def test_a_run_asked_for_at_one_web_process_develops_at_the_other(
    fleet: Fleet, vendor: OpenAIEmulator, node_peer: NodePeers
) -> None:
    one, two = fleet.webs
    async with canvas_api(one.url) as api, canvas_api(two.url, api.workflow_id) as other:
        await canvas(api, "n1")
        stock = await node_peer(two.ws_url, api.workflow_id)
        await stock.wait("nodes", "n1", "data", "prompt", equals="picture n1")
        started = time.monotonic()
        job = (await api.generate("n1", after=None)).json()["jobId"]
        record = await other.ended(job)
        await stock.wait("nodes", "n1", "data", "status", equals="completed")
        took = time.monotonic() - started
        assert await stock.wait("nodes", "n1", "data", "imageUrl") == record["imageUrl"]
        assert (await other.client.get(record["imageUrl"])).status_code == 200
        assert took < 2, f"{took:.2f} s: over the database, not over the bus"
        assert len(vendor.calls) == 1


async def test_people_at_different_web_processes_see_each_others_cursors(fleet: Fleet, node_peer: NodePeers) -> None:
    one, two = fleet.webs
    async with canvas_api(one.url) as api:
        here, there = await node_peer(one.ws_url, api.workflow_id), await node_peer(two.ws_url, api.workflow_id)
        await here.set_awareness({"user": {"name": "Ada"}})
        ada = str((await here.get("status"))["clientId"])
        await there.wait("awareness", ada, "user", "name", equals="Ada", timeout_s=2)
        late = await node_peer(two.ws_url, api.workflow_id)
        await late.wait("awareness", ada, "user", "name", equals="Ada", timeout_s=2)
        await here.disconnect()
        await there.wait("awareness", ada, absent=True, timeout_s=2)


async def test_a_worker_serves_nothing_but_how_it_is(fleet: Fleet) -> None:
    async with httpx2.AsyncClient(base_url=fleet.workers[0].url) as client:
        ready = (await client.get("/readyz")).json()
        assert ready == {
            "status": "ok",
            "checks": {"database": "ok", "images": "ok", "worker": "ok", "redis": "ok"},
        }
        assert "darkroom_runs_at_work" in (await client.get("/metrics")).text
        assert (await client.get("/health")).status_code == 200
        for path in ("/", "/api/workflows", "/api/providers", "/images/x.png"):
            assert (await client.get(path)).status_code == 404


async def test_two_clicks_in_the_same_moment_at_two_web_processes_are_one_run_and_one_bill(
    fleet: Fleet, vendor: OpenAIEmulator
) -> None:
    async with canvas_api(fleet.webs[0].url) as one, canvas_api(fleet.webs[1].url, one.workflow_id) as two:
        await canvas(one, "n1")
        clicks = [api.generate("n1", after=None) for _ in range(4) for api in (one, two)]
        answers = await asyncio.gather(*clicks)
        assert sorted(answer.status_code for answer in answers) == [200] * 7 + [201], answers[0].text
        (job,) = {answer.json()["jobId"] for answer in answers}
        await asyncio.gather(one.ended(job), two.ended(job))
        assert len(vendor.calls) == 1
        assert (await two.job(job))["status"] == "completed"
        (again,) = {answer.json()["jobId"] for answer in await asyncio.gather(one.generate("n1", after=job))}
        await two.ended(again)
        assert len(vendor.calls) == 2
        count = sa.select(sa.func.count()).select_from(generated_images).where(generated_images.c.run_id == job)
        assert [row[0] for row in await fleet.rows(count)] == [1]


async def test_progress_of_a_run_is_seen_by_whoever_watches_at_any_web_process(
    fleet: Fleet, vendor: OpenAIEmulator, node_peer: NodePeers
) -> None:
    one, two = fleet.webs
    async with canvas_api(one.url) as api:
        await canvas(api, "n1")
        stock = await node_peer(two.ws_url, api.workflow_id)
        vendor.script(Behaviour(hold=Hold.ANSWER))
        job = (await api.generate("n1")).json()["jobId"]
        await vendor.wait_held()
        assert await stock.wait("server", "runs", "n1", "runId", timeout_s=2) == job
        await stock.wait("nodes", "n1", "data", "status", equals="running", timeout_s=2)
        vendor.release()
        await stock.wait("nodes", "n1", "data", "status", equals="completed")
        await stock.wait("server", absent=True)


async def test_an_event_stream_hears_at_once_of_a_run_whose_canvas_is_not_open_there(
    fleet: Fleet, vendor: OpenAIEmulator
) -> None:
    async with canvas_api(fleet.webs[0].url) as api, canvas_api(fleet.webs[1].url, api.workflow_id) as other:
        await canvas(api, "n1")
        vendor.script(Behaviour(hold=Hold.ANSWER))
        job = (await api.generate("n1")).json()["jobId"]
        await vendor.wait_held()
        follow = asyncio.create_task(other.ended(job))
        assert (await other.job(job))["status"] == "running"
        vendor.release()
        released = time.monotonic()
        assert (await follow)["status"] == "completed"
        assert time.monotonic() - released < 1.5, "it was polled, not told"


async def test_a_cancel_at_a_web_process_reaches_the_worker_at_once(fleet: Fleet, vendor: OpenAIEmulator) -> None:
    async with canvas_api(fleet.webs[1].url) as api:
        await canvas(api, "n1")
        vendor.script(Behaviour(hold=Hold.ANSWER))
        job = (await api.generate("n1")).json()["jobId"]
        await vendor.wait_held()
        cancelled = await api.client.post(f"/api/images/jobs/{job}/cancel")
        assert cancelled.json()["status"] == "cancelled"
        at_work = sa.select(sa.func.count()).select_from(runs).where(runs.c.id == job, runs.c.status != "cancelled")
        assert [row[0] for row in await fleet.rows(at_work)] == [0]
        vendor.release()
        assert [event["kind"] for event in await api.events(job)][-1] == "cancelled"


async def test_a_worker_that_is_killed_leaves_its_runs_to_the_other_and_nothing_else_starts_again(
    fleet: Fleet, vendor: OpenAIEmulator
) -> None:
    async with canvas_api(fleet.webs[0].url) as api:
        nodes = [f"n{number}" for number in range(10)]
        await canvas(api, *nodes, "parked")
        limited = Behaviour.refuse(429, "rate_limit_exceeded", headers={"retry-after": "2"}, match="parked")
        vendor.script(limited, *(Behaviour(hold=Hold.ANSWER, match=f"picture {node}") for node in nodes))
        parked = (await api.generate("parked")).json()["jobId"]
        jobs = [(await api.generate(node)).json()["jobId"] for node in nodes]
        await vendor.wait_held(len(nodes))
        at_work = await holders(fleet)
        victim = at_work[jobs[0]]
        (other,) = [server for server in fleet.workers if server is not victim]
        moved = [job for job in jobs if at_work[job] is victim]
        killed = time.monotonic()
        await victim.kill()
        while len(vendor.calls) < 1 + len(nodes) + len(moved):
            await asyncio.sleep(0.02)
            assert time.monotonic() < killed + 10
        vendor.release()
        ended = await asyncio.gather(*map(api.ended, [*jobs, parked]))
        assert {record["status"] for record in ended} == {"completed"}
        starts = {job: [event["kind"] for event in await api.events(job)].count("started") for job in jobs}
        assert starts == {job: 2 if job in moved else 1 for job in jobs}
        assert len(vendor.calls) == len(nodes) + len(moved) + 2
        assert other.running
        await fleet.start(victim)


async def test_a_redis_that_comes_back_empty_loses_no_run_and_starts_none_twice(
    fleet: Fleet, fleet_redis: RedisServer, vendor: OpenAIEmulator
) -> None:
    async with canvas_api(fleet.webs[1].url) as api:
        await canvas(api, "held", "parked", "asked")
        limited = Behaviour.refuse(429, "rate_limit_exceeded", headers={"retry-after": "1"}, match="parked")
        vendor.script(limited, Behaviour(hold=Hold.ANSWER, match="held"))
        held = (await api.generate("held")).json()["jobId"]
        parked = (await api.generate("parked")).json()["jobId"]
        await vendor.wait_held()
        while not any(event["kind"] == "retry_scheduled" for event in await api.events(parked)):
            pass
        fleet_redis.kill()
        asked = (await api.generate("asked")).json()["jobId"]
        fleet_redis.start()
        vendor.release()
        ended = await asyncio.gather(*map(api.ended, [held, parked, asked]))
        assert [record["status"] for record in ended] == ["completed"] * 3
        assert len(vendor.calls) == 4


async def test_what_a_newer_release_writes_beside_this_one_breaks_nothing(fleet: Fleet, vendor: OpenAIEmulator) -> None:
    engine = create_engine(fleet.database_url)
    async with canvas_api(fleet.webs[0].url) as api, canvas_api(fleet.webs[1].url, api.workflow_id) as other:
        await canvas(api, "n1")
        vendor.script(Behaviour(hold=Hold.ANSWER))
        job = (await api.generate("n1")).json()["jobId"]
        await vendor.wait_held()
        async with engine.begin() as connection:
            await connection.execute(sa.text("ALTER TABLE runs ADD COLUMN of_tomorrow TEXT DEFAULT 'x'"))
            await connection.execute(sa.text("ALTER TABLE run_events ADD COLUMN of_tomorrow TEXT"))
            tomorrow = (
                "INSERT INTO run_events (run_id, seq, ts, kind, payload) "
                "SELECT id, seq + 1, now(), 'of_tomorrow', '{\"new\": 1}' FROM runs WHERE id = :run"
            )
            await connection.execute(sa.text(tomorrow), {"run": job})
            await connection.execute(sa.text("UPDATE runs SET seq = seq + 1 WHERE id = :run"), {"run": job})
        await engine.dispose()
        vendor.release()
        assert (await other.ended(job))["status"] == "completed"
        events = await other.events(job)
        assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
        assert "of_tomorrow" in [event["kind"] for event in events]
        assert (await api.flow())["nodes"][0]["data"]["status"] == "completed"
        assert len(vendor.calls) == 1
