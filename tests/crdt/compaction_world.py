"""A room that compacts, the people around it, and a document that is fed the same and never compacted."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any

from pycrdt import Doc

from crdt import canvas
from crdt.archive import Archive
from crdt.canvas import CanvasDoc
from crdt.chains import Place, read_chains
from crdt.compaction import compact, sound
from crdt.guard import Guard, Plan, is_server_owned
from crdt.healing import heal
from crdt.json import Json
from crdt.room import KEEPER_BASE
from crdt.update import StateVector, decode, decode_vector
from tests.crdt.compaction_peers import Edit, PycrdtReplica, Replica, Yjs, as_json, node_value

NODES = [f"n{number}" for number in range(3)]
USER_KEYS = ["label", "seed", "params", "position"]
SERVER_KEYS = ["status", "runId", "imageUrl"]


class Deviation(AssertionError):
    """The compacted room shows something else than the one that was never compacted."""


@dataclass(eq=False)
class Person:
    """Somebody with a page; `floor` is what they knew when they made the first edit that is not sent yet."""

    replica: Replica
    client: int
    floor: StateVector | None = None
    away: bool = False
    """May come back from before the frontier."""

    def knows(self) -> StateVector:
        return decode_vector(self.replica.vector())


@dataclass
class World:
    """See the module; every edit is checked against the reference as it arrives."""

    random: Random
    yjs: Yjs
    healing: bool = True
    people: list[Person] = field(default_factory=list)
    guard: Guard | None = None
    archives: list[Archive] = field(default_factory=list)
    compactions: int = 0
    heals: int = 0
    late: int = 0
    retired: int = 0

    def __post_init__(self) -> None:
        self.server: CanvasDoc = Doc(client_id=KEEPER_BASE + 1)
        self.reference: CanvasDoc = Doc(client_id=1)
        self._emitted = b"\x00\x00"
        self._watch()
        with self.server.transaction():
            for name in NODES:
                canvas.add_node(self.server, {"id": name, "data": {"label": 0, "prompt": "fox"}})
        self.reference.apply_update(self._take())

    def join(self) -> Person:
        """Somebody opens the page, on yjs or pycrdt."""
        client = self.random.randrange(2**16, 2**32)
        return self._join(client, PycrdtReplica(client) if self.random.random() < 0.3 else self.yjs.replica(client))

    def join_yjs(self, client: int) -> Person:
        """Somebody opens the page on yjs with a client id of our choice."""
        return self._join(client, self.yjs.replica(client))

    def _join(self, client: int, replica: Replica) -> Person:
        replica.apply(self.server.get_update())
        self.people.append(Person(replica, client))
        return self.people[-1]

    def leave(self, person: Person) -> None:
        person.replica.close()
        self.people.remove(person)

    # What people do

    def edit(self, person: Person, edit: Edit | None = None) -> None:
        """One edit that stays with the person until they `sync`."""
        if person.floor is None:
            person.floor = person.knows()
        person.replica.edit(edit or self.some_edit())

    def undo(self, person: Person, *, redo: bool = False) -> None:
        if person.floor is None:
            person.floor = person.knows()
        if redo:
            person.replica.redo()
        else:
            person.replica.undo()

    def some_edit(self) -> Edit:
        random = self.random
        name = random.choice(NODES)
        kind = random.choices(["set", "unset", "type", "cut", "add", "remove"], [16, 1, 2, 1, 0.3, 0.3])[0]
        if kind in ("set", "unset"):
            key = random.choice([*USER_KEYS, "status"] if random.random() < 0.1 else USER_KEYS)
            values: list[Json] = [random.randrange(1000), f"é{random.randrange(99)}", {"x": 0.5, "y": [1, None]}]
            value = random.choice(values)
            return Edit(kind, name, key, value, in_data=key != "position")
        if kind == "add":
            return Edit("add", name, value=node_value(label=random.randrange(99), prompt="hare"))
        return Edit(kind, name, value="ab", index=random.randrange(6), length=2)

    def keeper_writes(self) -> None:
        """The server writes one key once or twice in a row (then the items squash), or a few keys at once."""
        name = self.random.choice(NODES)
        for _ in range(self.random.randrange(1, 4)):
            keys = self.random.sample(SERVER_KEYS, 1 if self.random.random() < 0.6 else 3)
            with self.server.transaction():
                if name in canvas.nodes_of(self.server):
                    for key in keys:
                        canvas.nodes_of(self.server)[name]["data"][key] = self.random.randrange(10**6)
            self.reference.apply_update(self._take())

    # The room

    def pull(self, person: Person) -> None:
        """The person hears of everything but says nothing; a late one is not answered."""
        if not self.healing or not self._lacked(person):
            person.replica.apply(self.server.get_update(person.replica.vector()))

    def sync(self, person: Person) -> None:
        """Both ways, as a room that heals does it."""
        lacked = self._lacked(person)
        self.late += bool(lacked)
        self.receive(person.replica.update(self.server.get_state()), lacked, person)
        person.replica.apply(self.server.get_update(person.replica.vector()))
        person.floor = None

    def receive(self, raw: bytes, lacked: tuple[Place, ...] = (), person: Person | None = None) -> None:
        """What the keeper does with an update of a peer, step by step."""
        update = decode(raw)
        plan = Plan({})
        if self.healing and self.guard is not None and (lacked or self.guard.concerns(update)):
            known = decode_vector(self.server.get_state())
            plan = self.guard.plan(known, self.archives, lacked=lacked, update=update)
        before = as_json(self.server)
        self.reference.apply_update(raw)
        self.server.apply_update(raw)
        emitted = self._take()
        if plan:
            self._compare(plan, before, person)
        elif self.healing and self.guard is not None:
            plan = self.guard.overtaken(update, decode(emitted), self.server.get_update)
        if plan:
            late = person.replica.json() if person is not None else {}
            self.heal(plan, before)
            self._kept(plan, before, late)
        if self.healing:
            self.check()

    def heal(self, plan: Plan, truth: Any) -> None:
        assert self.guard is not None
        # Stored before it is used, as the room's row is.
        self.heals += 1
        update = heal(self.server, self.heals, plan, lambda node: _server_keys(truth, node))
        self.server.apply_update(update)
        self._take()
        self.reference.apply_update(update)
        self.guard = Guard.decode(self.guard.healed(plan).encode())

    def compact(self) -> None:
        """Compact up to what everybody has seen who is not away."""
        frontier = decode_vector(self.server.get_state())
        for person in self.people:
            if not person.away:
                known = person.floor or person.knows()
                frontier = {client: min(clock, known.get(client, 0)) for client, clock in frontier.items()}
        frontier = {c: n if self.random.random() < 0.9 else self.random.randrange(n + 1) for c, n in frontier.items()}
        self.compact_to({client: clock for client, clock in frontier.items() if clock})

    def compact_to(self, frontier: StateVector) -> None:
        before = self.server.get_update()
        compaction = compact(before, frontier, self.guard.anchors if self.guard is not None else None)
        assert sound(before, compaction.state)
        self.archives.append(Archive.decode(Archive(compaction.retired).encode()))
        self.guard = Guard.decode(Guard.after(compaction, self.guard).encode())
        self.compactions += 1
        self.retired += sum(run.length for run in compaction.retired)
        self.server = Doc(client_id=KEEPER_BASE + 1 + self.compactions)
        self.server.apply_update(compaction.state)
        self._watch()
        self.check()

    def restart(self, state: bytes, reference: bytes, guard: Guard | None) -> None:
        """A crash: the room is what was stored, only the count of heals went on."""
        self.server, self.reference = Doc(client_id=KEEPER_BASE + 100), Doc(client_id=1)
        self.server.apply_update(state)
        self.reference.apply_update(reference)
        self._watch()
        self.guard = guard

    # Checks

    def check(self) -> None:
        """The room shows what the reference shows."""
        if as_json(self.server) != as_json(self.reference) or self.server_vector() != decode_vector(
            self.reference.get_state()
        ):
            raise Deviation(f"{as_json(self.server)} instead of {as_json(self.reference)}")

    def settle(self) -> None:
        """Everybody syncs; then all must agree, also a page that is opened now, and nothing may wait."""
        for person in [*self.people, *self.people]:
            sent = self.heals
            self.sync(person)
            if self.heals != sent:
                person.replica.forget()
        fresh = self.join_yjs(77)
        self.check()
        for person in self.people:
            if person.replica.json() != as_json(self.server) or person.replica.waits():
                raise Deviation(f"{person.replica.json()} instead of {as_json(self.server)}")
        self.leave(fresh)

    def close(self) -> None:
        for person in list(self.people):
            self.leave(person)

    def server_vector(self) -> StateVector:
        return decode_vector(self.server.get_state())

    def _lacked(self, person: Person) -> tuple[Place, ...]:
        if self.guard is None or not self.healing:
            return ()
        return self.guard.lacked_by(person.knows(), self.server_vector())

    def _compare(self, plan: Plan, before: Any, person: Person | None) -> None:
        """No value is lost: the reference shows what the room shows, or, where the late peer wrote, one of the two."""
        reference, now = as_json(self.reference), as_json(self.server)
        touched = {run.place for run in plan.hanging}
        late = person.replica.json() if person is not None else {}
        for place in self._alive(plan):
            allowed = [_value(before, place), _value(now, place)]
            if place in touched:
                allowed.append(_value(late, place))
            if _value(reference, place) not in allowed:
                raise Deviation(f"{place} is {_value(reference, place)}, not one of {allowed}")

    def _alive(self, plan: Plan) -> list[Place]:
        """Keys whose map was not deleted, nor replaced by another one of the same name."""
        _, types = read_chains(decode(self.server.get_update()))
        return [place for place in plan.claims if place.parent in types]

    def _kept(self, plan: Plan, truth: Any, late: Any) -> None:
        """SQL wins where it owns the key; elsewhere a late edit is kept."""
        now = as_json(self.server)
        for place in self._alive(plan):
            claim = plan.claims[place]
            if is_server_owned(place) and _value(now, place) != _value(truth, place):
                raise Deviation(f"{place} is {_value(now, place)}, SQL has {_value(truth, place)}")
            if not is_server_owned(place) and claim is not None and _value(now, place) != _value(late, place):
                raise Deviation(f"{place} is {_value(now, place)}, the late peer wrote {_value(late, place)}")

    def _watch(self) -> None:
        self._subscription = self.server.observe(self._note)

    def _note(self, event: Any) -> None:
        self._emitted = event.update

    def _take(self) -> bytes:
        emitted, self._emitted = self._emitted, b"\x00\x00"
        return emitted


def _holder(flow: Any, place: Place) -> Any:
    for key in place.path:
        if not isinstance(flow, Mapping) or key not in flow:
            return None
        flow = flow[key]
    return flow


def _value(flow: Any, place: Place) -> Any:
    return (_holder(flow, place) or {}).get(place.key, "absent")


def _server_keys(flow: Any, node: str) -> Mapping[str, Any] | None:
    data = flow["nodes"].get(node, {}).get("data")
    return None if data is None else {key: value for key, value in data.items() if key in canvas.SERVER_KEYS}
