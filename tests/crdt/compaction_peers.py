"""Documents of people for the tests of compaction: real yjs in Node.js, and pycrdt, behind one interface."""

import base64
import itertools
import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from pycrdt import Doc, Map, Text

from crdt import canvas
from crdt.canvas import CanvasDoc
from crdt.json import Json
from hatch_build import install_packages, node

_NODE = Path(__file__).with_name("node")


@dataclass(frozen=True, slots=True)
class Edit:
    """One thing a person does; nothing happens when the node is not there."""

    do: str
    """add, remove, set, unset, type or cut."""
    node: str
    key: str = ""
    value: Json = None
    in_data: bool = True
    index: int = 0
    length: int = 0


class Replica(Protocol):
    """One person's document; encodings are those of Yjs (v1)."""

    def edit(self, edit: Edit) -> None: ...
    def undo(self) -> None: ...
    def redo(self) -> None: ...
    def forget(self) -> None:
        """Clear the undo stack."""

    def vector(self) -> bytes: ...
    def update(self, vector: bytes | None = None) -> bytes: ...
    def apply(self, update: bytes) -> None: ...
    def json(self) -> Any: ...
    def waits(self) -> bool:
        """Whether something waits for a parent."""

    def close(self) -> None: ...


class Yjs:
    """A process of Node.js that holds yjs documents."""

    def __init__(self) -> None:
        install_packages(_NODE)
        command = [str(node()), str(_NODE / "replicas.mjs")]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=os.environ)
        self._numbers = itertools.count()

    def replica(self, client: int, update: bytes | None = None) -> "YjsReplica":
        """A new document."""
        number = next(self._numbers)
        self.call("open", at=number, client=client, update=_text(update) if update else None)
        return YjsReplica(self, number)

    def call(self, do: str, **fields: Any) -> Any:
        """One command and its answer."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"do": do, **fields}).encode() + b"\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        assert "error" not in answer, answer["error"]
        return answer["ok"]

    def close(self) -> None:
        """End the process."""
        self._process.communicate()


class YjsReplica:
    """A document in Node.js."""

    def __init__(self, yjs: Yjs, number: int) -> None:
        self._yjs = yjs
        self._at = number

    def _call(self, do: str, **fields: Any) -> Any:
        return self._yjs.call(do, at=self._at, **fields)

    def edit(self, edit: Edit) -> None:
        self._call(
            "edit",
            edit=edit.do,
            node=edit.node,
            inData=edit.in_data,
            key=edit.key,
            value=edit.value,
            index=edit.index,
            length=edit.length,
        )

    def undo(self) -> None:
        self._call("undo")

    def redo(self) -> None:
        self._call("redo")

    def forget(self) -> None:
        self._call("forget")

    def vector(self) -> bytes:
        return base64.b64decode(self._call("vector"))

    def update(self, vector: bytes | None = None) -> bytes:
        return base64.b64decode(self._call("update", vector=_text(vector) if vector else None))

    def apply(self, update: bytes) -> None:
        self._call("apply", update=_text(update))

    def json(self) -> Any:
        return self._call("json")

    def waits(self) -> bool:
        waits: bool = self._call("waits")
        return waits

    def close(self) -> None:
        self._call("close")


class PycrdtReplica:
    """A document of pycrdt. It undoes nothing: pycrdt 0.14.13 crashes when an undo manager outlives a deleted map."""

    def __init__(self, client: int, update: bytes | None = None) -> None:
        self.doc: CanvasDoc = Doc(client_id=client)
        if update:
            self.doc.apply_update(update)

    def edit(self, edit: Edit) -> None:
        with self.doc.transaction():
            _apply(canvas.nodes_of(self.doc), edit)

    def undo(self) -> None:
        pass

    def redo(self) -> None:
        pass

    def forget(self) -> None:
        pass

    def vector(self) -> bytes:
        return self.doc.get_state()

    def update(self, vector: bytes | None = None) -> bytes:
        return self.doc.get_update(vector)

    def apply(self, update: bytes) -> None:
        self.doc.apply_update(update)

    def json(self) -> Any:
        return as_json(self.doc)

    def waits(self) -> bool:
        return False  # It does not tell; an edit that waits is missing in `json`.

    def close(self) -> None:
        pass


def as_json(doc: CanvasDoc) -> Any:
    """All roots as JSON."""
    roots = {"nodes": canvas.nodes_of(doc), "edges": canvas.edges_of(doc), "meta": canvas.meta_of(doc)}
    return {name: root.to_py() or {} for name, root in roots.items()}


def node_value(**data: Json) -> Json:
    """A node as `Edit("add", ...)` takes it."""
    return {"type": "image", "position": {"x": 0, "y": 0}, "data": dict(data)}


def _apply(nodes: canvas.SharedMap, edit: Edit) -> None:
    if edit.do == "add":
        assert isinstance(edit.value, dict)
        nodes[edit.node] = _nested(edit.value)
        return
    if edit.node not in nodes:
        return
    if edit.do == "remove":
        del nodes[edit.node]
        return
    holder = nodes[edit.node]["data"] if edit.in_data else nodes[edit.node]
    if edit.do == "set":
        holder[edit.key] = edit.value
    elif edit.do == "unset":
        if edit.key in holder:
            del holder[edit.key]
    elif isinstance(prompt := holder.get("prompt"), Text):
        _type(prompt, edit)


def _type(prompt: Text, edit: Edit) -> None:
    # Plain ASCII here: pycrdt counts bytes, yjs UTF-16 units.
    if edit.do == "type":
        prompt.insert(min(edit.index, len(prompt)), str(edit.value))
    elif edit.index < len(prompt):
        del prompt[edit.index : min(edit.index + edit.length, len(prompt))]


def _nested(value: dict[str, Any]) -> Map[Any]:
    made: dict[str, Any] = {}
    for key, one in value.items():
        made[key] = _nested(one) if key == "data" else Text(one) if key == "prompt" else one
    return Map(made)


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()
