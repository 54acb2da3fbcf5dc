import asyncio
import datetime as dt
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine

from crdt.json import Json
from jobs.actor import Later
from jobs.deliveries import KEEP, Delivery, Fate, row_payload
from jobs.policy import RetryPolicy
from jobs.run import Run
from jobs.runs import MAX_HEARD_SEQ, Runs
from jobs.settlement import SILENT, Callbacks
from jobs.state import Accepted, Answered, Cancelled, StageEntered, Status
from jobs.tables import generated_images, run_costs, run_events, runs, webhook_deliveries
from providers import base
from providers.base import Cost
from providers.errors import ErrorClass, ProviderError
from providers.webhooks import Token
from tests.jobs.builders import (
    START,
    Clock,
    Hints,
    Studio,
    event_kinds,
    pending,
    png,
    rows,
    running,
    studio,
    workplace,
)
from tests.server.calling import CallingMaker, job_of

if TYPE_CHECKING:
    from collections.abc import Awaitable

ADDRESS = Callbacks(lambda run: f"https://darkroom.example/webhooks/caller?run={run.id}", grace_s=120)
SOON = dt.timedelta(seconds=120)


def call(about: str, kind: str = "job.completed", number: int = 1, **options: Any) -> Delivery:
    """A genuine call about a run, as the door hands it on."""
    payload: dict[str, Json] = {"type": kind, "data": {"id": job_of(about), **options.pop("data", {})}}
    given = {"provider": "caller", "remote_id": job_of(about), "run_id": None, **options}
    return Delivery(id=f"msg_{number}", state=kind, payload=payload, **given)


def took(run: Run, now: dt.datetime) -> Accepted:
    """The maker took the run, and promised to call."""
    return Accepted(job_of(run.id), webhook_promised=True, resume_at=now + SOON)


async def waiting(made: Runs) -> Run:
    """A run that the maker has taken."""
    run = await running(made, provider="caller", model="caller-1")
    return await made.record(run.id, run.attempt, took(run, made._clock()))


def quiet(engine: AsyncEngine, **options: Any) -> Runs:
    return Runs(engine, hint=options.pop("hint", Hints()), **options)


async def test_a_call_about_a_waiting_run_makes_it_due_at_once(engine: AsyncEngine) -> None:
    clock = Clock()
    made = quiet(engine, clock=clock)
    run = await waiting(made)
    clock.advance(1)
    receipt = await made.hear(call(run.id))
    assert receipt.fate is Fate.WOKEN
    now = await made.get(run.id)
    assert (now.resume_at, now.seq, now.attempt) == (clock.now, run.seq + 1, run.attempt)
    assert await event_kinds(engine, run.id) == ["requested", "started", "accepted", "heard"]
    clock.advance(6)
    due = await made.unfinished(10, idle_since=clock.now - dt.timedelta(seconds=5))
    assert [each.id for each in due] == [run.id]


async def test_the_same_call_again_changes_nothing(engine: AsyncEngine) -> None:
    made = quiet(engine)
    run = await waiting(made)
    first, *others = await asyncio.gather(*(made.hear(call(run.id)) for _ in range(8)))
    fates = sorted(each.fate.value for each in (first, *others))
    assert fates == ["duplicate"] * 7 + ["woken"]
    assert (await made.get(run.id)).seq == run.seq + 1
    assert len(await rows(engine, webhook_deliveries)) == 1


async def test_a_call_that_came_before_its_id_was_known_is_given_to_its_run(engine: AsyncEngine) -> None:
    clock = Clock()
    made = quiet(engine, clock=clock)
    run = await running(made, provider="caller", model="caller-1")
    for number in (1, 2):
        assert (await made.hear(call(run.id, number=number))).fate is Fate.PARKED
    other = call(run.id, number=3, provider="another")
    assert (await made.hear(other)).fate is Fate.PARKED
    accepted = await made.record(run.id, run.attempt, took(run, clock.now))
    assert accepted.resume_at == clock.now
    assert await event_kinds(engine, run.id) == ["requested", "started", "accepted", "heard", "heard"]
    owners = {row.id: row.run_id for row in await rows(engine, webhook_deliveries) if row.provider == "caller"}
    assert owners == {"msg_1": run.id, "msg_2": run.id}


