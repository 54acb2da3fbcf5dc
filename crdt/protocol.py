"""The Yjs websocket protocol, without a websocket: y-protocols sync and awareness messages, and server frames.

Pure: bytes in, values out. Sections cited are those of RFC 6455 (frames); messages follow y-protocols 1.0.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NoReturn

from crdt.errors import ProtocolError
from crdt.json import Json

SYNC, AWARENESS, AUTH, QUERY_AWARENESS = 0, 1, 2, 3
DARKROOM = 100
"""Our own messages, sent only to clients that ask for them: y-protocols may come to use the numbers below."""
DURABLE, ACCESS = 0, 1
STEP1, STEP2, UPDATE = 0, 1, 2
PERMISSION_DENIED, TOKEN, TOKEN_TAKEN = 0, 1, 2
"""Kinds of auth message; y-protocols has the first, and a stock client passes over the others."""
EMPTY_STATE_VECTOR = b"\x00"
EMPTY_UPDATE = b"\x00\x00"
"""A Yjs update (v1) that holds nothing: no structs, no deletes."""

_EDIT = bytes((SYNC, UPDATE))
_MAX_VAR_UINT_BYTES = 8
"""Client ids and clocks stay below 2**53; eight 7-bit groups hold them."""


@dataclass(frozen=True, slots=True)
class SyncStep1:
    """A peer tells what it has and asks for the rest."""

    state_vector: bytes


@dataclass(frozen=True, slots=True)
class SyncUpdate:
    """An update (v1): the answer to a step 1 (`step2`), or an edit."""

    update: bytes
    step2: bool


@dataclass(frozen=True, slots=True)
class AwarenessEntry:
    """The state of one awareness client; `state` is JSON text, `null` when it left."""

    client_id: int
    clock: int
    state: str


@dataclass(frozen=True, slots=True)
class AwarenessUpdate:
    """States of one or more awareness clients."""

    entries: tuple[AwarenessEntry, ...]
    refused: int = 0
    """States that were left out: they are no JSON objects, on which a stock client would throw."""


@dataclass(frozen=True, slots=True)
class QueryAwareness:
    """A peer asks for every awareness state."""


@dataclass(frozen=True, slots=True)
class PermissionDenied:
    """What the peer just sent is refused; it stays connected (y-protocols auth)."""

    reason: str


@dataclass(frozen=True, slots=True)
class Durable:
    """The first `count` sync messages with an update that came over this websocket are committed."""

    count: int


@dataclass(frozen=True, slots=True)
class Permission:
    """Whether edits that come over this websocket are taken."""

    may_edit: bool


@dataclass(frozen=True, slots=True)
class TokenOffered:
    """A client brings a new access token for the connection it has; no stock client does."""

    token: str


@dataclass(frozen=True, slots=True)
class TokenTaken:
    """The answer: from now on the connection is the new token's, with this role."""

    role: str


@dataclass(frozen=True, slots=True)
class UnknownMessage:
    """A message of a type this server does not know; the rest of its frame cannot be read."""

    kind: int


Message = (
    SyncStep1
    | SyncUpdate
    | AwarenessUpdate
    | QueryAwareness
    | PermissionDenied
    | TokenOffered
    | TokenTaken
    | Durable
    | Permission
    | UnknownMessage
)


class Reader:
    """Reads lib0 encodings from bytes; every read checks the bounds."""

    __slots__ = ("_at", "_data")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def exhausted(self) -> bool:
        """Whether every byte was read."""
        return self._at >= len(self._data)

    def var_uint(self) -> int:
        """A variable-length unsigned integer below 2**56."""
        value = shift = 0
        for _ in range(_MAX_VAR_UINT_BYTES):
            if self._at >= len(self._data):
                raise ProtocolError("the message ends inside a number")
            byte = self._data[self._at]
            self._at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:  # noqa: PLR2004 - the continuation bit
                return value
            shift += 7
        raise ProtocolError("a number has more than eight bytes")

    def var_bytes(self) -> bytes:
        """Bytes behind their length."""
        length = self.var_uint()
        end = self._at + length
        if end > len(self._data):
            raise ProtocolError(f"the message promises {length} bytes and holds {len(self._data) - self._at}")
        chunk = self._data[self._at : end]
        self._at = end
        return chunk

    def var_string(self) -> str:
        """UTF-8 text behind its length in bytes."""
        try:
            return self.var_bytes().decode()
        except UnicodeDecodeError as error:
            raise ProtocolError("text in the message is not UTF-8") from error

    def rest(self) -> bytes:
        """Every byte that is left."""
        rest, self._at = self._data[self._at :], len(self._data)
        return rest


