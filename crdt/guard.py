"""What a compacted room watches for: peers that have not seen the frontier, and edits that hang on retired ids.

Pure decisions; `crdt.healing` makes the update that answers them.
"""

import json
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Final

from crdt.archive import Archive, Archives, ids_of
from crdt.canvas import SERVER_KEYS
from crdt.chains import ChainKey, ItemIndex, Place, key_items, read_chains
from crdt.compaction import Compaction, Retired
from crdt.ids import IdSet
from crdt.update import ANY, DELETED, Id, StateVector, Struct, Update, decode, tail

HEAL_BASE = 2**53 - 2**20
"""Client id of heal 0. An item without origin under the largest id comes last in every chain, whatever came before."""

_DATA_PATH: Final = ("nodes", "", "data")


@dataclass(frozen=True, slots=True)
class Plan:
    """What a heal has to write anew."""

    claims: Mapping[Place, bytes | None]
    """Keys to re-assert, each with what a late peer wrote there (an encoded content of kind ANY), or None."""
    hanging: tuple[Retired, ...] = ()
    """Ids of the late peer that hang on retired ones: garbage here, while that peer goes on from them."""

    def __bool__(self) -> bool:
        return bool(self.claims)

    def nodes(self) -> frozenset[str]:
        """Nodes of which server-owned keys are re-asserted: what the truth is to be asked about."""
        return frozenset(place.path[1] for place in self.claims if is_server_owned(place))


