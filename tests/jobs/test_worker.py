import asyncio
import datetime as dt
import uuid
from pathlib import Path

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from jobs.liveness import WorkerIdentity
from jobs.policy import RetryPolicy
from jobs.queue import JobQueue
from jobs.runs import Runs
from jobs.state import Stage, Status
from jobs.tables import workers
from jobs.worker import Pace
from providers.base import Accepted, Waiting
from providers.errors import ErrorClass, ProviderError
from tests.jobs.builders import (
    FakeProvider,
    Hints,
    add_worker,
    event_kinds,
    finished,
    forever,
    image_count,
    pending,
    placed,
    rows,
    running,
    workplace,
)

FOREVER = dt.timedelta(days=1)


async def test_an_enqueued_run_ends_completed(sqlite_engine: AsyncEngine, tmp_path: Path, docket_url: str) -> None:
    async with workplace(sqlite_engine, tmp_path, FakeProvider(), docket_url) as (studio, worker):
        run = await pending(studio.runs)
        await worker.enqueue(run.id)
        done = await studio.hints.ended(studio.runs, run.id)
    assert done.status is Status.COMPLETED
    assert await event_kinds(studio.engine, run.id) == ["requested", "started", "completed"]


async def test_a_run_added_many_times_is_made_once(sqlite_engine: AsyncEngine, tmp_path: Path, docket_url: str) -> None:
    async with workplace(sqlite_engine, tmp_path, FakeProvider(), docket_url) as (studio, worker):
        run = await pending(studio.runs)
        await asyncio.gather(*(worker.enqueue(run.id) for _ in range(10)))
        await studio.hints.ended(studio.runs, run.id)
    assert len(studio.provider.requests) == 1


async def test_the_sweep_at_start_finds_runs_that_no_queue_knows(engine: AsyncEngine, tmp_path: Path) -> None:
    made = [await pending(Runs(engine, hint=Hints()), node_id=f"n{index}") for index in range(5)]
    async with workplace(engine, tmp_path, FakeProvider(), f"memory://{uuid.uuid4().hex}") as (studio, _worker):
        ended = [await studio.hints.ended(studio.runs, run.id) for run in made]
    assert {run.status for run in ended} == {Status.COMPLETED}


async def test_a_later_sweep_finds_a_run_whose_queue_entry_was_lost(
    sqlite_engine: AsyncEngine, tmp_path: Path, docket_url: str
) -> None:
    late = dt.datetime.now(dt.UTC) + dt.timedelta(hours=1)
    async with workplace(sqlite_engine, tmp_path, FakeProvider(), docket_url) as (studio, worker):
        run = await placed(studio)
        worker._clock = lambda: late
        assert await worker.sweep() == 1
        assert (await studio.hints.ended(studio.runs, run.id)).status is Status.COMPLETED


async def test_a_parked_attempt_comes_back_by_itself(
    sqlite_engine: AsyncEngine, tmp_path: Path, docket_url: str
) -> None:
    provider = FakeProvider([ProviderError("Busy.", ErrorClass.TEMPORARY), finished()])
    async with workplace(sqlite_engine, tmp_path, provider, docket_url) as (studio, worker):
        run = await pending(studio.runs)
        await worker.enqueue(run.id)
        done = await studio.hints.ended(studio.runs, run.id)
    assert (done.status, done.failures, done.attempt) == (Status.COMPLETED, 1, 2)


async def test_a_run_waiting_for_its_maker_is_polled_until_it_is_done(
    sqlite_engine: AsyncEngine, tmp_path: Path, docket_url: str
) -> None:
    provider = FakeProvider(
        [Accepted("remote-1", poll_after_s=0.01)], [Waiting(0.5, 0.01), Waiting(0.9, 0.01), finished()]
    )
    async with workplace(sqlite_engine, tmp_path, provider, docket_url) as (studio, worker):
        run = await pending(studio.runs)
        await worker.enqueue(run.id)
        done = await studio.hints.ended(studio.runs, run.id)
    assert (done.status, done.attempt, provider.polled) == (Status.COMPLETED, 1, ["remote-1"] * 3)


