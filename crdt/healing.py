"""The update by which a late peer's document and everybody else's come to agree again.

A late peer holds chains whose head became garbage here. Each key in question is written anew by an item without origin
under a client id above all others: it comes last in every chain, whatever history the other side has.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final, TypeAlias

from pycrdt import Array, Doc, Map, Text, XmlElement, XmlFragment, XmlText

from crdt.canvas import CanvasDoc
from crdt.chains import Place
from crdt.guard import HEAL_BASE, Plan, is_server_owned
from crdt.json import Json
from crdt.lib0 import write_any, write_text, write_uint
from crdt.update import ANY, HAS_KEY, STRING, TYPE, Id, Section, Struct, Update, encode


class _Missing(Enum):
    """Results that are no values."""

    KEY = "the map has no such key"
    MAP = "the map is gone"


Truth: TypeAlias = Callable[[str], Mapping[str, Json] | None]
"""The server-owned keys of a node as SQL has them; a key that is left out is absent. None: keep what is there."""
_ARRAY_TYPE, _MAP_TYPE, _TEXT_TYPE = 0, 1, 2
HEALS: Final = 2**20
"""How many a room may have: the ids above `HEAL_BASE`."""


def heal(doc: CanvasDoc, number: int, plan: Plan, truth: Truth | None = None) -> bytes:
    """Make the update that writes a plan's keys anew: server-owned ones from SQL, others as the late peer wants them.

    Apply the late peer's own update first, and this at once behind it, with no edit of others in between.

    Args:
        doc: Of the room; read only.
        number: One higher than of the heal before, stored before it is used: an id is never used twice.
        plan: From `Guard.plan` or `Guard.overtaken`.
        truth: Asked once for each node of `Plan.nodes`.

    Returns:
        A Yjs update (v1); without structs when every map in question is gone.

    """
    if not 0 <= number < HEALS:
        raise ValueError(f"a room has {HEALS} heals")
    rows = {node: truth(node) for node in sorted(plan.nodes())} if truth is not None else {}
    writing = _Writing(HEAL_BASE + number)
    for place, claim in plan.claims.items():
        current = _current(doc, place)
        if current is _Missing.MAP:
            continue
        row = rows.get(place.path[1]) if is_server_owned(place) else None
        if row is not None:
            writing.key(place.parent, place.key, row.get(place.key, _Missing.KEY))
        elif claim is not None and not is_server_owned(place):
            writing.item(HAS_KEY | ANY, place.parent, place.key, claim)
        else:
            writing.key(place.parent, place.key, current)
    return writing.update()


def plain_content(value: object) -> bytes | None:
    """A value as the encoded content of an item (kind ANY), as `Plan.claims` has it; None of what is no JSON value."""
    out = bytearray()
    write_uint(out, 1)
    try:
        write_any(out, value)
    except TypeError:
        return None
    return bytes(out)


def _current(doc: CanvasDoc, place: Place) -> Any:
    root, *keys = place.path
    at: Any = doc.get(root, type=Map)
    for key in keys:
        if not isinstance(at, Map) or key not in at:
            return _Missing.MAP
        at = at[key]
    if not isinstance(at, Map):
        return _Missing.MAP
    return at.get(place.key, _Missing.KEY)


@dataclass(slots=True)
class _Writing:
    """Items of one client, none with an origin unless it continues a list."""

    client: int
    structs: list[Struct] = field(default_factory=list)
    absent: list[tuple[int, int]] = field(default_factory=list)

    def item(self, info: int, parent: Id, key: str | None, content: bytes, length: int = 1) -> Id:
        """Append an item; its id."""
        clock = self.structs[-1].end if self.structs else 0
        self.structs.append(Struct(info, clock, length, parent=parent, key=key, content=content))
        return self.client, clock

    def key(self, parent: Id, key: str, value: object) -> None:
        """Write a key of a map: a plain value, a copy of a shared type, or its absence."""
        if isinstance(value, Map):
            holder = self.item(HAS_KEY | TYPE, parent, key, bytes((_MAP_TYPE,)))
            for name in value.keys():  # noqa: SIM118 - no dict
                self.key(holder, name, value[name])
        elif isinstance(value, Text):
            holder = self.item(HAS_KEY | TYPE, parent, key, bytes((_TEXT_TYPE,)))
            self._text(holder, str(value))
        elif isinstance(value, Array):
            holder = self.item(HAS_KEY | TYPE, parent, key, bytes((_ARRAY_TYPE,)))
            self._values(holder, None, value.to_py() or [])
        elif isinstance(value, XmlElement | XmlFragment | XmlText | Doc):
            return  # Nothing of the canvas: XML, or a document inside.
        elif value is _Missing.KEY:
            self.absent.append((self._values(parent, key, [None])[1], 1))
        else:
            self._values(parent, key, [value])

    def update(self) -> bytes:
        """What was written, as a Yjs update (v1)."""
        if not self.structs:
            return encode(Update())
        deletes = [(self.client, self.absent)] if self.absent else []
        return encode(Update([Section(self.client, self.structs)], deletes))

    def _values(self, parent: Id, key: str | None, values: list[Any]) -> Id:
        out = bytearray()
        write_uint(out, len(values))
        for value in values:
            write_any(out, value)
        info = ANY if key is None else HAS_KEY | ANY
        return self.item(info, parent, key, bytes(out), len(values)) if values else parent

    def _text(self, parent: Id, text: str) -> None:
        if text:
            out = bytearray()
            write_text(out, text)
            self.item(STRING, parent, None, bytes(out), len(text.encode("utf-16-le")) // 2)
