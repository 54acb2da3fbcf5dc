"""The composition root: it alone reads settings and picks implementations."""

import asyncio
import contextlib
import logging
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from sqlalchemy.ext.asyncio import AsyncEngine

from crdt.bus import MemoryBus
from crdt.catalog import Catalog
from crdt.database import create_engine
from crdt.json import Json
from crdt.rooms import RoomLimits, Rooms
from crdt.store import SqlStore
from crdt.transactions import Transactions
from jobs.actor import Actor
from jobs.fallback import Maker
from jobs.images import ImageWorkshop
from jobs.liveness import Liveness, WorkerIdentity
from jobs.progress import Reporter, Send
from jobs.projector import Projector
from jobs.runs import Runs
from jobs.spending import Spending
from jobs.storage import DiskStore
from jobs.worker import Pace, Worker
from providers.base import ImageProvider
from providers.demo import DemoProvider
from providers.errors import ImageMakingError
from providers.http import fetch_image
from providers.openai import OpenAIProvider
from providers.registry import Registry
from server.accounts import RunAccounts
from server.closings import Closings
from server.control import Control
from server.crowd import Crowd
from server.errors import BadSettings, StartupError
from server.metrics import Metrics
from server.migrate import migrate
from server.orders import Orders
from server.origins import Origins
from server.proxies import Proxies
from server.revocations import RevocationLog, Revocations
from server.routes.health import probe_folder
from server.services import Services
from server.settings import Settings
from server.signals import RunSignals
from server.websocket import AsgiSocket, RoomProtocol

logger = logging.getLogger(__name__)

IMAGES_FOLDER: Final = "images"
_PACE: Final = Pace(grace_s=4.0)
"""A stop takes at most twice the grace for attempts at work, then what the rooms need."""


class CountedStore(SqlStore):
    """The store, with every committed update counted."""

    def __init__(
        self, engine: AsyncEngine, process_id: str, metrics: Metrics, transactions: Transactions | None = None
    ) -> None:
        super().__init__(engine, process_id, transactions=transactions)
        self._metrics = metrics

    async def append(self, updates: Mapping[str, Sequence[bytes]]) -> dict[str, int]:
        """Commit updates, and count them."""
        numbers = await super().append(updates)
        self._metrics.updates_committed(sum(map(len, updates.values())))
        return numbers


@dataclass(frozen=True, slots=True)
class Parts:
    """What a program that embeds the server may put in place of the usual parts.

    Attributes:
        providers: Offered besides those that settings configure.
        images: Makes the image store from its folder and the public address.
        documents: Makes the document store.

    """

    providers: tuple[ImageProvider, ...] = ()
    images: Callable[[Path, str], DiskStore] = DiskStore
    documents: Callable[[AsyncEngine, str, Metrics, Transactions], SqlStore] = CountedStore


@asynccontextmanager
async def start(
    settings: Settings, metrics: Metrics, revocations: Revocations, parts: Parts | None = None
) -> AsyncIterator[Services]:
    """Everything behind the doors, started in order and stopped in the opposite order, each step in bounded time.

    Raises:
        StartupError: One line that says what to do.

    """
    parts = parts or Parts()
    process_id = uuid.uuid4().hex
    images_folder = settings.data / IMAGES_FOLDER
    _prepare_folder(settings.data, images_folder)
    async with AsyncExitStack() as stack:
        engine = create_engine(settings.database)
        stack.push_async_callback(engine.dispose)
        await migrate(engine)
        registry = make_registry(settings, parts.providers)
        stack.push_async_callback(registry.aclose)
        workshop = stack.enter_context(contextlib.closing(ImageWorkshop()))
        signals = RunSignals()
        accounts = RunAccounts(engine, metrics)
        transactions = Transactions(engine)
        store = parts.documents(engine, process_id, metrics, transactions)
        limits = RoomLimits(
            max_open=settings.max_rooms, max_document_bytes=settings.max_document_bytes, stop_s=settings.stop_s
        )
        rooms = Rooms(store, MemoryBus(), process_id=process_id, limits=limits)
        me = WorkerIdentity()
        runs = Runs(engine, hint=_hint(rooms, signals, accounts), me=me, transactions=transactions)
        images = parts.images(images_folder, settings.public_url)
        fetch = partial(fetch_image, allow=settings.fetch_allow)
        actor = Actor(runs, registry, workshop, images, Reporter(_report(rooms, signals)), fetch, me.id)
        worker = Worker(_queue(settings, process_id), runs, actor, liveness=Liveness(engine, me), pace=_PACE)
        catalog = Catalog(engine, store)
        orders = Orders(catalog, rooms, runs, registry, worker, metrics, follows=_follows(settings, registry))
        projector = Projector(rooms, runs, orders.ask, workshop, images, vouched=settings.secret is not None)
        rooms.listener = projector
        await rooms.start()
        stack.push_async_callback(rooms.stop)
        await stack.enter_async_context(projector)
        await stack.enter_async_context(worker)
        await stack.enter_async_context(_running(accounts.run(), "accounts"))
        revocation_log = RevocationLog(engine, revocations)
        await revocation_log.read()
        await stack.enter_async_context(_running(revocation_log.run(), "revocations"))
        crowd = Crowd(settings.bounds)
        _watch(metrics, rooms, worker, crowd)
        logger.info("started", extra={"action": "started", "process_id": process_id})
        services = Services(
            app_url=settings.public_url,
            process_id=process_id,
            worker_id=me.id,
            engine=engine,
            catalog=catalog,
            rooms=rooms,
            runs=runs,
            registry=registry,
            images=images,
            images_folder=images_folder,
            worker=worker,
            orders=orders,
            control=Control(runs, worker),
            spending=Spending(engine, transactions=transactions),
            signals=signals,
            metrics=metrics,
            origins=Origins(settings.public_url, settings.cors_origins, tokens=settings.secret is not None),
            proxies=Proxies(settings.trusted_proxies),
            crowd=crowd,
            closings=Closings(metrics),
            revocations=revocation_log,
        )
        try:
            yield services
        finally:
            services.stop()


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