async def test_a_call_and_the_record_of_its_id_never_miss_each_other(engine: AsyncEngine) -> None:
    made = quiet(engine)
    for number in range(40):
        run = await running(made, provider="caller", model="caller-1", node_id=f"n{number}")
        accepted = took(run, made._clock())
        work: list[Awaitable[object]] = [
            made.hear(call(run.id, number=number)),
            made.record(run.id, run.attempt, accepted),
        ]
        await asyncio.gather(*(work if number % 2 else reversed(work)))
        now = await made.get(run.id)
        assert now.resume_at is not None
        assert now.resume_at <= made._clock(), "the call was not noticed"
        assert [each.id for each in await made.calls_about(now)] == [f"msg_{number}"]


async def test_a_call_that_its_address_names_the_run_of_is_recorded_before_the_id_is_known(
    engine: AsyncEngine,
) -> None:
    made = quiet(engine)
    run = await running(made, provider="caller", model="caller-1")
    assert (await made.hear(call(run.id, run_id=run.id))).fate is Fate.HEARD
    accepted = await made.record(run.id, run.attempt, took(run, made._clock()))
    assert accepted.resume_at is not None
    assert accepted.resume_at <= made._clock()
    assert await event_kinds(engine, run.id) == ["requested", "started", "heard", "accepted"]


@pytest.mark.parametrize("how", ["cancelled", "other maker", "other job", "not begun", "too many"])
async def test_a_call_that_means_nothing_any_more_is_kept_and_harmless(engine: AsyncEngine, how: str) -> None:
    made = quiet(engine)
    run = await (pending(made, provider="caller", model="caller-1") if how == "not begun" else waiting(made))
    late = call(run.id, run_id=run.id)
    if how == "cancelled":
        run = await made.cancel(run.id, {})
    elif how == "other maker":
        late = call(run.id, run_id=run.id, provider="another")
    elif how == "other job":
        late = call(run.id, run_id=run.id, remote_id="job-of-before")
    elif how == "too many":
        async with engine.begin() as connection:
            await connection.execute(sa.update(runs).values(seq=MAX_HEARD_SEQ))
        run = await made.get(run.id)
    fate = (await made.hear(late)).fate
    assert fate is (Fate.PARKED if how == "not begun" else Fate.LATE)
    assert await made.get(run.id) == run
    (row,) = await rows(engine, webhook_deliveries)
    assert (row.settled_at is None) is (how == "not begun")


async def test_a_call_while_the_maker_is_being_asked_is_not_lost(engine: AsyncEngine) -> None:
    made = quiet(engine)
    run = await waiting(made)
    begun = await made.begin_attempt(run.id, "w1")
    assert begun is not None
    assert (await made.hear(call(run.id))).fate is Fate.HEARD
    parked = await made.park(run.id, run.attempt, made._clock() + SOON, heard=())
    assert parked.resume_at is not None
    assert parked.resume_at <= made._clock()
    begun = await made.begin_attempt(run.id, "w1")
    assert begun is not None
    parked = await made.park(run.id, run.attempt, made._clock() + SOON, heard=("msg_1",))
    assert parked.resume_at is not None
    assert parked.resume_at > made._clock()


async def test_a_write_whose_end_is_not_known_is_found_although_a_maker_called_in_between(engine: AsyncEngine) -> None:
    made = quiet(engine)
    run = await waiting(made)
    begun = await made.begin_attempt(run.id, "w1")
    assert begun is not None
    billed = Answered(Cost(40_000, "price"))
    await made.hear(call(run.id, number=1))
    await made.record(run.id, run.attempt, billed)
    await made.hear(call(run.id, number=2))
    again = await made.record(run.id, run.attempt, billed, after_seq=begun.seq)
    assert again.cost_usd_micros == 40_000
    assert (await event_kinds(engine, run.id))[-3:] == ["heard", "answered", "heard"]
    stage = await made.record(run.id, run.attempt, StageEntered(again.stage), after_seq=begun.seq)
    assert stage.seq == again.seq + 1


