"""The React Flow document in shared types: readers that accept anything, writers that always nest.

Roots: `nodes` and `edges` (Y.Map by id, each a nested Y.Map whose `data` is a Y.Map), `meta`. Pure functions over a
pycrdt `Doc`; writers must run inside the caller's transaction. A node is looked up by id at every write: an undone
delete brings back another Y.Map under the same id.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from pycrdt import Doc, Map, Text

from crdt.errors import EdgeExists, EdgeNotFound, InvalidNode, NodeExists, NodeNotFound
from crdt.json import Json
from crdt.rows import EdgeRow, NodeRow
from crdt.values import clean_text, plain, without_data_urls, without_picture_bytes

SERVER_KEYS: Final = frozenset(
    {"status", "runId", "runSeq", "imageUrl", "thumbnailUrl", "images", "error", "costUsd", "updatedAt"}
)
"""Keys of `data` that only the keeper writes; it re-asserts them when a peer does."""
INTENT_KEY: Final = "request"
"""Key of `data` by which a peer asks for a run or a cancel; the keeper removes it."""
TEXT_KEYS: Final = frozenset({"prompt"})
"""Keys of `data` that are created as Y.Text, so that two people can type at once."""
MAX_ID_CHARS: Final = 256
_LOCAL_KEYS: Final = frozenset({"id", "selected", "dragging", "resizing", "measured", "internals"})
_ORIGIN: Final = {"x": 0.0, "y": 0.0}

CanvasDoc: TypeAlias = Doc[Any]
SharedMap: TypeAlias = Map[Any]


class _Delete:
    """The sentinel type of `DELETE`."""

    __slots__ = ()


DELETE: Final = _Delete()
"""As a value in `patch_data`: remove the key."""


@dataclass(frozen=True, slots=True)
class CanvasNode:
    """A node as plain JSON; `extra` holds every key besides type, position and data."""

    id: str
    type: str
    position: Mapping[str, float]
    data: Mapping[str, Json]
    extra: Mapping[str, Json] = field(default_factory=dict)

    def to_json(self) -> dict[str, Json]:
        """The node in React Flow's shape."""
        return {"id": self.id, "type": self.type, "position": self.position, "data": self.data, **self.extra}

    def to_row(self) -> NodeRow:
        """The node as `workflow_nodes` keeps it: without the intent, without picture bytes."""
        data = {key: value for key, value in self.data.items() if key != INTENT_KEY}
        data = {without_picture_bytes(key): without_data_urls(value) for key, value in data.items()}
        return NodeRow(self.id, without_picture_bytes(self.type), data, self.position)


def nodes_of(doc: CanvasDoc) -> SharedMap:
    """The root map of nodes."""
    root: SharedMap = doc.get("nodes", type=Map)
    return root


def edges_of(doc: CanvasDoc) -> SharedMap:
    """The root map of edges."""
    root: SharedMap = doc.get("edges", type=Map)
    return root


def meta_of(doc: CanvasDoc) -> SharedMap:
    """The root map of facts about the canvas itself."""
    root: SharedMap = doc.get("meta", type=Map)
    return root


def node_ids(doc: CanvasDoc) -> list[str]:
    """Ids of every node that can be kept in SQL, sorted: a shared map has no order of its own."""
    return sorted(filter(valid_id, nodes_of(doc).keys()))


def edge_ids(doc: CanvasDoc) -> list[str]:
    """Ids of every edge that can be kept in SQL, sorted."""
    return sorted(filter(valid_id, edges_of(doc).keys()))


def valid_id(value: object) -> bool:
    """Whether this can be the id of a node or edge: text of 1 to 256 characters that every database takes."""
    if not isinstance(value, str) or not 0 < len(value) <= MAX_ID_CHARS:
        return False
    return clean_text(value) == value and without_picture_bytes(value) == value


def read_node(doc: CanvasDoc, node_id: str) -> CanvasNode | None:
    """The node with this id, from nested maps or plain objects; None when there is none, or nothing that is a node."""
    fields = _fields(nodes_of(doc), node_id)
    if fields is None or not valid_id(node_id):
        return None
    data = fields.pop("data", None)
    kind = fields.pop("type", None)
    position = read_position(fields.pop("position", None))
    extra = {key: value for key, value in fields.items() if key not in _LOCAL_KEYS}
    name = kind[:64] if isinstance(kind, str) and kind else "default"
    return CanvasNode(node_id, name, position, data if isinstance(data, dict) else {}, extra)


