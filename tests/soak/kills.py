"""
Runs while processes are killed: `python -m tests.soak.kills [--topology memory|fleet] [--runs 200] [--kills 100]`.

People ask for pictures of a vendor that takes its time, and meanwhile some process is killed by SIGKILL at a random
moment and started again: the only one there is (memory: SQLite, the queue in the process), or one of two web processes
and two workers (fleet: Postgres, Redis). At the end every run must have ended once, with every event once, be shown
by every web process, and have been paid for once, save what a kill cut off.
"""

import argparse
import asyncio
import itertools
import random
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any

import httpx2
import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from jobs.records import run_from_row
from jobs.tables import generated_images, run_events, runs
from tests.soak.figures import bound, say
from tests.soak.slow_vendor import SlowVendor
from tests.support.fleet import Fleet
from tests.support.peer import YPeer
from tests.support.postgres import PostgresServer
from tests.support.redis import RedisServer
from tests.support.server import ServerFactory, ServerProcess

CANVASES = 8
AT_ONCE = 4
"""Runs that are under way at most; each of them is hit when its process is killed."""
CALL_S = {"memory": (0.1, 1.0), "fleet": (0.5, 6.0)}
"""How long a picture takes. Where one process does everything and is killed every other second, longer ones would be
given up: a run that was at work in three processes that died is taken for their murderer."""
SETTLED_S = 15.0
STORING_S = 1.0
"""An answer may not be in SQL yet for so long; a kill then hits its call as well."""
_PATIENCE_S = 120.0
_TERMINAL = frozenset({"completed", "failed", "cancelled"})


@dataclass(frozen=True, slots=True)
class Kill:
    """One process that was killed."""

    name: str
    at: float
    calls_hit: int


@dataclass
class Site:
    """What is under fire."""

    processes: Mapping[str, ServerProcess]
    vendor: SlowVendor
    folder: Path
    fleet: Fleet | None = None
    kills: list[Kill] = field(default_factory=list)
    asked: dict[tuple[str, str], str] = field(default_factory=dict)
    """Run by canvas and node."""
    canvases: list[str] = field(default_factory=list)

    @property
    def webs(self) -> list[ServerProcess]:
        return [server for name, server in self.processes.items() if not name.startswith("worker")]

    async def rows(self, query: sa.Select[Any]) -> Sequence[sa.Row[Any]]:
        while True:
            try:
                source = self.fleet or self.webs[0]
                return await source.rows(query)
            except (SQLAlchemyError, OSError):
                await asyncio.sleep(0.1)


@contextmanager
def topology(name: str, folder: Path, vendor: SlowVendor) -> Iterator[Site]:
    """Everything that runs, started."""
    factory = ServerFactory(folder)
    common = {"OPENAI_API_KEY": "sk-soak", "DARKROOM_LOG_LEVEL": "info", "DARKROOM_LIMITS": "openai=1000/1s"}
    with _services(name) as (database, redis):
        try:
            if database is None or redis is None:
                env = common | {"OPENAI_BASE_URL": vendor.base_url_of("all-1")}
                server = factory.now(env=env)
                yield Site({"all-1": server}, vendor, server.data)
                return
            fleet = Fleet(factory, folder, database, redis, common)
            named = {}
            for role in ("web", "worker"):
                for number in (1, 2):
                    server = fleet.describe(role)
                    server.env["OPENAI_BASE_URL"] = vendor.base_url_of(f"{role}-{number}")
                    named[f"{role}-{number}"] = server
            for server in named.values():
                server.launch()
            for server in named.values():
                server.await_ready()
            yield Site(named, vendor, fleet.webs[0].data, fleet)
        finally:
            factory.stop_all()


@contextmanager
def _services(name: str) -> Iterator[tuple[str | None, str | None]]:
    if name == "memory":
        yield None, None
        return
    postgres, redis = PostgresServer(), RedisServer()
    try:
        postgres.start()
        redis.start()
        yield postgres.url(postgres.create()), redis.url
    finally:
        redis.stop()
        postgres.stop()


async def insist(site: Site, method: str, path: str, **options: Any) -> httpx2.Response:
    """A request to any web process, again until one answers: processes come and go."""
    async with asyncio.timeout(_PATIENCE_S):
        while True:
            server = random.choice(site.webs)  # noqa: S311 - not a secret
            try:
                async with httpx2.AsyncClient(base_url=server.url, timeout=10) as client:
                    answer = await client.request(method, path, **options)
                if answer.status_code < 500:
                    return answer
            except (httpx2.HTTPError, OSError):
                pass
            await asyncio.sleep(0.1)


