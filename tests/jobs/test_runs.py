import asyncio
import datetime as dt
import os
import random
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine

from crdt.tables import workflow_nodes
from jobs import state
from jobs.errors import (
    IdempotencyConflict,
    IllegalTransition,
    JobsError,
    RunActive,
    RunBusy,
    RunFinished,
    RunNotFound,
    StaleAttempt,
    StaleRequest,
)
from jobs.liveness import WorkerIdentity
from jobs.requests import UNSET, Requested
from jobs.run import Run
from jobs.runs import MAX_CRASHES, Runs
from jobs.state import Accepted, Answered, Completed, Failed, Interrupted, RetryScheduled, Stage, StageEntered, Status
from jobs.tables import generated_images, run_events
from jobs.tables import runs as runs_table
from providers.base import Cost, PromptSpec
from tests.jobs.builders import (
    NODE,
    START,
    WORKFLOW,
    Clock,
    Hints,
    add_worker,
    database,
    event_kinds,
    image_count,
    node_row,
    pending,
    request,
    rows,
    run_error,
    running,
    stored_image,
)


@pytest.fixture
def hints() -> Hints:
    return Hints()


@pytest.fixture
def runs(engine: AsyncEngine, hints: Hints) -> Runs:
    return Runs(engine, hint=hints)


async def complete(runs: Runs, run: Run, **options: Any) -> Run:
    return await runs.record(run.id, run.attempt, Completed((stored_image(run),), **options))


async def node_data(engine: AsyncEngine, node_id: str = NODE) -> Any:
    return next(row.node_data for row in await rows(engine, workflow_nodes) if row.id == node_id)


async def test_a_request_commits_run_event_and_node_row_and_then_hints(
    engine: AsyncEngine, runs: Runs, hints: Hints
) -> None:
    run = await pending(runs)
    assert (run.status, run.stage, run.seq, run.ordinal, run.after) == (Status.PENDING, Stage.QUEUED, 1, 1, None)
    assert await runs.get(run.id) == run
    assert await event_kinds(engine, run.id) == ["requested"]
    assert (await node_data(engine))["status"] == "pending"
    assert hints.heard == [(WORKFLOW, run.id)]


async def test_the_node_row_keeps_what_people_wrote_and_takes_no_faked_server_keys(
    engine: AsyncEngine, runs: Runs
) -> None:
    run = await pending(runs, node=node_row(status="completed", imageUrl="fake", picture="data:image/png;base64,AAAA"))
    data = await node_data(engine)
    assert (data["prompt"], data["status"], data["imageUrl"], data["picture"]) == ("a red fox", "pending", None, None)
    assert data["runId"] == run.id


async def test_two_equal_requests_at_once_make_one_run(engine: AsyncEngine, hints: Hints) -> None:
    two = [Runs(engine, hint=hints), Runs(engine, hint=hints)]
    answers = await asyncio.gather(*(two[index % 2].request_run(request(after=None)) for index in range(10)))
    assert len({answer.run.id for answer in answers}) == 1
    assert sum(answer.created for answer in answers) == 1
    assert len(await rows(engine, run_events)) == 1
    assert len(hints.heard) == 1


async def test_requests_without_after_at_once_make_one_run_and_tell_the_others_it_is_active(
    engine: AsyncEngine, runs: Runs
) -> None:
    answers = await asyncio.gather(*(runs.request_run(request()) for _ in range(6)), return_exceptions=True)
    assert sum(isinstance(answer, Requested) for answer in answers) == 1
    assert sum(isinstance(answer, RunActive) for answer in answers) == 5
    assert len(await rows(engine, runs_table)) == 1


async def test_an_after_that_was_used_gives_the_run_made_then_also_when_it_has_ended(runs: Runs) -> None:
    first = await complete(runs, await running(runs))
    second = (await runs.request_run(request(after=first.id))).run
    assert (second.after, second.ordinal) == (first.id, 2)
    assert await runs.request_run(request(after=first.id)) == Requested(second, created=False)
    assert (await runs.request_run(request(after=None))).run.id == first.id


