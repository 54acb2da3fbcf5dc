import asyncio
import datetime as dt
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine

from jobs import admission
from jobs.dispatcher import Dispatcher
from jobs.limits import Limit, Limits, Rate
from jobs.liveness import WorkerIdentity
from jobs.policy import RetryPolicy
from jobs.runs import Runs
from jobs.standing import Standing
from jobs.state import Accepted as RemoteAccepted
from jobs.state import Interrupted, RetryScheduled, Status
from jobs.tables import admissions, workers
from jobs.tables import runs as runs_table
from providers.base import Accepted, Finished, PromptSpec
from providers.errors import ErrorClass, ProviderError
from tests.jobs.builders import (
    WORKFLOW,
    FakeProvider,
    Hints,
    Studio,
    add_worker,
    database,
    finished,
    forever,
    pending,
    rows,
    run_error,
    workplace,
)
from tests.jobs.test_limits import busiest

MEMORY = "memory://"
LONG_AGO = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


@dataclass
class Taken:
    """A queue that remembers what it was given."""

    ids: list[str] = field(default_factory=list)
    cancelled: list[str] = field(default_factory=list)
    away: bool = False
    given: asyncio.Event = field(default_factory=asyncio.Event)

    async def enqueue_many(self, jobs: Any) -> bool:
        if self.away:
            return False
        self.ids += [run_id for run_id, _ in jobs]
        self.given.set()
        return True

    async def cancel(self, run_id: str) -> bool:
        self.cancelled.append(run_id)
        return True


@dataclass
class Gate:
    """A maker's work that goes on once the test says so."""

    open: asyncio.Event = field(default_factory=asyncio.Event)
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    calls: list[float] = field(default_factory=list)

    async def __call__(self, *_: object) -> Finished:
        self.calls.append(time.monotonic())
        self.asked.set()
        await self.open.wait()
        return finished()


@asynccontextmanager
async def desk(engine: AsyncEngine, limits: Limits | None = None, capacity: int = 100) -> AsyncIterator[Any]:
    """A dispatcher that looks when it is told to, beside a worker that lives."""
    me = WorkerIdentity()
    runs = Runs(engine, hint=Hints(), me=me)
    await add_worker(engine, me, seen_at=dt.datetime.now(dt.UTC))
    async with engine.begin() as connection:
        await connection.execute(sa.update(workers).values(concurrency=capacity))
    dispatcher = Dispatcher(runs, limits or Limits({}), me=me.id)
    dispatcher._queue = Taken()
    yield runs, dispatcher, dispatcher._queue


async def ended(studio: Studio, *made: Any) -> list[Status]:
    return [(await studio.hints.ended(studio.runs, run.id)).status for run in made]


async def until(condition: Callable[[], Awaitable[bool]], timeout_s: float = 10.0) -> None:
    """Return once the condition holds; for what no hint tells."""
    async with asyncio.timeout(timeout_s):
        while not await condition():  # noqa: ASYNC110 - there is no event in another process
            await asyncio.sleep(0.01)


async def has_place(runs: Runs, run_id: str) -> bool:
    return (await runs.get(run_id)).admitted_at is not None


async def accepted(studio: Studio, count: int) -> bool:
    return sum(row.remote_id is not None for row in await rows(studio.engine, runs_table)) == count


async def test_a_run_gets_its_place_and_goes_to_the_queue(engine: AsyncEngine) -> None:
    async with desk(engine) as (runs, dispatcher, queue):
        run = await pending(runs)
        assert await dispatcher.look() == 1
        assert queue.ids == [run.id]
        assert (await runs.get(run.id)).admitted_at is not None
        assert await dispatcher.look() == 0
        assert await runs.begin_attempt(run.id, "w", placed=True) is not None


async def test_a_run_without_a_place_is_not_begun(engine: AsyncEngine) -> None:
    async with desk(engine) as (runs, _, _queue):
        run = await pending(runs)
        assert await runs.begin_attempt(run.id, "w", placed=True) is None
        assert (await runs.get(run.id)).status is Status.PENDING


