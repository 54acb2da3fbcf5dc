import re
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from sqlalchemy.ext.asyncio import AsyncEngine

from jobs.commits import NotedTransactions
from jobs.errors import IllegalTransition, RunFinished
from jobs.policy import run_error as error_of
from jobs.run import Run
from jobs.runs import Runs
from jobs.state import (
    Answered,
    Completed,
    Event,
    Failed,
    FellBack,
    Incident,
    RetryScheduled,
    Stage,
    Started,
)
from providers.base import Cost
from providers.errors import ErrorClass, ErrorKind, ProviderError
from server.run_metrics import RunMetrics
from server.settings import read_settings
from tests.jobs.builders import START, Clock, Hints, database, pending, run_error, running, stored_image
from tests.server.api import Api
from tests.server.conftest import running as serving


class Counted:
    """Runs with metrics, and their numbers."""

    def __init__(self, engine: AsyncEngine, clock: Clock | None = None) -> None:
        self.registry = CollectorRegistry()
        self.metrics = RunMetrics(self.registry)
        self.runs = Runs(engine, hint=Hints(), told=self.metrics.recorded, clock=clock or Clock())

    def number(self, name: str, **labels: str) -> float:
        """The value of a sample; 0 where there is none."""
        return self.registry.get_sample_value(f"darkroom_{name}", labels) or 0.0


MAKER = {"provider": "fake", "model": "fake-1"}


async def test_each_event_is_counted_where_it_was_committed_and_nowhere_else(sqlite_url: str) -> None:
    async with database(sqlite_url) as engine:
        clock = Clock()
        door, worker = Counted(engine, clock), Counted(engine, clock)
        run = await pending(door.runs)
        clock.advance(3)
        begun = await worker.runs.begin_attempt(run.id, "w1")
        assert begun is not None
        await worker.runs.record(run.id, 1, RetryScheduled(run_error(), START))
        await worker.runs.begin_attempt(run.id, "w1")
        await worker.runs.record(run.id, 2, Incident("polled", "It was to call back."))
        await worker.runs.record(run.id, 2, Answered(Cost(40_000, "price")))
        clock.advance(4)
        await worker.runs.record(run.id, 2, Completed((stored_image(run),)))
        with pytest.raises(RunFinished):
            await worker.runs.record(run.id, 2, Completed((stored_image(run),)))
    assert worker.number("runs_total", status="completed", **MAKER) == 1
    assert worker.number("run_duration_seconds_sum", status="completed", **MAKER) == 7
    assert (worker.number("run_wait_seconds_count", **MAKER), worker.number("run_wait_seconds_sum", **MAKER)) == (1, 3)
    assert worker.number("run_retries_total", code="temporary", **MAKER) == 1
    assert worker.number("incidents_total", code="polled", **MAKER) == 1
    assert worker.number("run_cost_usd_total", **MAKER) == pytest.approx(0.04)
    assert "fake" not in generate_latest(door.registry).decode()


async def test_failures_fallbacks_and_providers_that_never_finish_are_told_apart(sqlite_url: str) -> None:
    async with database(sqlite_url) as engine:
        counted = Counted(engine)
        run = await running(counted.runs)
        await counted.runs.record(run.id, 1, FellBack("other", "other-1", run_error()))
        never = ProviderError("It took too long.", ErrorClass.PERMANENT, ErrorKind.TIMEOUT)
        late = await running(counted.runs, node_id="late")
        await counted.runs.record(late.id, 1, Failed(error_of(never, Stage.WAITING)))
        slow = await running(counted.runs, node_id="slow")
        await counted.runs.record(slow.id, 1, Failed(error_of(never, Stage.GENERATING)))
        gone = await pending(counted.runs, node_id="gone")
        await counted.runs.cancel(gone.id, {})
    assert counted.number("run_fallbacks_total", provider="fake", to="other") == 1
    assert counted.number("poll_timeouts_total", **MAKER) == 1
    assert counted.number("run_failures_total", code="timeout", stage="waiting", **MAKER) == 1
    assert counted.number("runs_total", status="failed", **MAKER) == 2
    assert counted.number("runs_total", status="cancelled", **MAKER) == 1


async def test_events_of_a_transaction_that_failed_are_not_told(sqlite_url: str) -> None:
    told: list[Event] = []

    def hear(_before: Run | None, _after: Run, event: Event) -> None:
        told.append(event)

    async with database(sqlite_url) as engine:
        runs = Runs(engine, hint=Hints(), told=hear)
        run = await pending(runs)
        assert isinstance(runs._transactions, NotedTransactions)
        with pytest.raises(IllegalTransition):
            await runs._transactions.run(
                lambda connection: (
                    runs._apply(connection, run, Started("w1")),
                    runs._apply(connection, run, Completed(())),
                )
            )
        assert [event.kind for event in told] == ["requested"]
        assert (await runs.get(run.id)).attempt == 0


async def test_what_waits_is_read_for_each_provider_and_forgotten_when_nobody_waits(database_url: str) -> None:
    async with database(database_url) as engine:
        counted = Counted(engine)
        counted.runs = Runs(engine, hint=Hints())
        waiting = await pending(counted.runs)
        await running(counted.runs, node_id="another")
        await counted.metrics.sample(engine)
        assert counted.number("queue_depth", **MAKER) == 1
        assert 0 <= counted.number("queue_oldest_seconds", **MAKER) < 60
        assert counted.number("runs_unfinished", status="running") == 1
        await counted.runs.cancel(waiting.id, {})
        await counted.metrics.sample(engine)
        assert counted.registry.get_sample_value("darkroom_queue_depth", MAKER) is None
        assert counted.number("runs_unfinished", status="pending") == 0


async def test_a_picture_is_measured_from_the_request_to_the_node(api: Api) -> None:
    workflow_id, node_id = await api.canvas()
    async with api.services.rooms.use(workflow_id):
        await api.finished((await api.run(workflow_id, node_id))["jobId"])
        while (await api.flow(workflow_id))["nodes"][0]["data"]["status"] != "completed":
            continue
        await api.services.rooms.flush(workflow_id)
        text = (await api.get("/metrics")).text
    for stage in ("generating", "processing", "uploading"):
        sample = f'darkroom_run_stage_seconds_count{{outcome="ok",provider="demo",stage="{stage}"}} 1.0'
        assert sample in text, text
    assert 'darkroom_uploads_total{outcome="ok"} 1.0' in text
    assert re.search(r"darkroom_run_shown_seconds_count 1\.0", text)
    assert 'darkroom_runs_total{model="darkroom-1",provider="demo",status="completed"} 1.0' in text


async def test_the_numbers_are_there_before_anything_has_happened(tmp_path: Path) -> None:
    async with serving(read_settings(data=tmp_path / "data"), tmp_path) as api:
        text = (await api.get("/metrics")).text
    assert 'darkroom_runs_unfinished{status="pending"} 0.0' in text
    assert "darkroom_outgoing_waiting 0.0" in text