@dataclass(frozen=True)
class Guard:
    """Kept beside the snapshot of a compacted document and stored with it; a room without one was never compacted."""

    frontier: StateVector
    anchors: Mapping[Place, Id]
    """Items without origin that stand for what was before them."""
    retired: IdSet
    hanging: tuple[Retired, ...] = ()
    settled: frozenset[Place] = frozenset()
    """Keys healed since their anchor was made: the heal comes last for everybody, so it needs no other."""

    @cached_property
    def _places(self) -> dict[ChainKey, Place]:
        return {(place.parent, place.key): place for place in self.anchors}

    @classmethod
    def after(cls, compaction: Compaction, before: "Guard | None" = None) -> "Guard":
        """The guard of a compacted state.

        Args:
            compaction: Made with the anchors of `before`.
            before: Of the compaction before.

        """
        retired = ids_of(compaction.retired)
        if before is None:
            return cls(compaction.frontier, compaction.anchors, retired)
        return cls(
            compaction.frontier,
            compaction.anchors,
            IdSet([*before.retired, *retired]),
            tuple(run for run in before.hanging if run.place in compaction.anchors),
            frozenset(p for p in before.settled if compaction.anchors.get(p) == before.anchors.get(p)),
        )

    def lacked_by(self, vector: StateVector, room: StateVector) -> tuple[Place, ...]:
        """Keys whose anchor a peer lacks that knew the room before: it is late, and its chains may sort otherwise.

        Args:
            vector: The peer's, from its SyncStep1.
            room: The room's own; a peer that shares no id with it is new and lacks nothing.

        """
        if not any(client in room for client in vector):
            return ()
        return tuple(
            place
            for place, (client, clock) in self.anchors.items()
            if clock >= vector.get(client, 0) and client < HEAL_BASE and place not in self.settled
        )

    def concerns(self, update: Update) -> bool:
        """Whether an update hangs on retired ids or writes a compacted key without an origin: to be asked of each."""
        for _, struct in key_items(update):
            if struct.origin is not None:
                if struct.origin in self.retired:
                    return True
            elif isinstance(struct.parent, tuple) and (struct.parent, struct.key) in self._places:
                return True
        return False

    def plan(
        self,
        room: StateVector,
        archives: Iterable[Archive],
        *,
        lacked: Iterable[Place] = (),
        update: Update | None = None,
    ) -> Plan:
        """What to re-assert for a late peer; to be made before its update is applied.

        Args:
            room: The room's state vector: what it holds already is not looked at.
            archives: Of the compactions before; of an id whose archive is gone every key is re-asserted.
            lacked: From `lacked_by`.
            update: What the peer sent; None when it may only read.

        """
        claims: dict[Place, bytes | None] = dict.fromkeys(lacked)
        hanging: list[Retired] = []
        update = update or Update()
        dead = IdSet.of(update.deletes)
        for client, struct, place in self._late_items(update, room, Archives(archives, self.hanging).find):
            if place is None:
                claims = {**dict.fromkeys(self.anchors), **claims}
                continue
            claims.setdefault(place, None)
            hanging.append(Retired(client, struct.clock, struct.length, place))
            if (client, struct.end - 1) not in dead:
                claims[place] = last_value(struct)
        return Plan(claims, tuple(hanging))

    def places_of(self, heals: Update) -> frozenset[Place]:
        """Compacted keys that were written anew.

        Args:
            heals: What an update holds under the ids of heals.

        """
        written = ((s.parent, s.key) for _, s in key_items(heals) if isinstance(s.parent, tuple) and s.key is not None)
        return frozenset(self._places[one] for one in written if one in self._places)

    def healed(self, plan: Plan) -> "Guard":
        """The guard once a plan was carried out."""
        return replace(
            self,
            retired=IdSet([*self.retired, *ids_of(plan.hanging)]),
            hanging=self.hanging + plan.hanging,
            settled=self.settled | (plan.claims.keys() & self.anchors.keys()),
        )

    def overtaken(self, update: Update, emitted: Update, state: Callable[[], bytes]) -> Plan:
        """Edits that were on their way while a heal was made: they sort before it, though they are newer.

        Args:
            update: What a peer sent.
            emitted: What the document emitted when it was applied.
            state: The document with it, as one Yjs update (v1); asked for only when an edit was lost at once.

        """
        if not self.settled:
            return Plan({})
        meant, dead = IdSet.of(update.deletes), IdSet.of(emitted.deletes)
        ends = {(client, struct.end - 1): struct for client, struct in key_items(update)}
        lost = {one: struct for one, struct in ends.items() if one not in meant and one in dead}
        return Plan(dict(self._overtaken(lost, decode(state())))) if lost else Plan({})

    def _overtaken(self, lost: Mapping[Id, Struct], whole: Update) -> Iterator[tuple[Place, bytes | None]]:
        chains, _ = read_chains(whole)
        for place in self.settled:
            members = chains.get((place.parent, place.key), [])
            newest = max((client for client, _ in members), default=0)
            if newest < HEAL_BASE or any(s.origin is not None and s.origin[0] == newest for _, s in members):
                continue  # Not healed any more, or written since by somebody who had seen it.
            for one, struct in lost.items():
                value = last_value(struct)
                if value is not None and any(c == one[0] and s.clock <= one[1] < s.end for c, s in members):
                    yield place, value

    def _late_items(
        self, update: Update, room: StateVector, find: Callable[[Id], Place | None]
    ) -> Iterator[tuple[int, Struct, Place | None]]:
        """Values the room does not hold yet that hang on retired ids or on nothing, with the key they are for."""
        index = ItemIndex()
        items = [(c, new) for c, s in key_items(update) if (new := _news(c, s, room.get(c, 0))) is not None]
        for client, struct in items:
            index.add(client, struct)
        for client, struct in items:
            first = index.resolve(struct)
            if first.parent is not None:
                place = self._places.get((first.parent, first.key or "")) if isinstance(first.parent, tuple) else None
                if place is not None:
                    yield client, struct, place
            elif first.origin is not None and first.origin in self.retired:
                yield client, struct, find(first.origin)

    def encode(self) -> bytes:
        """To be stored with the snapshot: JSON, deflated."""
        numbers = {place: number for number, place in enumerate({**self.anchors, **dict.fromkeys(self._hung())})}
        return zlib.compress(
            json.dumps(
                {
                    "frontier": list(self.frontier.items()),
                    "places": [[*place.parent, place.key, place.path] for place in numbers],
                    "anchors": list(self.anchors.values()),
                    "retired": self.retired.deletes(),
                    "hanging": [[run.client, run.clock, run.length, numbers[run.place]] for run in self.hanging],
                    "settled": [numbers[place] for place in self.settled],
                }
            ).encode()
        )

    @classmethod
    def decode(cls, encoded: bytes) -> "Guard":
        """What `encode` made."""
        stored = json.loads(zlib.decompress(encoded))
        places = [Place((c, n), key, tuple(path)) for c, n, key, path in stored["places"]]
        anchors = {place: (one[0], one[1]) for place, one in zip(places, stored["anchors"], strict=False)}
        return cls(
            dict(stored["frontier"]),
            anchors,
            IdSet.of(stored["retired"]),
            tuple(Retired(c, n, length, places[number]) for c, n, length, number in stored["hanging"]),
            frozenset(places[number] for number in stored["settled"]),
        )

    def _hung(self) -> Iterator[Place]:
        return (run.place for run in self.hanging)


def is_server_owned(place: Place) -> bool:
    """Whether only the keeper writes this key."""
    return place.key in SERVER_KEYS and len(place.path) == len(_DATA_PATH) and place.path[::2] == _DATA_PATH[::2]


def last_value(struct: Struct) -> bytes | None:
    """The content of an item's last unit, encoded, when it is a plain value."""
    return tail(struct, struct.length - 1).content if struct.kind == ANY else None


def _news(client: int, struct: Struct, known: int) -> Struct | None:
    """What of an item the room does not hold yet, hanging on what it holds."""
    if struct.clock >= known:
        return struct
    if struct.end <= known or struct.kind not in (ANY, DELETED):
        return None
    news = tail(struct, known - struct.clock)
    news.origin, news.parent, news.key = (client, known - 1), None, None
    return news
