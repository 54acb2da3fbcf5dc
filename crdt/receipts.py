"""Telling a peer how far its edits are durable."""

from collections.abc import Callable


class Receipt:
    """How many edits of one websocket are durable, for a peer that asked to be told.

    Its sync messages that carry an update (a step 2 or an edit) are numbered from 1, whatever they hold: a delete, or
    something that was here already, counts as any. "n are durable" means that a crash of the server or of the machine
    takes back nothing of the first n.

    Args:
        after_commit: Calls `confirm` once everything that the room holds now is committed.

    """

    __slots__ = ("_after_commit", "_refused", "durable", "taken", "tell")

    def __init__(self, after_commit: Callable[["Receipt"], None]) -> None:
        self._after_commit = after_commit
        self._refused = False
        self.taken = 0
        self.durable = 0
        self.tell: Callable[[], None] | None = None
        """Called when `durable` grew; None once the peer is gone."""

    def take(self) -> None:
        """The room took one more edit."""
        if not self._refused:
            self.taken += 1
            self._after_commit(self)

    def refuse(self) -> None:
        """The room refused an edit: this one is never durable, nor is what comes after it on the same websocket."""
        self._refused = True

    def confirm(self, taken: int) -> None:
        """The first so many edits are committed."""
        if taken > self.durable:
            self.durable = taken
            if self.tell is not None:
                self.tell()
