"""A process that only works on runs: no rooms, no documents; what it has to tell goes over the bus."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from crdt.redis_sender import RedisSender
from jobs.settlement import forget_old_calls
from server.errors import StartupError
from server.ground import Ground, running
from server.news import DistantNews
from server.running import Running

logger = logging.getLogger(__name__)


@asynccontextmanager
async def start_worker(ground: Ground) -> AsyncIterator[Running]:
    """A worker, until the end of the context.

    Raises:
        StartupError: There is no Redis to work with.

    """
    if ground.redis_url is None:
        raise StartupError("REDIS_URL: a worker takes its jobs from Redis; set it to a redis:// address")
    if ground.settings.app_url is None:
        facts = {"action": "no_app_url", "app_url": ground.settings.public_url}
        logger.warning("APP_URL is not set: pictures get the address of this machine and this port", extra=facts)
    async with RedisSender(ground.redis_url, ground.process_id) as sender:
        caller = ground.make_caller(ground.make_calls())
        news = DistantNews(ground.process_id, sender, caller.poke)
        runs = ground.make_runs(news.hint)
        dispatcher, webhooks = ground.make_dispatcher(runs, news.report), ground.make_webhooks(runs)
        worker = ground.make_worker(runs, news.report, dispatcher, webhooks)
        sender.changed = lambda: worker.doubt_queue() if sender.up else None
        async with caller, worker, running(forget_old_calls(runs), "deliveries"):
            yield Running(ground.engine, ground.metrics, ground.checks(sender, works=True))