def read_edge(doc: CanvasDoc, edge_id: str) -> EdgeRow | None:
    """The edge with this id; None when it lacks an end."""
    fields = _fields(edges_of(doc), edge_id)
    if fields is None or not valid_id(edge_id):
        return None
    source, target = fields.pop("source", None), fields.pop("target", None)
    if not isinstance(source, str) or not isinstance(target, str) or not (valid_id(source) and valid_id(target)):
        return None
    rest = {key: value for key, value in fields.items() if key not in _LOCAL_KEYS}
    rest = {without_picture_bytes(key): without_data_urls(value) for key, value in rest.items()}
    return EdgeRow(edge_id, source, target, rest)


def edge_json(edge: EdgeRow) -> dict[str, Json]:
    """The edge in React Flow's shape."""
    return {"id": edge.id, "source": edge.source, "target": edge.target, **edge.edge_data}


def read_flow(doc: CanvasDoc) -> dict[str, Json]:
    """The canvas as React Flow JSON `{nodes, edges}`; edges whose ends are missing are left out."""
    nodes = [node for node_id in node_ids(doc) if (node := read_node(doc, node_id)) is not None]
    present = {node.id for node in nodes}
    edges = [edge for edge_id in edge_ids(doc) if (edge := read_edge(doc, edge_id)) is not None]
    return {
        "nodes": [node.to_json() for node in nodes],
        "edges": [edge_json(edge) for edge in edges if edge.source in present and edge.target in present],
    }


def read_title(doc: CanvasDoc) -> str | None:
    """The title people gave the canvas; None when there is none."""
    title = plain(meta_of(doc).get("title"))
    return without_picture_bytes(title) if isinstance(title, str) and title else None


def read_position(value: Json) -> dict[str, float]:
    """A point `{x, y}` of finite numbers; the origin when it is anything else."""
    if not isinstance(value, Mapping):
        return dict(_ORIGIN)
    x, y = value.get("x"), value.get("y")
    if isinstance(x, bool) or isinstance(y, bool) or not (isinstance(x, int | float) and isinstance(y, int | float)):
        return dict(_ORIGIN)
    return {"x": x, "y": y}


def add_node(doc: CanvasDoc, node: Mapping[str, Json]) -> CanvasNode:
    """Put a node into the document; server-owned keys of its data are left out.

    Raises:
        InvalidNode: A field has a wrong type.
        NodeExists: The id is taken.

    """
    node_id = check_id(node.get("id"), "id")
    if node_id in nodes_of(doc):
        raise NodeExists(node_id)
    kind = node.get("type", "image")
    if not isinstance(kind, str) or not kind:
        raise InvalidNode("type", "a non-empty string")
    position = check_position(node.get("position", _ORIGIN))
    data = check_data(node.get("data", {}))
    shared: dict[str, Any] = {
        key: value for key, value in node.items() if key not in _LOCAL_KEYS and key not in {"type", "position", "data"}
    }
    nodes_of(doc)[node_id] = Map({"type": kind, "position": position, **shared, "data": _shared_data(data)})
    added = read_node(doc, node_id)
    if added is None:  # pragma: no cover - it was just written
        raise NodeNotFound(node_id)
    return added


def update_node(doc: CanvasDoc, node_id: str, patch: Mapping[str, Json]) -> CanvasNode:
    """Change keys of a node; `data` is merged key by key, None removes a key of it.

    Raises:
        NodeNotFound: No node has this id.
        InvalidNode: A field has a wrong type.

    """
    if read_node(doc, node_id) is None:
        raise NodeNotFound(node_id)
    data = check_data(patch.get("data", {}))
    fields: dict[str, Json] = {
        key: value for key, value in patch.items() if key not in _LOCAL_KEYS and key not in {"data", "position"}
    }
    if "position" in patch:
        fields["position"] = check_position(patch["position"])
    if "type" in fields and not isinstance(fields["type"], str):
        raise InvalidNode("type", "a string")
    _write(nested_node(doc, node_id), fields)
    patch_data(doc, node_id, {k: DELETE if v is None else v for k, v in data.items() if k not in SERVER_KEYS})
    changed = read_node(doc, node_id)
    if changed is None:  # pragma: no cover - it was just read
        raise NodeNotFound(node_id)
    return changed


