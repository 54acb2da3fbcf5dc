import asyncio
import datetime as dt
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine

from crdt.tables import metadata
from jobs.actor import Done, Later
from jobs.errors import StorageUnavailable
from jobs.liveness import WorkerIdentity
from jobs.outage import Patience
from jobs.policy import RetryPolicy
from jobs.run import Run
from jobs.runs import Runs
from jobs.state import Event, Stage, Status
from jobs.storage import Content, DiskStore
from jobs.tables import generated_images
from providers.base import (
    Accepted,
    Cost,
    Finished,
    ImageInput,
    ImageRequest,
    ImageResult,
    Progress,
    PromptSpec,
    Waiting,
)
from providers.errors import ErrorClass, ErrorKind, ProviderError, RequestRefused
from tests.jobs.builders import (
    WORKFLOW,
    FakeProvider,
    Hints,
    Studio,
    add_worker,
    event_kinds,
    finished,
    forever,
    image_count,
    pending,
    png,
    rows,
    studio,
)


@asynccontextmanager
async def made(
    engine: AsyncEngine, tmp_path: Path, *answers: Any, polls: Any = (), **options: Any
) -> AsyncIterator[Studio]:
    async with studio(engine, tmp_path, FakeProvider(list(answers), list(polls)), **options) as opened:
        yield opened


def temporary(**options: Any) -> ProviderError:
    return ProviderError("Fake is overloaded.", ErrorClass.TEMPORARY, **options)


async def test_a_run_ends_with_its_pictures_stored_and_told(sqlite_engine: AsyncEngine, tmp_path: Path) -> None:
    async with made(sqlite_engine, tmp_path, finished(png(640, 480), png(8, 8), cost=Cost(40_000, "price"))) as at:
        run = await at.go(await pending(at.runs, spec=PromptSpec("a fox", n=2)))
        assert (run.status, run.cost_usd_micros) == (Status.COMPLETED, 40_000)
        assert run.image_url == f"http://test/images/{WORKFLOW}/{run.id}.png"
        assert at.files() == sorted(f"{run.id}{end}" for end in ("-1-thumb.webp", "-1.png", "-thumb.webp", ".png"))
        first, second = run.images
        assert (first["width"], first["height"], second["width"]) == (640, 480, 8)
        assert await event_kinds(sqlite_engine, run.id) == ["requested", "started", "answered", "completed"]
        assert at.reports.stages == ["submitting", "processing", "uploading", "processing", "uploading"]
        assert at.reports.cleared == [run.id]


async def test_the_maker_is_asked_what_the_run_says(sqlite_engine: AsyncEngine, tmp_path: Path) -> None:
    spec = PromptSpec("a fox", seed=7, size=(32, 24))
    async with made(sqlite_engine, tmp_path) as at:
        run = await at.go(await pending(at.runs, spec=spec))
        assert at.provider.requests == [ImageRequest(run.id, "fake-1", spec)]


async def test_a_passing_failure_parks_the_run_and_the_next_attempt_completes_it(
    sqlite_engine: AsyncEngine, tmp_path: Path
) -> None:
    async with made(sqlite_engine, tmp_path, temporary(retry_after_s=20), finished()) as at:
        run = await pending(at.runs)
        after = await at.actor.advance(run.id)
        waiting = await at.runs.get(run.id)
        assert isinstance(after, Later)
        assert waiting.resume_at == after.when > dt.datetime.now(dt.UTC) + dt.timedelta(seconds=19)
        assert (waiting.status, waiting.stage, waiting.worker, waiting.failures) == (
            Status.RUNNING, Stage.QUEUED, None, 1,
        )  # fmt: skip
        assert (await at.go(run)).status is Status.COMPLETED
        assert await event_kinds(sqlite_engine, run.id) == [
            "requested", "started", "retry_scheduled", "started", "completed",
        ]  # fmt: skip