async def test_nothing_is_given_to_workers_that_are_not_there(engine: AsyncEngine) -> None:
    async with desk(engine, capacity=2) as (runs, dispatcher, queue):
        for index in range(5):
            await pending(runs, node_id=f"n{index}", requested_by={"id": f"u{index}"})
        assert await dispatcher.look() == 2
        async with engine.begin() as connection:
            await connection.execute(sa.text("UPDATE workers SET concurrency = 3"))
        assert await dispatcher.look() == 1
        async with engine.begin() as connection:
            await connection.execute(sa.text("DELETE FROM workers"))
        assert await dispatcher.look() == 0
        assert len(queue.ids) == 3


async def test_two_dispatchers_that_look_at_once_give_each_place_once(engine: AsyncEngine) -> None:
    limits = Limits({"fake": Limit((Rate(6, 60.0),), 4)})
    async with desk(engine, limits) as (runs, one, queue):
        other = Dispatcher(Runs(engine, hint=Hints()), limits)
        other._queue = queue
        for index in range(9):
            await pending(runs, node_id=f"n{index}")
        await asyncio.gather(*(dispatcher.look() for dispatcher in (one, other) * 3))
        assert len(queue.ids) == len(set(queue.ids)) == 3
        assert len(await rows(engine, admissions)) == 3


async def test_the_end_of_a_run_is_worth_a_look_unless_nothing_waited_a_moment_ago(engine: AsyncEngine) -> None:
    async with desk(engine, capacity=2) as (runs, dispatcher, _queue):
        await pending(runs, node_id="a")
        await dispatcher.look()
        dispatcher.freed()
        assert not dispatcher._wanted
        dispatcher._looked_at -= 1
        dispatcher.freed()
        assert dispatcher._wanted
        dispatcher._wanted = False
        for index in range(3):
            await pending(runs, node_id=f"n{index}")
        await dispatcher.look()
        dispatcher.freed()
        assert dispatcher._wanted


async def test_one_process_looks_at_a_time(postgres_url: str) -> None:
    async with database(postgres_url) as engine, desk(engine) as (runs, dispatcher, _queue):
        await pending(runs)
        async with engine.begin() as connection:
            await connection.run_sync(admission.lock)
            look = asyncio.create_task(dispatcher.look())
            done, _ = await asyncio.wait([look], timeout=0.3)
            assert not done
        assert await look == 1


async def test_a_queue_that_is_away_is_offered_the_runs_again(engine: AsyncEngine) -> None:
    async with desk(engine) as (runs, dispatcher, queue):
        run = await pending(runs)
        queue.away = True
        async with dispatcher.serving(queue):
            await until(lambda: has_place(runs, run.id))
            queue.away = False
            async with asyncio.timeout(5):
                await queue.given.wait()
        assert queue.ids == [run.id]


async def test_a_rolled_back_request_leaves_nothing_that_does_anything(engine: AsyncEngine) -> None:
    async with desk(engine) as (runs, dispatcher, queue):
        run = await pending(runs)
        async with engine.begin() as connection:
            await connection.execute(sa.delete(runs_table).where(runs_table.c.id == run.id))
        assert await dispatcher.look() == 0
        assert await runs.begin_attempt(run.id, "w", placed=True) is None
        assert queue.ids == []


async def test_pictures_take_their_share_of_a_limit_on_pictures(engine: AsyncEngine) -> None:
    async with desk(engine, Limits({"fake": Limit((Rate(4, 60.0, images=True),))})) as (runs, dispatcher, _queue):
        await pending(runs, node_id="a", spec=PromptSpec("a fox", n=3))
        await pending(runs, node_id="b")
        assert await dispatcher.look() == 1
        assert len(await rows(engine, admissions)) == 3


async def test_a_click_of_another_goes_past_a_batch_of_500(engine: AsyncEngine) -> None:
    async with desk(engine, capacity=20) as (runs, dispatcher, queue):
        for index in range(100):
            await pending(runs, node_id=f"n{index}", requested_by={"id": "ann"}, batch_id="batch")
        assert await dispatcher.look() == 15
        click = await pending(runs, node_id="click", requested_by={"id": "bob"})
        assert await dispatcher.look() == 1
        assert queue.ids[-1] == click.id