def remove_node(doc: CanvasDoc, node_id: str) -> bool:
    """Take a node out, and every edge that hangs on it; False when it was not there."""
    nodes, edges = nodes_of(doc), edges_of(doc)
    if node_id not in nodes:
        return False
    for edge_id in list(edges.keys()):
        fields = _fields(edges, edge_id) or {}
        if node_id in (fields.get("source"), fields.get("target")):
            del edges[edge_id]
    del nodes[node_id]
    return True


def add_edge(doc: CanvasDoc, edge: Mapping[str, Json]) -> EdgeRow:
    """Put an edge between two nodes that are there.

    Raises:
        InvalidNode: A field has a wrong type, or an end names no node.
        EdgeExists: The id is taken.

    """
    edge_id = check_id(edge.get("id"), "id")
    if edge_id in edges_of(doc):
        raise EdgeExists(edge_id)
    ends = {name: check_id(edge.get(name), name) for name in ("source", "target")}
    for name, node_id in ends.items():
        if read_node(doc, node_id) is None:
            raise InvalidNode(name, f"there is no node {node_id!r} in this workflow")
    rest: dict[str, Any] = {key: value for key, value in edge.items() if key not in _LOCAL_KEYS}
    if isinstance(rest.get("data"), Mapping):
        rest["data"] = Map(dict(rest["data"]))
    edges_of(doc)[edge_id] = Map({"id": edge_id, **rest})
    return EdgeRow(edge_id, ends["source"], ends["target"], {k: v for k, v in edge.items() if k not in {"id", *ends}})


def update_edge(doc: CanvasDoc, edge_id: str, patch: Mapping[str, Json]) -> EdgeRow:
    """Change keys of an edge.

    Raises:
        EdgeNotFound: No edge has this id.
        InvalidNode: An end names no node.

    """
    edges = edges_of(doc)
    fields = _fields(edges, edge_id)
    if fields is None or read_edge(doc, edge_id) is None:
        raise EdgeNotFound(edge_id)
    for name in ("source", "target"):
        if name in patch and read_node(doc, check_id(patch[name], name)) is None:
            raise InvalidNode(name, f"there is no node {patch[name]!r} in this workflow")
    if not isinstance(edges[edge_id], Map):
        edges[edge_id] = Map(fields)
    _write(edges[edge_id], {key: value for key, value in patch.items() if key not in _LOCAL_KEYS})
    changed = read_edge(doc, edge_id)
    if changed is None:  # pragma: no cover - it was just read
        raise EdgeNotFound(edge_id)
    return changed


def remove_edge(doc: CanvasDoc, edge_id: str) -> bool:
    """Take an edge out; False when it was not there."""
    edges = edges_of(doc)
    if edge_id not in edges:
        return False
    del edges[edge_id]
    return True


def patch_data(doc: CanvasDoc, node_id: str, patch: Mapping[str, "Json | _Delete"]) -> bool:
    """Write keys of a node's data, only those that differ: every write of a key leaves a tombstone for ever.

    Returns:
        Whether anything was written; False also when the node is not there.

    """
    if read_node(doc, node_id) is None:
        return False
    data = nested_node(doc, node_id)["data"]
    return _write(data, patch)


def nested_node(doc: CanvasDoc, node_id: str) -> SharedMap:
    """The node's shared map, made out of a plain object when a peer has written one."""
    nodes = nodes_of(doc)
    node = nodes[node_id]
    if isinstance(node, Map) and isinstance(node.get("data"), Map):
        return node
    fields = _fields(nodes, node_id) or {}
    data = fields.pop("data", None)
    shared = _shared_data(data if isinstance(data, dict) else {}, server_keys=True)
    if isinstance(node, Map):
        node["data"] = shared
        return node
    nodes[node_id] = Map({**{k: v for k, v in fields.items() if k not in _LOCAL_KEYS}, "data": shared})
    nested: SharedMap = nodes[node_id]
    return nested


