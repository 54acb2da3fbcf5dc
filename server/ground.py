"""What every role stands on: database, makers, pictures, and the queue of jobs."""

import asyncio
import contextlib
import time
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

import anyio.to_thread
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine

from crdt.bus import Bus
from crdt.database import create_engine, read_only
from crdt.redis_sender import RedisSender
from crdt.tables import processes
from crdt.transactions import Transactions
from jobs import signing
from jobs.actor import Actor
from jobs.caller import Caller
from jobs.calls import Calls
from jobs.dispatcher import Dispatcher
from jobs.images import ImageWorkshop
from jobs.liveness import Liveness, WorkerIdentity, alive_until
from jobs.progress import Reporter, Send
from jobs.runs import Runs
from jobs.settlement import Callbacks
from jobs.standing import Standing
from jobs.storage import DiskStore
from jobs.worker import Worker
from providers.base import ImageProvider
from providers.demo import DemoProvider
from providers.errors import ImageMakingError
from providers.http import fetch_image
from providers.openai import OpenAIProvider
from providers.openai_background import OpenAIBackgroundProvider
from providers.registry import Registry
from server.errors import BadSettings, StartupError
from server.files import probe_folder
from server.metrics import Metrics
from server.migrate import migrate
from server.parts import Parts
from server.revocations import RevocationLog, Revocations
from server.running import Check
from server.settings import Settings
from server.webhooks import Secrets, Webhooks, reachable

IMAGES_FOLDER: Final = "images"
SCRATCH_FOLDER: Final = "downloads"
_LEFT_S: Final = 3_600.0
REDIS_AWAY: Final = "does not answer: jobs wait, and other processes are heard through the database"


@dataclass(frozen=True, slots=True)
class Ground:
    """What every role stands on."""

    settings: Settings
    parts: Parts
    metrics: Metrics
    engine: AsyncEngine
    transactions: Transactions
    registry: Registry
    workshop: ImageWorkshop
    images: DiskStore
    revocations: RevocationLog
    process_id: str
    me: WorkerIdentity = field(default_factory=WorkerIdentity)

    @property
    def images_folder(self) -> Path:
        """Where pictures are on the disk."""
        return self.settings.data / IMAGES_FOLDER

    @property
    def redis_url(self) -> str | None:
        """Where Redis is, if there is one."""
        return self.settings.redis_url.get_secret_value() if self.settings.redis_url is not None else None

    @property
    def queue_url(self) -> str:
        """Where jobs wait. A queue in memory is known by its address: each start gets its own."""
        return self.redis_url or f"memory://{self.process_id}"

    def make_runs(self, hint: Callable[[str, str], None]) -> Runs:
        """The writer of runs, which tells `hint` of each change."""
        return Runs(self.engine, hint=hint, me=self.me, transactions=self.transactions, told=self.metrics.runs.recorded)

    def make_calls(self) -> Calls:
        """The calls to those who asked to be told of the end of their runs."""
        return Calls(self.engine, transactions=self.transactions)

    def make_caller(self, calls: Calls) -> Caller:
        """What makes these calls."""
        keys = partial(outgoing_keys, self.settings, self.engine)
        return Caller(calls, keys, allow=self.settings.fetch_allow, told=self.metrics.runs.call_made)

    def make_webhooks(self, runs: Runs) -> Webhooks:
        """The ear for calls of makers."""
        settings = self.settings
        secrets = Secrets(
            {name: [each.get_secret_value() for each in own] for name, own in settings.webhook_secrets.items()},
            [each.get_secret_value() for each in settings.webhook_secret],
        )
        address, allow = settings.public_url, settings.fetch_allow
        return Webhooks(self.registry, runs, app_url=address, secrets=secrets, allow=allow)

    def make_dispatcher(self, runs: Runs, report: Send | None) -> Dispatcher:
        """What gives runs their places at makers.

        Args:
            runs: The truth.
            report: Tells rooms of the places; None where no run is worked on: there it looks only when it is poked.

        """
        if report is None:
            return Dispatcher(runs, self.settings.limits)
        me = self.me.id
        return Dispatcher(runs, self.settings.limits, me=me, standing=Standing(report, me))

    def make_worker(self, runs: Runs, report: Send, dispatcher: Dispatcher, webhooks: Webhooks) -> Worker:
        """What works on runs in this process."""
        fetch = partial(fetch_image, allow=self.settings.fetch_allow)
        reporter, liveness = Reporter(report), Liveness(self.engine, self.me)
        actor = Actor(
            runs,
            self.registry,
            self.workshop,
            self.images,
            reporter,
            fetch,
            self.me.id,
            places=dispatcher,
            callbacks=Callbacks(webhooks.address, self.settings.webhook_grace_s),
            scratch=_scratch(self.settings.data),
            measured=self.metrics.runs.staged,
        )
        worker = Worker(self.queue_url, runs, actor, dispatcher, liveness=liveness, pace=self.parts.pace)
        self.metrics.watch("runs_at_work", "Runs this worker is at.", lambda: len(worker.active))
        return worker

    def checks(self, bus: Bus | RedisSender, *, works: bool) -> dict[str, Check]:
        """What decides whether a process of any role is ready.

        Args:
            bus: Tells whether Redis answers.
            works: Whether runs are worked on here.

        """
        found = {
            "database": Check(self._write_database),
            "images": Check(self._write_images),
            "worker": Check(self._hear_worker) if works else Check(self._hear_workers, vital=False),
        }
        if self.redis_url is not None:
            # People go on editing without Redis; a worker has nothing to do.
            found["redis"] = Check(partial(_hear_bus, bus), vital=self.settings.role == "worker")
            self.metrics.watch("bus_up", "Whether frames of other processes arrive.", lambda: bus.up)
        return found

    async def _write_database(self) -> str:
        async with self.engine.begin() as connection:
            mine = processes.c.id == self.process_id
            await connection.execute(sa.update(processes).where(mine).values(seen_at=processes.c.seen_at))
        return "ok"

    async def _write_images(self) -> str:
        await anyio.to_thread.run_sync(probe_folder, self.images_folder)
        return "ok"

    async def _hear_worker(self) -> str:
        async with read_only(self.engine).connect() as connection:
            alive = await connection.run_sync(alive_until, self.me.id)
            return "does not answer" if alive is None else "ok"

    async def _hear_workers(self) -> str:
        living = await Liveness(self.engine, self.me).living()
        return "ok" if living else "none is alive: runs wait until one is started (darkroom serve --role worker)"


