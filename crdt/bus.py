"""Traffic between the processes that have a room open: hints, never the truth.

A frame may be lost, doubled, late or out of order; SQL closes every gap (`Rooms.tick`).
"""

import json
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, Protocol

from crdt.errors import ProtocolError
from crdt.json import Json
from crdt.protocol import Reader, var_bytes, var_uint

VERSION: Final = 1
"""First byte of every frame; others, of a newer release beside this one, are passed over."""
GONE: Final = b"gone"
HEAD_BYTES: Final = 64 * 1024
"""Updates larger than this do not travel on the bus: others read them from SQL."""


class Kind(IntEnum):
    """What a frame carries."""

    UPDATE = 1
    """A Yjs update (v1) with its number in the log; 0 while it could not be committed yet."""
    HINT = 2
    """A run of this workflow changed: its id, UTF-8."""
    HEAD = 3
    """Only a number: look at SQL, there are updates to read, or the room has lost its keeper."""
    PROGRESS = 4
    """How far a run is, JSON, for the keeper's awareness state."""
    BEAT = 5
    """A process lives, and its frames arrive; with `GONE`, it stops. Of no room."""
    PRESENCE = 6
    """Awareness states of clients of the sender, as in an awareness message."""
    WHO = 7
    """The sender asks for everybody's presence."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One message between processes about one room."""

    kind: Kind
    sender: str
    seq: int = 0
    payload: bytes = b""

    def encode(self) -> bytes:
        """As it travels: version, kind, sender, number, payload."""
        return bytes((VERSION, self.kind)) + var_bytes(self.sender.encode()) + var_uint(self.seq) + self.payload

    @classmethod
    def progress(cls, sender: str, payload: Mapping[str, Json]) -> "Frame":
        """How far a run is."""
        return cls(Kind.PROGRESS, sender, payload=json.dumps(payload).encode())

    @property
    def told(self) -> Mapping[str, Json]:
        """What a frame of progress says; nothing if it cannot be read."""
        try:
            told = json.loads(self.payload)
        except ValueError:
            return {}
        return told if isinstance(told, dict) else {}

    @classmethod
    def decode(cls, data: bytes) -> "Frame | None":
        """A frame as it came; None for one that this release does not know."""
        if len(data) < 2 or data[0] != VERSION or data[1] not in _KINDS:  # noqa: PLR2004 - version and kind
            return None
        reader = Reader(data[2:])
        try:
            sender, seq = reader.var_bytes().decode(), reader.var_uint()
        except (ProtocolError, ValueError):
            return None
        return cls(Kind(data[1]), sender, seq, reader.rest())


_KINDS: Final = frozenset(Kind)
Received = Callable[[str, Frame], None]


class Bus(Protocol):
    """What rooms need of a message bus.

    What the owner sets before the first `join` is called on the event loop: `received(room, frame)`, `changed()`
    whenever `up` has changed, and `gone(process)` when another process has stopped or was not heard for long.
    """

    received: Received
    changed: Callable[[], None]
    gone: Callable[[str], None]

    @property
    def others(self) -> bool:
        """Whether other processes may listen."""

    @property
    def up(self) -> bool:
        """Whether frames are believed to arrive at present."""

    async def join(self, room: str) -> None:
        """Subscribe; returns when confirmed, or at once while the bus is down. To be left as often as it was joined."""

    async def leave(self, room: str) -> None:
        """Unsubscribe, unless somebody else in this process has joined the room."""

    def send(self, room: str, frame: Frame) -> None:
        """Send to every other process; never waits, never raises, may drop."""


class MemoryHub:
    """Connects the `MemoryBus` of several processes' worth of rooms inside one event loop."""

    def __init__(self) -> None:
        self.members: list[MemoryBus] = []


class MemoryBus:
    """A bus inside one process: always up, delivers at once, in order, once."""

    def __init__(self, hub: MemoryHub | None = None) -> None:
        self._hub = hub or MemoryHub()
        self._hub.members.append(self)
        self.rooms: Counter[str] = Counter()
        self.received: Received = unheard
        self.changed: Callable[[], None] = unchanged
        self.gone: Callable[[str], None] = forgotten

    @property
    def others(self) -> bool:
        """Whether there is another member."""
        return len(self._hub.members) > 1

    @property
    def up(self) -> bool:
        """Always."""
        return True

    async def join(self, room: str) -> None:
        """Subscribe."""
        self.rooms[room] += 1

    async def leave(self, room: str) -> None:
        """Unsubscribe."""
        self.rooms[room] -= 1
        if self.rooms[room] <= 0:
            del self.rooms[room]

    def send(self, room: str, frame: Frame) -> None:
        """Hand the frame to every other member that joined the room."""
        for member in self._hub.members:
            if member is not self and room in member.rooms:
                member.received(room, frame)


def unheard(_room: str, _frame: Frame) -> None:
    """Stand in until the owner sets `received`."""


def unchanged() -> None:
    """Stand in until the owner sets `changed`."""


def forgotten(_process: str) -> None:
    """Stand in until the owner sets `gone`."""
