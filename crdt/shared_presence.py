"""Who is present in a room, told between the processes that have it open. Nothing of it is ever stored."""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from crdt.bus import Bus, Frame, Kind
from crdt.protocol import AwarenessEntry, awareness_body
from crdt.room import Room

INTERVAL_S: Final = 0.05
"""Between two frames of one room."""
FRAME_BYTES: Final = 32 * 1024
"""From here on the rest goes in a frame of its own."""


@dataclass(eq=False, slots=True)
class _Line:
    """What is to be told of one room, the latest state of each client."""

    entries: dict[int, AwarenessEntry] = field(default_factory=dict)
    timer: asyncio.TimerHandle | None = None
    sent_at: float = 0.0


class SharedPresence:
    """Tells other processes who is present here, at most so often and the latest at last, and shows whom they tell of.

    Args:
        bus: To the other processes.
        process_id: Sender of our frames.

    """

    def __init__(self, bus: Bus, process_id: str) -> None:
        self._bus = bus
        self._process_id = process_id
        self._lines: dict[Room, _Line] = {}

    def opened(self, room: Room) -> None:
        """Tell of this room from now on, and ask who is there."""
        room.told_presence = self._told
        self._bus.send(room.id, Frame(Kind.WHO, self._process_id))

    def closed(self, room: Room) -> None:
        """Tell of it no more."""
        room.told_presence = None
        line = self._lines.pop(room, None)
        if line is not None and line.timer is not None:
            line.timer.cancel()

    def received(self, room: Room, frame: Frame) -> None:
        """Take a frame of another process.

        Raises:
            ProtocolError: It cannot be read.

        """
        if frame.kind is Kind.PRESENCE:
            room.receive_distant(frame.sender, frame.payload)
        else:
            self._told(room, room.presence.everyone())

    def ask(self, rooms: Iterable[Room]) -> None:
        """After an outage: ask who is there, and say who is here."""
        for room in rooms:
            self._bus.send(room.id, Frame(Kind.WHO, self._process_id))
            self._told(room, room.presence.everyone())

    def gone(self, rooms: Iterable[Room], process: str) -> None:
        """Another process is gone: so are its clients."""
        for room in rooms:
            room.forget_distant(process)

    def _told(self, room: Room, entries: list[AwarenessEntry]) -> None:
        if not self._bus.others:
            return
        entries = room.presence.own(entries)
        if not entries:
            return
        line = self._lines.setdefault(room, _Line())
        line.entries.update((entry.client_id, entry) for entry in entries)
        if line.timer is None:
            line.timer = asyncio.get_running_loop().call_at(line.sent_at + INTERVAL_S, self._tell, room, line)

    def _tell(self, room: Room, line: _Line) -> None:
        line.timer, line.sent_at = None, asyncio.get_running_loop().time()
        while line.entries:
            entries, size = [], 0
            while line.entries and size < FRAME_BYTES:
                entry = line.entries.pop(next(iter(line.entries)))
                entries.append(entry)
                size += len(entry.state)
            self._bus.send(room.id, Frame(Kind.PRESENCE, self._process_id, payload=awareness_body(entries)))
