"""One late peer, told step by step."""

from random import Random
from typing import Any

from crdt import canvas
from crdt.guard import Plan
from crdt.update import decode
from tests.crdt.compaction_peers import Edit, Yjs, as_json
from tests.crdt.compaction_world import Person, World

EARLY, LATE = 100, 2**31
"""Client ids: of two who write at once the larger one wins."""


def label(value: str) -> Edit:
    return Edit("set", "n0", "label", value)


def label_of(flow: Any) -> Any:
    return flow["nodes"]["n0"]["data"].get("label")


class Story:
    """A room in which somebody went away, others wrote, and everything up to now was retired."""

    def __init__(self, yjs: Yjs, *, client: int = LATE) -> None:
        self.world = World(Random(1), yjs)  # noqa: S311
        self.here = self.world.join_yjs(1000)
        self.gone = self.world.join_yjs(client)
        self.write("one", "two")
        self.world.sync(self.gone)

    def write(self, *values: str) -> None:
        """The one who stayed writes the label, each value seen by the room."""
        for value in values:
            self.world.edit(self.here, label(value))
            self.world.sync(self.here)

    def compact(self) -> None:
        self.world.compact_to(self.world.server_vector())

    def end(self, expected: Any) -> None:
        """Everybody agrees, now and after everybody wrote again."""
        self.world.settle()
        assert label_of(as_json(self.world.server)) == expected
        for person in self.world.people:
            self.world.sync(person)
            self.world.edit(person, label(f"again {person.client}"))
            self.world.sync(person)
        self.world.settle()
        assert label_of(as_json(self.world.server)) == f"again {self.world.people[-1].client}"
        self.world.close()


def keeper_writes(world: World, status: int) -> None:
    with world.server.transaction():
        canvas.nodes_of(world.server)["n0"]["data"]["status"] = status
    world.reference.apply_update(world.server.get_update())


def plan_of(world: World, person: Person, *, archives: bool = True) -> Plan:
    assert world.guard is not None
    room = world.server_vector()
    update = decode(person.replica.update(world.server.get_state()))
    lacked = world.guard.lacked_by(person.knows(), room)
    return world.guard.plan(room, world.archives if archives else [], lacked=lacked, update=update)
