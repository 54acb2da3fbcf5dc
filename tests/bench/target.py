"""What a scenario is given, and what it gives back."""

import itertools
import os
from dataclasses import dataclass

Figures = dict[str, float]
"""Name to value; the unit is part of the name."""

_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Target:
    """A running server."""

    ws_url: str
    http_url: str
    pid: int
    raw: bool
    """Whether it only echoes: it has no document and answers no sync."""

    def room(self) -> str:
        """The address of a room that nobody was in."""
        return f"{self.ws_url}/bench-{os.getpid()}-{next(_numbers)}"
