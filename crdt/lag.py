"""How long turns take, from the first message read to the last write, counted at next to no cost."""

from bisect import bisect_left
from typing import Final

STEPS_S: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)


class Lag:
    """A histogram that anybody may turn into numbers; a library's own would cost more than a small turn."""

    def __init__(self) -> None:
        self.counts = [0] * (len(STEPS_S) + 1)
        """How many turns took no longer than each step, and longer than the one before; the last took longer."""
        self.total_s = 0.0
        self.resyncs = 0
        """How often somebody who had fallen behind was sent what they lacked."""

    def note(self, duration_s: float) -> None:
        """Count one turn."""
        self.counts[bisect_left(STEPS_S, duration_s)] += 1
        self.total_s += duration_s
