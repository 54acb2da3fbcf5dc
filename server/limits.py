"""How much a websocket may send: token buckets, for a connection and for all of one person. Pure: time comes in."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

PATIENCE_S: Final = 10.0
"""How long a client may be held back before it is told to go: a burst passes, a flood does not."""
LONGEST_PAUSE_S: Final = 1.0
"""After so long it is looked at again, so that patience ends on time also under a large debt."""
_LUMP_S: Final = 0.05
"""What a meter draws at once, in seconds of its rate: the buckets are asked this rarely, not for every message."""


@dataclass(frozen=True, slots=True)
class Rate:
    """What may be sent in the long run, and at once after a quiet time."""

    per_s: float
    burst: float


class Bucket:
    """A token bucket that lends: what was read cannot be unread, so a debt is waited for afterwards."""

    __slots__ = ("_at", "_level", "_rate")

    def __init__(self, rate: Rate, now: float) -> None:
        self._rate = rate
        self._level = rate.burst
        self._at = now

    def spend(self, amount: float, now: float) -> float:
        """Take tokens, also when there are none; seconds until the debt is paid."""
        self._level = min(self._rate.burst, self._level + (now - self._at) * self._rate.per_s) - amount
        self._at = now
        return max(0.0, -self._level / self._rate.per_s)

    def rested(self, now: float) -> bool:
        """Whether at least half of it is back."""
        return self._level + (now - self._at) * self._rate.per_s >= self._rate.burst / 2


@dataclass(frozen=True, slots=True)
class Allowance:
    """What may be sent by one connection, or by all of one user; None is without limit."""

    messages: Rate | None = None
    size: Rate | None = None

    @classmethod
    def of(cls, messages_per_s: float, bytes_per_s: float, largest_bytes: int) -> "Allowance":
        """From settings, 0 being without limit.

        Args:
            messages_per_s: In the long run; twice as many at once.
            bytes_per_s: In the long run.
            largest_bytes: One message of this size passes without a pause, and so do four seconds' worth.

        """
        messages = Rate(messages_per_s, messages_per_s * 2) if messages_per_s else None
        size = Rate(bytes_per_s, max(bytes_per_s * 4, largest_bytes)) if bytes_per_s else None
        return cls(messages, size)


@dataclass(slots=True)
class Share:
    """The buckets of one connection, or of one user, with how many connections draw on them."""

    messages: Bucket | None
    size: Bucket | None
    lump: tuple[int, int]
    """Messages and bytes that may be read before this is asked."""
    users: int = 0

    @classmethod
    def of(cls, allowance: Allowance, now: float) -> "Share":
        """Full buckets."""
        return cls(
            Bucket(allowance.messages, now) if allowance.messages is not None else None,
            Bucket(allowance.size, now) if allowance.size is not None else None,
            (_lump(allowance.messages), _lump(allowance.size)),
        )

    def spend(self, messages: int, size: int, now: float) -> float:
        """Take what was read; seconds until it is paid."""
        wait_s = self.messages.spend(messages, now) if self.messages is not None else 0.0
        return max(wait_s, self.size.spend(size, now) if self.size is not None else 0.0)

    def rested(self, now: float) -> bool:
        """Whether nothing of a flood is left to be seen."""
        return all(bucket is None or bucket.rested(now) for bucket in (self.messages, self.size))


class Meter:
    """What one connection may send before its buckets are asked again.

    Whoever reads takes from `messages` and `size` itself, which is all that happens for most messages, and calls
    `settle` when one of them is below zero.
    """

    __slots__ = ("_lump", "_patience_s", "_shares", "_since", "messages", "size")

    def __init__(self, shares: Sequence[Share], patience_s: float = PATIENCE_S) -> None:
        self._patience_s = patience_s
        self._since: float | None = None
        self.messages = self.size = 0
        self.draw_on(shares)

    def settle(self, now: float) -> float:
        """Pay for what was read.

        Returns:
            Seconds to read nothing; infinity when this went on for too long.

        """
        messages, size = self._lump[0] - self.messages, self._lump[1] - self.size
        self.messages, self.size = self._lump
        wait_s = max(share.spend(messages, size, now) for share in self._shares)
        if wait_s <= 0.0:
            if all(share.rested(now) for share in self._shares):
                self._since = None
            return 0.0
        if self._since is None:
            self._since = now
        return math.inf if now - self._since > self._patience_s else min(wait_s, LONGEST_PAUSE_S)

    def draw_on(self, shares: Sequence[Share]) -> None:
        """From now on use these buckets."""
        self._shares = tuple(shares)
        self._lump = min(share.lump[0] for share in shares), min(share.lump[1] for share in shares)
        self.messages, self.size = self._lump


def _lump(rate: Rate | None) -> int:
    return int(rate.per_s * _LUMP_S) if rate is not None else 2**53
