"""Telling every client to come back before the server stops, not all in the same instant."""

import asyncio
import random
from collections.abc import Iterable
from typing import Final

from crdt.close_codes import Close
from crdt.peer import Peer

EACH_S: Final = 0.01
"""Few clients need no spreading: what hurts the next server is that all come back at once."""
_STEP_S: Final = 0.02


async def drain(peers: Iterable[Peer], window_s: float) -> None:
    """Close websockets with 1012, in no order, spread evenly.

    Stock clients come back after a fixed time, without jitter of their own: as the closing is spread, so is the coming
    back.

    Args:
        peers: Who is connected.
        window_s: How long it may take; shorter for few.

    """
    waiting = list(peers)
    random.shuffle(waiting)
    window_s = min(window_s, EACH_S * len(waiting))
    steps = max(1, round(window_s / _STEP_S))
    total = len(waiting)
    for step in range(1, steps + 1):
        while len(waiting) > total - total * step // steps:
            waiting.pop().socket.close(*Close.RESTART.because("the server is stopping, come back in a moment"))
        if waiting:
            await asyncio.sleep(_STEP_S)