async def test_a_slow_maker_at_its_limit_does_not_delay_another(
    engine: AsyncEngine, tmp_path: Path, docket_url: str
) -> None:
    gate, quick = Gate(), FakeProvider(name="quick")
    limits = Limits({"fake": Limit(in_flight=2)})
    options = {"limits": limits, "others": [quick]}
    async with workplace(engine, tmp_path, FakeProvider([gate]), docket_url, **options) as (studio, worker):
        slow = [await pending(studio.runs, node_id=f"slow{index}") for index in range(6)]
        await worker.enqueue(slow[0].id)
        await gate.asked.wait()
        fast = [await pending(studio.runs, node_id=f"fast{index}", provider="quick") for index in range(6)]
        await worker.enqueue(fast[0].id)
        assert set(await ended(studio, *fast)) == {Status.COMPLETED}
        assert len(gate.calls) == 2
        gate.open.set()
        assert set(await ended(studio, *slow)) == {Status.COMPLETED}


async def test_no_window_over_two_workers_holds_more_calls_than_the_limit(
    postgres_url: str, redis_url: str, tmp_path: Path
) -> None:
    calls: list[float] = []

    async def call(*_: object) -> Finished:
        calls.append(time.monotonic())
        return finished()

    limits = Limits({"fake": Limit((Rate(10, 0.5),))})
    hints = Hints()
    async with database(postgres_url) as one, database(postgres_url) as two:
        async with (
            workplace(one, tmp_path, FakeProvider([call]), redis_url, hints=hints, limits=limits) as (studio, worker),
            workplace(two, tmp_path, FakeProvider([call]), redis_url, hints=hints, limits=limits) as (_, second),
        ):
            made = [await pending(studio.runs, node_id=f"n{index}") for index in range(30)]
            await asyncio.gather(worker.enqueue(made[0].id), second.enqueue(made[0].id))
            assert set(await ended(studio, *made)) == {Status.COMPLETED}
    assert len(calls) == 30
    assert busiest(calls, 0.5) <= 10


async def test_a_maker_that_asks_for_fewer_calls_is_left_alone_by_all_workers_and_takes_no_attempt(
    postgres_url: str, redis_url: str, tmp_path: Path
) -> None:
    calls: list[float] = []

    async def call(*_: object) -> Finished:
        calls.append(time.monotonic())
        if len(calls) == 1:
            raise ProviderError("Too many.", ErrorClass.RATE_LIMIT, retry_after_s=0.6)
        return finished()

    hints = Hints()
    async with database(postgres_url) as one, database(postgres_url) as two:
        async with (
            workplace(one, tmp_path, FakeProvider([call]), redis_url, hints=hints) as (studio, worker),
            workplace(two, tmp_path, FakeProvider([call]), redis_url, hints=hints) as (_, second),
        ):
            first = await pending(studio.runs, node_id="first")
            await worker.enqueue(first.id)
            await hints.reached(studio.runs, first.id, lambda run: run.resume_at is not None)
            others = [await pending(studio.runs, node_id=f"n{index}") for index in range(4)]
            await asyncio.gather(worker.enqueue(first.id), second.enqueue(first.id))
            assert set(await ended(studio, first, *others)) == {Status.COMPLETED}
            assert (await studio.runs.get(first.id)).failures == 0
    assert all(later - calls[0] >= 0.55 for later in calls[1:])
    assert len(calls) == 6


async def test_a_maker_that_refuses_for_too_long_fails_the_run_and_says_so(
    sqlite_engine: AsyncEngine, tmp_path: Path
) -> None:
    refusal = ProviderError("Too many.", ErrorClass.RATE_LIMIT, retry_after_s=0.0)
    policy = RetryPolicy(refusals_limit_s=0.5)
    url = f"{MEMORY}{uuid.uuid4().hex}"
    async with workplace(sqlite_engine, tmp_path, FakeProvider([refusal]), url, policy=policy) as (studio, worker):
        run = await pending(studio.runs)
        await worker.enqueue(run.id)
        failed = await studio.hints.ended(studio.runs, run.id)
    assert failed.error is not None
    assert (failed.status, failed.error.code, failed.failures) == (Status.FAILED, "rate_limit", 0)
    assert "Fake has taken no more calls" in failed.error.message
    assert len(studio.provider.requests) > 2


