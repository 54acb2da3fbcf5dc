"""
The load generator: one scenario against one server, in a process of its own.

Run as `python -m tests.bench.load SCENARIO TARGET`, TARGET being JSON; prints the figures as JSON.
"""

import asyncio
import contextlib
import gc
import json
import sys
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

from tests.bench import flood, realtime, runs, webhooks
from tests.bench.target import Figures, Target

with contextlib.suppress(ImportError):
    import uvloop


@dataclass(frozen=True, slots=True)
class Scenario:
    """What is done to a server, and what it is compared with."""

    run: Callable[[Target], Awaitable[Figures]]
    about: str
    against_echo: bool = False
    env: Mapping[str, str] = field(default_factory=dict)
    module: str = "server"


SCENARIOS = {
    "fan-50x5": Scenario(
        partial(realtime.fan_out, clients=50, writers=5, hz=60), "5 of 50 people drag at 60 Hz", against_echo=True
    ),
    "fan-50x20": Scenario(
        partial(realtime.fan_out, clients=50, writers=20, hz=60), "20 of 50 people drag at 60 Hz", against_echo=True
    ),
    "fan-200": Scenario(
        partial(realtime.fan_out, clients=200, writers=1, hz=30), "1 of 200 people drags at 30 Hz", against_echo=True
    ),
    "aware-50": Scenario(
        partial(realtime.awareness, clients=50), "50 cursors at 20 Hz, one person drags", against_echo=True
    ),
    "aware-200": Scenario(partial(realtime.awareness, clients=200), "200 cursors at 20 Hz, one person drags"),
    "join-1k": Scenario(partial(realtime.joins, nodes=1_000), "opening a canvas of 1,000 nodes"),
    "join-10k": Scenario(partial(realtime.joins, nodes=10_000), "opening a canvas of 10,000 nodes"),
    "slow": Scenario(realtime.slow_reader, "2 MB/s in a room where one person stops reading for 8 s"),
    "flood": Scenario(flood.flood, "one client sends 5,000 edits a second"),
    "rooms": Scenario(realtime.many_rooms, "200 rooms of two people"),
    "clicks": Scenario(
        runs.clicks, "click to state, seen by somebody else", env={"DARKROOM_DEMO_DELAY_S": str(runs.DEMO_DELAY_S)}
    ),
    "webhooks": Scenario(
        webhooks.calls,
        "100 calls of makers a second beside 10 editors and runs",
        env={"DARKROOM_DEMO_DELAY_S": "0", "OPENAI_WEBHOOK_SECRET": webhooks.SECRET},
    ),
    "runs": Scenario(
        runs.throughput,
        "runs through the whole road, with a provider that takes no time",
        env={"DEFAULT_PROVIDER": "instant"},
        module="tests.bench.instant",
    ),
}


def main(name: str, target: str) -> None:
    """Run one scenario and print its figures."""
    make_loop = uvloop.new_event_loop if "uvloop" in sys.modules else asyncio.new_event_loop
    gc.disable()  # A pause here would be taken for one of the server.
    with asyncio.Runner(loop_factory=make_loop) as runner:
        figures = runner.run(_measure(SCENARIOS[name], Target(**json.loads(target))))
    sys.stdout.write(json.dumps(figures) + "\n")


async def _measure(scenario: Scenario, target: Target) -> Figures:
    return await scenario.run(target)


if __name__ == "__main__":
    main(*sys.argv[1:])
