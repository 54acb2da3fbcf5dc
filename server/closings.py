"""Every websocket that this server closes or refuses: one number and one line, however many there are."""

import logging
import time
from collections.abc import Callable
from typing import Final

from crdt.close_codes import word_of
from server.limits import Bucket, Rate
from server.metrics import Metrics

logger = logging.getLogger(__name__)

LINES: Final = Rate(per_s=1.0, burst=20.0)
"""Log lines per code: a client that hammers must not fill the disk."""
_MOST_ROOM_CHARS: Final = 140


class Closings:
    """Counts and logs closings; those beyond `LINES` are told as a number with the next line.

    Args:
        metrics: Where they are counted.
        clock: Seconds.

    """

    def __init__(self, metrics: Metrics, clock: Callable[[], float] = time.monotonic) -> None:
        self._metrics = metrics
        self._clock = clock
        self._lines: dict[int, Bucket] = {}
        self._untold: dict[int, int] = {}

    def note(self, code: int, reason: str, room: str) -> None:
        """Take down one closing; `reason` is what the client was told."""
        word = word_of(code, reason)
        self._metrics.websocket_closed(code, word)
        now = self._clock()
        bucket = self._lines.get(code)
        if bucket is None:
            bucket = self._lines[code] = Bucket(LINES, now)
        if bucket.spend(0, now) > 0 or bucket.spend(1, now) > 0:
            self._untold[code] = self._untold.get(code, 0) + 1
            return
        facts = {
            "action": "websocket_closed",
            "room": room[:_MOST_ROOM_CHARS],
            "code": code,
            "reason": reason,
            "untold": self._untold.pop(code, 0),
        }
        logger.info("closed a websocket: %s %s", code, word, extra=facts)
