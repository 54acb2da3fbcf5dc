"""What the tests of runs begin with: a database, requests, makers of pictures that do as they are told."""

import asyncio
import datetime as dt
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyvips  # type: ignore[import-untyped]
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine

from crdt.database import create_engine
from crdt.json import Json
from crdt.rows import NodeRow
from crdt.tables import metadata
from jobs import policy as rules
from jobs.actor import Actor, Done
from jobs.images import ImageWorkshop
from jobs.intents import Intent, RunIntent
from jobs.liveness import Liveness, WorkerIdentity
from jobs.policy import RetryPolicy
from jobs.requests import UNSET, RunRequest, Unset
from jobs.run import Run
from jobs.runs import Runs
from jobs.state import RunError, Stage, StoredImage
from jobs.storage import DiskStore
from jobs.tables import generated_images, run_events, workers
from jobs.worker import Pace, Worker
from providers.base import (
    Accepted,
    Cost,
    Finished,
    ImageInput,
    ImageRequest,
    ImageResult,
    ModelInfo,
    ProgressSink,
    PromptSpec,
    Submission,
    Waiting,
)
from providers.errors import ErrorClass, ProviderError
from providers.registry import Registry

WORKFLOW = "wf-1"
NODE = "node-1"
START = dt.datetime(2026, 11, 21, 12, 0, tzinfo=dt.UTC)


class Clock:
    """A clock in the test's hand."""

    def __init__(self, now: dt.datetime = START) -> None:
        self.now = now

    def __call__(self) -> dt.datetime:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += dt.timedelta(seconds=seconds)


@asynccontextmanager
async def database(url: str) -> AsyncIterator[AsyncEngine]:
    """An engine on an empty database with every table."""
    engine = create_engine(url)
    try:
        async with engine.begin() as connection:
            await connection.run_sync(metadata.create_all)
        yield engine
    finally:
        await engine.dispose()


@dataclass
class Hints:
    """Hears hints, and wakes whoever waits for one."""

    heard: list[tuple[str, str]] = field(default_factory=list)
    _waiting: list[asyncio.Event] = field(default_factory=list)

    def __call__(self, workflow_id: str, run_id: str) -> None:
        self.heard.append((workflow_id, run_id))
        for event in self._waiting:
            event.set()

    async def reached(self, runs: Runs, run_id: str, condition: Callable[[Run], bool], timeout_s: float = 30.0) -> Run:
        """The run once the condition holds for it; looked at after every hint."""
        changed = asyncio.Event()
        self._waiting.append(changed)
        async with asyncio.timeout(timeout_s):
            while not condition(run := await runs.get(run_id)):
                await changed.wait()
                changed.clear()
        return run

    async def ended(self, runs: Runs, run_id: str) -> Run:
        """The run once it has ended."""
        return await self.reached(runs, run_id, lambda run: run.status.terminal)


def node_row(node_id: str = NODE, **data: Json) -> NodeRow:
    return NodeRow(node_id, "image", {"prompt": "a red fox", **data}, {"x": 1.0, "y": 2.0})


def request(
    *,
    node_id: str = NODE,
    after: str | Unset | None = UNSET,
    prompt: str = "a red fox",
    provider: str = "fake",
    model: str = "fake-1",
    key: str | None = None,
    **options: Any,
) -> RunRequest:
    spec = options.pop("spec", None) or PromptSpec(base_prompt=prompt)
    node = options.pop("node", None) or node_row(node_id)
    workflow_id = options.pop("workflow_id", WORKFLOW)
    return RunRequest(workflow_id, node_id, spec, provider, model, after, node, idempotency_key=key, **options)


async def pending(runs: Runs, **options: Any) -> Run:
    """A run that nobody has begun."""
    return (await runs.request_run(request(**options))).run


def ordering(runs: Runs) -> Callable[[str, str, Intent], Awaitable[None]]:
    """What answers intents as the server does: each becomes a run."""

    async def order(workflow_id: str, node_id: str, intent: Intent) -> None:
        assert isinstance(intent, RunIntent)
        await runs.request_run(request(node_id=node_id, after=intent.after, workflow_id=workflow_id))

    return order


