"""Yjs updates (v1) taken apart and put together again: structs by client, and the delete set.

Pure: bytes in, values out, and the same bytes out again for whatever yjs and yrs encode. Contents stay encoded; only
their length is read. Formats: yjs `UpdateEncoderV1` and lib0 `writeAny`, yrs 0.2x the same.
"""

from dataclasses import dataclass, field
from typing import TypeAlias

from crdt.errors import BadUpdate
from crdt.lib0 import Cursor, write_text, write_uint

Id: TypeAlias = tuple[int, int]
"""Client id and clock of one item or of one unit of an item."""
StateVector: TypeAlias = dict[int, int]
"""By client id, the first clock that is not known."""

GC, DELETED, JSON, BINARY, STRING, EMBED, FORMAT, TYPE, ANY, DOC, SKIP = range(11)
"""Kinds of struct, as in the low five bits of its info byte."""
HAS_ORIGIN, HAS_RIGHT, HAS_KEY, KIND = 0x80, 0x40, 0x20, 0x1F

_NO_STRUCTS = b"\x00"
_NAMED_TYPES, _TYPES = frozenset({3, 5}), 6
"""Shared types that carry a name (XML), and the last type known."""


@dataclass(slots=True)
class Struct:
    """A run of units with adjacent clocks: an item, garbage, or a gap.

    `parent` (a root's name or the id of the item that holds the type) and `key` travel only with an item that has
    neither origin nor right origin; others inherit them.
    """

    info: int
    clock: int
    length: int
    origin: Id | None = None
    right: Id | None = None
    parent: str | Id | None = None
    key: str | None = None
    content: bytes = b""
    """As encoded, with its length where the kind has one."""

    @property
    def kind(self) -> int:
        """One of the constants `GC` to `SKIP`."""
        return self.info & KIND

    @property
    def end(self) -> int:
        """The first clock behind it."""
        return self.clock + self.length


@dataclass(slots=True)
class Section:
    """The structs of one client, adjacent, in the order of their clocks."""

    client: int
    structs: list[Struct]
    clock: int = 0
    """Where the first struct begins; kept for a section without structs."""


@dataclass(slots=True)
class Update:
    """What one update holds, in the order in which it holds it."""

    sections: list[Section] = field(default_factory=list)
    deletes: list[tuple[int, list[tuple[int, int]]]] = field(default_factory=list)
    """Per client: clock and length of what is deleted."""


def decode(update: bytes) -> Update:
    """Take an update (v1) apart.

    Raises:
        BadUpdate: It is truncated, has bytes behind its end, or holds a content that is not known.

    """
    try:
        decoder = _Decoder(update)
        decoded = Update([decoder.section() for _ in range(decoder.uint())], decoder.deletes())
    except (IndexError, KeyError, UnicodeDecodeError) as error:
        raise BadUpdate("the update cannot be read") from error
    if decoder.at != len(update):
        raise BadUpdate("bytes behind the update")
    return decoded


def decode_structs(update: bytes) -> Update:
    """As `decode`, without the delete set, which of a peer that synchronises is often all there is, and long.

    Raises:
        BadUpdate: It is truncated, or holds a content that is not known.

    """
    if update[:1] == _NO_STRUCTS:
        return Update()
    try:
        decoder = _Decoder(update)
        return Update([decoder.section() for _ in range(decoder.uint())])
    except (IndexError, KeyError, UnicodeDecodeError) as error:
        raise BadUpdate("the update cannot be read") from error


def encode(update: Update) -> bytes:
    """Put an update (v1) together."""
    out = bytearray()
    write_uint(out, len(update.sections))
    for section in update.sections:
        write_uint(out, len(section.structs))
        write_uint(out, section.client)
        write_uint(out, section.structs[0].clock if section.structs else section.clock)
        for struct in section.structs:
            _write_struct(out, struct)
    write_deletes(out, update.deletes)
    return bytes(out)


def decode_vector(vector: bytes) -> StateVector:
    """Read a state vector (v1).

    Raises:
        BadUpdate: It is truncated or has bytes behind its end.

    """
    decoder = _Decoder(vector)
    try:
        known = dict((decoder.uint(), decoder.uint()) for _ in range(decoder.uint()))  # noqa: C402 - reads in order
    except IndexError as error:
        raise BadUpdate("the state vector cannot be read") from error
    if decoder.at != len(vector):
        raise BadUpdate("bytes behind the state vector")
    return known


