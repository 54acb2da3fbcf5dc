"""What a compaction retired: from an id that is garbage now back to the key it belonged to."""

import json
import sys
import zlib
from array import array
from bisect import bisect_right
from collections.abc import Iterable

from crdt.chains import Place
from crdt.compaction import Retired
from crdt.ids import IdSet
from crdt.update import Id


class Archive:
    """The retired ids of one compaction. Cold: only a heal looks into it."""

    def __init__(self, retired: Iterable[Retired]) -> None:
        numbers: dict[Place, int] = {}
        self._runs: dict[int, tuple[array[int], array[int], array[int]]] = {}
        for run in sorted(retired, key=lambda one: (one.client, one.clock)):
            clocks, lengths, places = self._runs.setdefault(run.client, (array("Q"), array("Q"), array("L")))
            clocks.append(run.clock)
            lengths.append(run.length)
            places.append(numbers.setdefault(run.place, len(numbers)))
        self._places = list(numbers)

    def find(self, one: Id) -> Place | None:
        """The key to which a retired id belonged."""
        runs = self._runs.get(one[0])
        if runs is None:
            return None
        clocks, lengths, places = runs
        at = bisect_right(clocks, one[1]) - 1
        return self._places[places[at]] if at >= 0 and one[1] < clocks[at] + lengths[at] else None

    def encode(self) -> bytes:
        """To be kept in SQL: a line of JSON and arrays of little-endian integers, deflated."""
        places = [[*place.parent, place.key, place.path] for place in self._places]
        head = {"places": places, "clients": [[client, len(runs[0])] for client, runs in self._runs.items()]}
        body = [_little(part) for runs in self._runs.values() for part in runs]
        return zlib.compress(b"".join([json.dumps(head).encode(), b"\n", *body]))

    @classmethod
    def decode(cls, encoded: bytes) -> "Archive":
        """What `encode` made."""
        head, _, body = zlib.decompress(encoded).partition(b"\n")
        meta = json.loads(head)
        archive = cls(())
        archive._places = [Place((c, n), key, tuple(path)) for c, n, key, path in meta["places"]]
        at = 0
        for client, count in meta["clients"]:
            parts = []
            for _ in range(3):
                part: array[int] = array("Q")
                part.frombytes(body[at : at + 8 * count])
                if sys.byteorder == "big":
                    part.byteswap()
                parts.append(part)
                at += 8 * count
            archive._runs[client] = (parts[0], parts[1], parts[2])
        return archive


class Archives:
    """The archives that are still kept, and what hung on retired ids since."""

    def __init__(self, archives: Iterable[Archive], hanging: Iterable[Retired] = ()) -> None:
        self._archives = [*archives, Archive(hanging)]

    def find(self, one: Id) -> Place | None:
        """The key to which a retired id belonged; None when that archive is gone."""
        return next((place for archive in self._archives if (place := archive.find(one)) is not None), None)


def ids_of(retired: Iterable[Retired]) -> IdSet:
    """The retired ids as a set."""
    return IdSet((run.client, run.clock, run.length) for run in retired)


def _little(part: "array[int]") -> bytes:
    wide: array[int] = array("Q", part)
    if sys.byteorder == "big":
        wide.byteswap()
    return wide.tobytes()