async def test_after_three_failures_the_run_fails_with_the_makers_reason(
    sqlite_engine: AsyncEngine, tmp_path: Path
) -> None:
    async with made(sqlite_engine, tmp_path, temporary(billing_ambiguous=True)) as at:
        run = await at.go(await pending(at.runs))
        assert len(at.provider.requests) == 3
        assert run.error is not None
        assert (run.error.code, run.error.message, run.error.retryable) == ("temporary", "Fake is overloaded.", True)
        last = (await at.runs.events(run.id))[-1]
        assert last.payload["error"]["billingAmbiguous"] is True  # type: ignore[index,call-overload]
        assert at.files() == []


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ProviderError("Fake refused this prompt.", ErrorClass.PERMANENT, ErrorKind.POLICY), "policy"),
        (ProviderError("The key is wrong.", ErrorClass.AUTH_ERROR), "auth_error"),
        (RequestRefused("size", "Fake makes no such size."), "bad_request"),
    ],
)
async def test_what_cannot_get_better_fails_at_once(
    sqlite_engine: AsyncEngine, tmp_path: Path, error: Exception, code: str
) -> None:
    async with made(sqlite_engine, tmp_path, error) as at:
        run = await at.go(await pending(at.runs))
        assert run.error is not None
        assert (run.status, run.error.code, run.error.message) == (Status.FAILED, code, str(error))
        assert len(at.provider.requests) == 1


async def test_a_maker_that_is_no_longer_configured_fails_the_run(sqlite_engine: AsyncEngine, tmp_path: Path) -> None:
    async with made(sqlite_engine, tmp_path) as at:
        run = await at.go(await pending(at.runs, provider="gone"))
        assert run.error is not None
        assert "gone" in run.error.message


@pytest.mark.parametrize(
    "data", [b"<html>not a picture</html>", png()[:-20], b"<svg/>", b""], ids=["html", "cut off", "svg", "empty"]
)
async def test_an_answer_that_is_no_picture_fails_the_run_and_stores_nothing(
    sqlite_engine: AsyncEngine, tmp_path: Path, data: bytes
) -> None:
    answer = Finished((ImageResult("image/png", data=data),) * 2, Cost(5, "price"))
    async with made(sqlite_engine, tmp_path, answer) as at:
        run = await at.go(await pending(at.runs))
        assert run.error is not None
        assert (run.status, run.error.code, run.cost_usd_micros) == (Status.FAILED, "bad_image", 5)
        assert at.files() == []
        assert await rows(sqlite_engine, generated_images) == []


async def test_an_answer_without_a_picture_fails_the_run(sqlite_engine: AsyncEngine, tmp_path: Path) -> None:
    async with made(sqlite_engine, tmp_path, Finished((), None)) as at:
        assert (await at.go(await pending(at.runs))).status is Status.FAILED


async def test_a_maker_that_works_on_is_polled_and_then_settled(sqlite_engine: AsyncEngine, tmp_path: Path) -> None:
    polls = [Waiting(0.25), temporary(), Waiting(0.5), finished()]
    async with made(sqlite_engine, tmp_path, Accepted("remote-1"), polls=polls) as at:
        run = await at.go(await pending(at.runs))
        assert (run.status, run.attempt, at.provider.polled) == (Status.COMPLETED, 1, ["remote-1"] * 4)
        assert len(at.provider.requests) == 1
        assert await event_kinds(sqlite_engine, run.id) == [
            "requested", "started", "accepted", "retry_scheduled", "completed",
        ]  # fmt: skip


async def test_a_maker_that_never_finishes_is_given_up_and_told(sqlite_engine: AsyncEngine, tmp_path: Path) -> None:
    policy = RetryPolicy(poll_limit=5)
    async with made(sqlite_engine, tmp_path, Accepted("remote-1"), polls=[Waiting()], policy=policy) as at:
        run = await at.go(await pending(at.runs))
        assert run.error is not None
        assert (run.status, run.error.kind, len(at.provider.polled)) == (Status.FAILED, ErrorKind.TIMEOUT, 5)
        assert at.provider.cancelled == ["remote-1"]


async def test_a_maker_that_does_not_answer_in_time_is_cut_off(sqlite_engine: AsyncEngine, tmp_path: Path) -> None:
    policy = RetryPolicy(attempt_limit_s=0.05, max_attempts=1)
    async with made(sqlite_engine, tmp_path, forever(), policy=policy) as at:
        run = await at.go(await pending(at.runs))
        assert run.error is not None
        assert (run.error.kind, run.error.billing_ambiguous) == (ErrorKind.TIMEOUT, False)
        payload: Any = (await at.runs.events(run.id))[-1].payload
        assert payload["error"]["billingAmbiguous"] is True