async def test_a_waiting_run_is_woken_before_its_time(
    sqlite_engine: AsyncEngine, tmp_path: Path, docket_url: str
) -> None:
    provider = FakeProvider([Accepted("remote-1", poll_after_s=3600)])
    policy = RetryPolicy(poll_max_s=3600)
    async with workplace(sqlite_engine, tmp_path, provider, docket_url, policy=policy) as (studio, worker):
        run = await pending(studio.runs)
        await worker.enqueue(run.id)
        await studio.hints.reached(studio.runs, run.id, lambda run: run.remote_id is not None)
        await worker.wake(run.id)
        assert (await studio.hints.ended(studio.runs, run.id)).status is Status.COMPLETED


async def test_cancel_of_a_running_run_stops_the_call_of_the_maker(
    sqlite_engine: AsyncEngine, tmp_path: Path, docket_url: str
) -> None:
    stopped = asyncio.Event()
    async with workplace(sqlite_engine, tmp_path, FakeProvider([forever(stopped)]), docket_url) as (studio, worker):
        run = await pending(studio.runs)
        await worker.enqueue(run.id)
        async with asyncio.timeout(10):
            await studio.provider.submitted.wait()
            await studio.runs.cancel(run.id, {})
            await worker.cancel(run.id)
            await stopped.wait()
        next_run = await pending(studio.runs)
        studio.provider.answers[:] = [finished()]
        await worker.enqueue(next_run.id)
        assert (await studio.hints.ended(studio.runs, next_run.id)).status is Status.COMPLETED
    assert await event_kinds(studio.engine, run.id) == ["requested", "started", "cancelled"]


async def test_cancel_of_a_waiting_run_tells_the_maker(
    sqlite_engine: AsyncEngine, tmp_path: Path, docket_url: str
) -> None:
    provider = FakeProvider([Accepted("remote-1", poll_after_s=3600)])
    policy = RetryPolicy(poll_max_s=3600)
    async with workplace(sqlite_engine, tmp_path, provider, docket_url, policy=policy) as (studio, worker):
        run = await pending(studio.runs)
        await worker.enqueue(run.id)
        await studio.hints.reached(studio.runs, run.id, lambda run: run.remote_id is not None)
        await studio.runs.cancel(run.id, {})
        await worker.cancel(run.id)
        async with asyncio.timeout(10):
            await provider.told.wait()
    assert provider.cancelled == ["remote-1"]


async def test_a_cancel_that_the_queue_lost_is_found_by_the_sweep(
    sqlite_engine: AsyncEngine, tmp_path: Path, docket_url: str
) -> None:
    stopped = asyncio.Event()
    async with workplace(sqlite_engine, tmp_path, FakeProvider([forever(stopped)]), docket_url) as (studio, worker):
        run = await pending(studio.runs)
        await worker.enqueue(run.id)
        async with asyncio.timeout(10):
            await studio.provider.submitted.wait()
            await studio.runs.cancel(run.id, {})
            await worker.sweep()
            await stopped.wait()


async def test_a_stop_interrupts_attempts_in_an_orderly_way_and_the_next_worker_goes_on_at_once(
    engine: AsyncEngine, tmp_path: Path
) -> None:
    pace = Pace(check_s=0.02, grace_s=0.05)
    provider = FakeProvider([forever()])
    async with workplace(engine, tmp_path, provider, f"memory://{uuid.uuid4().hex}", pace=pace) as (studio, worker):
        run = await pending(studio.runs)
        await worker.enqueue(run.id)
        await provider.submitted.wait()
    stopped = await studio.runs.get(run.id)
    assert (stopped.status, stopped.stage, stopped.worker, stopped.crashes) == (Status.RUNNING, Stage.QUEUED, None, 0)
    assert await rows(engine, workers) == []
    async with workplace(engine, tmp_path, FakeProvider(), f"memory://{uuid.uuid4().hex}") as (studio, _worker):
        assert (await studio.hints.ended(studio.runs, run.id)).attempt == 2
    assert "interrupted" in await event_kinds(engine, run.id)


async def test_a_stop_lets_an_attempt_that_is_about_to_end_do_so(engine: AsyncEngine, tmp_path: Path) -> None:
    go = asyncio.Event()

    async def call(*_: object) -> object:
        asyncio.get_running_loop().call_later(0.1, go.set)
        await go.wait()
        return finished()

    provider = FakeProvider([call])
    async with workplace(engine, tmp_path, provider, f"memory://{uuid.uuid4().hex}") as (studio, worker):
        run = await pending(studio.runs)
        await worker.enqueue(run.id)
        await provider.submitted.wait()
    assert (await studio.runs.get(run.id)).status is Status.COMPLETED