def encode_vector(vector: StateVector) -> bytes:
    """Encode a state vector (v1)."""
    out = bytearray()
    write_uint(out, len(vector))
    for client, clock in vector.items():
        write_uint(out, client)
        write_uint(out, clock)
    return bytes(out)


def tail(struct: Struct, units: int) -> Struct:
    """What is left of an item without its first units, as the item behind them.

    Raises:
        BadUpdate: Its content cannot be divided.

    """
    kind = struct.kind
    rest = struct.length - units
    content = bytearray()
    write_uint(content, rest)
    if kind in (ANY, JSON):
        decoder = _Decoder(struct.content)
        decoder.uint()
        for _ in range(units):
            decoder.skip_any() if kind == ANY else decoder.skip_bytes()
        content += struct.content[decoder.at :]
    elif kind != DELETED:
        raise BadUpdate("the content cannot be divided")
    clock = struct.clock + units
    return Struct(struct.info, clock, rest, struct.origin, struct.right, struct.parent, struct.key, bytes(content))


def write_deletes(out: bytearray, deletes: list[tuple[int, list[tuple[int, int]]]]) -> None:
    """Append a delete set."""
    write_uint(out, len(deletes))
    for client, runs in deletes:
        write_uint(out, client)
        write_uint(out, len(runs))
        for clock, length in runs:
            write_uint(out, clock)
            write_uint(out, length)


def _write_struct(out: bytearray, struct: Struct) -> None:
    out.append(struct.info)
    if struct.kind in (GC, SKIP):
        write_uint(out, struct.length)
        return
    for one in (struct.origin, struct.right):
        if one is not None:
            write_uint(out, one[0])
            write_uint(out, one[1])
    if struct.origin is None and struct.right is None:
        if isinstance(struct.parent, str):
            out.append(1)
            write_text(out, struct.parent)
        elif struct.parent is not None:
            out.append(0)
            write_uint(out, struct.parent[0])
            write_uint(out, struct.parent[1])
        if struct.key is not None:
            write_text(out, struct.key)
    out += struct.content


class _Decoder(Cursor):
    """Reads structs and delete sets."""

    __slots__ = ()

    def section(self) -> Section:
        count, client, clock = self.uint(), self.uint(), self.uint()
        section = Section(client, [], clock)
        append = section.structs.append
        for _ in range(count):
            struct = self._struct(clock)
            append(struct)
            clock += struct.length
        return section

    def deletes(self) -> list[tuple[int, list[tuple[int, int]]]]:
        uint = self.uint
        deletes = []
        for _ in range(uint()):
            client = uint()
            runs = []
            for _ in range(uint()):
                clock = uint()
                runs.append((clock, uint()))
            deletes.append((client, runs))
        return deletes

    def _struct(self, clock: int) -> Struct:
        uint = self.uint
        info = self.byte()
        kind = info & KIND
        if kind in (GC, SKIP):
            return Struct(info, clock, uint())
        origin = (uint(), uint()) if info & HAS_ORIGIN else None
        right = (uint(), uint()) if info & HAS_RIGHT else None
        parent: str | Id | None = None
        key = None
        if origin is None and right is None:
            parent = self.text() if uint() == 1 else (uint(), uint())
            if info & HAS_KEY:
                key = self.text()
        start = self.at
        length = self._content(kind)
        return Struct(info, clock, length, origin, right, parent, key, self._data[start : self.at])

    def _content(self, kind: int) -> int:
        """Skip a content; its length in units."""
        if kind == DELETED:
            return self.uint()
        if kind in (ANY, JSON):
            length = self.uint()
            skip = self.skip_any if kind == ANY else self.skip_bytes
            for _ in range(length):
                skip()
            return length
        if kind == STRING:
            return self._characters()
        if kind == TYPE:
            self._type()
        elif kind in (BINARY, EMBED):
            self.skip_bytes()
        elif kind == FORMAT:
            self.skip_bytes()
            self.skip_bytes()
        elif kind == DOC:
            self.skip_bytes()
            self.skip_any()
        else:
            raise KeyError(kind)
        return 1

    def _characters(self) -> int:
        """Skip text; its length in UTF-16 units, as yjs counts."""
        size = self.uint()
        start = self.at
        self.skip(size)
        raw = self._data[start : self.at]
        return size if raw.isascii() else len(raw.decode().encode("utf-16-le")) // 2

    def _type(self) -> None:
        kind = self.uint()
        if kind > _TYPES:
            raise KeyError(kind)
        if kind in _NAMED_TYPES:
            self.skip_bytes()
