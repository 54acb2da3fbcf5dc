"""The answer to those who join, framed once and kept."""

from collections.abc import Callable
from typing import Final

from crdt import protocol
from crdt.protocol import binary_frame

TAIL_BYTES: Final = 256 * 1024
"""Of edits since the answer was made; beyond it a new one is cheaper."""


class JoinCache:
    """The whole document as it was, and every edit since: together what a newcomer lacks."""

    def __init__(self) -> None:
        self._whole: bytes | None = None
        self._tail: list[bytes] = []
        self._tail_bytes = 0

    def answer(self, whole: Callable[[], bytes]) -> bytes:
        """Frames for one who has nothing.

        Args:
            whole: Encodes the document as one update (v1); asked only when nothing is kept.

        """
        if self._whole is None:
            self._whole = binary_frame(protocol.step2_message(whole()))
        return b"".join((self._whole, *self._tail)) if self._tail else self._whole

    def add(self, frame: bytes) -> None:
        """An edit was told."""
        if self._whole is not None:
            self._tail.append(frame)
            self._tail_bytes += len(frame)
            if self._tail_bytes > TAIL_BYTES:
                self.forget()

    def forget(self) -> None:
        """Keep nothing until somebody joins again."""
        self._whole = None
        self._tail.clear()
        self._tail_bytes = 0
