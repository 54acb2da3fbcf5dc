"""Whatever goes wrong for a while, everybody ends with the same canvas, and nothing acknowledged is lost."""

import asyncio

import pytest

from tests.crdt.builders import database
from tests.crdt.convergence import Script, World, explore
from tests.support.fast_clock import FastLoop

OVERTAKEN: Script = [
    ("edit", 0, [("add", 2)]),
    ("delay", 0),
    ("meet", 0, 1),
    ("say", 1, [("label", 2), ("title", 1)], "in order"),
    ("commit", 0),
    ("restart", 0),
    ("edit", 0, [("add", 1)]),
    ("connect", 0),
    ("say", 0, [("add", 0)], "in order"),
    ("pass_time", 1),
    ("edit", 0, [("remove", 0)]),
]


def test_everybody_agrees_in_the_end(sqlite_url: str) -> None:
    explore(sqlite_url, processes=1, examples=40)


@pytest.mark.parametrize("processes", [1, 2])
def test_everybody_agrees_in_the_end_on_postgres(postgres_url: str, processes: int) -> None:
    explore(postgres_url, processes=processes, examples=10)


def test_rows_of_nodes_follow_edits_that_overtook_each_other(sqlite_url: str) -> None:
    async def play() -> None:
        async with database(sqlite_url) as engine:
            world = World(engine, processes=1, snapshot_rows=1)
            await world.play(OVERTAKEN)
            await world.check_rows()

    with asyncio.Runner(loop_factory=FastLoop) as runner:
        runner.run(play())
