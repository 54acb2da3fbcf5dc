"""
A year of heavy use as one Yjs document: `python -m tests.crdt.year` prints what compaction makes of it.

The document is written by hand, item by item, as its people and keepers would have: a real one would take hours. It is
then loaded and encoded again by pycrdt, so its bytes are those of a real one.
"""

import asyncio
import json
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from pycrdt import Doc

from crdt import canvas
from crdt.canvas import CanvasDoc
from crdt.compactor import Compacted, compact_apart
from crdt.ids import IdSet
from crdt.lib0 import write_any, write_text, write_uint
from crdt.room import KEEPER_BASE
from crdt.update import (
    ANY,
    DELETED,
    GC,
    HAS_KEY,
    HAS_ORIGIN,
    HAS_RIGHT,
    STRING,
    TYPE,
    Id,
    Section,
    StateVector,
    Struct,
    Update,
    decode,
    encode,
    encode_vector,
)
from tests.crdt.compaction_peers import as_json

_MAP, _TEXT = b"\x01", b"\x02"
_LONG, _AT_THE_END = 200, 0.9
"""Characters of a prompt of which the second half is cut, and how often people type at its end."""


@dataclass(frozen=True, slots=True)
class Habits:
    """What people do, a day."""

    days: int = 365
    nodes: int = 200
    runs: int = 300
    drops: int = 300
    group_drops: int = 10
    prompts: int = 100
    params: int = 60
    loads: int = 5
    """Page loads that write: each leaves a client id."""
    churn: int = 0
    """Nodes deleted and made anew."""


@dataclass(slots=True)
class _Unit:
    one: Id
    struct: Struct
    alive: bool = True


@dataclass(slots=True)
class _Node:
    name: str
    item: Id
    data: Id
    text: Id
    structs: list[Struct] = field(default_factory=list)
    values: dict[str, Any] = field(default_factory=dict)
    position: Any = None
    heads: dict[tuple[Id, str], tuple[Id, Struct]] = field(default_factory=dict)
    units: list[_Unit] = field(default_factory=list)