async def running(runs: Runs, worker: str = "w1", **options: Any) -> Run:
    """A run at its first attempt."""
    run = await runs.begin_attempt((await pending(runs, **options)).id, worker)
    assert run is not None
    return run


def stored_image(run: Run, index: int = 0) -> StoredImage:
    key = f"{run.workflow_id}/{run.id}-{index}.png"
    return StoredImage(index, key, f"/images/{key}", f"{key}-thumb", f"/images/{key}-thumb", 8, 8, "image/png", 99, "0")


def run_error(message: str = "Fake is overloaded.") -> RunError:
    return rules.run_error(ProviderError(message, ErrorClass.TEMPORARY), Stage.SUBMITTING)


async def rows(engine: AsyncEngine, table: sa.Table) -> list[Any]:
    async with engine.connect() as connection:
        return list(await connection.execute(sa.select(table)))


async def event_kinds(engine: AsyncEngine, run_id: str) -> list[str]:
    """Kinds of a run's events; fails when their numbers have a gap."""
    async with engine.connect() as connection:
        query = sa.select(run_events).where(run_events.c.run_id == run_id).order_by(run_events.c.seq)
        found = list(await connection.execute(query))
    assert [row.seq for row in found] == list(range(1, len(found) + 1))
    return [row.kind for row in found]


async def image_count(engine: AsyncEngine, run_id: str) -> int:
    async with engine.connect() as connection:
        query = sa.select(sa.func.count()).where(generated_images.c.run_id == run_id)
        return int((await connection.execute(query)).scalar_one())


async def add_worker(engine: AsyncEngine, worker: WorkerIdentity, *, seen_at: dt.datetime) -> None:
    async with engine.begin() as connection:
        values = {"id": worker.id, "host": worker.host, "pid": worker.pid, "process": worker.process}
        await connection.execute(sa.insert(workers).values(**values, seen_at=seen_at))


def png(width: int = 32, height: int = 24, *, colour: tuple[int, int, int] = (200, 60, 20)) -> bytes:
    """A PNG of one colour."""
    image = (pyvips.Image.black(width, height, bands=3) + list(colour)).cast("uchar").copy(interpretation="srgb")
    return bytes(image.write_to_buffer(".png"))


MODEL = ModelInfo("fake-1", "Fake 1", ((32, 24),), frozenset({"n", "edit"}), 1000, (32, 24), 4)
Submit = Callable[[ImageRequest, ProgressSink], Any]


@dataclass
class FakeProvider:
    """A maker that does what the test says, and remembers what it was asked.

    `answers` are used up one by one, the last for ever: a Submission, an exception, or an async function of
    (request, progress). `polls` likewise: Finished, Waiting or an exception.
    """

    answers: list[Any] = field(default_factory=list)
    polls: list[Any] = field(default_factory=list)
    name: str = "fake"
    label: str = "Fake"
    models: tuple[ModelInfo, ...] = (MODEL,)
    requests: list[ImageRequest] = field(default_factory=list)
    polled: list[str] = field(default_factory=list)
    cancelled: list[str] = field(default_factory=list)
    submitted: asyncio.Event = field(default_factory=asyncio.Event)
    told: asyncio.Event = field(default_factory=asyncio.Event)

    def check(self, request: ImageRequest) -> None:
        """Everything is offered."""

    async def submit(self, request: ImageRequest, progress: ProgressSink) -> Submission:
        self.requests.append(request)
        self.submitted.set()
        answer = _next(self.answers) if self.answers else finished()
        if isinstance(answer, BaseException):
            raise answer
        if isinstance(answer, Finished | Accepted):
            return answer
        result: Submission = await answer(request, progress)
        return result

    async def poll(self, remote_id: str) -> Finished | Waiting:
        self.polled.append(remote_id)
        answer: Any = _next(self.polls) if self.polls else finished()
        if isinstance(answer, BaseException):
            raise answer
        result: Finished | Waiting = answer
        return result

    async def cancel(self, remote_id: str) -> None:
        self.cancelled.append(remote_id)
        self.told.set()

    async def aclose(self) -> None:
        """Nothing to close."""


def finished(*pictures: bytes, cost: Cost | None = None, **options: Any) -> Finished:
    results = tuple(ImageResult("image/png", data=data) for data in (pictures or (png(),)))
    return Finished(results, cost, **options)


