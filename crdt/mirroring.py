"""Reading from a live document what goes into the mirror."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterable

from crdt import canvas
from crdt.rows import EdgeRow, Mirror, NodeRow

SLICE = 25
"""Nodes or edges read before others get their turn."""
BREATH_S = 0.002
"""How long that turn is: with none, whoever needs several of them in a row would wait behind a slice each time."""


async def read_mirror(
    doc: canvas.CanvasDoc, nodes: set[str], edges: set[str], *, seq: int | None, complete: bool
) -> Mirror:
    """What is to be mirrored, read in slices: a large canvas at once would keep everybody waiting.

    What changes between two slices is marked as changed again, so the next mirror brings it; the number in the log
    is that of the beginning.

    Args:
        doc: Of the room.
        nodes: Ids of those that changed.
        edges: Likewise.
        seq: The number in the log that the document has now; None while it is ahead of the log.
        complete: Read everything.

    """
    names = set(canvas.node_ids(doc)) if complete else {name for name in nodes if canvas.valid_id(name)}
    links = set(canvas.edge_ids(doc)) if complete else {name for name in edges if canvas.valid_id(name)}
    node_rows: dict[str, NodeRow | None] = {}
    async for slice_ in in_turns(names):
        for name in slice_:
            node = canvas.read_node(doc, name)
            node_rows[name] = node.to_row() if node is not None else None
    edge_rows: dict[str, EdgeRow | None] = {}
    async for slice_ in in_turns(links):
        edge_rows.update((name, canvas.read_edge(doc, name)) for name in slice_)
    return Mirror(node_rows, edge_rows, canvas.read_title(doc), seq, complete)


async def in_turns(names: Iterable[str]) -> AsyncIterator[tuple[str, ...]]:
    """Names in groups of at most `SLICE`, with time for others between two groups."""
    rest = iter(names)
    slice_ = tuple(itertools.islice(rest, SLICE))
    while slice_:
        yield slice_
        slice_ = tuple(itertools.islice(rest, SLICE))
        if slice_:
            await asyncio.sleep(BREATH_S)
