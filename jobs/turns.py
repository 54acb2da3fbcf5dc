"""Who goes next: limits, priority, fairness. Pure: it decides, `jobs.dispatcher` acts."""

import heapq
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from jobs.limits import Call, Limits

SHARE: Final = 0.75
"""One person fills at most this part of the workers: the rest starts the click of another at once."""

Owner: TypeAlias = tuple[str, str]
"""(maker, person or canvas): turns are taken at each maker."""
Key: TypeAlias = tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Waiting:
    """A run that waits for a place.

    Attributes:
        party: Who asked; where that is not known, the canvas stands for its people.
        rank: Among runs of one party and priority the lower goes first.
        created_at: Unix seconds.
        images: How many pictures it asks for.

    """

    run_id: str
    provider: str
    model: str
    party: str
    canvas: str
    priority: int
    rank: int
    created_at: float
    images: int = 1

    @property
    def line(self) -> tuple[str, str, str, str]:
        """The line it stands in: within one only priority, rank and age count."""
        return self.provider, self.model, self.party, self.canvas

    @property
    def place(self) -> tuple[int, int, float, str]:
        """Its place in that line."""
        return -self.priority, self.rank, self.created_at, self.run_id


@dataclass(frozen=True, slots=True)
class Grant:
    """A place for a run, and the moment from which its call may be made (Unix seconds)."""

    waiting: Waiting
    start: float


@dataclass(slots=True)
class Desk:
    """What turns are given by. `choose` counts in it what it grants.

    Attributes:
        now: Unix seconds.
        limits: Of makers and models.
        capacity: Attempts that all living workers can be at.
        taken: Attempts they are at, or were given, by party.
        flights: Runs that have a place, by scope of limits.
        calls: Calls let through, by scope, oldest first.
        loads: Runs that have a place, by owner.
        recent: Calls let through a short while ago, by owner.

    """

    now: float
    limits: Limits
    capacity: int
    taken: Counter[str] = field(default_factory=Counter)
    flights: Counter[str] = field(default_factory=Counter)
    calls: dict[str, list[Call]] = field(default_factory=dict)
    loads: Counter[Owner] = field(default_factory=Counter)
    recent: Counter[Owner] = field(default_factory=Counter)

    @property
    def free(self) -> int:
        """Attempts that could begin now."""
        return max(self.capacity - self.taken.total(), 0)

    @property
    def share(self) -> int:
        """Attempts that one party may be at, at once."""
        return max(math.ceil(self.capacity * SHARE), 1)

    def full(self, scope: str) -> bool:
        """Whether as many runs have a place as this scope takes at once."""
        limit = self.limits.scopes.get(scope)
        return limit is not None and limit.in_flight is not None and self.flights[scope] >= limit.in_flight

    def earliest(self, waiting: Waiting) -> float:
        """The first moment at which the limits of its maker and model let its call through."""
        moment = self.now
        for scope, limit in self.limits.of(waiting.provider, waiting.model):
            for rate in limit.rates:
                moment = max(moment, rate.earliest(self.calls.get(scope, ()), self.now, waiting.images))
        return moment

    def fairness(self, waiting: Waiting) -> Key:
        """Lowest first: priority, then who has and had least, then rank and age."""
        party, canvas = (waiting.provider, waiting.party), (waiting.provider, waiting.canvas)
        priority, rank, created_at, _ = waiting.place
        loads, recent = self.loads, self.recent
        return priority, loads[party], recent[party], loads[canvas], recent[canvas], rank, created_at

    def grant(self, waiting: Waiting, start: float) -> Grant:
        """Count a place that is given away."""
        provider = waiting.provider
        self.taken[waiting.party] += 1
        for scope in (provider, f"{provider}:{waiting.model}"):
            self.flights[scope] += 1
            self.calls.setdefault(scope, []).append(Call(start, waiting.images))
        for name in {waiting.party, waiting.canvas}:
            self.loads[provider, name] += 1
            self.recent[provider, name] += 1
        return Grant(waiting, start)


@dataclass(frozen=True, slots=True)
class Choice:
    """What was decided.

    Attributes:
        grants: In the order they were decided.
        next_at: When a limit on calls in a time lets the next one through (Unix seconds); None: only the end of a run
            changes anything.
        left: Whether runs still wait.

    """

    grants: tuple[Grant, ...]
    next_at: float | None
    left: bool