async def test_a_bug_on_the_way_counts_as_a_failed_attempt(
    sqlite_engine: AsyncEngine, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with made(sqlite_engine, tmp_path, KeyError("x"), finished()) as at:
        run = await at.go(await pending(at.runs))
        assert (run.status, run.attempt) == (Status.COMPLETED, 2)
        assert "attempt crashed" in caplog.text


async def test_a_stage_that_lasts_is_recorded(sqlite_engine: AsyncEngine, tmp_path: Path) -> None:
    go = asyncio.Event()

    async def call(*_: object) -> Finished:
        await go.wait()
        return finished()

    async with made(sqlite_engine, tmp_path, call, stage_after_s=0.01) as at:
        run = await pending(at.runs)
        working = asyncio.ensure_future(at.actor.advance(run.id))
        seen = await at.hints.reached(at.runs, run.id, lambda run: run.stage is Stage.GENERATING)
        go.set()
        assert seen.status is Status.RUNNING
        assert await working == Done()


async def test_progress_and_previews_are_told_and_previews_are_gone_afterwards(
    sqlite_engine: AsyncEngine, tmp_path: Path
) -> None:
    seen: list[str] = []

    async def call(_request: ImageRequest, progress: Any) -> Finished:
        await progress(Progress(0.25))
        await progress(Progress(0.5, ImageInput(png(900, 600), "image/png")))
        seen.extend(at.files())
        await progress(Progress(0.75, ImageInput(b"broken", "image/png")))
        return finished()

    async with made(sqlite_engine, tmp_path, call) as at:
        run = await at.go(await pending(at.runs, requested_by={"name": "Ann"}))
        told = [report for report in at.reports.heard if report["stage"] == "generating"]
        assert [report["progress"] for report in told] == [0.25, 0.5, 0.75]
        assert told[1]["preview_url"] == told[2]["preview_url"] == f"http://test/images/{WORKFLOW}/{seen[0]}"
        assert {report["by"] for report in told} == {"Ann"}
        assert seen == [f"{run.id}-preview-1-0.webp"]
        assert at.files() == [f"{run.id}-thumb.webp", f"{run.id}.png"]


async def test_a_picture_behind_a_url_is_fetched_and_a_passing_failure_does_not_ask_the_maker_again(
    sqlite_engine: AsyncEngine, tmp_path: Path
) -> None:
    tries: list[str] = []

    async def fetch(url: str, into: Path) -> None:
        tries.append(url)
        if len(tries) < 5:
            raise temporary()
        await asyncio.to_thread(into.write_bytes, png())

    answer = Finished((ImageResult(None, url="http://cdn/x.png"),), Cost(10, "price"))
    async with made(sqlite_engine, tmp_path, answer, fetch=fetch) as at:
        run = await at.go(await pending(at.runs))
        assert (run.status, run.failures, run.cost_usd_micros) == (Status.COMPLETED, 1, 10)
        assert (len(at.provider.requests), len(tries)) == (1, 5)
        assert "downloading" in at.reports.stages


async def test_the_picture_to_edit_comes_from_our_own_store_without_a_download(
    sqlite_engine: AsyncEngine, tmp_path: Path
) -> None:
    async with made(sqlite_engine, tmp_path) as at:
        url = await at.store.put(f"{WORKFLOW}/old.png", png(), "image/png")
        for form in (url, f"/images/{WORKFLOW}/old.png"):
            run = await at.go(await pending(at.runs, spec=PromptSpec("bluer", previous_image=form)))
            assert run.status is Status.COMPLETED
            assert at.provider.requests[-1].inputs == (ImageInput(png(), "image/png"),)


async def test_a_picture_to_edit_from_elsewhere_is_fetched_under_guard(
    sqlite_engine: AsyncEngine, tmp_path: Path
) -> None:
    async def fetch(url: str, into: Path) -> None:
        assert url == "http://elsewhere/x.png"
        await asyncio.to_thread(into.write_bytes, png())

    async with made(sqlite_engine, tmp_path, fetch=fetch) as at:
        await at.go(await pending(at.runs, spec=PromptSpec("bluer", previous_image="http://elsewhere/x.png")))
        assert at.provider.requests[-1].inputs == (ImageInput(png(), "image/png"),)


@pytest.mark.parametrize("url", ["/images/wf-1/missing.png", "http://elsewhere/page.html"])
async def test_a_picture_to_edit_that_cannot_be_had_fails_the_run_unasked(
    sqlite_engine: AsyncEngine, tmp_path: Path, url: str
) -> None:
    async def fetch(_url: str, into: Path) -> None:
        await asyncio.to_thread(into.write_bytes, b"<html>")

    async with made(sqlite_engine, tmp_path, fetch=fetch) as at:
        run = await at.go(await pending(at.runs, spec=PromptSpec("bluer", previous_image=url)))
        assert run.error is not None
        assert (run.status, run.error.kind) == (Status.FAILED, ErrorKind.BAD_REQUEST)
        assert at.provider.requests == []


class Flaky(DiskStore):
    """A store that fails the first so many times."""

    def __init__(self, root: Path, failures: int) -> None:
        super().__init__(root, "http://test")
        self.failures = failures

    async def put(self, key: str, data: Content, content_type: str) -> str:
        if self.failures:
            self.failures -= 1
            raise StorageUnavailable(key, "disk full")
        return await super().put(key, data, content_type)


async def test_an_upload_is_tried_three_times_without_asking_the_maker_again(
    sqlite_engine: AsyncEngine, tmp_path: Path
) -> None:
    async with made(sqlite_engine, tmp_path, store=Flaky(tmp_path, 2)) as at:
        assert (await at.go(await pending(at.runs))).status is Status.COMPLETED
        assert len(at.provider.requests) == 1
        assert len(at.slept.times) == 2


async def test_a_store_that_stays_away_fails_the_run(sqlite_engine: AsyncEngine, tmp_path: Path) -> None:
    async with made(sqlite_engine, tmp_path, store=Flaky(tmp_path, 99)) as at:
        run = await at.go(await pending(at.runs))
        assert run.error is not None
        assert (run.error.code, run.error.retryable, run.error.stage) == ("storage_unavailable", True, Stage.UPLOADING)


async def test_a_cancel_during_the_call_leaves_the_run_cancelled_and_nothing_else(
    engine: AsyncEngine, tmp_path: Path
) -> None:
    async with made(engine, tmp_path, forever()) as at:
        run = await pending(at.runs)
        working = asyncio.ensure_future(at.actor.advance(run.id))
        await at.provider.submitted.wait()
        await at.runs.cancel(run.id, {})
        working.cancel()
        with pytest.raises(asyncio.CancelledError):
            await working
        assert await event_kinds(engine, run.id) == ["requested", "started", "cancelled"]
        assert at.reports.cleared == [run.id]


async def test_a_cancel_during_the_upload_leaves_no_file(engine: AsyncEngine, tmp_path: Path) -> None:
    began, go = asyncio.Event(), asyncio.Event()

    class Slow(DiskStore):
        async def put(self, key: str, data: Content, content_type: str) -> str:
            url = await super().put(key, data, content_type)
            if key.endswith("thumb.webp"):
                began.set()
                await go.wait()
            return url

    async with made(engine, tmp_path, store=Slow(tmp_path, "http://test")) as at:
        run = await pending(at.runs)
        working = asyncio.ensure_future(at.actor.advance(run.id))
        await began.wait()
        await at.runs.cancel(run.id, {})
        working.cancel()
        with pytest.raises(asyncio.CancelledError):
            await working
        assert at.files() == []
        assert (await at.runs.get(run.id)).status is Status.CANCELLED


async def test_a_cancel_that_only_the_row_knows_ends_the_attempt_at_its_next_write(
    engine: AsyncEngine, tmp_path: Path
) -> None:
    async def call(*_: object) -> Finished:
        await at.runs.cancel((await at.runs.unfinished(1))[0].id, {})
        return finished()

    async with made(engine, tmp_path, call) as at:
        run = await at.go(await pending(at.runs))
        assert run.status is Status.CANCELLED
        assert at.files() == []
        assert await image_count(engine, run.id) == 0


async def test_a_request_that_was_taken_just_after_the_cancel_is_called_back(
    engine: AsyncEngine, tmp_path: Path
) -> None:
    async def call(*_: object) -> Accepted:
        await at.runs.cancel((await at.runs.unfinished(1))[0].id, {})
        return Accepted("remote-9")

    async with made(engine, tmp_path, call) as at:
        assert (await at.go(await pending(at.runs))).status is Status.CANCELLED
        assert at.provider.cancelled == ["remote-9"]


async def test_abandon_tells_the_maker_of_cancelled_runs_only(sqlite_engine: AsyncEngine, tmp_path: Path) -> None:
    async with made(sqlite_engine, tmp_path, Accepted("remote-1")) as at:
        run = await pending(at.runs)
        await at.actor.advance(run.id)
        await at.actor.abandon(run.id)
        await at.actor.abandon("missing")
        assert at.provider.cancelled == []
        await at.runs.cancel(run.id, {})
        await at.actor.abandon(run.id)
        assert at.provider.cancelled == ["remote-1"]


async def test_a_maker_that_cannot_be_told_holds_nobody_up(sqlite_engine: AsyncEngine, tmp_path: Path) -> None:
    class Deaf(FakeProvider):
        async def cancel(self, remote_id: str) -> None:
            await asyncio.Event().wait()

    async with studio(
        sqlite_engine, tmp_path, Deaf([Accepted("remote-1")]), policy=RetryPolicy(notice_limit_s=0.02)
    ) as at:
        run = await pending(at.runs)
        await at.actor.advance(run.id)
        await at.runs.cancel(run.id, {})
        async with asyncio.timeout(5):
            await at.actor.abandon(run.id)


async def test_a_late_attempt_records_nothing_and_deletes_nothing_of_the_one_that_took_over(
    engine: AsyncEngine, tmp_path: Path
) -> None:
    go = asyncio.Event()

    async def late(*_: object) -> Finished:
        await go.wait()
        return finished(png(colour=(1, 2, 3)))

    async with made(engine, tmp_path, late) as one, made(engine, tmp_path, finished()) as two:
        run = await pending(one.runs)
        working = asyncio.ensure_future(one.actor.advance(run.id))
        await one.provider.submitted.wait()
        done = await two.go(run)
        go.set()
        assert await working == Done()
        assert done.status is Status.COMPLETED
        assert await one.runs.get(run.id) == done
        assert await image_count(engine, run.id) == 1
        assert two.files() == [f"{run.id}-thumb.webp", f"{run.id}.png"]


async def test_a_run_that_another_living_worker_has_is_looked_at_again_later(
    engine: AsyncEngine, tmp_path: Path
) -> None:
    async with made(engine, tmp_path) as at:
        other = WorkerIdentity(host="elsewhere")
        await add_worker(engine, other, seen_at=dt.datetime.now(dt.UTC))
        run = await pending(at.runs)
        await at.runs.begin_attempt(run.id, other.id)
        after = await at.actor.advance(run.id)
        assert isinstance(after, Later)
        assert dt.datetime.now(dt.UTC) < after.when < dt.datetime.now(dt.UTC) + dt.timedelta(seconds=10)
        assert at.provider.requests == []


class Outage(Runs):
    """Runs whose next so many writes fail as when the database is away, before or after they are committed."""

    def __init__(self, engine: AsyncEngine, failures: int, *, committed: bool = False) -> None:
        super().__init__(engine, hint=Hints())
        self.failures = failures
        self.committed = committed

    async def record(self, run_id: str, attempt: int, event: Event, *, after_seq: int | None = None) -> Run:
        if self.failures and not self.committed:
            self.failures -= 1
            raise ConnectionRefusedError
        run = await super().record(run_id, attempt, event, after_seq=after_seq)
        if self.failures:
            self.failures -= 1
            raise sa.exc.OperationalError("commit", {}, Exception("connection lost"))
        return run


async def test_an_answer_outlives_an_outage_of_the_database_without_a_second_call(
    engine: AsyncEngine, tmp_path: Path
) -> None:
    runs = Outage(engine, 30)
    async with made(engine, tmp_path, finished(cost=Cost(9, "price")), runs=runs) as at:
        run = await at.go(await pending(at.runs))
        assert (run.status, run.cost_usd_micros, len(at.provider.requests)) == (Status.COMPLETED, 9, 1)
        assert 10 < sum(at.slept.times) < 60


async def test_a_commit_whose_end_was_lost_is_not_recorded_twice(engine: AsyncEngine, tmp_path: Path) -> None:
    async with made(engine, tmp_path, finished(cost=Cost(9, "price")), runs=Outage(engine, 1, committed=True)) as at:
        run = await at.go(await pending(at.runs))
        assert (run.status, run.cost_usd_micros) == (Status.COMPLETED, 9)
        assert await event_kinds(engine, run.id) == ["requested", "started", "answered", "completed"]


async def test_every_write_whose_end_was_lost_is_recorded_once(engine: AsyncEngine, tmp_path: Path) -> None:
    answers = [temporary(), finished(cost=Cost(9, "price"))]
    async with made(engine, tmp_path, *answers, runs=Outage(engine, 9, committed=True)) as at:
        run = await at.go(await pending(at.runs))
        assert run.cost_usd_micros == 9
        assert await event_kinds(engine, run.id) == [
            "requested", "started", "retry_scheduled", "started", "answered", "completed",
        ]  # fmt: skip


async def test_a_database_that_is_away_before_an_attempt_puts_it_off(
    sqlite_engine: AsyncEngine, tmp_path: Path
) -> None:
    async with made(sqlite_engine, tmp_path, patience=Patience(total_s=0.0)) as at:
        run = await pending(at.runs)
        async with sqlite_engine.begin() as connection:
            await connection.run_sync(metadata.tables["runs"].drop)
        assert isinstance(await at.actor.advance(run.id), Later)


async def test_logs_hold_no_prompt_no_bytes_and_always_an_action(
    sqlite_engine: AsyncEngine, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    refusal = ProviderError("No.", ErrorClass.TEMPORARY, vendor_message="a secret fox: no")
    async with made(sqlite_engine, tmp_path, refusal, RuntimeError("a secret fox: boom"), finished()) as at:
        await at.go(await pending(at.runs, prompt="a secret fox"))
    ours = [record for record in caplog.records if record.name.startswith("jobs")]
    assert all(hasattr(record, "action") and hasattr(record, "run_id") for record in ours)
    assert ours
    assert not any("secret fox" in str(record.__dict__) for record in ours)


async def test_no_table_holds_base64(sqlite_engine: AsyncEngine, tmp_path: Path) -> None:
    picture = png(64, 64)
    async with made(sqlite_engine, tmp_path, finished(picture)) as at:
        await at.go(await pending(at.runs))
    for table in metadata.tables.values():
        for row in await rows(sqlite_engine, table):
            assert "iVBORw0KGgo" not in str(row)
            assert "base64" not in str(row)


async def test_pictures_that_are_good_are_kept_where_others_are_not(sqlite_engine: AsyncEngine, tmp_path: Path) -> None:
    answer = finished(png(), b"no picture", png(colour=(1, 2, 3)), adapted=("Fake returned 3 of 4 pictures.",))
    provider = FakeProvider([answer])
    async with studio(sqlite_engine, tmp_path, provider) as made:
        run = await made.go(await pending(made.runs, spec=PromptSpec("a fox", n=4)))
        assert (run.status, len(run.images), len(made.files())) == (Status.COMPLETED, 2, 4)
        told = run.payload["adapted"]
        assert isinstance(told, list)
        assert told[0] == "Fake returned 3 of 4 pictures."
        assert str(told[1]).startswith("1 of 3 pictures could not be used: ")


async def test_one_picture_that_cannot_be_fetched_is_tried_again_before_it_is_given_up(
    sqlite_engine: AsyncEngine, tmp_path: Path
) -> None:
    async def fetch(url: str, into: Path) -> None:
        if url.endswith("gone"):
            raise ProviderError("It cannot be reached.", ErrorClass.TEMPORARY)
        await asyncio.to_thread(into.write_bytes, png())

    urls = ("http://x/good", "http://x/gone")
    answer = Finished(tuple(ImageResult("image/png", url=url) for url in urls), Cost(5, "price"))
    provider = FakeProvider([answer])
    async with studio(sqlite_engine, tmp_path, provider, fetch=fetch) as made:
        run = await made.go(await pending(made.runs))
        assert (run.status, len(run.images), len(provider.requests)) == (Status.COMPLETED, 1, 1)
        assert run.payload["adapted"] == ["1 of 2 pictures could not be used: It cannot be reached."]
        assert run.cost_usd_micros == 5
