"""The values that travel between the rooms and the store."""

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, field

from crdt.json import Json


@dataclass(frozen=True, slots=True)
class NodeRow:
    """A node as `workflow_nodes` keeps it."""

    id: str
    node_type: str
    node_data: Mapping[str, Json]
    position: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class EdgeRow:
    """An edge as `workflow_edges` keeps it; `edge_data` holds every key but id, source and target."""

    id: str
    source: str
    target: str
    edge_data: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Mirror:
    """What changed in a document since it was last mirrored; None marks what is gone from it."""

    nodes: Mapping[str, NodeRow | None]
    edges: Mapping[str, EdgeRow | None]
    title: str | None = None
    seq: int | None = None
    """The number in the log this follows exactly; None while edits are on their way to SQL."""
    complete: bool = False
    """Whether `nodes` and `edges` are all there is: rows that are not named are gone from the document."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A document as SQL has it: snapshot first, then the updates behind it, each a Yjs update (v1)."""

    seq: int
    snapshot: bytes | None
    updates: tuple[bytes, ...]
    mirror_seq: int
    guard: bytes | None = None
    """`crdt.guard.Guard.encode`; None of a document that was never compacted."""


@dataclass(frozen=True, slots=True)
class Head:
    """Where the log of a room stands, and whose turn it is to keep it."""

    seq: int
    fence: int
    free: bool = False
    """Whether nobody alive keeps it."""


@dataclass(frozen=True, slots=True)
class Size:
    """How large a document was right after a compaction."""

    bytes: int
    structs: int
    keys: int
    units: int
    """Sum of its state vector: every later write adds one or more."""


@dataclass(frozen=True, slots=True)
class Ledger:
    """What SQL knows of a document's growth."""

    stored_bytes: int
    """Snapshot and log."""
    frontier: bytes | None
    """The latest state vector noted before the window; None while the room is younger than that."""
    noted_at: dt.datetime | None
    """When the last state vector was noted."""
    compacted_at: dt.datetime | None
    size: Size | None
    """After the last compaction that is still on record."""


@dataclass(frozen=True, slots=True)
class WorkflowSummary:
    """A line in the list of workflows."""

    id: str
    title: str
    created_at: dt.datetime
    updated_at: dt.datetime
    node_count: int
    thumbnails: tuple[str, ...]