async def test_neither_of_two_workers_does_fewer_than_a_third(
    postgres_url: str, redis_url: str, tmp_path: Path
) -> None:
    hints = Hints()
    providers = FakeProvider(), FakeProvider()
    async with database(postgres_url) as one, database(postgres_url) as two:
        async with (
            workplace(one, tmp_path, providers[0], redis_url, hints=hints, concurrency=8) as (studio, worker),
            workplace(two, tmp_path, providers[1], redis_url, hints=hints, concurrency=8) as (_, second),
        ):
            made = [await pending(studio.runs, node_id=f"n{index}") for index in range(90)]
            await asyncio.gather(worker.enqueue(made[0].id), second.enqueue(made[0].id))
            assert set(await ended(studio, *made)) == {Status.COMPLETED}
    shares = [len(provider.requests) for provider in providers]
    assert sum(shares) == 90
    assert min(shares) >= 30


async def test_a_run_its_maker_works_on_keeps_its_place_there_but_no_place_at_a_worker(
    engine: AsyncEngine, tmp_path: Path
) -> None:
    limits = Limits({"fake": Limit(in_flight=3)})
    provider = FakeProvider([Accepted("remote", poll_after_s=3600)])
    url = f"{MEMORY}{uuid.uuid4().hex}"
    policy = RetryPolicy(poll_max_s=3600)
    options = {"limits": limits, "concurrency": 1, "policy": policy}
    async with workplace(engine, tmp_path, provider, url, **options) as (studio, worker):
        made = [await pending(studio.runs, node_id=f"n{index}") for index in range(4)]
        await worker.enqueue(made[0].id)
        await until(lambda: accepted(studio, 3))
        waits = [run for run in [await studio.runs.get(one.id) for one in made] if run.waits]
        assert len(waits) == 1
        await studio.runs.cancel(made[0].id, {})
        await worker.cancel(made[0].id)
        await studio.hints.reached(studio.runs, waits[0].id, lambda run: run.remote_id is not None)


@pytest.mark.parametrize("event", [RetryScheduled(run_error(), LONG_AGO), Interrupted()])
async def test_a_place_is_given_back_by_the_end_of_an_attempt_unless_the_maker_works_on(
    engine: AsyncEngine, event: RetryScheduled | Interrupted
) -> None:
    async with desk(engine) as (runs, dispatcher, _queue):
        ours, theirs = await pending(runs, node_id="a"), await pending(runs, node_id="b")
        assert await dispatcher.look() == 2
        for run in (ours, theirs):
            await runs.begin_attempt(run.id, "w", placed=True)
        await runs.record(theirs.id, 1, RemoteAccepted("remote", webhook_promised=False, resume_at=LONG_AGO))
        await runs.begin_attempt(theirs.id, "w", placed=True)
        for run in (ours, theirs):
            await runs.record(run.id, 1, event)
        assert (await runs.get(ours.id)).waits
        assert await has_place(runs, theirs.id)
        assert await dispatcher.look() == 1


async def test_a_moment_that_passed_is_given_back(engine: AsyncEngine) -> None:
    limits = Limits({"fake": Limit((Rate(1, 60.0),))})
    async with desk(engine, limits) as (runs, dispatcher, _queue):
        first = await pending(runs, node_id="a")
        await dispatcher.look()
        began = await runs.begin_attempt(first.id, "w", placed=True)
        old = dt.datetime.now(dt.UTC) - dt.timedelta(seconds=30)
        async with engine.begin() as connection:
            await connection.execute(sa.update(runs_table).values(start_at=old))
            await connection.execute(sa.update(admissions).values(start_at=old))
        late = await runs.get(began.id)
        assert await dispatcher.enter(late)
        [row] = await rows(engine, admissions)
        assert row.start_at > old + dt.timedelta(seconds=20)
        async with engine.begin() as connection:
            await connection.execute(
                sa.insert(admissions).values(
                    run_id="other", provider="fake", model="fake-1", workflow_id="w", start_at=row.start_at
                )
            )
        assert not await dispatcher.enter(late)
        after = await runs.get(first.id)
        assert (after.waits, after.start_at) == (True, None)
        assert [row.run_id for row in await rows(engine, admissions)] == [first.id, "other"]