async def test_calls_are_forgotten_after_days_and_not_before(engine: AsyncEngine) -> None:
    clock = Clock()
    made = quiet(engine, clock=clock)
    assert dt.timedelta(hours=96) <= KEEP
    for number in range(3):
        await made.hear(call("r", number=number))
        clock.advance(3600)
    clock.now = START + KEEP + dt.timedelta(minutes=90)
    assert await made.prune_deliveries() == 2
    assert (await made.hear(call("r", number=2))).fate is Fate.DUPLICATE
    assert (await made.hear(call("r", number=0))).fate is Fate.PARKED


@pytest.mark.parametrize(
    "value",
    [
        "data:image/png;base64,iVBORw0KGgo=",
        "iVBORw0KGgo" + "A" * 2000,
        {"deep": ["data:image/png;base64,iVBORw0KGgo="]},
    ],
)
def test_a_row_keeps_no_picture_and_says_that_something_is_missing(value: Json) -> None:
    kept = row_payload(call("r", data={"image": value, "prompt": "a fox " * 400}))
    assert kept["cut"] is True
    assert "iVBOR" not in str(kept)
    assert "a fox" in str(kept)
    assert "cut" not in row_payload(call("r", data={"url": "https://cdn.example/a.png"}))


async def fetched(_url: str, into: Path) -> None:
    await asyncio.to_thread(into.write_bytes, png())


async def taken(made: Studio) -> Run:
    """A run that the maker has taken, as the actor does it."""
    run = await pending(made.runs, provider="caller", model="caller-1")
    assert isinstance(await made.actor.advance(run.id), Later)
    return await made.runs.get(run.id)


def at_home(engine: AsyncEngine, tmp_path: Path, maker: CallingMaker, **options: Any) -> Any:
    options = {"callbacks": ADDRESS, "fetch": fetched, **options}
    return studio(engine, tmp_path, maker, **options)  # type: ignore[arg-type]


async def test_a_maker_that_promises_to_call_is_given_an_address_and_left_alone(
    sqlite_engine: AsyncEngine, tmp_path: Path
) -> None:
    maker = CallingMaker()
    async with at_home(sqlite_engine, tmp_path, maker) as made:
        run = await taken(made)
        assert maker.requests[0].webhook_url == f"https://darkroom.example/webhooks/caller?run={run.id}"
        assert run.webhook_promised
        assert run.resume_at is not None
        assert run.resume_at - run.updated_at >= SOON - dt.timedelta(seconds=1)
    assert maker.polled == []


async def test_without_an_address_there_is_polling(sqlite_engine: AsyncEngine, tmp_path: Path) -> None:
    maker = CallingMaker()
    async with at_home(sqlite_engine, tmp_path, maker, callbacks=None) as made:
        run = await taken(made)
        assert (maker.requests[0].webhook_url, run.webhook_promised) == (None, False)
        maker.done[run.remote_id or ""] = png()
        assert (await made.go(run)).status is Status.COMPLETED
        assert "incident" not in await event_kinds(sqlite_engine, run.id)


async def test_a_call_that_says_it_all_needs_no_poll(sqlite_engine: AsyncEngine, tmp_path: Path) -> None:
    maker = CallingMaker()
    async with at_home(sqlite_engine, tmp_path, maker) as made:
        run = await taken(made)
        await made.runs.hear(call(run.id, data={"url": "https://cdn.example/a.png"}))
        assert (await made.go(run)).status is Status.COMPLETED
    assert maker.polled == []
    assert [row.usd_micros for row in await rows(sqlite_engine, run_costs) if row.usd_micros] == [40_000]
    assert all(row.settled_at for row in await rows(sqlite_engine, webhook_deliveries))


async def test_what_a_call_without_signature_says_is_asked_about(sqlite_engine: AsyncEngine, tmp_path: Path) -> None:
    maker = CallingMaker(webhook=Token())
    async with at_home(sqlite_engine, tmp_path, maker) as made:
        run = await taken(made)
        await made.runs.hear(call(run.id, data={"url": "https://evil.example/a.png"}))
        assert isinstance(await made.actor.advance(run.id), Later)
        await made.runs.hear(call(run.id, "job.failed", 2))
        maker.done[job_of(run.id)] = png(8, 8)
        assert (await made.go(run)).status is Status.COMPLETED
    assert maker.polled == [job_of(run.id)] * 2


