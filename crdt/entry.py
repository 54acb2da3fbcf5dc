"""What a process knows of one room besides the room itself."""

import asyncio
from dataclasses import dataclass, field

from crdt.room import Room


@dataclass(eq=False, slots=True)
class Entry:
    """One room of this process, from the moment somebody asked for it."""

    opening: "asyncio.Task[Room]"
    room: Room | None = None
    users: int = 0
    nodes: set[str] = field(default_factory=set)
    edges: set[str] = field(default_factory=set)
    meta: bool = False
    complete: bool = False
    unnumbered: bool = False
    """The rows were written while the document was ahead of the log: they do not say yet which number they are of."""
    mirrored_at: float = 0.0
    rows: int = 0
    ahead: set[int] = field(default_factory=set)
    mirror_timer: asyncio.TimerHandle | None = None
    close_timer: asyncio.TimerHandle | None = None
    gap_timer: asyncio.TimerHandle | None = None
    writing: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def dirty(self) -> bool:
        """Whether something is to be mirrored."""
        return bool(self.nodes or self.edges or self.meta or self.complete or self.unnumbered)

    def cancel_timers(self) -> None:
        """Nothing is to happen by itself any more."""
        for timer in (self.mirror_timer, self.close_timer, self.gap_timer):
            if timer is not None:
                timer.cancel()
