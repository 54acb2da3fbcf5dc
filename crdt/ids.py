"""Sets of ids (client, clock), kept as ranges: what is deleted, what was retired."""

from bisect import bisect_right
from collections.abc import Iterable, Iterator

from crdt.update import Id


class IdSet:
    """Ids as merged ranges per client."""

    __slots__ = ("_ends", "_starts")

    def __init__(self, ranges: Iterable[tuple[int, int, int]] = ()) -> None:
        """Takes client, clock and length of each range, in any order, also overlapping."""
        self._starts: dict[int, list[int]] = {}
        self._ends: dict[int, list[int]] = {}
        for client, clock, length in sorted(ranges):
            starts, ends = self._starts.setdefault(client, []), self._ends.setdefault(client, [])
            if ends and clock <= ends[-1]:
                ends[-1] = max(ends[-1], clock + length)
            elif length:
                starts.append(clock)
                ends.append(clock + length)

    @classmethod
    def of(cls, deletes: Iterable[tuple[int, Iterable[tuple[int, int]]]]) -> "IdSet":
        """The ids of a delete set."""
        return cls((client, clock, length) for client, runs in deletes for clock, length in runs)

    def __contains__(self, one: Id) -> bool:
        return self.covers(one[0], one[1], 1)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, IdSet) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment] # as every mutable set

    def __bool__(self) -> bool:
        return any(self._starts.values())

    def __iter__(self) -> Iterator[tuple[int, int, int]]:
        for client, starts in self._starts.items():
            for start, end in zip(starts, self._ends[client], strict=True):
                yield client, start, end - start

    def covers(self, client: int, clock: int, length: int) -> bool:
        """Whether every id of a range is in the set."""
        if length == 0:
            return True
        starts = self._starts.get(client)
        if starts is None:
            return False
        at = bisect_right(starts, clock) - 1
        return at >= 0 and clock + length <= self._ends[client][at]

    def deletes(self) -> list[tuple[int, list[tuple[int, int]]]]:
        """As a delete set."""
        merged: dict[int, list[tuple[int, int]]] = {}
        for client, clock, length in self:
            merged.setdefault(client, []).append((clock, length))
        return sorted(merged.items(), reverse=True)
