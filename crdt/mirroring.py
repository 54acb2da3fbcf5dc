"""Reading from a live document what goes into the mirror."""

import asyncio
import itertools
from collections.abc import Iterable, Iterator

from crdt import canvas
from crdt.rows import EdgeRow, Mirror, NodeRow

SLICE = 100
"""Nodes or edges read before others get their turn."""


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
    for slice_ in slices(names):
        for name in slice_:
            node = canvas.read_node(doc, name)
            node_rows[name] = node.to_row() if node is not None else None
        await asyncio.sleep(0)
    edge_rows: dict[str, EdgeRow | None] = {}
    for slice_ in slices(links):
        edge_rows.update((name, canvas.read_edge(doc, name)) for name in slice_)
        await asyncio.sleep(0)
    return Mirror(node_rows, edge_rows, canvas.read_title(doc), seq, complete)


def slices(names: Iterable[str]) -> Iterator[tuple[str, ...]]:
    """Names in groups of at most `SLICE`."""
    rest = iter(names)
    while slice_ := tuple(itertools.islice(rest, SLICE)):
        yield slice_
