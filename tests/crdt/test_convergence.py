"""Whatever goes wrong for a while, everybody ends with the same canvas, and nothing acknowledged is lost."""

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.crdt.builders import database
from tests.crdt.convergence import SCRIPTS, Script, World
from tests.support.fast_clock import FastLoop

EXAMPLES = int(__import__("os").environ.get("EX", "60"))


def explore(url: str, *, processes: int, examples: int) -> None:
    """Play scripts that hypothesis draws, all on one database, each in a room of its own."""
    with asyncio.Runner(loop_factory=FastLoop) as runner:
        opened = database(url)
        engine = runner.run(opened.__aenter__())

        @settings(max_examples=examples)
        @given(script=SCRIPTS, snapshot_rows=st.sampled_from([1, 2, 500]))
        def agree(script: Script, snapshot_rows: int) -> None:
            runner.run(World(engine, processes=processes, snapshot_rows=snapshot_rows).play(script))

        agree()
        runner.run(opened.__aexit__(None, None, None))


def test_everybody_agrees_in_the_end(sqlite_url: str) -> None:
    explore(sqlite_url, processes=1, examples=EXAMPLES)


@pytest.mark.parametrize("processes", [1, 2])
def test_everybody_agrees_in_the_end_on_postgres(postgres_url: str, processes: int) -> None:
    explore(postgres_url, processes=processes, examples=EXAMPLES // 4)