@asynccontextmanager
async def lay(
    settings: Settings, metrics: Metrics, revocations: Revocations, parts: Parts | None
) -> AsyncIterator[Ground]:
    """The ground of a process; everything is taken back at the end.

    Raises:
        StartupError: One line that says what to do.

    """
    parts = parts or Parts()
    folder = settings.data / IMAGES_FOLDER
    _prepare_folder(settings.data, folder)
    async with AsyncExitStack() as stack:
        engine = create_engine(settings.database)
        stack.push_async_callback(engine.dispose)
        await migrate(engine)
        registry = make_registry(settings, parts.providers)
        stack.push_async_callback(registry.aclose)
        workshop = stack.enter_context(contextlib.closing(ImageWorkshop()))
        log = RevocationLog(engine, revocations)
        await log.read()
        await stack.enter_async_context(running(log.run(), "revocations"))
        yield Ground(
            settings=settings,
            parts=parts,
            metrics=metrics,
            engine=engine,
            transactions=Transactions(engine),
            registry=registry,
            workshop=workshop,
            images=parts.images(folder, settings.public_url),
            revocations=log,
            process_id=uuid.uuid4().hex,
        )


def make_registry(settings: Settings, more: Sequence[ImageProvider] = ()) -> Registry:
    """The providers that are configured: the demo always, the others with their keys, then `more`.

    Raises:
        BadSettings: The default is not one of them.

    """
    demo = DemoProvider(settings.demo_delay_s)
    key = settings.openai_api_key
    # Work in the background is told of by a call, so there has to be somebody who can call, and is believed.
    hears = "openai" in settings.webhook_secrets and reachable(settings.public_url, settings.fetch_allow)
    openai = OpenAIBackgroundProvider if hears else OpenAIProvider
    paid = [] if key is None else [openai(key.get_secret_value(), settings.openai_base_url)]
    try:
        return Registry([*paid, demo, *more], settings.default_provider, settings.default_model)
    except ImageMakingError as error:
        raise BadSettings(f"DEFAULT_PROVIDER, DEFAULT_MODEL: {error}") from error


@asynccontextmanager
async def running(work: Coroutine[Any, Any, None], name: str) -> AsyncIterator[None]:
    """Have work done in a task of its own while inside."""
    task = asyncio.create_task(work, name=name)
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def _hear_bus(bus: Bus | RedisSender) -> str:
    return "ok" if bus.up else REDIS_AWAY


async def read_webhook_secret(settings: Settings) -> str:
    """What signs outgoing calls, as receivers are given it; made, and stored, where there is none yet.

    Raises:
        StartupError: The database does not answer.

    """
    if settings.outgoing_secret is not None:
        return settings.outgoing_secret.get_secret_value()
    _prepare_folder(settings.data, settings.data / IMAGES_FOLDER)
    engine = create_engine(settings.database)
    try:
        await migrate(engine)
        return await signing.stored_secret(engine)
    finally:
        await engine.dispose()


async def outgoing_keys(settings: Settings, engine: AsyncEngine) -> Sequence[bytes]:
    """What signs outgoing calls: the operator's secrets, or this installation's own."""
    given = settings.outgoing_secret
    return signing.read_keys(await signing.stored_secret(engine) if given is None else given.get_secret_value())


def _scratch(data: Path) -> Path:
    """Where pictures are downloaded to; what a killed process left there is removed, once nobody can be at it."""
    folder = data / SCRATCH_FOLDER
    folder.mkdir(exist_ok=True)
    old = time.time() - _LEFT_S
    for path in folder.glob("*.part"):
        with contextlib.suppress(OSError):
            if path.stat().st_mtime < old:
                path.unlink()
    return folder


def _prepare_folder(data: Path, images: Path) -> None:
    try:
        images.mkdir(parents=True, exist_ok=True)
        for folder in (data, images):
            probe_folder(folder)
    except OSError as error:
        why = error.strerror or type(error).__name__
        raise StartupError(
            f"DARKROOM_DATA: cannot write to {data.absolute()} ({why}); choose a folder this user may write to"
        ) from error