async def fill(site: Site, count: int) -> list[tuple[str, str]]:
    """Canvases with nodes; the places where runs are asked for."""
    each = -(-count // CANVASES)
    for _ in range(CANVASES):
        nodes = [
            {"id": f"n{i}", "type": "image", "position": {"x": i, "y": 0}, "data": {"prompt": ""}} for i in range(each)
        ]
        answer = await insist(site, "POST", "/api/workflows", json={"nodes": nodes})
        site.canvases.append(answer.json()["id"])
    places = [(canvas, f"n{i}") for i in range(each) for canvas in site.canvases]
    return places[:count]


async def ask(site: Site, places: Sequence[tuple[str, str]], kills: int) -> None:
    """Ask for every run, spread over the kills."""
    for number, (canvas, node) in enumerate(places):
        while number > AT_ONCE + len(site.kills) * len(places) / max(1, kills) or await under_way(site) >= AT_ONCE:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        body = {
            "provider": "openai",
            "model": "gpt-image-2",
            "promptSpec": {"basePrompt": f"picture {number}", "quality": "low", "size": "1024x1024"},
        }
        path = f"/api/workflows/{canvas}/nodes/{node}/runs"
        answer = await insist(site, "POST", path, json=body, headers={"idempotency-key": f"soak-{number}"})
        assert answer.status_code in {200, 201}, answer.text
        site.asked[canvas, node] = answer.json()["jobId"]


async def under_way(site: Site) -> int:
    query = sa.select(sa.func.count()).where(runs.c.status.not_in(_TERMINAL))
    ((count,),) = await site.rows(query)
    return int(count)


async def kill(site: Site, kills: int) -> None:
    """Kill some process at a random moment, start it again, and so on."""
    for number in range(kills):
        await asyncio.sleep(random.uniform(0.1, 3.0))  # noqa: S311 - not a secret
        name = random.choice(list(site.processes))  # noqa: S311 - not a secret
        server = site.processes[name]
        await server.kill()
        now = monotonic()
        hit = sum(
            call.caller == name and (call.ended is None or call.ended > now - STORING_S) for call in site.vendor.billed
        )
        site.kills.append(Kill(name, now, hit))
        server.launch()
        await asyncio.to_thread(server.await_ready)
        if (number + 1) % 10 == 0:
            say(f"  {number + 1} kills, {len(site.asked)} runs asked for, {len(site.vendor.billed)} calls billed")


async def settle(site: Site) -> float:
    """Wait until every run has ended; how long that took."""
    begun = monotonic()
    while await under_way(site) and monotonic() - begun < _PATIENCE_S:  # noqa: ASYNC110 - other processes
        await asyncio.sleep(0.1)
    return monotonic() - begun


async def shown(site: Site, patience_s: float) -> int:
    """How many nodes do not show their run's end at some web process, after waiting for it."""
    ended = {row.id: row for row in await site.rows(sa.select(runs))}
    wrong = 0
    for server in site.webs:
        for canvas in site.canvases:
            mine = {node: ended[run] for (at, node), run in site.asked.items() if at == canvas}
            peer = YPeer(server.ws_url, canvas)

            def right(mine: Mapping[str, sa.Row[Any]] = mine, peer: YPeer = peer) -> bool:
                return all(_same(peer, node, row) for node, row in mine.items())

            try:
                async with peer.connected():
                    await peer.until(right, patience_s)
            except TimeoutError:
                wrong += sum(not _same(peer, node, row) for node, row in mine.items())
    return wrong


def _same(peer: YPeer, node: str, row: sa.Row[Any]) -> bool:
    data = peer.data(node)
    return (data.get("runId"), data.get("status")) == (row.id, row.status)


async def judge(site: Site, settled_s: float) -> bool:
    """Print every figure beside its bound; whether all are kept."""
    rows = await site.rows(sa.select(runs))
    events: dict[str, list[tuple[int, str]]] = {}
    query = sa.select(run_events.c.run_id, run_events.c.seq, run_events.c.kind)
    for event in await site.rows(query.order_by(run_events.c.run_id, run_events.c.seq)):
        events.setdefault(event.run_id, []).append((event.seq, event.kind))
    pictures = Counter(row.run_id for row in await site.rows(sa.select(generated_images.c.run_id)))
    keys = [row.key for row in await site.rows(sa.select(generated_images.c.key))]
    status = Counter(row.status for row in rows)
    failed = Counter(row.error_code for row in rows if row.status == "failed")
    unseen = await shown(site, max(1.0, SETTLED_S - settled_s))
    calls: dict[str, list[tuple[str, float]]] = {}
    for call in site.vendor.billed:
        calls.setdefault(call.prompt, []).append((call.caller, call.begun))
    prompts = {run_from_row(row).spec.base_prompt: row.id for row in rows}
    unexplained = sum(_unexplained(site, each) for each in calls.values())
    hidden = sum(
        max(0, len(each) - [kind for _, kind in events[prompts[prompt]]].count("started"))
        for prompt, each in calls.items()
    )
    extra = len(site.vendor.billed) - len(calls)
    hits = [kill for kill in site.kills if kill.calls_hit]
    say(f"  ended: {dict(status)}, failed with: {dict(failed)}")
    say(f"  killed: {dict(Counter(kill.name for kill in site.kills))}")
    say(
        f"  billed calls: {len(site.vendor.billed)} for {len(calls)} runs, {extra} more than once; "
        f"{len(hits)} of {len(site.kills)} kills hit {sum(kill.calls_hit for kill in hits)} calls"
    )
    for prompt, each in calls.items():
        if _unexplained(site, each):
            say(f"  no kill to blame: {prompt!r} {each}, kills {[(kill.name, kill.at) for kill in site.kills]}")
    whole = sum(_broken(one) for one in events.values()) + (len(rows) - len(events))
    completed = {row.id for row in rows if row.status == "completed"}
    return all(
        [
            bound("runs lost or made twice", abs(len(rows) - len(site.asked)), 0, "runs"),
            bound(
                "runs that were told to somebody and are not there", len(set(site.asked.values()) - set(events)), 0, ""
            ),
            bound("runs that did not end", sum(row.status not in _TERMINAL for row in rows), 0, "runs"),
            bound("until all had ended after the last restart", settled_s, SETTLED_S, "s"),
            bound("runs whose events have holes, doubles or no one end", whole, 0, "runs"),
            bound(
                "completed runs without exactly one picture", sum(pictures[id_] != 1 for id_ in completed), 0, "runs"
            ),
            bound("pictures of runs that did not complete", sum(id_ not in completed for id_ in pictures), 0, "runs"),
            bound("pictures that are not on the disk", sum(not _stored(site, key) for key in keys), 0, "pictures"),
            bound("nodes that do not show the end of their run", unseen, 0, "nodes"),
            bound("billed again", extra, sum(kill.calls_hit for kill in hits), "calls"),
            bound("billed again and no kill to blame", unexplained, 0, "calls"),
            bound("billed and no attempt that shows it", hidden, 0, "calls"),
        ]
    )


def _unexplained(site: Site, calls: Sequence[tuple[str, float]]) -> int:
    """Calls that were repeated although whoever made the one before was not killed in between."""
    pairs = itertools.pairwise(calls)
    return sum(
        not any(kill.name == caller and begun <= kill.at <= again for kill in site.kills)
        for (caller, begun), (_, again) in pairs
    )


def _broken(events: Sequence[tuple[int, str]]) -> bool:
    kinds = [kind for _, kind in events]
    numbered = [seq for seq, _ in events] == list(range(1, len(events) + 1))
    ends = [kind for kind in kinds if kind in _TERMINAL]
    return not (numbered and kinds[0] == "requested" and len(ends) == 1 and kinds[-1] == ends[0])


def _stored(site: Site, key: str) -> bool:
    return any((site.folder / "images").rglob(Path(key).name))


@asynccontextmanager
async def _both(site: Site, places: Sequence[tuple[str, str]], kills: int) -> AsyncIterator[None]:
    async with asyncio.TaskGroup() as group:
        group.create_task(ask(site, places, kills))
        group.create_task(kill(site, kills))
    yield


async def soak(name: str, count: int, kills: int, folder: Path) -> bool:
    """One topology under fire."""
    least_s, most_s = CALL_S[name]
    async with SlowVendor(least_s=least_s, most_s=most_s).serving() as vendor:
        with topology(name, folder, vendor) as site:
            begun = monotonic()
            places = await fill(site, count)
            say(f"{name}: {count} runs, {kills} kills of {', '.join(site.processes)}")
            async with _both(site, places, kills):
                settled_s = await settle(site)
            say(f"  took {monotonic() - begun:.0f} s")
            good = await judge(site, settled_s)
            broken = sum(server.log.count("Traceback") for server in site.processes.values())
            return bound("tracebacks in the logs", broken, 0, "") and good


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak.kills")
    parser.add_argument("--topology", choices=("memory", "fleet"), default="memory")
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--keep", type=Path, help="a folder for data and logs, to look at afterwards")
    options = parser.parse_args(arguments)
    if options.keep is not None:
        options.keep.mkdir(parents=True, exist_ok=True)
        return int(not asyncio.run(soak(options.topology, options.runs, options.kills, options.keep)))
    with tempfile.TemporaryDirectory() as folder:
        return int(not asyncio.run(soak(options.topology, options.runs, options.kills, Path(folder))))


if __name__ == "__main__":
    sys.exit(main())
