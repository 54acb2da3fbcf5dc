"""People at a shared canvas whose messages may be held up, doubled, overtaken or lost."""

import asyncio
import itertools
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any

from pycrdt import Doc, Map, Text

from crdt import canvas, protocol
from crdt.canvas import CanvasDoc
from crdt.peer import Peer
from crdt.room import Room
from crdt.rooms import Rooms
from crdt.waiting import Waiting
from tests.crdt.builders import RecordingSocket

_NODES = ("a", "b", "c")


class Line:
    """One connection of a person to a room."""

    def __init__(self, room: Room, hold: AsyncExitStack) -> None:
        self.room = room
        self.hold = hold
        self.socket = RecordingSocket()
        self.outbox: list[bytes] = []
        self.peer: Peer = room.enter(self.socket)

    @property
    def stalled(self) -> bool:
        """Whether the transport is full."""
        return self.peer.behind is not None


class Person:
    """A document that lives on while its owner is offline."""

    def __init__(self, client_id: int) -> None:
        self.doc: CanvasDoc = Doc(client_id=client_id)
        self.line: Line | None = None
        self.has_met = False
        """Whether somebody told them what the room may not know yet."""
        self._waiting = Waiting(self.doc.get_state)
        self._emitted: list[bytes] = []
        self._watch = self.doc.observe(lambda event: self._emitted.append(event.update))

    def edit(self, change: Callable[[CanvasDoc], object]) -> None:
        """Change the document in one transaction; what comes of it is on its way to the room, if there is one."""
        self._emitted.clear()
        with self.doc.transaction():
            change(self.doc)
        if self.line is not None:
            self.line.outbox += [protocol.update_message(update) for update in self._emitted]

    def apply(self, update: bytes) -> None:
        """Take an update that came from somewhere else, as yjs does: whatever waits is taken in as soon as it can."""
        self.doc.apply_update(update)
        self._waiting.note(update)
        self._waiting.settle(self.doc.apply_update)

    async def connect(self, rooms: Rooms, room_id: str) -> None:
        """Come online as any Yjs client does: ask for what is missing, and offer what the room lacks."""
        async with AsyncExitStack() as opened:
            room = await opened.enter_async_context(rooms.use(room_id))
            self.line = Line(room, opened.pop_all())
        self.has_met = False
        self.line.outbox.append(protocol.step1_message(self.doc.get_state()))

    async def leave(self) -> None:
        """Go offline; what was on the way is lost, in both directions."""
        line, self.line = self.line, None
        if line is not None:
            line.room.leave(line.peer)
            await line.hold.aclose()

    def send(self, *, order: str = "in order") -> list[bytes]:
        """Let the room receive what is on the way to it; returns the updates among it."""
        line = self.line
        if line is None:
            return []
        frames, line.outbox = line.outbox, []
        if order == "reversed":
            frames.reverse()
        for frame in frames * (2 if order == "twice" else 1):
            line.room.receive(line.peer, frame)
        messages = [message for frame in frames for message in protocol.parse(frame)]
        return [message.update for message in messages if isinstance(message, protocol.SyncUpdate)]

    def read(self) -> bool:
        """Take what the room wrote, answering its questions; False when there was nothing."""
        line = self.line
        messages = line.socket.take() if line is not None else []
        for message in messages:
            if isinstance(message, protocol.SyncUpdate):
                self.apply(message.update)
            elif isinstance(message, protocol.SyncStep1) and line is not None:
                lacking = self.doc.get_update(message.state_vector)
                line.outbox.append(protocol.step2_message(lacking))
        return bool(messages)

    def content(self) -> Any:
        """All that the document holds."""
        return content(self.doc)

    def forget(self) -> None:
        """Stop observing."""
        self._watch.drop()


def content(doc: CanvasDoc) -> Any:
    """All that a document holds, as plain values."""
    return [root(doc).to_py() for root in (canvas.nodes_of, canvas.edges_of, canvas.meta_of)]


def change(doing: str, number: int) -> Callable[[CanvasDoc], None]:  # noqa: C901
    """One of the things people do; nothing happens when what it is done to is not there."""
    which, rest = divmod(number, len(_NODES))
    name, other = _NODES[rest], _NODES[which % len(_NODES)]

    def make(doc: CanvasDoc) -> None:  # noqa: C901 - a list of all that people do
        nodes, edges = canvas.nodes_of(doc), canvas.edges_of(doc)
        node = nodes.get(name)
        data = node.get("data") if isinstance(node, Map) else None
        prompt = data.get("prompt") if isinstance(data, Map) else None
        if doing == "add":
            nodes[name] = Map({"type": "image", "position": {"x": 0, "y": 0}, "data": Map({"prompt": Text("fox")})})
        elif doing == "add plain":
            nodes[name] = {"type": "image", "position": {"x": 0, "y": 0}, "data": {"label": str(which)}}
        elif doing == "remove" and name in nodes:
            del nodes[name]
        elif doing == "move" and isinstance(node, Map):
            node["position"] = {"x": which, "y": number}
        elif doing == "label" and isinstance(data, Map):
            data["label"] = str(number)
        elif doing == "unlabel" and isinstance(data, Map) and "label" in data:
            del data["label"]
        elif doing == "type" and isinstance(prompt, Text):
            prompt.insert(which % (len(prompt) + 1), f"<{number}>")
        elif doing == "erase" and isinstance(prompt, Text) and len(prompt):
            at = which % len(prompt)
            del prompt[at : min(at + 3, len(prompt))]
        elif doing == "connect":
            edges[name + other] = Map({"source": name, "target": other})
        elif doing == "cut" and name + other in edges:
            del edges[name + other]
        elif doing == "title":
            canvas.meta_of(doc)["title"] = str(number)

    return make


EDITS = ("add", "add plain", "remove", "move", "label", "unlabel", "type", "erase", "connect", "cut", "title")


def several(doings: list[tuple[str, int]]) -> Callable[[CanvasDoc], None]:
    """Several of them in one transaction."""

    def make(doc: CanvasDoc) -> None:
        for doing, number in doings:
            change(doing, number)(doc)

    return make


def meet(one: Person, other: Person) -> None:
    """Two people exchange what they have without the server, as two tabs of one browser do."""
    for target, source in itertools.permutations((one, other)):
        target.apply(source.doc.get_update(target.doc.get_state()))
        target.has_met = True


async def turns(count: int) -> None:
    """Let the loop turn; threads of the database work meanwhile."""
    for _ in range(count):
        await asyncio.sleep(0)