def _follows(settings: Settings, registry: Registry) -> Mapping[str, Maker]:
    """Who is asked when a provider cannot.

    Raises:
        BadSettings: One of them is not configured.

    """
    try:
        follows = {registry.get(name).name: registry.resolve(*maker) for name, maker in settings.fallbacks.items()}
    except ImageMakingError as error:
        raise BadSettings(f"DARKROOM_FALLBACKS: {error}") from error
    return {name: (provider.name, model.id) for name, (provider, model) in follows.items()}


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


def _queue(settings: Settings, process_id: str) -> str:
    # A queue in memory is known by its address: each start gets its own.
    return settings.redis_url.get_secret_value() if settings.redis_url is not None else f"memory://{process_id}"


def _hint(rooms: Rooms, signals: RunSignals, accounts: RunAccounts) -> Callable[[str, str], None]:
    def hint(workflow_id: str, run_id: str) -> None:
        rooms.hint(workflow_id, run_id)
        signals.hint(run_id)
        accounts.hint(run_id)

    return hint


def _report(rooms: Rooms, signals: RunSignals) -> Send:
    def report(workflow_id: str, payload: Mapping[str, Json]) -> None:
        rooms.report(workflow_id, payload)
        if not payload.get("ended"):
            told = {key: value for key, value in payload.items() if key not in {"runId", "nodeId"}}
            signals.progress(str(payload["runId"]), told)

    return report


@asynccontextmanager
async def _running(work: Coroutine[Any, Any, None], name: str) -> AsyncIterator[None]:
    task = asyncio.create_task(work, name=name)
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def _watch(metrics: Metrics, rooms: Rooms, worker: Worker, crowd: Crowd) -> None:
    metrics.watch("rooms_open", "Rooms open in this process.", lambda: len(rooms.all_open()))
    ids = "Client ids that ever wrote, in the open room that has most; above 2,000 every edit costs its clients."
    metrics.watch("client_ids_most", ids, lambda: rooms.growth.most_ids)
    metrics.watch("connections", "Websocket peers.", lambda: crowd.count)
    metrics.watch("runs_at_work", "Runs this worker is at.", lambda: len(worker.active))
    journal = rooms.journal
    metrics.watch("edits_pending_bytes", "Edits not committed yet.", lambda: journal.pending_bytes)
    metrics.watch("edits_pending_seconds", "Age of the oldest edit that is not committed.", lambda: journal.age_s)
    metrics.watch("queued_bytes", "Bytes not sent to websockets yet.", lambda: _queued(rooms))
    metrics.watch("slow_readers", "Websockets that read more slowly than is written.", lambda: _slow(rooms))
    metrics.observe_turns(rooms.lag)
    metrics.weigh_rooms(lambda: {room.id: room.weight.bytes for room in rooms.all_open()})


def _slow(rooms: Rooms) -> int:
    return sum(peer.behind is not None for room in rooms.all_open() for peer in room.peers)


def _queued(rooms: Rooms) -> int:
    sockets = (peer.socket for room in rooms.all_open() for peer in room.peers)
    return sum(socket.queued_bytes for socket in sockets if isinstance(socket, RoomProtocol | AsgiSocket))