async def test_a_run_of_a_killed_process_of_this_machine_goes_on_at_once(engine: AsyncEngine, tmp_path: Path) -> None:
    me = WorkerIdentity()
    dead = WorkerIdentity(host=me.host, pid=2**22 + 1, process="killed")
    await add_worker(engine, dead, seen_at=dt.datetime.now(dt.UTC))
    run = await running(Runs(engine, hint=Hints()), worker=dead.id)
    async with (
        asyncio.timeout(4),
        workplace(engine, tmp_path, FakeProvider(), f"memory://{me.id}", me=me) as (studio, _),
    ):
        done = await studio.hints.ended(studio.runs, run.id)
    assert (done.status, done.attempt) == (Status.COMPLETED, 2)
    assert await image_count(engine, run.id) == 1


async def test_two_workers_and_one_maker_call_for_each_run(engine: AsyncEngine, tmp_path: Path, redis_url: str) -> None:
    one, two, hints = FakeProvider(), FakeProvider(), Hints()
    async with (
        workplace(engine, tmp_path, one, redis_url, hints=hints) as (studio, worker),
        workplace(engine, tmp_path, two, redis_url, hints=hints) as (_, second),
    ):
        made = [await pending(studio.runs, node_id=f"n{index}") for index in range(20)]
        for run in made:
            await worker.enqueue(run.id)
        await second.sweep(everything=True)
        for run in made:
            await hints.ended(studio.runs, run.id)
    asked = [request.run_id for request in one.requests + two.requests]
    assert sorted(asked) == sorted(run.id for run in made)


async def test_a_second_worker_started_while_a_run_is_mid_call_does_not_call_again(
    engine: AsyncEngine, tmp_path: Path
) -> None:
    go = asyncio.Event()

    async def call(*_: object) -> object:
        await go.wait()
        return finished()

    one, two = FakeProvider([call]), FakeProvider()
    async with workplace(engine, tmp_path, one, f"memory://{uuid.uuid4().hex}") as (studio, worker):
        run = await pending(studio.runs)
        await worker.enqueue(run.id)
        await one.submitted.wait()
        async with workplace(engine, tmp_path, two, f"memory://{uuid.uuid4().hex}") as (_other, second):
            await second.sweep(everything=True)
            go.set()
            done = await studio.hints.ended(studio.runs, run.id)
    assert (done.attempt, len(one.requests), len(two.requests)) == (1, 1, 0)


async def test_a_door_without_a_worker_adds_and_cancels(
    sqlite_engine: AsyncEngine, tmp_path: Path, redis_url: str
) -> None:
    async with (
        JobQueue(redis_url, name="darkroom-test") as door,
        workplace(sqlite_engine, tmp_path, FakeProvider(), redis_url) as (studio, _worker),
    ):
        run = await pending(studio.runs)
        await door.enqueue(run.id)
        assert (await studio.hints.ended(studio.runs, run.id)).status is Status.COMPLETED


async def test_a_queue_that_is_away_is_told_by_false_in_bounded_time(own_redis: object) -> None:
    url = own_redis.url  # type: ignore[attr-defined]
    async with JobQueue(url, limit_s=0.5) as door:
        own_redis.kill()  # type: ignore[attr-defined]
        assert not await door.enqueue("run")
        assert not await door.cancel("run")
        own_redis.start()  # type: ignore[attr-defined]


@pytest.mark.parametrize("count", [30])
async def test_many_runs_all_end_with_one_picture_each(
    engine: AsyncEngine, tmp_path: Path, docket_url: str, count: int
) -> None:
    async with workplace(engine, tmp_path, FakeProvider(), docket_url) as (studio, worker):
        made = await asyncio.gather(*(pending(studio.runs, node_id=f"n{index}") for index in range(count)))
        await asyncio.gather(*(worker.enqueue(run.id) for run in made))
        for run in made:
            assert (await studio.hints.ended(studio.runs, run.id)).status is Status.COMPLETED
    assert len(studio.files()) == 2 * count