async def test_an_after_that_is_no_run_of_the_node_is_stale_and_carries_the_current_run(runs: Runs) -> None:
    run = await pending(runs)
    with pytest.raises(StaleRequest) as caught:
        await runs.request_run(request(after="nothing"))
    assert caught.value.current == run
    with pytest.raises(StaleRequest) as caught:
        await runs.request_run(request(node_id="other", after="nothing"))
    assert caught.value.current is None


async def test_a_run_still_active_is_not_followed_by_another(runs: Runs) -> None:
    run = await pending(runs)
    with pytest.raises(RunActive) as caught:
        await runs.request_run(request(after=run.id))
    assert caught.value.current == run


async def test_a_refused_request_leaves_nothing(engine: AsyncEngine, runs: Runs, hints: Hints) -> None:
    with pytest.raises(StaleRequest):
        await runs.request_run(request(after="nothing"))
    assert await rows(engine, runs_table) == await rows(engine, run_events) == await rows(engine, workflow_nodes) == []
    assert hints.heard == []


async def test_the_same_idempotency_key_and_body_give_the_same_run_also_after_it_ended(
    engine: AsyncEngine, runs: Runs
) -> None:
    first = await runs.request_run(request(key="k"))
    await runs.cancel(first.run.id, {})
    again = await runs.request_run(request(key="k"))
    assert (again.run.id, again.created) == (first.run.id, False)
    assert len(await rows(engine, runs_table)) == 1


@pytest.mark.parametrize("other", [{"prompt": "a cat"}, {"model": "fake-2"}, {"node_id": "node-2"}, {"after": None}])
async def test_the_same_idempotency_key_with_another_body_is_refused(runs: Runs, other: dict[str, Any]) -> None:
    await runs.request_run(request(key="k"))
    with pytest.raises(IdempotencyConflict):
        await runs.request_run(request(key="k", **other))


async def test_one_idempotency_key_on_two_nodes_at_once_makes_one_run(engine: AsyncEngine, runs: Runs) -> None:
    await pending(runs, node_id="first")
    wanted = [request(key="k", node_id=f"node-{index}") for index in range(4)]
    answers = await asyncio.gather(*map(runs.request_run, wanted), return_exceptions=True)
    assert sum(isinstance(answer, Requested) for answer in answers) == 1
    assert sum(isinstance(answer, IdempotencyConflict) for answer in answers) == 3
    assert len(await rows(engine, runs_table)) == 2


@pytest.mark.parametrize("committed", [True, False])
async def test_a_request_waits_for_another_with_its_key_that_is_not_committed_yet(
    postgres_url: str,
    committed: bool,  # noqa: FBT001
) -> None:
    async with database(postgres_url) as engine:
        runs = Runs(engine, hint=Hints())
        await pending(runs, node_id="first")
        async with engine.connect() as connection:
            transaction = await connection.begin()
            await connection.run_sync(runs._request, request(key="k", node_id="a"))
            waiting = asyncio.ensure_future(runs.request_run(request(key="k", node_id="b")))
            async with engine.connect() as watching, asyncio.timeout(10):
                while not (await watching.execute(sa.text("SELECT 1 FROM pg_locks WHERE NOT granted"))).all():
                    await watching.rollback()
            await (transaction.commit() if committed else transaction.rollback())
        if committed:
            with pytest.raises(IdempotencyConflict):
                await waiting
        else:
            assert (await waiting).created


async def test_one_idempotency_key_many_times_at_once_gives_one_run_to_all(engine: AsyncEngine, runs: Runs) -> None:
    answers = await asyncio.gather(*(runs.request_run(request(key="k")) for _ in range(8)))
    assert len({answer.run.id for answer in answers}) == 1
    assert len(await rows(engine, runs_table)) == 1


