"""Real yjs for the tests of the shared document."""

from collections.abc import Iterator

import pytest

from tests.crdt.compaction_peers import Yjs


@pytest.fixture(scope="module")
def yjs() -> Iterator[Yjs]:
    """yjs documents in a process of their own, one process for a module."""
    process = Yjs()
    yield process
    process.close()
