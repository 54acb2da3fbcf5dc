"""Frontier compaction: overwritten values of map keys become garbage, ids and state vector stay as they are.

Pure over encoded states (Yjs update, v1). What a peer must have seen so that plain diffs go on working is the frontier;
peers that have not seen it are the business of `crdt.healing`.

An item whose origin is garbage becomes garbage itself, in yjs and in yrs. So of each key one item is kept as anchor:
the last one, in the order in which Yjs integrates them, that the frontier covers. It loses its origin and names parent
and key itself; what is before it is retired. A chain is left alone when anything later hangs on what would be retired.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass

from pycrdt import Doc

from crdt.canvas import CanvasDoc, edges_of, meta_of, nodes_of
from crdt.chains import Members, Place, Segment, integrated_order, is_plain, path_of, read_chains
from crdt.errors import BadUpdate
from crdt.ids import IdSet
from crdt.update import (
    GC,
    HAS_ORIGIN,
    Id,
    Section,
    StateVector,
    Struct,
    Update,
    decode,
    decode_vector,
    encode,
    tail,
)


@dataclass(frozen=True, slots=True)
class Retired:
    """A range of ids that became garbage, and the key they had belonged to."""

    client: int
    clock: int
    length: int
    place: Place


@dataclass(frozen=True, slots=True)
class Compaction:
    """What a compaction made."""

    state: bytes
    """Yjs update (v1): the whole document."""
    vector: StateVector
    frontier: StateVector
    anchors: Mapping[Place, Id]
    """Items without origin that stand for what was before them: of this compaction and of earlier ones."""
    retired: tuple[Retired, ...]
    structs: int
    """In `state`."""
    keys: int
    """Keys of maps that ever held a value and are still part of the document."""


def compact(state: bytes, frontier: StateVector, anchors: Mapping[Place, Id] | None = None) -> Compaction:
    """Retire what the frontier allows.

    Takes seconds for a document that was never compacted; `crdt.compactor` runs it in a process of its own.

    Args:
        state: The document as one Yjs update (v1), encoded by a `Doc`: what waits for a parent is not in it.
        frontier: A state vector the room had some time ago, at least a day.
        anchors: Of the compaction before.

    Raises:
        BadUpdate: The state holds something this code does not know, or something that waits.

    """
    doc: CanvasDoc = Doc()
    doc.apply_update(state)
    vector = decode_vector(doc.get_state())
    update = decode(state)
    if any(s.structs and s.structs[-1].end > vector.get(s.client, 0) for s in update.sections):
        raise BadUpdate("something in the document waits for a parent")
    chains, types = read_chains(update)
    work = _Work(frontier, IdSet.of(update.deletes))
    for (parent, key), members in chains.items():
        if len(members) > 1 or members[0][1].length > 1:
            path = path_of(parent, types)
            if path is not None and is_plain(members):
                work.chain(Place(parent, key, path), members)
    kept = {place: one for place, one in (anchors or {}).items() if (place.parent, place.key) in chains}
    sections = [Section(s.client, _merged(s, work.tails), s.clock) for s in update.sections]
    return Compaction(
        state=encode(Update(sections, update.deletes)),
        vector=vector,
        frontier=frontier,
        anchors={**kept, **work.anchors},
        retired=tuple(work.retired),
        structs=sum(len(section.structs) for section in sections),
        keys=len(chains),
    )


def sound(before: bytes, after: bytes) -> bool:
    """Whether a fresh document of the compacted state equals the old one, and nothing in it waits.

    Args:
        before: Yjs update (v1), encoded by a `Doc`.
        after: The same, compacted.

    """
    documents: tuple[CanvasDoc, CanvasDoc] = Doc(), Doc()
    for doc, state in zip(documents, (before, after), strict=True):
        doc.apply_update(state)
    old, new = documents
    vector = decode_vector(old.get_state())
    if decode_vector(new.get_state()) != vector or _json(old) != _json(new):
        return False
    # Equal vectors also say that nothing waits. What became garbage unasked shows among the deletes.
    was, now = decode(before), decode(new.get_update())
    return IdSet.of(was.deletes) == IdSet.of(now.deletes)


class _Work:
    """What one compaction has retired so far; the items themselves are changed in place."""

    def __init__(self, frontier: StateVector, dead: IdSet) -> None:
        self.anchors: dict[Place, Id] = {}
        self.retired: list[Retired] = []
        self.tails: dict[Id, Struct] = {}
        """What stays of an item whose first units are retired, by the id of its first unit."""
        self._frontier = frontier
        self._dead = dead

    def chain(self, place: Place, members: Members) -> None:
        """Retire what can be retired of one key."""
        order = integrated_order(members, self._frontier)
        at = self._last_covered(order) if order is not None else None
        if order is None or at is None:
            return
        end = order[at]
        runs = [(s.client, s.clock, s.length) for s in order[:at]]
        if end.length > 1:
            runs.append((end.client, end.clock, end.length - 1))
        # Whoever has seen the anchor appends to it or behind it; an item that hangs before it would be lost.
        stays = {segment.last for segment in order[at:]}
        gone = all(self._dead.covers(*run) for run in runs)
        if runs and gone and all(segment.origin in stays for segment in order[at + 1 :]):
            self._retire(place, order[:at], end)
            self.retired += [Retired(*run, place) for run in runs]

    def _last_covered(self, order: list[Segment]) -> int | None:
        """Where the anchor is; None without one, or when something before it is not covered."""
        covered = [s.clock + s.length <= self._frontier.get(s.client, 0) for s in order]
        at = sum(covered) - 1
        return at if at >= 0 and all(covered[: at + 1]) else None

    def _retire(self, place: Place, before: list[Segment], end: Segment) -> None:
        anchor = end.struct
        for segment in before:
            # An item is divided by the anchor alone: behind a retired unit nothing of another item stays.
            if segment.struct is not anchor and segment.struct.info != GC:
                _to_garbage(segment.struct)
        units = end.clock + end.length - 1 - anchor.clock
        if units:
            rest = tail(anchor, units)
            self.tails[end.client, anchor.clock] = rest
            anchor.length = units
            _to_garbage(anchor)
            anchor = rest
        anchor.info &= ~HAS_ORIGIN
        anchor.origin, anchor.parent, anchor.key = None, place.parent, place.key
        self.anchors[place] = end.last


def _to_garbage(struct: Struct) -> None:
    struct.info = GC
    struct.origin = struct.parent = struct.key = None
    struct.content = b""


def _merged(section: Section, tails: Mapping[Id, Struct]) -> list[Struct]:
    """The structs of a section with tails put in and adjacent garbage made one."""
    merged: list[Struct] = []
    for struct in section.structs:
        if struct.kind == GC and merged and merged[-1].kind == GC:
            merged[-1].length += struct.length
        else:
            merged.append(struct)
        rest = tails.get((section.client, struct.clock)) if tails else None
        if rest is not None:
            merged.append(rest)
    return merged


def _json(doc: CanvasDoc) -> str:
    # As text, because NaN does not equal itself.
    roots = [root(doc).to_py() for root in (nodes_of, edges_of, meta_of)]
    return json.dumps(roots, sort_keys=True, default=repr)
