"""What runs that wait cost: python -m tests.soak.waiting [waiting runs]. Prints figures, on SQLite and on Postgres."""

import asyncio
import datetime as dt
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine

from jobs.dispatcher import Dispatcher
from jobs.limits import Limit, Limits, Rate
from jobs.liveness import WorkerIdentity
from jobs.records import run_columns
from jobs.runs import Runs
from jobs.standing import Standing
from jobs.tables import admissions, runs
from tests.bench.measure import usage
from tests.jobs.builders import FakeProvider, Hints, add_worker, database, pending, workplace
from tests.support.postgres import PostgresServer

LOOKS = 20


class Nowhere:
    """A queue that takes everything and does nothing."""

    async def enqueue_many(self, _jobs: Any) -> bool:
        return True

    async def cancel(self, _run_id: str) -> bool:
        return True


async def fill(engine: AsyncEngine, count: int, **columns: Any) -> None:
    """So many runs that wait, all but the first copied from it; `columns` by name, or made of the number."""
    first = await pending(Runs(engine, hint=Hints()))
    made = run_columns(first) | {"request": dict(first.request) | {"spec": {"basePrompt": "a fox " * 200}}}
    several = [
        made
        | {"id": f"run{number:06}", "ordinal": number + 2, "after": f"run{number}"}
        | {name: value(number) if callable(value) else value for name, value in columns.items()}
        for number in range(count)
    ]
    async with engine.begin() as connection:
        await connection.execute(sa.delete(runs))
        for at in range(0, count, 500):
            await connection.execute(sa.insert(runs), several[at : at + 500])


async def looks(engine: AsyncEngine, limits: Limits, capacity: int, frees: int) -> tuple[float, float]:
    """Milliseconds on the clock and of our own CPU of a look that gives so many places away."""
    me = WorkerIdentity()
    await add_worker(engine, me, seen_at=dt.datetime.now(dt.UTC) + dt.timedelta(hours=1))
    async with engine.begin() as connection:
        await connection.execute(sa.text(f"UPDATE workers SET concurrency = {capacity}"))  # noqa: S608 - a number
    dispatcher = Dispatcher(Runs(engine, hint=Hints()), limits, me=me.id)
    dispatcher._queue = Nowhere()
    await dispatcher.look()
    wall, cpu = [], []
    for _ in range(LOOKS):
        async with engine.begin() as connection:
            some = sa.select(runs.c.id).where(runs.c.admitted_at.is_not(None), runs.c.status == "pending").limit(frees)
            await connection.execute(sa.update(runs).where(runs.c.id.in_(some)).values(status="completed"))
        began, used = time.perf_counter(), time.thread_time()
        await dispatcher.look()
        wall.append(time.perf_counter() - began)
        cpu.append(time.thread_time() - used)
    sent: list[Any] = []
    dispatcher._standing = Standing(lambda *line: sent.append(line), me.id)
    dispatcher._left = True
    began = time.perf_counter()
    await dispatcher._tell_places()
    print(f"    places told to {len(sent)} runs in {(time.perf_counter() - began) * 1000:.1f} ms")  # noqa: T201
    return sorted(wall)[LOOKS // 2] * 1000, sorted(cpu)[LOOKS // 2] * 1000


async def empty(engine: AsyncEngine) -> None:
    async with engine.begin() as connection:
        await connection.execute(sa.delete(runs))
        await connection.execute(sa.delete(admissions))
        await connection.execute(sa.text("DELETE FROM workers"))


async def measure(name: str, url: str, count: int) -> None:
    rated = Limits({"fake": Limit((Rate(150, 10.0),))})
    async with database(url) as engine:
        people: list[tuple[str, dict[str, Any]]] = [
            ("one person, one canvas", {"user_id": "ann"}),
            ("as many people as runs", {"user_id": lambda number: f"u{number}"}),
        ]
        for label, columns in people:
            for limits, what in [(Limits({}), "no limit"), (rated, "150 in 10 s")]:
                for waiting in (100, count):
                    await empty(engine)
                    await fill(engine, waiting, **columns)
                    wall, cpu = await looks(engine, limits, 40, 1)
                    print(f"{name}: {waiting} wait, {label}, {what}: {wall:.1f} ms a look, {cpu:.1f} ms of our CPU")  # noqa: T201
        await empty(engine)
        await park(name, engine)


async def park(name: str, engine: AsyncEngine) -> None:
    """What 1,000 runs that wait for their maker cost the worker beside them."""
    now = dt.datetime.now(dt.UTC)
    parked = {"status": "running", "stage": "waiting", "admitted_at": now, "resume_at": now + dt.timedelta(hours=1)}
    with tempfile.TemporaryDirectory() as folder:
        async with workplace(engine, Path(folder), FakeProvider(), f"memory://{name}") as (_, worker):
            await asyncio.sleep(3)
            before_mb = usage(os.getpid()).rss_mb
            await fill(engine, 1_000, remote_id=lambda number: f"remote{number}", **parked)
            await worker.sweep(everything=True)
            await asyncio.sleep(3)
            began, used = time.perf_counter(), time.process_time()
            await asyncio.sleep(15)
            share = (time.process_time() - used) / (time.perf_counter() - began)
            more_mb = usage(os.getpid()).rss_mb - before_mb
            print(f"{name}: 1000 parked runs and a worker: {share:.1%} of a core, {more_mb:.0f} MB more")  # noqa: T201
            used = time.process_time()
            await worker.sweep()
            print(f"{name}: a sweep of them: {(time.process_time() - used) * 1000:.1f} ms")  # noqa: T201


async def main(count: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        await measure("sqlite", f"sqlite+aiosqlite:///{folder}/darkroom.db", count)
    server = PostgresServer()
    server.start()
    try:
        await measure("postgres", server.url(server.create()), count)
    finally:
        server.stop()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 5_000))