async def test_requests_on_many_nodes_at_once_all_make_their_run(runs: Runs) -> None:
    await asyncio.gather(*(runs.request_run(request(node_id=f"n{index}")) for index in range(20)))
    assert len(await runs.current(WORKFLOW)) == 20


async def test_data_urls_in_metadata_are_not_kept(engine: AsyncEngine, runs: Runs) -> None:
    await pending(runs, metadata={"thumb": "data:image/png;base64,AAAA", "tag": "x"})
    (row,) = await rows(engine, runs_table)
    assert row.request["metadata"] == {"thumb": None, "tag": "x"}


async def test_begin_attempt_starts_a_pending_run_and_shows_it_running(engine: AsyncEngine, runs: Runs) -> None:
    run = await running(runs)
    assert (run.status, run.stage, run.attempt, run.worker) == (Status.RUNNING, Stage.SUBMITTING, 1, "w1")
    assert await event_kinds(engine, run.id) == ["requested", "started"]
    data = await node_data(engine)
    assert (data["status"], data["runSeq"]) == ("running", 1)


async def test_begin_attempt_of_an_ended_or_missing_run_gives_none(runs: Runs) -> None:
    run = await pending(runs)
    await runs.cancel(run.id, {})
    assert await runs.begin_attempt(run.id, "w1") is None
    assert await runs.begin_attempt("missing", "w1") is None


async def test_a_takeover_raises_the_attempt_and_fences_the_late_writer(engine: AsyncEngine, runs: Runs) -> None:
    late = await running(runs)
    taken = await runs.begin_attempt(late.id, "w2")
    assert taken is not None
    assert taken.attempt == 2
    with pytest.raises(StaleAttempt) as caught:
        await complete(runs, late)
    assert caught.value.run == taken
    await complete(runs, taken)
    assert await image_count(engine, late.id) == 1
    assert await event_kinds(engine, late.id) == ["requested", "started", "started", "completed"]


async def test_a_run_in_the_hands_of_a_living_worker_is_not_taken(engine: AsyncEngine, runs: Runs) -> None:
    now = dt.datetime.now(dt.UTC)
    living = WorkerIdentity("w1", host="elsewhere")
    await add_worker(engine, living, seen_at=now)
    run = await running(runs, worker="w1")
    with pytest.raises(RunBusy) as caught:
        await runs.begin_attempt(run.id, "w2")
    assert now < caught.value.retry_at <= now + dt.timedelta(seconds=10)


async def test_a_run_of_a_worker_whose_lease_ran_out_is_taken(engine: AsyncEngine, runs: Runs) -> None:
    silent = WorkerIdentity("w1", host="elsewhere")
    await add_worker(engine, silent, seen_at=dt.datetime.now(dt.UTC) - dt.timedelta(seconds=60))
    run = await running(runs)
    taken = await runs.begin_attempt(run.id, "w2")
    assert taken is not None
    assert taken.attempt == 2


async def test_a_run_of_a_dead_process_of_this_machine_is_taken_at_once(engine: AsyncEngine, hints: Hints) -> None:
    me = WorkerIdentity()
    runs = Runs(engine, hint=hints, me=me)
    for pid in (me.pid, 2**22 + 1):
        dead = WorkerIdentity(host=me.host, pid=pid, process="before the crash")
        await add_worker(engine, dead, seen_at=dt.datetime.now(dt.UTC))
        run = await running(runs, worker=dead.id, node_id=str(pid))
        assert await runs.begin_attempt(run.id, me.id) is not None


async def test_a_run_of_another_living_process_of_this_machine_is_left_to_it(engine: AsyncEngine, hints: Hints) -> None:
    me = WorkerIdentity()
    runs = Runs(engine, hint=hints, me=me)
    parent = WorkerIdentity(host=me.host, pid=os.getppid(), process="another")
    await add_worker(engine, parent, seen_at=dt.datetime.now(dt.UTC))
    run = await running(runs, worker=parent.id)
    with pytest.raises(RunBusy):
        await runs.begin_attempt(run.id, me.id)


