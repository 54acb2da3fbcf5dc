"""What is counted of runs, by provider and model.

An event is counted by the process that committed it, so over any number of processes each is counted once: sum them.
What is waiting is read from SQL when it is asked for and is the same everywhere: take the largest. A process that dies
takes what it counted since the last scrape with it; the exact numbers are in `runs`, `run_events` and `run_costs`.
"""

import datetime as dt
from collections import Counter as Counts
from collections.abc import Mapping
from typing import Any, Final

import sqlalchemy as sa
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from sqlalchemy.ext.asyncio import AsyncEngine

from crdt.database import read_only
from jobs.reading import utcnow
from jobs.run import MICROS, Run
from jobs.state import (
    Answered,
    Completed,
    Event,
    Failed,
    FellBack,
    Incident,
    Requested,
    RetryScheduled,
    Stage,
    Started,
    Status,
)
from jobs.tables import outgoing_calls, runs
from providers.base import Cost
from providers.errors import ErrorKind

_LONG_S: Final = (0.1, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1800)
_SHORT_S: Final = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 30, 60, 120, 300)
_MAKER: Final = ("provider", "model")
_UNFINISHED: Final = (Status.PENDING.value, Status.RUNNING.value)


class RunMetrics:
    """Counts events, stages and calls; reads what is waiting."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def counter(name: str, meaning: str, *labels: str) -> Counter:
            return Counter(f"darkroom_{name}", meaning, labels, registry=registry)

        def histogram(name: str, meaning: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
            return Histogram(f"darkroom_{name}", meaning, labels, buckets=buckets, registry=registry)

        def gauge(name: str, meaning: str, *labels: str) -> Gauge:
            return Gauge(f"darkroom_{name}", meaning, labels, registry=registry)

        self._ended = counter("runs", "Runs that ended.", "status", *_MAKER)
        self._duration = histogram(
            "run_duration_seconds", "From the request to the end of a run.", _LONG_S, "status", *_MAKER
        )
        self._failed = counter("run_failures", "Runs that failed, by error code and stage.", "code", "stage", *_MAKER)
        self._wait = histogram("run_wait_seconds", "From the request to the first attempt.", _LONG_S, *_MAKER)
        self._stages = histogram(
            "run_stage_seconds", "Time a stage of a run took.", _SHORT_S, "stage", "outcome", "provider"
        )
        self._shown = histogram("run_shown_seconds", "From the end of a run to its node in the document.", _SHORT_S)
        self._retries = counter("run_retries", "Attempts that failed and are tried again.", "code", *_MAKER)
        self._uploads = counter("uploads", "Pictures given to the image store, with their thumbnails.", "outcome")
        self._timeouts = counter("poll_timeouts", "Runs that their provider never finished.", *_MAKER)
        self._incidents = counter("incidents", "Things that should not happen to a run.", "code", *_MAKER)
        self._fallbacks = counter("run_fallbacks", "Runs that went on with another provider.", "provider", "to")
        self._cost = counter("run_cost_usd", "What providers billed, US dollars.", *_MAKER)
        self._data_urls = counter("data_urls_refused", "Values with picture bytes kept out of the database.", "door")
        self._webhooks = counter("webhooks", "Calls of providers.", "provider", "outcome")
        self._calls = counter("outgoing_calls", "Tries to call a webhookUrl.", "outcome")
        self._unfinished = gauge("runs_unfinished", "Runs that have not ended.", "status")
        self._depth = gauge("queue_depth", "Runs that wait for a place, or for another attempt.", *_MAKER)
        self._oldest = gauge("queue_oldest_seconds", "How long ago the oldest of them was asked for.", *_MAKER)
        self._calls_waiting = gauge("outgoing_waiting", "Calls to webhookUrls that are to be made.")
        self._calls_overdue = gauge("outgoing_overdue_seconds", "How long the oldest call has been due.")

    def recorded(self, before: Run | None, run: Run, event: Event) -> None:
        """Count an event that this process committed."""
        maker = (run.provider, run.model)
        match event:
            case Started() if run.attempt == 1:
                self._wait.labels(*maker).observe(_seconds(run.created_at, run.updated_at))
            case RetryScheduled(error, _):
                self._retries.labels(error.code, *maker).inc()
            case Incident(code, _):
                self._incidents.labels(code, *maker).inc()
            case FellBack(provider, _, _):
                self._fallbacks.labels("" if before is None else before.provider, provider).inc()
            case Answered(cost):
                self._bill(run, cost)
            case Completed(_, cost, _):
                self._bill(run, cost)
            case Failed(error):
                self._failed.labels(error.code, str(error.stage or ""), *maker).inc()
                if error.kind is ErrorKind.TIMEOUT and error.stage is Stage.WAITING:
                    self._timeouts.labels(*maker).inc()
            case _:
                pass
        if run.status.terminal and not isinstance(event, Requested):
            self._ended.labels(run.status.value, *maker).inc()
            self._duration.labels(run.status.value, *maker).observe(_seconds(run.created_at, run.updated_at))

    def staged(self, run: Run, stage: Stage, seconds: float, succeeded: bool) -> None:  # noqa: FBT001 - a callback
        """Count a stage that an attempt here went through."""
        outcome = "ok" if succeeded else "failed"
        self._stages.labels(stage.value, outcome, run.provider).observe(seconds)
        if stage is Stage.UPLOADING:
            self._uploads.labels(outcome).inc()

    def shown(self, seconds: float) -> None:
        """Count an end of a run that is in the document now."""
        self._shown.observe(seconds)

    def data_url_refused(self, door: str) -> None:
        """Count a value with picture bytes that was kept out of the database; `door` says where it came."""
        self._data_urls.labels(door).inc()

    def webhook(self, provider: str, outcome: str) -> None:
        """Count a call of a provider, by what became of it."""
        self._webhooks.labels(provider, outcome).inc()

    def call_made(self, outcome: str) -> None:
        """Count a try of an outgoing call: delivered, failed, gone or given_up."""
        self._calls.labels(outcome).inc()

    async def sample(self, engine: AsyncEngine) -> None:
        """Read what is waiting, for the answer to come."""
        now = utcnow()
        columns = (runs.c.status, runs.c.stage, runs.c.processor)
        counted = sa.select(*columns, sa.func.count().label("many"), sa.func.min(runs.c.created_at).label("oldest"))
        counted = counted.where(runs.c.status.in_(_UNFINISHED)).group_by(*columns)
        due = sa.select(sa.func.count(), sa.func.min(outgoing_calls.c.next_at)).where(
            outgoing_calls.c.next_at.is_not(None)
        )
        async with read_only(engine).connect() as connection:
            found = list(await connection.execute(counted))
            calls, first = (await connection.execute(due)).one()
        for status in _UNFINISHED:
            self._unfinished.labels(status).set(sum(row.many for row in found if row.status == status))
        self._wait_now({(row.status, row.processor): row for row in found if row.stage == Stage.QUEUED.value}, now)
        self._calls_waiting.set(calls)
        self._calls_overdue.set(0.0 if first is None else _seconds(first, now))

    def _wait_now(self, queued: Mapping[tuple[str, str], Any], now: dt.datetime) -> None:
        depth, since = Counts[str](), dict[str, dt.datetime]()
        for (_, processor), row in queued.items():
            depth[processor] += row.many
            since[processor] = min(since.get(processor, row.oldest), row.oldest)
        # A maker nobody waits for any more is not shown with its last number.
        self._depth.clear()
        self._oldest.clear()
        for processor, count in depth.items():
            provider, _, model = processor.partition(":")
            self._depth.labels(provider, model).set(count)
            self._oldest.labels(provider, model).set(_seconds(since[processor], now))

    def _bill(self, run: Run, cost: Cost | None) -> None:
        if cost is not None:
            self._cost.labels(run.provider, run.model).inc(cost.usd_micros / MICROS)


def _seconds(start: dt.datetime, end: dt.datetime) -> float:
    return max(0.0, (end - start).total_seconds())