def upgrade(doc: CanvasDoc, names: Iterable[str] | None = None) -> bool:
    """Nest every node that is a plain object or JSON text; run by the keeper before the room is served.

    Args:
        doc: Of the room.
        names: Ids of the nodes to look at; None for all.

    Returns:
        Whether anything was written.

    """
    changed = False
    nodes = nodes_of(doc)
    for node_id in node_ids(doc) if names is None else names:
        node = nodes[node_id]
        if isinstance(node, Map) and isinstance(node.get("data"), Map | None):
            continue
        if _fields(nodes, node_id) is not None:
            nested_node(doc, node_id)
            changed = True
    return changed


def check_id(value: object, name: str) -> str:
    """An id of a node or edge.

    Raises:
        InvalidNode: Not text of 1 to 256 characters.

    """
    if not isinstance(value, str) or not valid_id(value):
        raise InvalidNode(name, "text of 1 to 256 characters without NUL")
    return value


def check_position(value: Json) -> dict[str, float]:
    """A point.

    Raises:
        InvalidNode: Not `{x, y}` of finite numbers.

    """
    if isinstance(value, Mapping) and set(value) == {"x", "y"} and plain(dict(value)) == dict(value):
        x, y = value["x"], value["y"]
        if isinstance(x, int | float) and isinstance(y, int | float) and not isinstance(x, bool | str):
            return {"x": x, "y": y}
    raise InvalidNode("position", "an object {x, y} of finite numbers")


def check_data(value: Json) -> Mapping[str, Json]:
    """The data of a node.

    Raises:
        InvalidNode: Not an object.

    """
    if not isinstance(value, Mapping):
        raise InvalidNode("data", "an object")
    for key in TEXT_KEYS & value.keys():
        if not isinstance(value[key], str | None):
            raise InvalidNode(f"data.{key}", "text")
    return value


def _fields(root: SharedMap, item_id: str) -> dict[str, Json] | None:
    """A node or edge as plain keys, whether it is a shared map, a plain object or JSON text (as some apps store it)."""
    if item_id not in root:
        return None
    value = plain(root[item_id])
    if isinstance(value, str):
        try:
            value = plain(json.loads(value))
        except (ValueError, RecursionError):
            return None
    return value if isinstance(value, dict) else None


def _shared_data(data: Mapping[str, Json], *, server_keys: bool = False) -> SharedMap:
    shared = {key: _shared_value(key, v) for key, v in data.items() if server_keys or key not in SERVER_KEYS}
    return Map(shared)


def _shared_value(key: str, value: Json) -> Any:
    if key in TEXT_KEYS and isinstance(value, str):
        return Text(value)
    if key == "params" and isinstance(value, Mapping):
        return Map(dict(value))
    return value


def _write(target: SharedMap, patch: Mapping[str, "Json | _Delete"]) -> bool:
    changed = False
    for key, value in patch.items():
        if isinstance(value, _Delete):
            if key in target:
                del target[key]
                changed = True
            continue
        if key in target and plain(target[key]) == plain(value):
            continue
        changed = True
        old = target.get(key)
        if isinstance(old, Text) and isinstance(value, str):
            replace_text(old, value)
        elif isinstance(old, Map) and isinstance(value, Mapping):
            _write(old, {**{k: DELETE for k in old.keys() if k not in value}, **value})  # noqa: SIM118 - not a dict
        else:
            target[key] = _shared_value(key, value)
    return changed


def replace_text(text: Text, value: str) -> None:
    """Turn a text into `value` by one deletion and one insertion between the common ends, so that cursors stay."""
    old = str(text)
    start = 0
    while start < min(len(old), len(value)) and old[start] == value[start]:
        start += 1
    end = 0
    while end < min(len(old), len(value)) - start and old[-1 - end] == value[-1 - end]:
        end += 1
    # pycrdt counts UTF-8 bytes, not characters.
    at = len(old[:start].encode())
    removed = len(old[start : len(old) - end].encode())
    if removed:
        del text[at : at + removed]
    inserted = value[start : len(value) - end]
    if inserted:
        text.insert(at, inserted)
