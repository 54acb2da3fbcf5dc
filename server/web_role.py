"""A process with doors, rooms and projector; with `works`, it works on runs as well."""

import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import Final

from crdt.bus import Bus, MemoryBus
from crdt.catalog import Catalog
from crdt.journal import Journal
from crdt.redis_bus import RedisBus
from crdt.rooms import RoomLimits, Rooms
from jobs.control import QueueControl
from jobs.fallback import Maker
from jobs.projector import Projector
from jobs.queue import JobQueue
from jobs.settlement import forget_old_calls
from jobs.spending import Spending
from jobs.timeline import Timeline
from jobs.worker import Worker
from providers.addresses import AllowList
from providers.errors import ImageMakingError
from server.closings import Closings
from server.control import Control
from server.crowd import Crowd
from server.errors import BadSettings
from server.ground import Ground, running
from server.metrics import Metrics
from server.news import RunNews
from server.orders import Orders
from server.origins import Origins
from server.proxies import Proxies
from server.running import Check, Running
from server.services import Services
from server.settings import Settings
from server.signals import RunSignals
from server.websocket import AsgiSocket, RoomProtocol

logger = logging.getLogger(__name__)

OLDEST_EDIT_S: Final = 5.0
"""From this age on, an edit that is not stored says that something is wrong."""
_FLEET_TICK_S: Final = 2.0
"""A keeper among others has a lease to renew."""


@asynccontextmanager
async def start_web(ground: Ground, *, works: bool) -> AsyncIterator[Running]:
    """Rooms and all that serves them, until the end of the context."""
    settings, metrics = ground.settings, ground.metrics
    async with AsyncExitStack() as stack:
        bus = await _enter_bus(stack, ground)
        store = ground.parts.documents(ground.engine, ground.process_id, metrics, ground.transactions)
        rooms = Rooms(store, bus, process_id=ground.process_id, limits=_limits(ground))
        signals = RunSignals()
        calls = ground.make_calls()
        caller = ground.make_caller(calls) if works else None
        news = RunNews(rooms, bus, signals, caller.poke if caller is not None else lambda: None)
        runs = ground.make_runs(news.hint)
        webhooks = ground.make_webhooks(runs)
        dispatcher = ground.make_dispatcher(runs, news.report if works else None)
        jobs = ground.make_worker(runs, news.report, dispatcher, webhooks) if works else JobQueue(ground.queue_url)
        catalog = Catalog(ground.engine, store)
        queue = QueueControl(runs, dispatcher, settings.max_queue, settings.max_queue_per_person)
        allow, follows = AllowList.parse(settings.fetch_allow), _follows(ground)
        orders = Orders(catalog, rooms, runs, ground.registry, jobs, queue, metrics, allow, follows=follows)
        projector = Projector(
            rooms,
            runs,
            orders.ask,
            ground.workshop,
            ground.images,
            vouched=settings.secret is not None,
            shown=metrics.runs.shown,
        )
        rooms.listener, rooms.hints_missed = projector, projector.reconcile_open_rooms
        if isinstance(jobs, Worker):
            _sweep_after_outages(bus, jobs)
        await rooms.start()
        stack.push_async_callback(rooms.stop)
        await stack.enter_async_context(projector)
        await stack.enter_async_context(jobs)
        if caller is not None:
            await stack.enter_async_context(caller)
            await stack.enter_async_context(running(forget_old_calls(runs), "deliveries"))
        if isinstance(jobs, JobQueue):
            await stack.enter_async_context(dispatcher.serving(jobs))
        crowd = Crowd(settings.bounds)
        _watch(metrics, rooms, crowd)
        services = Services(
            app_url=settings.public_url,
            process_id=ground.process_id,
            engine=ground.engine,
            catalog=catalog,
            rooms=rooms,
            runs=runs,
            registry=ground.registry,
            images=ground.images,
            images_folder=ground.images_folder,
            jobs=jobs,
            dispatcher=dispatcher,
            queue=queue,
            calls=calls,
            timeline=Timeline(ground.engine),
            webhooks=webhooks,
            orders=orders,
            control=Control(runs, jobs),
            spending=Spending(ground.engine, transactions=ground.transactions),
            signals=signals,
            news=news,
            metrics=metrics,
            origins=_origins(settings),
            proxies=Proxies(settings.trusted_proxies),
            crowd=crowd,
            closings=Closings(metrics),
            revocations=ground.revocations,
        )
        checks = ground.checks(bus, works=works) | {"edits": Check(lambda: _look_at_edits(rooms.journal))}
        yield Running(ground.engine, metrics, checks, services, services.stopping)


async def _enter_bus(stack: AsyncExitStack, ground: Ground) -> Bus:
    if ground.redis_url is None:
        return MemoryBus()
    return await stack.enter_async_context(RedisBus(ground.redis_url, ground.process_id))


def _follows(ground: Ground) -> Mapping[str, Maker]:
    """Who is asked when a provider cannot.

    Raises:
        BadSettings: One of them is not configured.

    """
    registry = ground.registry
    given = ground.settings.fallbacks
    try:
        follows = {registry.get(name).name: registry.resolve(*maker) for name, maker in given.items()}
    except ImageMakingError as error:
        raise BadSettings(f"DARKROOM_FALLBACKS: {error}") from error
    return {name: (provider.name, model.id) for name, (provider, model) in follows.items()}


def _sweep_after_outages(bus: Bus, worker: Worker) -> None:
    to_rooms = bus.changed

    def changed() -> None:
        to_rooms()
        if bus.up:
            worker.doubt_queue()

    bus.changed = changed


def _limits(ground: Ground) -> RoomLimits:
    settings = ground.settings
    alone = RoomLimits(
        max_open=settings.max_rooms, max_document_bytes=settings.max_document_bytes, stop_s=settings.stop_s
    )
    return alone if ground.redis_url is None else replace(alone, tick_s=_FLEET_TICK_S)


def _origins(settings: Settings) -> Origins:
    return Origins(settings.public_url, settings.cors_origins, tokens=settings.secret is not None)


async def _look_at_edits(journal: Journal) -> str:
    """Whether edits are committed as they come: the log may fail while the rest of the database answers."""
    age_s = journal.age_s
    if age_s < OLDEST_EDIT_S:
        return "ok"
    why = "the database refuses them" if journal.failing else "the database is slow"
    return f"not stored for {age_s:.0f} s: {why}"


def _watch(metrics: Metrics, rooms: Rooms, crowd: Crowd) -> None:
    metrics.watch("rooms_open", "Rooms open in this process.", lambda: len(rooms.all_open()))
    ids = "Client ids that ever wrote, in the open room that has most; above 2,000 every edit costs its clients."
    metrics.watch("client_ids_most", ids, lambda: rooms.growth.most_ids)
    metrics.watch("connections", "Websocket peers.", lambda: crowd.count)
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
