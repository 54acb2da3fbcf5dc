import datetime as dt

from sqlalchemy.ext.asyncio import AsyncEngine

from jobs.liveness import Liveness, WorkerIdentity, alive_until
from jobs.tables import workers
from tests.jobs.builders import add_worker, rows

HERE = WorkerIdentity()


def now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


async def living(engine: AsyncEngine, worker: WorkerIdentity, *, exists: bool = True) -> bool:
    async with engine.connect() as connection:
        until = await connection.run_sync(alive_until, worker.id, HERE, process_exists=lambda _pid: exists)
    return until is not None


async def test_a_worker_lives_while_it_beats_and_not_after_it_retired(engine: AsyncEngine) -> None:
    other = WorkerIdentity(host="elsewhere")
    liveness = Liveness(engine, other)
    assert not await living(engine, other)
    for _ in range(2):
        await liveness.beat()
        assert await living(engine, other)
    await liveness.retire()
    assert not await living(engine, other)


async def test_a_worker_that_stopped_beating_is_dead_after_its_lease(engine: AsyncEngine) -> None:
    silent = WorkerIdentity(host="elsewhere")
    await add_worker(engine, silent, seen_at=now() - dt.timedelta(seconds=30))
    assert not await living(engine, silent)


async def test_a_worker_of_this_machine_lives_only_if_its_process_does(engine: AsyncEngine) -> None:
    worker = WorkerIdentity(host=HERE.host, pid=HERE.pid + 1, process="another")
    await add_worker(engine, worker, seen_at=now())
    assert await living(engine, worker, exists=True)
    assert not await living(engine, worker, exists=False)


async def test_a_process_that_has_our_number_now_is_gone(engine: AsyncEngine) -> None:
    worker = WorkerIdentity(host=HERE.host, pid=HERE.pid, process="before the restart")
    await add_worker(engine, worker, seen_at=now())
    assert not await living(engine, worker)


async def test_another_worker_of_this_process_lives(engine: AsyncEngine) -> None:
    sibling = WorkerIdentity()
    await Liveness(engine, sibling).beat()
    assert await living(engine, sibling, exists=False)


async def test_who_stops_sweeps_out_the_long_dead(engine: AsyncEngine) -> None:
    await add_worker(engine, WorkerIdentity(host="elsewhere"), seen_at=now() - dt.timedelta(days=1))
    recent = WorkerIdentity(host="elsewhere")
    await add_worker(engine, recent, seen_at=now())
    await Liveness(engine, WorkerIdentity()).retire()
    assert [row.id for row in await rows(engine, workers)] == [recent.id]
