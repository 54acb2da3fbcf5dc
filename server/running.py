"""A running process, as those see it who serve it, stop it, and ask how it is."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

from sqlalchemy.ext.asyncio import AsyncEngine

from crdt.peer import Peer
from server.metrics import Metrics
from server.services import Services


@dataclass(frozen=True, slots=True)
class Check:
    """One question of `/readyz`.

    Attributes:
        ask: Answers "ok" or what is wrong; may raise what databases and disks raise.
        vital: Whether nothing should be sent to this process while it is wrong.

    """

    ask: Callable[[], Awaitable[str]]
    vital: bool = True


@dataclass(frozen=True, slots=True)
class Running:
    """A process of any role.

    Attributes:
        engine: Of its database.
        metrics: What it counts.
        checks: What `/readyz` asks, by name.
        services: What the routes of web processes work with; a worker has none.

    """

    engine: AsyncEngine
    metrics: Metrics
    checks: Mapping[str, Check]
    services: Services | None = None
    stopping: asyncio.Event = field(default_factory=asyncio.Event)

    def stop(self) -> None:
        """End what would go on for ever: event streams."""
        self.stopping.set()
        if self.services is not None:
            self.services.stop()

    @property
    def peers(self) -> Sequence[Peer]:
        """Everybody who is connected to a canvas here."""
        if self.services is None:
            return ()
        return [peer for room in self.services.rooms.all_open() for peer in room.peers]

    @property
    def unstored(self) -> tuple[str, ...]:
        """After the end: canvases with edits that are not in SQL."""
        return () if self.services is None else self.services.rooms.unstored
