"""Awareness of one room: who may speak for which client id, and what is still to be told."""

from collections.abc import Iterable
from dataclasses import dataclass

from crdt.protocol import AwarenessEntry

MAX_STATE_BYTES = 32 * 1024
"""One awareness state; a larger one is refused."""
MAX_CLIENTS_PER_PEER = 16
"""Awareness client ids one socket may own."""
MAX_REMEMBERED = 1_000
"""Clocks kept of clients that left."""
MAX_CLIENTS_PER_PROCESS = 5_000
"""Awareness client ids that another process may bring."""


@dataclass(slots=True)
class _Known:
    entry: AwarenessEntry
    owner: object | None
    distant: bool = False
    """Whether another process brought it."""


class Presence:
    """Latest awareness state per client id, each owned by the peer, or the other process, that brought it.

    A state for an id that another live peer owns is kept aside: it becomes valid when that peer leaves (a client that
    reconnected before its old socket was found dead), and is never relayed before.
    """

    def __init__(self) -> None:
        self._known: dict[int, _Known] = {}
        self._claims: dict[int, tuple[object, AwarenessEntry]] = {}
        self._dirty: dict[int, AwarenessEntry] = {}

    @property
    def dirty(self) -> bool:
        """Whether there is something to tell."""
        return bool(self._dirty)

    def take_dirty(self) -> list[AwarenessEntry]:
        """What changed since the last call, latest state per client."""
        entries = list(self._dirty.values())
        self._dirty.clear()
        return entries

    def everyone(self) -> list[AwarenessEntry]:
        """The states of all who are present."""
        return [known.entry for known in self._known.values() if known.entry.state != "null"]

    def own(self, entries: Iterable[AwarenessEntry]) -> list[AwarenessEntry]:
        """Those of these states that no other process brought."""
        kept = ((entry, self._known.get(entry.client_id)) for entry in entries)
        return [entry for entry, known in kept if known is None or not known.distant]

    def receive_distant(self, process: str, entries: Iterable[AwarenessEntry]) -> None:
        """Take states of clients of another process; `leave(process)` takes them away again."""
        for entry in entries:
            self._take(process, entry, MAX_CLIENTS_PER_PROCESS)

    def receive(self, owner: object, entries: Iterable[AwarenessEntry]) -> int:
        """Take states a peer sent.

        Returns:
            How many were refused: too large, or for an id that is not this peer's.

        """
        return sum(not self._take(owner, entry, MAX_CLIENTS_PER_PEER) for entry in entries)

    def set(self, owner: object, entry: AwarenessEntry) -> None:
        """Set a state without the checks made for peers; for the server's own client id."""
        self._known[entry.client_id] = _Known(entry, owner, _is_process(owner))
        self._dirty[entry.client_id] = entry

    def leave(self, owner: object) -> None:
        """Take away every state of a peer that is gone, and let claims on its ids through."""
        for client_id, known in list(self._known.items()):
            if known.owner == owner:
                gone = AwarenessEntry(client_id, known.entry.clock + 1, "null")
                self._known[client_id] = _Known(gone, None, known.distant)
                self._dirty[client_id] = gone
        self._forget()
        for client_id, (claimant, entry) in list(self._claims.items()):
            if claimant == owner:
                del self._claims[client_id]
            elif self._known[client_id].owner is None:
                del self._claims[client_id]
                clock = max(entry.clock, self._known[client_id].entry.clock + 1)
                self.set(claimant, AwarenessEntry(client_id, clock, entry.state))

    def _forget(self) -> None:
        """Drop the oldest of those who left, so that a busy room does not remember everyone who ever came."""
        gone = [client_id for client_id, known in self._known.items() if known.owner is None]
        for client_id in gone[: max(0, len(gone) - MAX_REMEMBERED)]:
            if client_id not in self._claims:
                del self._known[client_id]

    def _is_somebody(self, owner: object) -> bool:
        """Whether a peer has a client id of its own; one that comes back has none until its old socket is gone."""
        return any(known.owner == owner for known in self._known.values())

    def _take(self, owner: object, entry: AwarenessEntry, most: int) -> bool:
        if len(entry.state) > MAX_STATE_BYTES:
            return False
        known = self._known.get(entry.client_id)
        if known is not None and known.owner is not None and known.owner != owner:
            return self._take_of_another(owner, entry, known)
        if known is None or known.owner is None:
            if entry.state == "null":
                return True
            if sum(other.owner == owner for other in self._known.values()) >= most:
                return False
            if known is not None and entry.clock <= known.entry.clock:
                # Back after its old socket was taken for gone: the others only believe a newer clock.
                entry = AwarenessEntry(entry.client_id, known.entry.clock + 1, entry.state)
        elif entry.clock < known.entry.clock:
            return True
        self._known[entry.client_id] = _Known(entry, owner if entry.state != "null" else None, _is_process(owner))
        self._dirty[entry.client_id] = entry
        return True

    def _take_of_another(self, owner: object, entry: AwarenessEntry, known: _Known) -> bool:
        if entry.clock <= known.entry.clock and self._is_somebody(owner):
            return True  # Stock clients repeat what they are told of others.
        self._claims[entry.client_id] = (owner, entry)
        return False


def _is_process(owner: object) -> bool:
    """Peers are objects of their own; other processes are known by name."""
    return isinstance(owner, str)