def forever(stopped: asyncio.Event | None = None) -> Submit:
    """An answer that never comes; `stopped` is set once nobody waits for it any more."""

    async def wait(_request: ImageRequest, _progress: ProgressSink) -> Submission:
        try:
            await asyncio.Event().wait()
        finally:
            if stopped is not None:
                stopped.set()
        raise AssertionError

    return wait


def _next(items: list[Any]) -> Any:
    return items.pop(0) if len(items) > 1 else items[0]


@dataclass
class Reports:
    """Hears how far runs are."""

    heard: list[dict[str, Any]] = field(default_factory=list)
    cleared: list[str] = field(default_factory=list)

    def report(self, workflow_id: str, node_id: str, run_id: str, **facts: Any) -> None:
        self.heard.append({"workflow": workflow_id, "node": node_id, "run": run_id, **facts})

    def clear(self, _workflow_id: str, _node_id: str, run_id: str) -> None:
        self.cleared.append(run_id)

    @property
    def stages(self) -> list[str]:
        """The stages told, without repeats."""
        stages = [report["stage"] for report in self.heard]
        return [stage for index, stage in enumerate(stages) if index == 0 or stages[index - 1] != stage]


async def no_fetch(url: str) -> ImageInput:
    raise AssertionError(url)


@dataclass
class Slept:
    """A sleep that takes no time, and remembers how long it would have taken."""

    times: list[float] = field(default_factory=list)

    async def __call__(self, seconds: float) -> None:
        self.times.append(seconds)
        await asyncio.sleep(0)


@dataclass
class Studio:
    """Everything an attempt needs, around one maker."""

    engine: AsyncEngine
    runs: Runs
    hints: Hints
    provider: FakeProvider
    store: DiskStore
    reports: Reports
    slept: Slept
    actor: Actor
    me: WorkerIdentity

    async def go(self, run: Run, limit: int = 20) -> Run:
        """Advance a run as often as it asks for, without waiting, until it is done."""
        for _ in range(limit):
            if isinstance(await self.actor.advance(run.id), Done):
                return await self.runs.get(run.id)
        raise AssertionError("the run never ends")

    def files(self) -> list[str]:
        """Names of every stored picture."""
        root = self.store.path(f"{WORKFLOW}/a.png").parent
        return sorted(path.name for path in root.iterdir()) if root.is_dir() else []


@asynccontextmanager
async def studio(engine: AsyncEngine, root: Path, provider: FakeProvider, **options: Any) -> AsyncIterator[Studio]:
    hints = options.pop("hints", None) or Hints()
    reports, slept = options.pop("progress", None) or Reports(), Slept()
    me = options.pop("me", None) or WorkerIdentity()
    runs = options.pop("runs", None) or Runs(engine, hint=hints, me=me)
    store = options.pop("store", None) or DiskStore(root / "pictures", "http://test")
    fetch = options.pop("fetch", no_fetch)
    policy = options.pop("policy", None) or RetryPolicy()
    more: Sequence[FakeProvider] = options.pop("more", ())
    options = {"sleep": slept, "jitter": lambda: 0.5, **options}
    registry = Registry([provider, *more], provider.name, None)
    async with ImageWorkshop() as workshop:
        actor = Actor(runs, registry, workshop, store, reports, fetch, me.id, policy, **options)
        yield Studio(engine, runs, hints, provider, store, reports, slept, actor, me)


@asynccontextmanager
async def workplace(
    engine: AsyncEngine, root: Path, provider: FakeProvider, docket_url: str, **options: Any
) -> AsyncIterator[tuple[Studio, Worker]]:
    """A studio with a worker in it."""
    pace = options.pop("pace", None) or Pace(check_s=0.02, trouble_s=0.05, redelivery_s=2.0)
    name = options.pop("name", "darkroom-test")
    policy = options.pop("policy", None) or RetryPolicy(base_s=0.02, cap_s=0.05, poll_max_s=0.05)
    async with studio(engine, root, provider, policy=policy, **options) as made:
        liveness = Liveness(engine, made.me)
        async with Worker(docket_url, made.runs, made.actor, name=name, liveness=liveness, pace=pace) as worker:
            yield made, worker
