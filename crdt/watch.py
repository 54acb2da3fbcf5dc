"""What changes in a document, seen below pycrdt's wrappers: they cost several times what applying an edit does.

The private parts of pycrdt used here are pinned by the version in pyproject.toml and by tests/crdt/test_room.py.
"""

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from crdt import protocol
from crdt.canvas import INTENT_KEY, CanvasDoc, edges_of, meta_of, nodes_of


@dataclass(frozen=True, slots=True)
class Touched:
    """What one transaction changed."""

    nodes: frozenset[str]
    """Nodes of which anything changed, also a position: to be mirrored."""
    data: frozenset[str]
    """Nodes that came, went, or whose data changed: to be looked at by the keeper."""
    edges: frozenset[str]
    meta: bool
    server: bool
    """Whether this process wrote it."""
    unseen: bool = False
    """Whether more may have changed: yrs does not tell of a key that one transaction replaces and removes."""


class Watch:
    """Observes a document until `drop`, which must be called.

    A callback that a document holds is invisible to Python's garbage collector: an observer that is not dropped keeps
    itself, its document and whatever it refers to for ever.
    """

    def __init__(self, doc: CanvasDoc, askers: dict[str, Mapping[str, str]]) -> None:
        raw = doc._doc  # noqa: SLF001 - see the module
        roots = {nodes_of: self._nodes_changed, edges_of: self._edges_changed, meta_of: self._meta_changed}
        self._raw = raw
        self._subscriptions: list[Any] = [raw.observe(self._transaction_ended)]
        self._subscriptions += [root(doc).integrated.observe_deep(observer) for root, observer in roots.items()]
        self._changed = False
        self._emitted: bytes | None = None
        self._recording = False
        self._nodes: set[str] = set()
        self._data: set[str] = set()
        self._edges: set[str] = set()
        self._meta = False
        self._askers = askers
        self._author: Mapping[str, str] | None = None
        self._removed: dict[tuple[str, ...], Any] | None = None

    def drop(self) -> None:
        """Stop observing, and let go of the document."""
        for subscription in self._subscriptions:
            subscription.drop()
        self._subscriptions.clear()
        del self._raw

    def apply(self, update: bytes, author: Mapping[str, str] | None = None) -> bool:
        """Apply an update (v1).

        Args:
            update: What to apply.
            author: Noted for each node into which the update puts a request.

        Returns:
            Whether the document changed.

        """
        self._changed = False
        self._author = author
        transaction = self._raw.create_transaction()
        try:
            self._raw.apply_update(transaction, update)
        finally:
            try:
                transaction.commit()
            finally:
                transaction.drop()
                self._author = None
        return self._changed

    def record(self) -> None:
        """Keep what the next transaction emits."""
        self._recording, self._emitted = True, None

    def take_emitted(self) -> bytes | None:
        """What the transaction since `record` changed, as an update (v1); None when it changed nothing."""
        emitted, self._emitted, self._recording = self._emitted, None, False
        return emitted if emitted != protocol.EMPTY_UPDATE else None

    @contextmanager
    def removals(self) -> Iterator[dict[tuple[str, ...], Any]]:
        """What transactions inside take away, by root, keys and key: the value that was there."""
        removed = self._removed = {}
        try:
            yield removed
        finally:
            self._removed = None

    def take_touched(self, *, server: bool) -> Touched | None:
        """What was touched since the last call."""
        if not (self._nodes or self._edges or self._meta):
            return None
        touched = Touched(frozenset(self._nodes), frozenset(self._data), frozenset(self._edges), self._meta, server)
        self._nodes.clear()
        self._data.clear()
        self._edges.clear()
        self._meta = False
        return touched

    # Nothing below may raise: it is called from within the document.

    def _transaction_ended(self, event: Any) -> None:
        self._changed = True
        if self._recording:
            self._emitted = event.update

    def _note_removed(self, root: str, events: list[Any]) -> None:
        if self._removed is not None:
            for event in events:
                for key, change in getattr(event, "keys", {}).items():
                    if change["action"] == "delete":
                        self._removed[(root, *map(str, event.path), key)] = change["oldValue"]

    def _nodes_changed(self, events: list[Any]) -> None:
        self._note_removed("nodes", events)
        for event in events:
            path = event.path
            # A peer may have put an array or a text where a map belongs; only maps have keys.
            keys = getattr(event, "keys", {})
            if self._author is not None:
                self._askers.update(dict.fromkeys(_asked(path, keys), self._author))
            if not path:
                self._nodes.update(keys)
                self._data.update(keys)
            elif isinstance(path[0], str):
                self._nodes.add(path[0])
                if len(path) > 1 or keys.keys() != {"position"}:
                    self._data.add(path[0])

    def _edges_changed(self, events: list[Any]) -> None:
        self._note_removed("edges", events)
        for event in events:
            keys = event.path[:1] or getattr(event, "keys", {})
            self._edges.update(key for key in keys if isinstance(key, str))

    def _meta_changed(self, _events: list[Any]) -> None:
        self._meta = True


def _asked(path: list[Any], keys: Collection[str]) -> Collection[str]:
    """Ids of nodes into which one event of `nodes` may have put a request."""
    match path:
        case []:
            return keys
        case [str(node_id)] if "data" in keys:
            return [node_id]
        case [str(node_id), "data"] if INTENT_KEY in keys:
            return [node_id]
        case [str(node_id), "data", key, *_] if key == INTENT_KEY:
            return [node_id]
    return ()