def var_uint(value: int) -> bytes:
    """Encode an unsigned integer, lib0 style."""
    if value < 0x80:  # noqa: PLR2004 - the continuation bit
        return bytes((value,))
    out = bytearray()
    while value > 0x7F:  # noqa: PLR2004
        out.append(0x80 | (value & 0x7F))
        value >>= 7
    out.append(value)
    return bytes(out)


def var_bytes(value: bytes) -> bytes:
    """Encode bytes behind their length."""
    return var_uint(len(value)) + value


def parse(frame: bytes) -> Iterator[Message]:
    """The messages of one websocket frame, in order; stock clients send one, several are accepted.

    Raises:
        ProtocolError: The frame is empty, truncated, or holds an unknown sync step. Messages before it were yielded.

    """
    if not frame:
        raise ProtocolError("an empty frame")
    reader = Reader(frame)
    while not reader.exhausted:
        kind = reader.var_uint()
        if kind == SYNC:
            yield _sync(reader)
        elif kind == AWARENESS:
            yield parse_awareness(reader.var_bytes())
        elif kind == QUERY_AWARENESS:
            yield QueryAwareness()
        elif kind == AUTH:
            yield _auth(reader)
        elif kind == DARKROOM:
            yield _own(reader)
        else:
            yield UnknownMessage(kind)
            return


def sole_edit(frame: bytes) -> bytes | None:
    """The update (v1) of a frame that is one edit and nothing else, as nearly every frame is; None for any other.

    Takes the short way for what `parse` reads in general.
    """
    if frame[:2] != _EDIT or len(frame) < len(_EDIT) + 1:
        return None
    size, at, shift = frame[2], 3, 7
    if size >= 0x80:  # noqa: PLR2004 - the continuation bit
        size &= 0x7F
        for byte in frame[3:6]:
            at += 1
            size |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:  # noqa: PLR2004
                break
        else:
            return None
    return frame[at:] if len(frame) - at == size else None


def _sync(reader: Reader) -> Message:
    step = reader.var_uint()
    if step == STEP1:
        return SyncStep1(reader.var_bytes())
    if step in (STEP2, UPDATE):
        return SyncUpdate(reader.var_bytes(), step2=step == STEP2)
    raise ProtocolError(f"unknown sync step {step}")


def _auth(reader: Reader) -> Message:
    kind = reader.var_uint()
    if kind == PERMISSION_DENIED:
        return PermissionDenied(reader.var_string())
    if kind == TOKEN:
        return TokenOffered(reader.var_string())
    if kind == TOKEN_TAKEN:
        return TokenTaken(reader.var_string())
    raise ProtocolError(f"unknown auth message {kind}")


def _own(reader: Reader) -> Message:
    kind = reader.var_uint()
    if kind == DURABLE:
        return Durable(reader.var_uint())
    if kind == ACCESS:
        return Permission(may_edit=reader.var_uint() == 1)
    raise ProtocolError(f"unknown message {kind} of our own")


def parse_awareness(data: bytes) -> AwarenessUpdate:
    """Decode an awareness update (the body of the message, without type and length).

    Raises:
        ProtocolError: Truncated, or trailing bytes.

    """
    reader = Reader(data)
    entries = []
    refused = 0
    for _ in range(reader.var_uint()):
        entry = AwarenessEntry(reader.var_uint(), reader.var_uint(), reader.var_string())
        if _is_state(entry.state):
            entries.append(entry)
        else:
            refused += 1
    if not reader.exhausted:
        raise ProtocolError("bytes behind the awareness states")
    return AwarenessUpdate(tuple(entries), refused)


