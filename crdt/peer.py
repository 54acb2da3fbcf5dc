"""One connected client, as a room sees it."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from crdt.receipts import Receipt

TELL_EVERY_S = 1.0
"""How often one peer is told that its presence is refused: a cursor moves many times a second."""


class Socket(Protocol):
    """What a room borrows of a websocket: it never waits."""

    def write(self, frames: bytes) -> None:
        """Send whole server frames, made by `protocol.binary_frame`."""

    def close(self, code: int, reason: str) -> None:
        """Close with a code (RFC 6455 7.4) and a reason of at most 123 bytes."""


@dataclass(eq=False, slots=True)
class Peer:
    """One connected client."""

    socket: Socket
    read_only: bool = False
    """Sees everything and changes nothing; told so by a permission-denied message, and never disconnected for it."""
    person: Mapping[str, str] | None = None
    """{id, name?} of who it is known to be; None of a peer that nobody vouches for."""
    refused: Callable[[str], None] | None = None
    """Called with a word for each edit ("read-only") and each presence ("presence") that was refused."""
    receipt: Receipt | None = None
    """Of a client that asked to be told when its edits are durable."""
    offered: Callable[[str], None] | None = None
    """Called with a new access token that the client brought."""
    behind: bytes | None = None
    """The state vector at the moment its transport filled up; None while it keeps up."""
    behind_timer: asyncio.TimerHandle | None = None
    told_at: float = -TELL_EVERY_S
