"""The open websockets of this process: how many there may be, and what each of them and their people may send."""

import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from server.limits import PATIENCE_S, Allowance, Meter, Share

JOIN_S: Final = 10.0
"""How long a room may take to open; what the client sends meanwhile does not extend it."""
MOST_REMEMBERED: Final = 10_000
"""People without a connection whose buckets are kept: who comes back at once does not find them full."""


class Busy(Exception):
    """There is no room for one more; the text says where."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """What websockets of one process may use; the defaults are without limit."""

    connections: int = 2**31
    room_connections: int = 2**31
    each: Allowance = field(default_factory=Allowance)
    """Per connection."""
    person: Allowance = field(default_factory=Allowance)
    """For all connections of one person, or of one address where there are no tokens."""
    patience_s: float = PATIENCE_S
    join_s: float = JOIN_S


class Crowd:
    """Who is connected to this process.

    Args:
        bounds: How many there may be.
        clock: Seconds.

    """

    def __init__(self, bounds: Bounds | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self.bounds = bounds or Bounds()
        self.clock = clock
        self.count = 0
        self._rooms: Counter[str] = Counter()
        self._people: dict[str, Share] = {}
        self._gone: OrderedDict[str, Share] = OrderedDict()

    @contextmanager
    def admit(self, room: str, person: str) -> Iterator["Visit"]:
        """Count a websocket while inside.

        Args:
            room: Which room it is for.
            person: Whose it is; "" of nobody in particular.

        Raises:
            Busy: There are too many.

        """
        if self.count >= self.bounds.connections:
            raise Busy("this server has as many connections as it takes")
        if self._rooms[room] >= self.bounds.room_connections:
            raise Busy("this canvas has as many visitors as it takes")
        self.count += 1
        self._rooms[room] += 1
        visit = Visit(self, person)
        try:
            yield visit
        finally:
            visit.end()
            self.count -= 1
            self._rooms[room] -= 1
            if not self._rooms[room]:
                del self._rooms[room]

    def share_of(self, person: str) -> Share:
        """The buckets of a person, to be given back with `done`."""
        if not person:
            return Share.of(Allowance(), self.clock())
        share = self._people.get(person)
        if share is None:
            known = person in self._gone
            share = self._gone.pop(person) if known else Share.of(self.bounds.person, self.clock())
            self._people[person] = share
        share.users += 1
        return share

    def done(self, person: str) -> None:
        """One connection less of a person."""
        share = self._people.get(person)
        if share is None:
            return
        share.users -= 1
        if not share.users:
            self._gone[person] = self._people.pop(person)
            while len(self._gone) > MOST_REMEMBERED:
                self._gone.popitem(last=False)


class Visit:
    """One websocket that was let in."""

    def __init__(self, crowd: Crowd, person: str) -> None:
        self._crowd = crowd
        self._person = person
        each = crowd.bounds.each
        self._own = Share.of(each, crowd.clock())
        self.meter = Meter([self._own, crowd.share_of(person)], crowd.bounds.patience_s)

    def belongs_to(self, person: str) -> None:
        """From now on it is somebody else's, as their token says."""
        if person != self._person:
            self._crowd.done(self._person)
            self._person = person
            self.meter.draw_on([self._own, self._crowd.share_of(person)])

    def end(self) -> None:
        """The connection is gone."""
        self._crowd.done(self._person)