@pytest.mark.parametrize(
    ("kinds", "status"),
    [
        (["job.completed", "job.processing"], Status.COMPLETED),
        (["job.processing", "job.completed"], Status.COMPLETED),
        (["job.completed", "job.failed"], Status.COMPLETED),
        (["job.failed", "job.completed"], Status.FAILED),
        (["job.failed"], Status.FAILED),
    ],
)
async def test_the_first_end_that_is_told_counts(
    sqlite_engine: AsyncEngine, tmp_path: Path, kinds: list[str], status: Status
) -> None:
    maker = CallingMaker()
    async with at_home(sqlite_engine, tmp_path, maker) as made:
        run = await taken(made)
        for number, kind in enumerate(kinds):
            await made.runs.hear(call(run.id, kind, number, data={"url": "https://cdn.example/a.png"}))
        ended = await made.go(run)
    assert ended.status is status
    assert ended.error is None or (ended.error.code, ended.error.message) == ("policy", "Caller refused.")
    assert maker.polled == []


async def test_progress_is_told_without_polling(sqlite_engine: AsyncEngine, tmp_path: Path) -> None:
    maker = CallingMaker()
    async with at_home(sqlite_engine, tmp_path, maker) as made:
        run = await taken(made)
        await made.runs.hear(call(run.id, "job.processing", data={"progress": 0.4}))
        assert isinstance(await made.actor.advance(run.id), Later)
        parked = await made.runs.get(run.id)
        assert made.reports.heard[-1]["progress"] == 0.4
        assert (parked.polls, maker.polled) == (0, [])
        assert parked.resume_at is not None
        assert parked.resume_at - parked.updated_at >= SOON - dt.timedelta(seconds=1)


@pytest.mark.parametrize("payload", [{}, {"type": 5, "data": []}, {"type": "job.completed", "data": {"id": None}}])
async def test_a_call_of_any_shape_leads_to_the_maker_being_asked(
    sqlite_engine: AsyncEngine, tmp_path: Path, payload: dict[str, Json]
) -> None:
    maker = CallingMaker()
    async with at_home(sqlite_engine, tmp_path, maker) as made:
        run = await taken(made)
        maker.done[job_of(run.id)] = png()
        await made.runs.hear(Delivery("caller", "msg_1", None, run.id, "unknown", payload))
        assert (await made.go(run)).status is Status.COMPLETED