def choose(waiting: Iterable[Waiting], desk: Desk, horizon_s: float) -> Choice:
    """Give away the places there are.

    A maker's limit holds up its own runs only: what waits for another goes past.

    Args:
        waiting: Runs that may go as far as pauses are concerned.
        desk: What is known; what is granted is counted in it.
        horizon_s: Moments that lie further ahead are not given away yet: until then somebody with a better claim may
            come, or this one may be cancelled.

    """
    lines = _lines(waiting)
    heap = [(desk.fairness(line[-1]), key) for key, line in lines.items()]
    heapq.heapify(heap)
    grants: list[Grant] = []
    next_at: float | None = None
    left = False
    too_early: set[tuple[str, str, int]] = set()
    while heap:
        known, key = heapq.heappop(heap)
        line = lines[key]
        head = line[-1]
        now = desk.fairness(head)
        if now != known:
            # Claims only get weaker while places are given away, so the old one was too good: back in line.
            heapq.heappush(heap, (now, key))
            continue
        if not desk.free:
            left = True
            break
        provider, model, party, _ = key
        if desk.taken[party] >= desk.share or desk.full(provider) or desk.full(f"{provider}:{model}"):
            left = True
            continue
        kind = (provider, model, head.images)
        if kind in too_early:
            continue
        start = desk.earliest(head)
        if start > desk.now + horizon_s:
            too_early.add(kind)
            next_at = start if next_at is None else min(next_at, start)
            left = True
            continue
        grants.append(desk.grant(head, start))
        line.pop()
        if line:
            heapq.heappush(heap, (desk.fairness(line[-1]), key))
    return Choice(tuple(grants), next_at, left)


@dataclass(frozen=True, slots=True)
class Place:
    """A place in the queue of a maker, from 1, and how long it may take until it is had (seconds)."""

    waiting: Waiting
    place: int
    wait_s: float | None


def places(waiting: Sequence[Waiting], desk: Desk, mean_s: Mapping[str, float], most: int) -> list[Place]:
    """The order in which runs would go if nothing changed, the first `most` of each maker.

    Args:
        waiting: As for `choose`, and those that are paused.
        desk: As for `choose`; counted in.
        mean_s: How long a run of each maker usually takes; without it a limit at once gives no estimate.
        most: Further back nobody is told.

    """
    lines = _lines(waiting)
    heap = [(desk.fairness(line[-1]), key) for key, line in lines.items()]
    heapq.heapify(heap)
    rooms = {provider: _room(desk, provider) for provider in {key[0] for key in lines}}
    given: Counter[str] = Counter()
    found: list[Place] = []
    while heap:
        known, key = heapq.heappop(heap)
        line = lines[key]
        head = line[-1]
        provider = head.provider
        now = desk.fairness(head)
        if now != known:
            heapq.heappush(heap, (now, key))
            continue
        if given[provider] >= most:
            continue
        given[provider] += 1
        start = desk.earliest(head)
        free, width = rooms[provider]
        behind = math.ceil((given[provider] - free) / width)
        mean = mean_s.get(provider)
        queued_s = 0.0 if behind <= 0 else behind * mean if mean is not None else None
        wait_s = None if queued_s is None else max(queued_s, start - desk.now)
        found.append(Place(head, given[provider], wait_s))
        desk.grant(head, start)
        line.pop()
        if line:
            heapq.heappush(heap, (desk.fairness(line[-1]), key))
    return found


def _room(desk: Desk, provider: str) -> tuple[int, int]:
    """How many runs of a maker could begin now, and how many it makes at once."""
    limit = desk.limits.scopes.get(provider)
    width = max(desk.capacity, 1)
    free = desk.free
    if limit is not None and limit.in_flight is not None:
        width = min(width, limit.in_flight)
        free = min(free, max(limit.in_flight - desk.flights[provider], 0))
    return free, width


def _lines(waiting: Iterable[Waiting]) -> dict[tuple[str, str, str, str], list[Waiting]]:
    """Runs by the line they stand in, the first of each at the end of its list."""
    lines: dict[tuple[str, str, str, str], list[Waiting]] = defaultdict(list)
    for one in waiting:
        lines[one.line].append(one)
    for line in lines.values():
        line.sort(key=lambda one: one.place, reverse=True)
    return dict(lines)
