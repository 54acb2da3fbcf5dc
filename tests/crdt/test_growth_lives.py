from pathlib import Path

import pytest

from tests.crdt.compaction_peers import Yjs
from tests.crdt.growth_fuzz import one_life


@pytest.mark.parametrize("seed", [7, 27, 101])
async def test_nothing_that_anybody_wrote_is_lost_in_a_random_life(seed: int, yjs: Yjs, tmp_path: Path) -> None:
    """Late clients, compactions, restarts and kills around a room; more: `python -m tests.crdt.growth_fuzz 200`."""
    tally = await one_life(seed, yjs, tmp_path)
    assert tally["compactions"]


async def test_without_healing_something_is_lost(yjs: Yjs, tmp_path: Path) -> None:
    """The control: the same lives, late clients merged as any other."""
    lost = 0
    for seed in range(101, 104):
        try:
            await one_life(seed, yjs, tmp_path, healing=False)
        except AssertionError:
            lost += 1
    assert lost
