"""Canvases, drags and cursors, encoded before the clock starts."""

import json
import re
import time
from array import array
from collections.abc import Callable

from pycrdt import Doc, Map, TransactionEvent

from crdt import canvas, protocol
from crdt.canvas import CanvasDoc
from crdt.protocol import AwarenessEntry
from tests.bench.wire import Received, client_frame

NODES_PER_UPDATE = 500
EDIT, CURSOR = b"w", b"c"


def marker(kind: bytes, source: int, number: int) -> str:
    """Text inside an edit or a cursor by which its arrival is recognised."""
    return f"@{kind.decode()}{source:03}{number:06}"


def canvas_updates(nodes: int) -> list[bytes]:
    """A React Flow document with so many nodes, and an edge between any two neighbours."""
    doc: CanvasDoc = Doc(client_id=1)
    updates: list[bytes] = []
    observed = doc.observe(_keep(updates))
    for first in range(0, nodes, NODES_PER_UPDATE):
        with doc.transaction():
            for number in range(first, min(nodes, first + NODES_PER_UPDATE)):
                canvas.nodes_of(doc)[f"n{number}"] = Map(
                    {
                        "type": "image",
                        "position": {"x": number % 100 * 240.0, "y": number // 100 * 180.0},
                        "data": Map(
                            {
                                "label": f"Node {number}",
                                "prompt": f"a lighthouse at dusk, oil painting, variation {number}",
                                "imageUrl": f"/images/run-{number}/image.png",
                            }
                        ),
                    }
                )
                if number:
                    edge = {"source": f"n{number - 1}", "target": f"n{number}"}
                    canvas.edges_of(doc)[f"e{number}"] = Map(edge)
    observed.drop()
    return updates


def drags(seed: list[bytes], node: int, count: int, *, weight: int = 0) -> list[bytes]:
    """Frames that move one node, each with `weight` bytes more than it needs; one author per node."""
    doc: CanvasDoc = Doc(client_id=10_000 + node)
    for update in seed:
        doc.apply_update(update)
    updates: list[bytes] = []
    observed = doc.observe(_keep(updates))
    target = canvas.nodes_of(doc)[f"n{node}"]
    for number in range(count):
        place = {"x": number * 1.5, "y": node * 10 + number / 3, "m": marker(EDIT, node, number)}
        target["position"] = {**place, "body": "x" * weight} if weight else place
    observed.drop()
    return [client_frame(protocol.update_message(update)) for update in updates]


def cursors(source: int, count: int) -> list[bytes]:
    """Frames in which one person moves a cursor."""
    frames = []
    for number in range(count):
        state = {
            "user": {"name": f"user {source}", "color": "#30bced"},
            "cursor": {"x": number * 3, "y": number * 2},
            "m": marker(CURSOR, source, number),
        }
        entry = AwarenessEntry(20_000 + source, number + 1, json.dumps(state))
        frames.append(client_frame(protocol.awareness_message([entry])))
    return frames


class Arrivals:
    """
    When the edits of some sources reached some receivers.

    A delivery is "edit n of a source, or a later one of it, arrived", so merging counts as delivering.
    """

    def __init__(self, kind: bytes, sources: int, count: int) -> None:
        self.latencies_ms: list[float] = []
        self._pattern = re.compile(b"@" + kind + rb"(\d{3})(\d{6})")
        self._sent = [array("d", bytes(8 * count)) for _ in range(sources)]
        self._last: list[tuple[list[int], int]] = []

    def sender(self, source: int, frames: list[bytes], send: Callable[[bytes], None]) -> Callable[[int], None]:
        """What sends the frames of a source, to be called with their number."""
        sent = self._sent[source]

        def go(number: int) -> None:
            sent[number] = time.perf_counter()
            send(frames[number])

        return go

    def receiver(self, *, probe: bool, own: int = -1) -> Received:
        """What a receiver calls; a probe notes latencies; `own` is the source that it is itself."""
        last = [-1] * len(self._sent)
        self._last.append((last, own))
        find, sent, latencies = self._pattern.finditer, self._sent, self.latencies_ms

        def received(message: bytes, now: float) -> None:
            for match in find(message):
                source, number = int(match[1]), int(match[2])
                if number <= last[source] or source == own:
                    continue
                if probe:
                    latencies.extend((now - sent[source][each]) * 1000 for each in range(last[source] + 1, number + 1))
                last[source] = number

        return received

    def missing(self, sent: list[int]) -> int:
        """Deliveries that are still to come, when every source sent so many."""
        return sum(
            sent[source] - 1 - number for last, own in self._last for source, number in enumerate(last) if source != own
        )


def _keep(updates: list[bytes]) -> Callable[[TransactionEvent], None]:
    def observer(event: TransactionEvent) -> None:
        updates.append(event.update)

    return observer
