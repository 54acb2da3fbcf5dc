"""Traffic between the processes that have a room open: hints, never the truth.

A frame may be lost, doubled, late or out of order; SQL closes every gap (`Rooms.tick`).
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol


class Kind(IntEnum):
    """What a frame carries."""

    UPDATE = 1
    """A Yjs update (v1) with its number in the log; 0 while it could not be committed yet."""
    HINT = 2
    """A run of this workflow changed: its id, UTF-8."""
    HEAD = 3
    """Only a number: the update itself is read from SQL."""
    PROGRESS = 4
    """How far a run is, JSON, for the keeper's awareness state."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One message between processes about one room."""

    kind: Kind
    sender: str
    seq: int = 0
    payload: bytes = b""


Received = Callable[[str, Frame], None]


class Bus(Protocol):
    """What rooms need of a message bus.

    `received(room, frame)` is set by the owner before the first `join` and is called on the event loop.
    """

    received: Received

    @property
    def up(self) -> bool:
        """Whether frames are believed to arrive at present."""

    async def join(self, room: str) -> None:
        """Subscribe; returns when confirmed."""

    async def leave(self, room: str) -> None:
        """Unsubscribe."""

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
        self.rooms: set[str] = set()
        self.received: Received = _unheard

    @property
    def up(self) -> bool:
        """Always."""
        return True

    async def join(self, room: str) -> None:
        """Subscribe."""
        self.rooms.add(room)

    async def leave(self, room: str) -> None:
        """Unsubscribe."""
        self.rooms.discard(room)

    def send(self, room: str, frame: Frame) -> None:
        """Hand the frame to every other member that joined the room."""
        for member in self._hub.members:
            if member is not self and room in member.rooms:
                member.received(room, frame)


def _unheard(_room: str, _frame: Frame) -> None:
    """Stand in until the owner sets `received`."""