async def test_a_moment_that_a_dead_worker_may_have_used_is_not_given_back(engine: AsyncEngine) -> None:
    async with desk(engine, Limits({"fake": Limit((Rate(1, 60.0),))})) as (runs, dispatcher, _queue):
        run = await pending(runs)
        await dispatcher.look()
        await runs.begin_attempt(run.id, "dead", placed=True)
        taken = await runs.begin_attempt(run.id, "w", placed=True)
        late = replace(taken, start_at=taken.start_at - dt.timedelta(seconds=5))
        async with engine.begin() as connection:
            await connection.execute(sa.update(admissions).values(start_at=late.start_at))
        assert not await dispatcher.enter(late)
        assert len(await rows(engine, admissions)) == 1


async def test_deadlines_are_kept_by_a_server_that_never_rests(engine: AsyncEngine) -> None:
    async with desk(engine) as (runs, dispatcher, queue):
        run = await pending(runs, deadline_s=0.3)
        async with dispatcher.serving(queue), asyncio.timeout(10):
            while not (await runs.get(run.id)).status.terminal:
                dispatcher.poke()
                await asyncio.sleep(0)


@pytest.mark.parametrize("begun", [False, True])
async def test_a_run_past_its_deadline_fails_and_says_so(engine: AsyncEngine, *, begun: bool) -> None:
    async with desk(engine) as (runs, dispatcher, queue):
        run = await pending(runs, node_id="late", deadline_s=0.0)
        await pending(runs, node_id="in-time", deadline_s=60)
        await pending(runs, node_id="any-time")
        if begun:
            await runs.begin_attempt(run.id, "w")
        assert await dispatcher.end_overdue() == 1
        failed = await runs.get(run.id)
        assert (failed.status, failed.error.code, failed.error.retryable) == (Status.FAILED, "deadline", True)
        assert queue.cancelled == [run.id]
        assert await dispatcher.end_overdue() == 0


async def test_a_deadline_stops_the_call_of_the_maker(sqlite_engine: AsyncEngine, tmp_path: Path) -> None:
    stopped = asyncio.Event()
    url = f"{MEMORY}{uuid.uuid4().hex}"
    async with workplace(sqlite_engine, tmp_path, FakeProvider([forever(stopped)]), url) as (studio, worker):
        run = await pending(studio.runs, deadline_s=0.3)
        await worker.enqueue(run.id)
        async with asyncio.timeout(10):
            await stopped.wait()
        failed = await studio.hints.ended(studio.runs, run.id)
    assert failed.error is not None
    assert failed.error.code == "deadline"
    assert "before it was finished" in failed.error.message


async def test_waiting_runs_are_told_their_place_and_what_holds_them(engine: AsyncEngine) -> None:
    limits = Limits({"fake": Limit((Rate(2, 60.0),))})
    async with desk(engine, limits) as (runs, dispatcher, _queue):
        told: list[tuple[str, Any]] = []
        standing = Standing(lambda room, line: told.append((room, line)), dispatcher._me)
        dispatcher._standing = standing
        for index in range(3):
            await pending(runs, node_id=f"n{index}", requested_by={"id": "ann", "name": "Ann"})
        assert await dispatcher.look() == 1
        await dispatcher._tell_places()
        [(room, first), (_, second)] = told
        assert (room, first["nodeId"], first["place"], first["stage"], first["by"]) == (
            WORKFLOW,
            "n1",
            1,
            "queued",
            "Ann",
        )
        assert (first["held"], second["place"]) == ("limit", 2)
        assert 0 < first["waitS"] < second["waitS"] <= 120
        await dispatcher._tell_places()
        assert len(told) == 2
        dispatcher._standing = Standing(lambda room, line: told.append((room, line)), "somebody else")
        await dispatcher._tell_places()
        assert len(told) == 2


async def test_a_place_that_nobody_holds_back_is_not_told(engine: AsyncEngine) -> None:
    async with desk(engine) as (runs, dispatcher, _queue):
        told: list[Any] = []
        dispatcher._standing = Standing(lambda *line: told.append(line), dispatcher._me)
        await pending(runs)
        await dispatcher.look()
        await dispatcher._tell_places()
        assert told == []