async def test_a_run_that_takes_its_worker_with_it_every_time_fails_with_a_reason(
    engine: AsyncEngine, runs: Runs
) -> None:
    run = await pending(runs)
    for index in range(MAX_CRASHES):
        assert await runs.begin_attempt(run.id, f"w{index}") is not None
    assert await runs.begin_attempt(run.id, "last") is None
    failed = await runs.get(run.id)
    assert failed.status is Status.FAILED
    assert failed.error is not None
    assert (failed.error.code, failed.error.retryable) == ("worker_lost", True)
    assert (await node_data(engine))["error"]["code"] == "worker_lost"


async def test_a_run_that_was_interrupted_in_an_orderly_way_does_not_count_as_crashed(runs: Runs) -> None:
    run = await pending(runs)
    for _ in range(MAX_CRASHES + 2):
        begun = await runs.begin_attempt(run.id, "w")
        assert begun is not None
        await runs.record(run.id, begun.attempt, Interrupted())
    assert (await runs.get(run.id)).status is Status.RUNNING


async def test_a_parked_run_goes_on_with_the_same_attempt_and_no_event(engine: AsyncEngine, runs: Runs) -> None:
    run = await running(runs)
    await runs.record(run.id, 1, Accepted("remote-7", webhook_promised=False, resume_at=START))
    for polls in range(3):
        begun = await runs.begin_attempt(run.id, f"w{polls}")
        assert begun is not None
        assert (begun.attempt, begun.remote_id, begun.stage, begun.polls) == (1, "remote-7", Stage.WAITING, polls)
        await runs.park(run.id, 1, START)
    assert await event_kinds(engine, run.id) == ["requested", "started", "accepted"]


async def test_a_poll_whose_worker_died_is_taken_over_with_a_new_attempt(runs: Runs) -> None:
    run = await running(runs)
    await runs.record(run.id, 1, Accepted("remote-7", webhook_promised=False, resume_at=START))
    await runs.begin_attempt(run.id, "w1")
    taken = await runs.begin_attempt(run.id, "w2")
    assert taken is not None
    assert (taken.attempt, taken.remote_id, taken.stage) == (2, "remote-7", Stage.WAITING)
    with pytest.raises(StaleAttempt):
        await runs.park(run.id, 1, START)


async def test_a_closed_attempt_records_nothing_more(runs: Runs) -> None:
    run = await running(runs)
    await runs.record(run.id, 1, RetryScheduled(run_error(), START))
    with pytest.raises(StaleAttempt):
        await runs.record(run.id, 1, RetryScheduled(run_error(), START))
    assert (await runs.get(run.id)).failures == 1


async def test_completion_commits_run_event_picture_cost_and_node_together(engine: AsyncEngine, runs: Runs) -> None:
    run = await running(runs)
    done = await complete(runs, run, cost=Cost(40_000, "usage"), adapted=("The size was rounded.",))
    (picture,) = await rows(engine, generated_images)
    assert (picture.run_id, picture.width, picture.node_id) == (run.id, 8, NODE)
    assert (done.image_url, done.cost_usd_micros, done.worker) == (picture.url, 40_000, None)
    assert done.payload["adapted"] == ["The size was rounded."]
    data = await node_data(engine)
    assert (data["status"], data["imageUrl"], data["costUsd"], data["runSeq"]) == ("completed", picture.url, 0.04, 3)


async def test_the_costs_of_every_answer_add_up(runs: Runs) -> None:
    run = await running(runs)
    await runs.record(run.id, 1, Answered(Cost(10, "price")))
    again = await runs.begin_attempt(run.id, "w2")
    assert again is not None
    assert (await complete(runs, again, cost=Cost(10, "price"))).cost_usd_micros == 20


