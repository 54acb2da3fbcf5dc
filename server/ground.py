"""What every role stands on: database, makers, pictures, and the queue of jobs."""

import asyncio
import contextlib
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
from jobs.actor import Actor
from jobs.images import ImageWorkshop
from jobs.liveness import Liveness, WorkerIdentity, alive_until
from jobs.progress import Reporter, Send
from jobs.runs import Runs
from jobs.storage import DiskStore
from jobs.worker import Pace, Worker
from providers.base import ImageProvider
from providers.demo import DemoProvider
from providers.errors import ImageMakingError
from providers.http import fetch_image
from providers.openai import OpenAIProvider
from providers.registry import Registry
from server.accounts import RunAccounts
from server.errors import BadSettings, StartupError
from server.files import probe_folder
from server.metrics import Metrics
from server.migrate import migrate
from server.parts import Parts
from server.revocations import RevocationLog, Revocations
from server.running import Check
from server.settings import Settings

IMAGES_FOLDER: Final = "images"
PACE: Final = Pace(grace_s=4.0)
"""A stop takes at most twice the grace for attempts at work, then what the rooms need."""
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
    accounts: RunAccounts
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
        return Runs(self.engine, hint=hint, me=self.me, transactions=self.transactions)

    def make_worker(self, runs: Runs, report: Send) -> Worker:
        """What works on runs in this process."""
        fetch = partial(fetch_image, allow=self.settings.fetch_allow)
        actor = Actor(runs, self.registry, self.workshop, self.images, Reporter(report), fetch, self.me.id)
        worker = Worker(self.queue_url, runs, actor, liveness=Liveness(self.engine, self.me), pace=PACE)
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
            return "does not answer" if await connection.run_sync(alive_until, self.me.id) is None else "ok"

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
        accounts = RunAccounts(engine, metrics)
        await stack.enter_async_context(running(accounts.run(), "accounts"))
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
            accounts=accounts,
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
    paid = [] if key is None else [OpenAIProvider(key.get_secret_value(), settings.openai_base_url)]
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
