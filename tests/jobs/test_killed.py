"""Workers that are killed, and queues that lose everything."""

import asyncio
import contextlib
import datetime as dt
import signal
import sys
import uuid
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from sqlalchemy.ext.asyncio import AsyncEngine

from jobs.queue import JobQueue
from jobs.runs import MAX_CRASHES, Runs
from jobs.state import Status
from jobs.worker import SETTLED_S, Pace
from providers.base import Finished
from tests.jobs.builders import FakeProvider, Hints, database, event_kinds, finished, image_count, pending, workplace
from tests.support.redis import RedisServer


@asynccontextmanager
async def process(database_url: str, docket_url: str, folder: Path) -> AsyncIterator[Process]:
    """A worker process in the middle of a call of its maker; killed at the end."""
    arguments = ["-m", "tests.jobs.at_work", database_url, docket_url, str(folder)]
    child = await asyncio.create_subprocess_exec(sys.executable, *arguments, stdout=asyncio.subprocess.PIPE)
    try:
        assert child.stdout is not None
        assert await asyncio.wait_for(child.stdout.readline(), 30) == b"submitted\n"
        yield child
    finally:
        with contextlib.suppress(ProcessLookupError):
            child.kill()
        await child.wait()


async def test_a_run_of_a_killed_worker_ends_completed_with_one_picture(
    engine: AsyncEngine, database_url: str, tmp_path: Path
) -> None:
    run = await pending(Runs(engine, hint=Hints()))
    async with process(database_url, f"memory://{uuid.uuid4().hex}", tmp_path):
        pass
    async with asyncio.timeout(5), workplace(engine, tmp_path, FakeProvider(), f"memory://{run.id}") as (at, _):
        done = await at.hints.ended(at.runs, run.id)
    assert (done.status, done.attempt) == (Status.COMPLETED, 2)
    assert await image_count(engine, run.id) == 1
    assert await event_kinds(engine, run.id) == ["requested", "started", "started", "completed"]
    assert at.files() == [f"{run.id}-thumb.webp", f"{run.id}.png"]


async def test_a_killed_workers_run_goes_to_the_other_worker(
    engine: AsyncEngine, database_url: str, tmp_path: Path, redis_url: str
) -> None:
    run = await pending(Runs(engine, hint=Hints()))
    async with process(database_url, redis_url, tmp_path):
        other = workplace(engine, tmp_path, FakeProvider(), redis_url, name="darkroom-killed")
        at, _worker = await other.__aenter__()
        assert at.provider.requests == []
    async with asyncio.timeout(12):
        done = await at.hints.ended(at.runs, run.id)
    await other.__aexit__(None, None, None)
    assert (done.status, done.attempt) == (Status.COMPLETED, 2)
    assert len(at.provider.requests) == 1


async def test_a_worker_frozen_past_its_lease_records_nothing_when_it_goes_on(
    postgres_url: str, tmp_path: Path, redis_url: str
) -> None:
    """On SQLite there is one process; one that is frozen in the middle of a write would keep the file."""
    pace = Pace(check_s=0.02, trouble_s=0.05, redelivery_s=0.3)
    hints, go = Hints(), asyncio.Event()

    async def call(*_: object) -> Finished:
        await go.wait()
        return finished()

    provider = FakeProvider([call])
    async with database(postgres_url) as engine:
        run = await pending(Runs(engine, hint=Hints()))
        runs = Runs(engine, hint=hints, lease_s=0.3)
        options = {"name": "darkroom-killed", "pace": pace, "runs": runs, "hints": hints}
        async with process(postgres_url, redis_url, tmp_path) as frozen:
            frozen.send_signal(signal.SIGSTOP)
            async with asyncio.timeout(20), workplace(engine, tmp_path, provider, redis_url, **options):
                await provider.submitted.wait()
                (tmp_path / "go").touch()
                frozen.send_signal(signal.SIGCONT)
                assert frozen.stdout is not None
                assert await frozen.stdout.readline() == b"done\n"
                assert (await runs.get(run.id)).status is Status.RUNNING
                go.set()
                done = await hints.ended(runs, run.id)
        assert (done.status, done.attempt) == (Status.COMPLETED, 2)
        assert await image_count(engine, run.id) == 1
        assert await event_kinds(engine, run.id) == ["requested", "started", "started", "completed"]


async def test_a_run_that_kills_every_worker_is_given_up(
    sqlite_engine: AsyncEngine, sqlite_url: str, tmp_path: Path
) -> None:
    run = await pending(Runs(sqlite_engine, hint=Hints()))
    for number in range(MAX_CRASHES):
        async with process(sqlite_url, f"memory://{number}", tmp_path):
            pass
    async with workplace(sqlite_engine, tmp_path, FakeProvider(), f"memory://{run.id}") as (at, _):
        failed = await at.hints.ended(at.runs, run.id)
    assert failed.error is not None
    assert (failed.status, failed.error.code) == (Status.FAILED, "worker_lost")
    assert at.provider.requests == []


async def test_a_redis_that_comes_back_empty_loses_no_run_and_doubles_none(
    engine: AsyncEngine, tmp_path: Path, own_redis: RedisServer
) -> None:
    go = asyncio.Event()

    async def call(*_: object) -> Finished:
        await go.wait()
        return finished()

    provider = FakeProvider([call, finished()])
    pace = Pace(check_s=0.02, trouble_s=0.05, sweep_s=0.1)
    async with workplace(engine, tmp_path, provider, own_redis.url, pace=pace) as (at, worker):
        worker.queue._limit_s = 0.5
        worker._clock = lambda: dt.datetime.now(dt.UTC) + dt.timedelta(seconds=SETTLED_S)
        mid_call = await pending(at.runs, node_id="a")
        await worker.enqueue(mid_call.id)
        await provider.submitted.wait()
        own_redis.kill()
        lost = await pending(at.runs, node_id="b")
        await worker.enqueue(lost.id)
        own_redis.start()
        go.set()
        for run in (mid_call, lost):
            assert (await at.hints.ended(at.runs, run.id)).status is Status.COMPLETED
    assert sorted(request.run_id for request in provider.requests) == sorted([mid_call.id, lost.id])


async def test_the_first_job_after_an_outage_is_taken_although_every_connection_is_dead(own_redis: RedisServer) -> None:
    async with JobQueue(own_redis.url) as queue:
        assert await asyncio.gather(*(queue.enqueue(f"before-{number}") for number in range(8))) == [True] * 8
        own_redis.kill()
        own_redis.start()
        assert [await queue.enqueue("after"), await queue.wake("after"), await queue.cancel("after")] == [True] * 3