async def test_the_old_picture_stays_until_the_new_one_is_there_also_after_failures(
    engine: AsyncEngine, runs: Runs
) -> None:
    first = await complete(runs, await running(runs))
    for _ in range(2):
        run = await running(runs)
        assert (await node_data(engine))["imageUrl"] == first.image_url
        failed = await runs.record(run.id, run.attempt, Failed(run_error("No.")))
        assert failed.image_url is None
    assert (await node_data(engine))["imageUrl"] == first.image_url
    assert (await node_data(engine))["error"]["message"] == "No."
    last = await complete(runs, await running(runs))
    data = await node_data(engine)
    assert (data["imageUrl"], data["error"]) == (last.image_url, None)


async def test_terminal_states_never_change(engine: AsyncEngine, runs: Runs) -> None:
    done = await complete(runs, await running(runs))
    assert await runs.cancel(done.id, {}) == done
    for event in (StageEntered(Stage.UPLOADING), Failed(run_error()), Completed(())):
        with pytest.raises(RunFinished):
            await runs.record(done.id, done.attempt, event)
    assert await runs.get(done.id) == done
    assert await event_kinds(engine, done.id) == ["requested", "started", "completed"]


async def test_an_event_that_cannot_happen_now_leaves_nothing(engine: AsyncEngine, runs: Runs) -> None:
    run = await running(runs)
    with pytest.raises(IllegalTransition):
        await runs.record(run.id, 1, state.Requested())
    assert await event_kinds(engine, run.id) == ["requested", "started"]


async def test_of_completion_and_cancel_at_once_exactly_one_wins(engine: AsyncEngine, runs: Runs) -> None:
    for index in range(15):
        run = await running(runs, node_id=f"n{index}")
        works = [complete(runs, run), runs.cancel(run.id, {"name": "Ann"})]
        random.Random(index).shuffle(works)  # noqa: S311 - a test's order, repeatable
        await asyncio.gather(*works, return_exceptions=True)
        ended = await runs.get(run.id)
        kinds = await event_kinds(engine, run.id)
        assert kinds == ["requested", "started", ended.status.value]
        assert await image_count(engine, run.id) == (1 if ended.status is Status.COMPLETED else 0)
        assert (await node_data(engine, run.node_id))["status"] == ended.status


async def test_cancel_tells_who_and_fences_the_worker(engine: AsyncEngine, runs: Runs) -> None:
    run = await running(runs)
    cancelled = await runs.cancel(run.id, {"name": "Ann"})
    assert cancelled.status is Status.CANCELLED
    assert (await runs.events(run.id))[-1].payload == {"by": {"name": "Ann"}}
    with pytest.raises(RunFinished):
        await complete(runs, run)
    assert (await node_data(engine))["status"] == "cancelled"


async def test_what_is_not_there_is_told(runs: Runs) -> None:
    for work in (runs.get("x"), runs.cancel("x", {}), runs.record("x", 1, Interrupted()), runs.park("x", 1, START)):
        with pytest.raises(RunNotFound):
            await work


async def test_every_write_hints_once(runs: Runs, hints: Hints) -> None:
    run = await running(runs)
    await runs.record(run.id, 1, StageEntered(Stage.UPLOADING))
    await complete(runs, run)
    assert hints.heard == [(WORKFLOW, run.id)] * 4


async def test_concurrent_events_of_one_run_get_numbers_without_gap_or_repeat(engine: AsyncEngine, runs: Runs) -> None:
    run = await running(runs)
    event = StageEntered(Stage.GENERATING)
    await asyncio.gather(*(runs.record(run.id, 1, event) for _ in range(20)))
    assert len(await event_kinds(engine, run.id)) == 22
    assert [event.seq for event in await runs.events(run.id, after_seq=20)] == [21, 22]


