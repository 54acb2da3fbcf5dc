"""A cancel ends a run at any stage, frees its place, and leaves nothing; also while it completes, and before a stop."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from crdt.tables import workflow_nodes
from jobs.errors import RunFinished
from jobs.policy import RetryPolicy
from jobs.run import Run
from jobs.runs import Runs
from jobs.state import Completed, Stage, Status
from jobs.storage import Content, DiskStore
from jobs.tables import generated_images
from jobs.worker import Worker
from providers.base import Accepted, Cost, Waiting
from providers.errors import ErrorClass, ProviderError
from tests.jobs.builders import (
    FakeProvider,
    Hints,
    Studio,
    event_kinds,
    finished,
    forever,
    pending,
    request,
    rows,
    stored_image,
    workplace,
)

SLOW = RetryPolicy(base_s=600, cap_s=600, poll_min_s=600, poll_max_s=600)


class StuckStore(DiskStore):
    """A store whose uploads do not end."""

    def __init__(self, root: Path) -> None:
        super().__init__(root, "http://test")
        self.putting = asyncio.Event()

    async def put(self, key: str, data: Content, content_type: str) -> str:
        self.putting.set()
        await asyncio.Event().wait()
        raise AssertionError(key, data, content_type)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0.005)


async def begun(made: Studio, worker: Worker, ready: Callable[[Run], bool]) -> Run:
    run = await pending(made.runs)
    await worker.enqueue(run.id)
    return await made.hints.reached(made.runs, run.id, ready)


async def cancelled(made: Studio, worker: Worker, run: Run) -> None:
    """Cancel as the door does, and see that nothing goes on."""
    assert (await made.runs.cancel(run.id, {})).status is Status.CANCELLED
    await worker.cancel(run.id)
    await until(lambda: run.id not in worker.active)
    assert (await event_kinds(made.engine, run.id))[-1] == "cancelled"
    assert made.files() == []


@pytest.mark.parametrize("stage", ["queued", "in a call", "rate limited", "backing off", "waiting", "uploading"])
async def test_a_cancel_ends_a_run_at_any_stage(
    sqlite_engine: AsyncEngine, tmp_path: Path, docket_url: str, stage: str
) -> None:
    store = StuckStore(tmp_path)
    answers: dict[str, Any] = {
        "in a call": forever(),
        "rate limited": ProviderError("Slowly.", ErrorClass.RATE_LIMIT, retry_after_s=300),
        "backing off": ProviderError("Later.", ErrorClass.TEMPORARY),
        "waiting": Accepted("remote-1", poll_after_s=600),
        "uploading": finished(),
    }
    ready: dict[str, Callable[[Run], bool]] = {
        "in a call": lambda run: run.stage is Stage.GENERATING,
        "waiting": lambda run: run.remote_id is not None,
        "uploading": lambda run: run.stage is Stage.UPLOADING,
    }
    maker = FakeProvider([answers.get(stage)])
    options = {"store": store} if stage == "uploading" else {}
    async with workplace(
        sqlite_engine, tmp_path, maker, docket_url, policy=SLOW, stage_after_s=0.0, jitter=lambda: 0.9, **options
    ) as (made, worker):
        if stage == "queued":
            run = await pending(made.runs)
        else:
            run = await begun(made, worker, ready.get(stage, lambda run: run.resume_at is not None))
        await cancelled(made, worker, run)
        if stage == "waiting":
            await asyncio.wait_for(maker.told.wait(), 5)
            assert maker.cancelled == ["remote-1"]
        calls = len(maker.requests)
        await worker.sweep(everything=True)
        assert (len(maker.requests), worker.active) == (calls, frozenset())
        # The node is free for another.
        assert (await made.runs.request_run(request())).created
        assert made.reports.cleared == [] or set(made.reports.cleared) == {run.id}


async def test_a_maker_is_told_of_a_cancel_right_before_a_stop(
    sqlite_engine: AsyncEngine, tmp_path: Path, docket_url: str
) -> None:
    maker = FakeProvider([Accepted("remote-1", poll_after_s=600)], polls=[Waiting(poll_after_s=600)])
    async with workplace(sqlite_engine, tmp_path, maker, docket_url, policy=SLOW) as (made, worker):
        run = await begun(made, worker, lambda run: run.remote_id is not None)
        await made.runs.cancel(run.id, {})
        # The worker stops before the queue gets to it.
        worker._stopping = True
        worker._work.cancel()
        await worker.cancel(run.id)
    assert set(maker.cancelled) == {"remote-1"}
    assert (await made.runs.get(run.id)).status is Status.CANCELLED


async def test_a_cancel_and_a_stop_at_once_leave_the_run_cancelled(
    sqlite_engine: AsyncEngine, tmp_path: Path, docket_url: str
) -> None:
    stopped = asyncio.Event()
    maker = FakeProvider([forever(stopped)])
    async with workplace(sqlite_engine, tmp_path, maker, docket_url) as (made, worker):
        run = await begun(made, worker, lambda run: run.stage is Stage.GENERATING)
        await made.runs.cancel(run.id, {})
        stop = asyncio.create_task(worker.cancel(run.id))
    await stop
    assert stopped.is_set()
    assert (await made.runs.get(run.id)).status is Status.CANCELLED
    assert (await event_kinds(sqlite_engine, run.id))[-1] == "cancelled"


async def test_cancel_racing_completion_a_thousand_times_leaves_everything_agreed(engine: AsyncEngine) -> None:
    count, at_once = (1_000, 250) if engine.dialect.name == "sqlite" else (200, 50)
    store = Runs(engine, hint=Hints())
    chance = random.Random(7)  # noqa: S311 - an order of events
    won: dict[str, bool] = {}

    async def complete(run: Run) -> None:
        try:
            await store.record(run.id, 1, Completed((stored_image(run),), Cost(1, "price")))
            won[run.id] = True
        except RunFinished:
            won[run.id] = False

    for at in range(0, count, at_once):
        asked = [request(node_id=f"n{number}") for number in range(at, at + at_once)]
        made = [answer.run for answer in await store.request_many(asked)]
        running = [run for run in await asyncio.gather(*(store.begin_attempt(run.id, "w") for run in made)) if run]
        work: list[Awaitable[Any]] = []
        for run in running:
            work += chance.sample([complete(run), store.cancel(run.id, {})], 2)
        await asyncio.gather(*work)
    ended = {run.id: run for run in await store.find(won)}
    pictures = {row.run_id for row in await rows(engine, generated_images)}
    nodes = {row.id: row.node_data for row in await rows(engine, workflow_nodes)}
    assert len(ended) == count
    assert 0 < sum(won.values()) < count
    for run_id, completed in won.items():
        status = ended[run_id].status
        assert status is (Status.COMPLETED if completed else Status.CANCELLED)
        shown = nodes[ended[run_id].node_id]
        assert (shown["status"], shown["runId"], run_id in pictures) == (status.value, run_id, completed)
