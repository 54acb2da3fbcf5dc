"""What the server tells a room by awareness: how far runs are, and which intents were refused."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from crdt.json import Json
from crdt.room import Room
from jobs.intents import Refusal
from jobs.state import Stage

INTERVAL_S: Final = 0.25
REFUSAL_S: Final = 30.0
"""How long a refusal is shown."""
MAX_REFUSALS: Final = 100


@dataclass(frozen=True, slots=True)
class _Shown:
    refusal: Refusal
    until: float


class Notices:
    """The awareness state of the server in one room, written at most every `interval_s` seconds, the latest at last.

    Args:
        room: Whose peers are told.
        interval_s: Seconds between two writes.
        refusal_s: Seconds for which a refusal is shown.

    """

    def __init__(self, room: Room, interval_s: float = INTERVAL_S, refusal_s: float = REFUSAL_S) -> None:
        self._room = room
        self._interval_s = interval_s
        self._refusal_s = refusal_s
        self._loop = asyncio.get_running_loop()
        self._runs: dict[str, dict[str, Json]] = {}
        self._refusals: dict[str, _Shown] = {}
        self._told: dict[str, Json] | None = None
        self._told_at = float("-inf")
        self._timer: asyncio.TimerHandle | None = None

    def run_of(self, node_id: str) -> str | None:
        """The run that is shown as being at work in a node."""
        run_id = self._runs.get(node_id, {}).get("runId")
        return run_id if isinstance(run_id, str) else None

    def begun(self, node_id: str, run_id: str) -> bool:
        """Whether this run is shown as having had its turn."""
        line = self._runs.get(node_id, {})
        return line.get("runId") == run_id and line.get("stage") != Stage.QUEUED.value

    def progress(self, node_id: str, line: Mapping[str, Json]) -> None:
        """Show how far a node's run is."""
        self._runs[node_id] = dict(line)
        self._soon()

    def drop(self, node_id: str) -> None:
        """Show nothing at work in a node."""
        if self._runs.pop(node_id, None) is not None:
            self._soon()

    def refuse(self, request_id: str, refusal: Refusal) -> None:
        """Show why an intent was not done."""
        self._refusals.pop(request_id, None)
        self._refusals[request_id] = _Shown(refusal, self._loop.time() + self._refusal_s)
        while len(self._refusals) > MAX_REFUSALS:
            del self._refusals[next(iter(self._refusals))]
        self._soon()

    def close(self) -> None:
        """Write no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _soon(self) -> None:
        due = self._told_at + self._interval_s
        if self._loop.time() >= due:
            self._tell()
        else:
            self._wake_at(due)

    def _wake_at(self, when: float) -> None:
        if self._timer is not None and self._timer.when() <= when:
            return
        self.close()
        self._timer = self._loop.call_at(when, self._tell)

    def _tell(self) -> None:
        self.close()
        now = self._loop.time()
        self._refusals = {key: shown for key, shown in self._refusals.items() if shown.until > now}
        state = self._state()
        if state != self._told:
            self._told, self._told_at = state, now
            self._room.set_server_state(state)
        if self._refusals:
            self._wake_at(min(shown.until for shown in self._refusals.values()))

    def _state(self) -> dict[str, Json] | None:
        if not self._runs and not self._refusals:
            return None
        runs: dict[str, Json] = dict(self._runs)
        refusals: dict[str, Json] = {key: shown.refusal.to_json() for key, shown in self._refusals.items()}
        return {"server": True, "runs": runs, "refusals": refusals}