async def test_current_is_the_newest_run_of_each_node_and_history_is_newest_first(runs: Runs) -> None:
    first = await complete(runs, await running(runs))
    second = await pending(runs)
    other = await pending(runs, node_id="other")
    await pending(runs, workflow_id="elsewhere")
    assert {node: run.id for node, run in (await runs.current(WORKFLOW)).items()} == {
        NODE: second.id,
        "other": other.id,
    }
    assert list(await runs.current(WORKFLOW, [NODE])) == [NODE]
    assert await runs.current(WORKFLOW, []) == {}
    assert [run.id for run in await runs.history(WORKFLOW, NODE)] == [second.id, first.id]


async def test_a_batch_is_found_in_the_order_it_was_made(runs: Runs) -> None:
    made = [await pending(runs, node_id=f"n{index}", batch_id="b") for index in range(3)]
    await pending(runs, node_id="other", batch_id="c")
    assert await runs.batch("b") == made
    assert {run.id for run in await runs.find([made[0].id, made[2].id, "missing"])} == {made[0].id, made[2].id}


async def test_unfinished_finds_every_run_page_by_page(runs: Runs) -> None:
    made = {(await pending(runs, node_id=f"n{index}")).id for index in range(5)}
    await complete(runs, await running(runs, node_id="done"))
    first = await runs.unfinished(3)
    rest = await runs.unfinished(3, after_id=first[-1].id)
    assert {run.id for run in first + rest} == made
    assert len(rest) == 2


async def test_unfinished_leaves_out_what_was_just_touched_or_is_parked_for_later(engine: AsyncEngine) -> None:
    clock = Clock()
    runs = Runs(engine, hint=Hints(), clock=clock)
    old = await pending(runs, node_id="old")
    parked = await running(runs, node_id="parked")
    later = START + dt.timedelta(seconds=60)
    await runs.record(parked.id, 1, RetryScheduled(run_error(), later))
    clock.advance(30)
    await pending(runs, node_id="new")
    idle_since = START + dt.timedelta(seconds=10)
    assert [run.id for run in await runs.unfinished(9, idle_since=idle_since)] == [old.id]
    clock.now = later
    assert {run.id for run in await runs.unfinished(9, idle_since=idle_since)} == {old.id, parked.id}


async def test_overtaken_finds_attempts_that_no_longer_hold_their_run(runs: Runs) -> None:
    held, cancelled, taken = [await running(runs, node_id=name) for name in "abc"]
    await runs.cancel(cancelled.id, {})
    await runs.begin_attempt(taken.id, "w2")
    attempts = {held.id: 1, cancelled.id: 1, taken.id: 1, "missing": 1}
    assert await runs.overtaken(attempts) == {cancelled.id, taken.id, "missing"}


async def test_a_large_seed_and_strange_text_survive_the_database(runs: Runs) -> None:
    spec = PromptSpec("füchse 🦊 \u2028 'quoted'", seed=2**53 - 1, size=(512, 512), style_modifiers=("a", "b"))
    run = await pending(runs, spec=spec)
    assert (await runs.get(run.id)).spec == spec


async def test_every_refusal_is_an_error_of_this_package(runs: Runs) -> None:
    run = await pending(runs)
    for wrong in (request(after=run.id), request(after="x"), request(after=UNSET)):
        with pytest.raises(JobsError):
            await runs.request_run(wrong)


async def test_a_hint_is_given_only_after_the_commit(engine: AsyncEngine) -> None:
    seen: list[int] = []
    checks: list[asyncio.Task[None]] = []

    async def count(run_id: str) -> None:
        async with engine.connect() as connection:
            query = sa.select(sa.func.count()).where(run_events.c.run_id == run_id)
            seen.append((await connection.execute(query)).scalar_one())

    def hint(_workflow_id: str, run_id: str) -> None:
        checks.append(asyncio.ensure_future(count(run_id)))

    await running(Runs(engine, hint=hint))
    await asyncio.gather(*checks)
    assert min(seen) >= 1
    assert max(seen) == 2
