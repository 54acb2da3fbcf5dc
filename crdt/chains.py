"""The values of map keys as chains: which items belong to one key, and in which order Yjs has integrated them."""

from bisect import bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

from crdt.errors import BadUpdate
from crdt.update import ANY, BINARY, DELETED, GC, HAS_KEY, JSON, SKIP, TYPE, Id, StateVector, Struct, Update

ChainKey: TypeAlias = tuple[Id, str]
"""The item that holds a map, and a key of the map."""
Members: TypeAlias = list[tuple[int, Struct]]
"""Items of one key, each with its client."""
_PLAIN: Final = frozenset({DELETED, ANY, JSON, BINARY})


@dataclass(frozen=True, slots=True)
class Place:
    """One key of one shared map that is no root."""

    parent: Id
    """The item that holds the map."""
    key: str
    path: tuple[str, ...]
    """Root name and keys that lead to the map: fixed for an item, however often its node is made anew."""


@dataclass(slots=True)
class Segment:
    """A run of units of one item on which nothing hangs but at its end."""

    client: int
    clock: int
    length: int
    origin: Id | None
    struct: Struct

    @property
    def last(self) -> Id:
        """The id of its last unit: what a successor has as origin."""
        return self.client, self.clock + self.length - 1


def key_items(update: Update) -> Iterator[tuple[int, Struct]]:
    """Every value of a map key in an update, with its client."""
    for section in update.sections:
        for struct in section.structs:
            if struct.info & HAS_KEY and struct.kind not in (GC, SKIP):
                yield section.client, struct


class ItemIndex:
    """Finds an item by one of its ids; items of one client come in the order of their clocks."""

    def __init__(self) -> None:
        self._structs: dict[int, list[Struct]] = {}
        self._clocks: dict[int, list[int]] = {}
        self._count = 0

    def add(self, client: int, struct: Struct) -> None:
        """Take an item in."""
        self._count += 1
        self._structs.setdefault(client, []).append(struct)
        self._clocks.setdefault(client, []).append(struct.clock)

    def find(self, one: Id | None) -> Struct | None:
        """The item that holds this id."""
        if one is None or one[0] not in self._clocks:
            return None
        at = bisect_right(self._clocks[one[0]], one[1]) - 1
        struct = self._structs[one[0]][at]
        return struct if at >= 0 and one[1] < struct.end else None

    def resolve(self, struct: Struct) -> Struct:
        """Follow origins to an item that names its parent, or to the last one known; those passed inherit from it.

        Raises:
            BadUpdate: Items name each other as origin, which no client ever writes.

        """
        passed = []
        last = struct
        while last.parent is None and (before := self.find(last.origin or last.right)) is not None:
            passed.append(last)
            last = before
            if len(passed) > self._count:
                raise BadUpdate("items name each other as origin")
        if last.parent is not None:
            for item in passed:
                item.parent, item.key = last.parent, last.key
        return last


def read_chains(update: Update) -> tuple[dict[ChainKey, Members], dict[Id, Struct]]:
    """Items of a whole document by key, of maps that are no roots; and the items that hold a shared type."""
    index = ItemIndex()
    items = list(key_items(update))
    for client, struct in items:
        index.add(client, struct)
    types = {(c, struct.clock): struct for c, struct in items if struct.kind == TYPE}
    chains: dict[ChainKey, Members] = {}
    for client, struct in items:
        if struct.parent is None:
            index.resolve(struct)
        if isinstance(struct.parent, tuple) and struct.key is not None:
            chains.setdefault((struct.parent, struct.key), []).append((client, struct))
    return chains, types


def path_of(parent: Id, types: Mapping[Id, Struct]) -> tuple[str, ...] | None:
    """The way from a root to a living map; None when it lies in a list, or is dead."""
    keys: list[str] = []
    at: Id | str = parent
    while not isinstance(at, str):
        holder = types.get(at)
        if holder is None or holder.parent is None or holder.key is None:
            return None
        keys.append(holder.key)
        at = holder.parent
    return at, *reversed(keys)


def is_plain(members: Members) -> bool:
    """Whether no value is a living shared type, and all were appended to what their writer knew."""
    return all(struct.kind in _PLAIN and struct.right is None for _, struct in members)


def integrated_order(members: Members, frontier: StateVector) -> list[Segment] | None:
    """The items of a key as Yjs orders them: depth first over origins, siblings by ascending client id.

    None when an origin is not among them.
    """
    children: dict[Id | None, list[Segment]] = {}
    count = 0
    for segment in _segments(members, frontier):
        children.setdefault(segment.origin, []).append(segment)
        count += 1
    order: list[Segment] = []
    stack: list[Segment] = []
    origin: Id | None = None
    while True:
        siblings = children.get(origin, ())
        if len(siblings) > 1:
            # Of one client's siblings the later one was integrated to the left of the earlier one.
            siblings = sorted(siblings, key=lambda one: (-one.client, one.clock))
        stack += siblings
        if not stack:
            return order if len(order) == count else None
        order.append(stack.pop())
        origin = order[-1].last


def _segments(members: Members, frontier: StateVector) -> Iterator[Segment]:
    """Items in pieces: divided where another item hangs in their middle, and at the frontier."""
    cuts: dict[int, set[int]] = {}
    if any(struct.length > 1 for _, struct in members):
        for _, struct in members:
            if struct.origin is not None:
                cuts.setdefault(struct.origin[0], set()).add(struct.origin[1] + 1)
    for client, struct in members:
        if struct.length == 1:
            yield Segment(client, struct.clock, 1, struct.origin, struct)
            continue
        points = {*cuts.get(client, ()), frontier.get(client, 0)}
        start, origin = struct.clock, struct.origin
        for point in sorted({struct.end, *(p for p in points if struct.clock < p < struct.end)}):
            yield Segment(client, start, point - start, origin, struct)
            start, origin = point, (client, point - 1)
