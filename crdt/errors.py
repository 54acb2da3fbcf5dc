"""Errors of the shared document.

CrdtError
+-- ProtocolError       a frame that is not y-protocol
+-- BadUpdate           bytes that are not a Yjs update, or that the document refuses
|   +-- Poison          one that it could not take
|   +-- DocumentFull    the document is as large as it may be
+-- RoomUnavailable     the room cannot be served now; come back
|   +-- TooManyRooms    this process has as many rooms open as it may
+-- InvalidRoomId       a name that no room can have
+-- CanvasError         an edit of nodes or edges that cannot be made
+-- InvalidNode     a field of a node or edge has a wrong type or is missing
+-- NodeExists / NodeNotFound / EdgeExists / EdgeNotFound
"""


class CrdtError(Exception):
    """Base of every error this package raises."""


class ProtocolError(CrdtError):
    """A frame that does not follow the y-protocol; only its sender is affected."""


class BadUpdate(CrdtError):
    """Bytes that cannot be applied as a Yjs update (v1); the document is unchanged."""


class Poison(BadUpdate):
    """Applying an update failed."""

    def __init__(self, update: bytes, *, panicked: bool, reason: str) -> None:
        self.update = update
        self.panicked = panicked
        """Whether the document may be broken by it."""
        self.reason = reason
        super().__init__("not a Yjs update, or one this document refuses")


class DocumentFull(BadUpdate):
    """An update with which the document would be larger than it may be; it was not applied."""

    def __init__(self) -> None:
        super().__init__("the canvas is as large as it may be: delete something, or start another one")


class RoomUnavailable(CrdtError):
    """The room cannot be served for a passing reason (database down, stopping); a later try may succeed."""

    def __init__(self, room: str, reason: str) -> None:
        self.room = room
        self.reason = reason
        super().__init__(f"room {room!r} is not available: {reason}")


class TooManyRooms(RoomUnavailable):
    """One more room than this process may have open; others are let go as people leave."""

    def __init__(self, room: str) -> None:
        super().__init__(room, "this server has as many canvases open as it takes")


class InvalidRoomId(CrdtError):
    """A workflow id outside `[A-Za-z0-9][A-Za-z0-9_.-]{0,127}`."""

    def __init__(self, room: str) -> None:
        self.room = room[:140]
        super().__init__(
            "a workflow id has 1 to 128 letters, digits, '_', '.' or '-', and starts with a letter or digit"
        )


class CanvasError(CrdtError):
    """An edit of the canvas that cannot be made."""


class InvalidNode(CanvasError):
    """A field of a node or edge is missing or has a wrong type."""

    def __init__(self, field: str, message: str) -> None:
        self.field = field
        self.message = message
        super().__init__(f"{field}: {message}")


class NodeExists(CanvasError):
    """A node with this id is in the document already."""

    def __init__(self, node_id: str) -> None:
        self.node_id = node_id
        super().__init__(f"node {node_id!r} exists already")


class NodeNotFound(CanvasError):
    """No node has this id."""

    def __init__(self, node_id: str) -> None:
        self.node_id = node_id
        super().__init__(f"there is no node {node_id!r} in this workflow")


class EdgeExists(CanvasError):
    """An edge with this id is in the document already."""

    def __init__(self, edge_id: str) -> None:
        self.edge_id = edge_id
        super().__init__(f"edge {edge_id!r} exists already")


class EdgeNotFound(CanvasError):
    """No edge has this id."""

    def __init__(self, edge_id: str) -> None:
        self.edge_id = edge_id
        super().__init__(f"there is no edge {edge_id!r} in this workflow")