def _is_state(text: str) -> bool:
    """Whether it is what a stock client takes: a JSON object or null, without the constants that only Python reads."""
    try:
        state = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        return False
    return state is None or isinstance(state, dict)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(name)


def step1_message(state_vector: bytes) -> bytes:
    """SyncStep1: what we have."""
    return bytes((SYNC, STEP1)) + var_bytes(state_vector)


def step2_message(update: bytes) -> bytes:
    """SyncStep2: what the other side lacked."""
    return bytes((SYNC, STEP2)) + var_bytes(update)


def update_message(update: bytes) -> bytes:
    """An edit."""
    return bytes((SYNC, UPDATE)) + var_bytes(update)


def denied_message(reason: str) -> bytes:
    """Permission denied, as y-protocols auth has it: a stock client logs the reason and stays."""
    return bytes((AUTH, PERMISSION_DENIED)) + var_bytes(reason.encode())


def durable_message(count: int) -> bytes:
    """How many edits of this websocket are durable."""
    return bytes((DARKROOM, DURABLE)) + var_uint(count)


def permission_message(*, may_edit: bool) -> bytes:
    """Whether edits are taken from this websocket."""
    return bytes((DARKROOM, ACCESS, may_edit))


def token_message(token: str) -> bytes:
    """A new access token for this connection; see `TokenOffered`."""
    return bytes((AUTH, TOKEN)) + var_bytes(token.encode())


def token_taken_message(role: str) -> bytes:
    """The answer to a good one."""
    return bytes((AUTH, TOKEN_TAKEN)) + var_bytes(role.encode())


def deleted_ranges(update: bytes) -> dict[int, list[tuple[int, int]]] | None:
    """The delete set of an update (v1) without structs: (clock, length) by client; None of one that has structs.

    Raises:
        ProtocolError: Truncated.

    """
    reader = Reader(update)
    if reader.var_uint() > 0:
        return None
    ranges: dict[int, list[tuple[int, int]]] = {}
    for _ in range(reader.var_uint()):
        client_id = reader.var_uint()
        ranges[client_id] = [(reader.var_uint(), reader.var_uint()) for _ in range(reader.var_uint())]
    return ranges


def covers(known: dict[int, list[tuple[int, int]]], claimed: dict[int, list[tuple[int, int]]]) -> bool:
    """Whether every claimed range lies inside known ones; known ranges are merged, as Yjs writes them."""
    return all(
        any(at <= clock and clock + length <= at + size for at, size in known.get(client_id, ()))
        for client_id, ranges in claimed.items()
        for clock, length in ranges
    )


def awareness_body(entries: Iterable[AwarenessEntry]) -> bytes:
    """The body of an awareness message, without type and length."""
    encoded = [var_uint(e.client_id) + var_uint(e.clock) + var_bytes(e.state.encode()) for e in entries]
    return var_uint(len(encoded)) + b"".join(encoded)


def awareness_message(entries: Iterable[AwarenessEntry]) -> bytes:
    """An awareness message holding these states."""
    return bytes((AWARENESS,)) + var_bytes(awareness_body(entries))


def awareness_state(state: Json) -> str:
    """JSON text of an awareness state, compact."""
    return json.dumps(state, separators=(",", ":"), ensure_ascii=False)


def binary_frame(message: bytes) -> bytes:
    """A final binary server frame, unmasked (RFC 6455 5.2)."""
    size = len(message)
    if size < 126:  # noqa: PLR2004 - 7-bit length
        return bytes((0x82, size)) + message
    if size < 0x10000:  # noqa: PLR2004 - 16-bit length
        return b"\x82\x7e" + size.to_bytes(2) + message
    return b"\x82\x7f" + size.to_bytes(8) + message


def split_frames(wire: bytes) -> Iterator[bytes]:
    """The messages inside frames made by `binary_frame`; for sockets that frame by themselves."""
    at = 0
    while at < len(wire):
        size, at = wire[at + 1], at + 2
        if size >= 126:  # noqa: PLR2004 - longer length field
            width = 2 if size == 126 else 8  # noqa: PLR2004
            size, at = int.from_bytes(wire[at : at + width]), at + width
        yield wire[at : at + size]
        at += size