class Year:
    """Writes the document; `state` is it, `vectors` the state vector at the end of each day."""

    def __init__(self, habits: Habits, seed: int = 1) -> None:
        self.habits = habits
        self.vectors: list[StateVector] = []
        self._random = Random(seed)  # noqa: S311 - the same year each time
        self._structs: dict[int, list[Struct]] = {}
        self._nodes: list[_Node] = []
        self._names = 0
        self._people: list[int] = []
        for day in range(habits.days):
            self._day(day)
            self.vectors.append({client: structs[-1].end for client, structs in self._structs.items()})
        self.flow = {node.name: self._json(node) for node in self._nodes}

    def state(self) -> bytes:
        """The document as one Yjs update (v1), as pycrdt encodes it."""
        doc: CanvasDoc = Doc()
        doc.apply_update(encode(self._update()))
        assert as_json(doc)["nodes"] == self.flow
        return doc.get_update()

    def fresh(self) -> bytes:
        """A new document of the same content."""
        doc: CanvasDoc = Doc(client_id=1)
        with doc.transaction():
            for name, node in self.flow.items():
                canvas.add_node(doc, {"id": name, **node})
                canvas.patch_data(doc, name, node["data"])
        assert as_json(doc)["nodes"] == self.flow
        return doc.get_update()

    def _died(self, one: Id) -> None:
        """Something that was there before is deleted."""

    def _day(self, day: int) -> None:
        habits, random = self.habits, self._random
        keeper = KEEPER_BASE + day
        self._people = [random.randrange(2**16, 2**32) for _ in range(habits.loads)]
        if day == 0:
            for _ in range(habits.nodes):
                self._make()
        work = ["drop"] * habits.drops + ["group"] * habits.group_drops
        work += ["prompt"] * habits.prompts + ["params"] * habits.params + ["churn"] * habits.churn
        runs = [step for number in range(habits.runs) for step in self._run(day, number)]
        random.shuffle(work)
        mixed: list[Any] = sorted([*enumerate(runs), *((random.random() * len(runs), one) for one in work)], key=_first)
        for _, one in mixed:
            if isinstance(one, str):
                self._person(one)
            else:
                number, patch = one
                for key, value in patch.items():
                    self._server_key(keeper, self._nodes[number], key, value)

    def _person(self, kind: str) -> None:
        random, client = self._random, self._random.choice(self._people)
        if kind in ("drop", "group"):
            for node in random.sample(self._nodes, min(len(self._nodes), 12 if kind == "group" else 1)):
                node.position = {"x": random.randrange(4000) + 0.5, "y": random.randrange(3000)}
                self._set(client, node, node.item, "position", node.position)
        elif kind == "params":
            node = random.choice(self._nodes)
            node.values["params"] = {"steps": random.randrange(50), "seed": random.randrange(10**6)}
            self._set(client, node, node.data, "params", node.values["params"])
        elif kind == "prompt":
            self._prompt(client, random.choice(self._nodes))
        else:
            self._remove(self._nodes.pop(random.randrange(len(self._nodes))))
            self._make()

    def _run(self, day: int, number: int) -> list[tuple[int, dict[str, Any]]]:
        """The three writes of a run; the runs of a day overlap by their order only within a node, which is free."""
        random = self._random
        node, run, at = random.randrange(len(self._nodes) or self.habits.nodes), f"{day:04}-{number:08}", day * 86400.0
        seq = day * 1000 + number * 3
        steps: list[dict[str, Any]] = [
            {"status": "pending", "runId": run, "runSeq": seq, "updatedAt": at + number},
            {"status": "running"},
        ]
        if random.random() < 0.05:
            error = {
                "code": "refused",
                "message": "The maker refused the prompt.",
                "retryable": False,
                "action": "edit",
            }
            steps.append({"status": "failed", "error": error, "runSeq": seq + 2, "updatedAt": at + number + 9})
        else:
            url = f"https://pictures.example/{run}/0.png"
            images = [{"url": url, "width": 1024, "height": 1024}]
            done = {"status": "completed", "imageUrl": url, "thumbnailUrl": f"{url}.webp", "images": images}
            steps.append({**done, "costUsd": 0.04, "runSeq": seq + 2, "updatedAt": at + number + 9})
        return [(node, step) for step in steps]

    def _server_key(self, keeper: int, node: _Node, key: str, value: Any) -> None:
        if key not in node.values or node.values[key] != value:
            node.values[key] = value
            self._set(keeper, node, node.data, key, value)

    def _make(self) -> None:
        client, name = self._random.choice(self._people), f"node-{self._names}"
        self._names += 1
        item = self._append(client, Struct(HAS_KEY | TYPE, 0, 1, parent="nodes", key=name, content=_MAP))
        data = self._append(client, Struct(HAS_KEY | TYPE, 0, 1, parent=item, key="data", content=_MAP))
        text = self._append(client, Struct(HAS_KEY | TYPE, 0, 1, parent=data, key="prompt", content=_TEXT))
        node = _Node(name, item, data, text)
        node.structs += [self._structs[one[0]][-index] for index, one in ((2, data), (1, text))]
        node.position = {"x": 0, "y": 0}
        node.values["label"] = f"Picture {self._names}"
        self._set(client, node, item, "type", "image")
        self._set(client, node, item, "position", node.position)
        self._set(client, node, data, "label", node.values["label"])
        self._prompt(client, node)
        self._nodes.append(node)

    def _remove(self, node: _Node) -> None:
        client, clock = node.item
        holder = next(struct for struct in self._structs[client] if struct.clock == clock)
        _tombstone(holder)
        self._died(node.item)
        for struct in node.structs:
            struct.info, struct.origin, struct.right, struct.parent, struct.key = GC, None, None, None, None

    def _set(self, client: int, node: _Node, parent: Id, key: str, value: Any) -> None:
        out = bytearray(b"\x01")
        write_any(out, value)
        before = node.heads.get((parent, key))
        struct = Struct(HAS_KEY | ANY, 0, 1, parent=parent, key=key, content=bytes(out))
        if before is not None:
            struct.info |= HAS_ORIGIN
            struct.origin, struct.parent, struct.key = before[0], None, None
            _tombstone(before[1])
            self._died(before[0])
        node.heads[parent, key] = (self._append(client, struct), struct)
        node.structs.append(struct)

    def _prompt(self, client: int, node: _Node) -> None:
        """30 characters typed, mostly at the end, three taken back, and the tail cut when it has grown long."""
        alive = [number for number, unit in enumerate(node.units) if unit.alive]
        if len(alive) > _LONG:
            for number in alive[_LONG // 2 :]:
                node.units[number].alive = False
                self._died(node.units[number].one)
            alive = alive[: _LONG // 2]
        at = (alive[-1] if self._random.random() < _AT_THE_END else self._random.choice(alive)) + 1 if alive else 0
        left = node.units[at - 1].one if at else None
        right = node.units[at].one if at < len(node.units) else None
        info = STRING | (HAS_ORIGIN if left else 0) | (HAS_RIGHT if right else 0)
        struct = Struct(info, 0, 30, left, right, None if left or right else node.text)
        _, clock = self._append(client, struct)
        node.structs.append(struct)
        typed = [_Unit((client, clock + offset), struct) for offset in range(30)]
        node.units[at:at] = typed
        for unit in typed[-3:]:
            unit.alive = False
            self._died(unit.one)

    def _append(self, client: int, struct: Struct) -> Id:
        structs = self._structs.setdefault(client, [])
        struct.clock = structs[-1].end if structs else 0
        structs.append(struct)
        return client, struct.clock

    def _json(self, node: _Node) -> Any:
        prompt = "".join(_character(unit.one[1]) for unit in node.units if unit.alive)
        return {"type": "image", "position": node.position, "data": {**node.values, "prompt": prompt}}

    def _update(self) -> Update:
        dead = {unit.one for node in self._nodes for unit in node.units if not unit.alive}
        sections = []
        ranges = []
        for client in sorted(self._structs, reverse=True):
            structs: list[Struct] = []
            for struct in self._structs[client]:
                structs += pieces_of(client, struct, dead)
            sections.append(Section(client, structs))
            ranges += [(client, s.clock, s.length) for s in structs if s.kind in (GC, DELETED)]
        return Update(sections, IdSet(ranges).deletes())


def _first(pair: tuple[float, Any]) -> float:
    return pair[0]


def _character(clock: int) -> str:
    return chr(97 + clock % 26)


def _tombstone(struct: Struct) -> None:
    struct.info = struct.info & ~0x1F | DELETED
    struct.content = b"\x01"


def pieces_of(client: int, struct: Struct, dead: set[Id]) -> list[Struct]:
    """Typed text as runs of living and of deleted characters; anything else as it is."""
    if struct.kind != STRING:
        return [struct]
    pieces: list[Struct] = []
    start = struct.clock
    for clock in range(struct.clock + 1, struct.end + 1):
        if clock < struct.end and ((client, clock) in dead) == ((client, start) in dead):
            continue
        content = bytearray()
        gone = (client, start) in dead
        if gone:
            write_uint(content, clock - start)
        else:
            write_text(content, "".join(map(_character, range(start, clock))))
        info = struct.info & ~0x1F | (DELETED if gone else STRING)
        if start == struct.clock:
            piece = Struct(info, start, clock - start, struct.origin, struct.right, struct.parent, None, bytes(content))
        else:
            origin = (client, start - 1)
            piece = Struct(info | HAS_ORIGIN, start, clock - start, origin, struct.right, content=bytes(content))
        pieces.append(piece)
        start = clock
    return pieces


# The command


def load(state: bytes) -> None:
    """Load a document in this process and print what it took."""
    pages = Path("/proc/self/statm")
    before, began = int(pages.read_text().split()[1]), time.perf_counter()
    doc: CanvasDoc = Doc()
    doc.apply_update(state)
    took, after = time.perf_counter() - began, int(pages.read_text().split()[1])
    sys.stdout.write(json.dumps({"load ms": round(took * 1000), "RSS MB": round((after - before) * 4096 / 1e6, 1)}))


def show(name: str, state: bytes) -> None:
    """Print the figures of a document; it is loaded in a process of its own, three times."""
    command = [sys.executable, "-m", "tests.crdt.year", "load"]
    runs = [json.loads(subprocess.run(command, input=state, capture_output=True, check=True).stdout) for _ in range(3)]
    best = min(runs, key=lambda run: float(run["load ms"]))
    structs = sum(len(section.structs) for section in decode(state).sections)
    sys.stdout.write(f"  {name:32} {len(state) / 1000:10,.0f} kB {structs:10,} structs {best}\n")
    sys.stdout.flush()


def compact_year(year: Year, kept_days: int) -> tuple[bytes, Compacted, float]:
    """Compact a year's document in a child process; its state before, the outcome, and the seconds it took."""
    state = year.state()
    frontier = encode_vector(year.vectors[-1 - kept_days])
    began = time.perf_counter()
    made = asyncio.run(compact_apart([state], frontier))
    return state, made, time.perf_counter() - began


def main() -> None:
    """Print the table."""
    for name, habits in {
        "no churn, 5 writing loads a day": Habits(),
        "churn, 15 writing loads a day": Habits(loads=15, churn=10),
    }.items():
        year = Year(habits)
        sys.stdout.write(f"{name}; {len(year.vectors[-1]):,} client ids\n")
        show("as lived, loaded once", year.state())
        for kept in (30, 0):
            _, made, took = compact_year(year, kept)
            show(f"compacted, {kept} days kept", made.state)
            extra = f"guard {len(made.guard) / 1000:,.0f} kB, archive {len(made.archive) / 1000:,.0f} kB"
            sys.stdout.write(f"  {'':32} in {took:.1f} s, {extra}\n")
        show("fresh", year.fresh())


if __name__ == "__main__":
    if sys.argv[1:] == ["load"]:
        load(sys.stdin.buffer.read())
    else:
        main()