async def test_a_promise_that_is_not_kept_is_an_incident_once(
    sqlite_engine: AsyncEngine, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    maker = CallingMaker()
    caplog.set_level(logging.WARNING)
    async with at_home(sqlite_engine, tmp_path, maker) as made:
        run = await taken(made)
        assert isinstance(await made.actor.advance(run.id), Later)
        assert isinstance(await made.actor.advance(run.id), Later)
        maker.done[job_of(run.id)] = png()
        assert (await made.go(run)).status is Status.COMPLETED
    incidents = [row for row in await rows(sqlite_engine, run_events) if row.kind == "incident"]
    assert [row.payload["code"] for row in incidents] == [SILENT]
    assert "Caller promised to call" in incidents[0].payload["message"]
    assert [record.action for record in caplog.records if hasattr(record, "action")].count("webhook_silent") == 1


async def test_a_job_that_broke_down_is_asked_for_anew_a_bounded_number_of_times(
    sqlite_engine: AsyncEngine, tmp_path: Path
) -> None:
    maker = CallingMaker()
    numbers = iter(range(100))

    async def breaking(request: base.ImageRequest) -> None:
        await made.runs.hear(call(request.run_id, "job.broke", next(numbers), run_id=request.run_id))

    async with at_home(sqlite_engine, tmp_path, maker, policy=RetryPolicy(max_attempts=3)) as made:
        maker.submitting = breaking
        run = await pending(made.runs, provider="caller", model="caller-1")
        ended = await made.go(run)
    assert (ended.status, len(maker.requests)) == (Status.FAILED, 3)
    assert ended.error is not None
    assert (ended.error.message, ended.error.retryable) == ("Caller broke down.", True)


async def test_a_job_whose_record_was_lost_is_taken_up_again_and_not_paid_twice(
    sqlite_engine: AsyncEngine, tmp_path: Path
) -> None:
    maker = CallingMaker()
    async with at_home(sqlite_engine, tmp_path, maker) as made:
        run = await pending(made.runs, provider="caller", model="caller-1")
        # A worker asked, and died before it could record the id it was given.
        assert await made.runs.begin_attempt(run.id, "dead") is not None
        await made.runs.hear(call(run.id, run_id=run.id, data={"url": "https://cdn.example/a.png"}))
        assert (await made.go(run)).status is Status.COMPLETED
    assert maker.requests == []
    assert [row.usd_micros for row in await rows(sqlite_engine, run_costs) if row.usd_micros] == [40_000]


async def test_a_job_is_billed_once_however_often_its_result_is_fetched(
    sqlite_engine: AsyncEngine, tmp_path: Path
) -> None:
    failures = [ProviderError("Away.", ErrorClass.TEMPORARY)] * 3

    async def failing(url: str, into: Path) -> None:
        if failures:
            raise failures.pop()
        await fetched(url, into)

    maker = CallingMaker()
    async with at_home(sqlite_engine, tmp_path, maker, fetch=failing) as made:
        run = await taken(made)
        await made.runs.hear(call(run.id, data={"url": "https://cdn.example/a.png"}))
        assert isinstance(await made.actor.advance(run.id), Later)
        made.actor._answers.clear()  # As another worker, which was told nothing.
        assert (await made.go(run)).status is Status.COMPLETED
    assert [row.usd_micros for row in await rows(sqlite_engine, run_costs) if row.usd_micros] == [40_000]


async def test_a_call_and_a_poll_in_the_same_millisecond_complete_a_run_once(
    sqlite_engine: AsyncEngine, tmp_path: Path
) -> None:
    await settle_many(sqlite_engine, tmp_path, 60)


async def settle_many(engine: AsyncEngine, tmp_path: Path, count: int) -> None:
    """Each run is polled while the same call comes twice, as often as told; each is completed once."""
    maker = CallingMaker()
    url = f"memory://{tmp_path.name}"

    async def polled(remote_id: str) -> None:
        run_id = remote_id.removeprefix("job-")
        maker.done[remote_id] = png()
        twice = call(run_id, number=hash(run_id), data={"url": "https://cdn.example/a.png"})
        calls.extend(asyncio.ensure_future(made.runs.hear(twice)) for _ in range(2))
        calls.append(asyncio.ensure_future(worker.wake(run_id)))

    maker.polling = polled
    calls: list[asyncio.Future[Any]] = []
    callbacks = Callbacks(ADDRESS.address, grace_s=0.01)
    place = workplace(engine, tmp_path, maker, url, callbacks=callbacks, fetch=fetched)  # type: ignore[arg-type]
    async with place as (made, worker):
        ids = []
        for number in range(count):
            run = await pending(made.runs, provider="caller", model="caller-1", node_id=f"n{number}")
            ids.append(run.id)
            await worker.enqueue(run.id)
        for run_id in ids:
            assert (await made.hints.ended(made.runs, run_id)).status is Status.COMPLETED
        await asyncio.gather(*calls)
    kinds = [row.kind for row in await rows(engine, run_events)]
    assert (kinds.count("completed"), kinds.count("answered")) == (count, count)
    assert len(await rows(engine, run_costs)) == count
    assert len(await rows(engine, generated_images)) == count
    assert len(await rows(engine, webhook_deliveries)) == count


async def test_a_cancel_and_a_call_end_a_run_once(engine: AsyncEngine) -> None:
    made = quiet(engine)
    for number in range(30):
        run = await running(made, provider="caller", model="caller-1", node_id=f"n{number}")
        run = await made.record(run.id, run.attempt, took(run, made._clock()))
        both: list[Awaitable[object]] = [made.cancel(run.id, {}), made.hear(call(run.id, number=number))]
        await asyncio.gather(*(both if number % 2 else reversed(both)))
        ended = await made.get(run.id)
        assert ended.status is Status.CANCELLED
        assert (await event_kinds(engine, run.id))[-1] == Cancelled.kind
    assert all(row.settled_at for row in await rows(engine, webhook_deliveries))
