"""News of runs, between those who make them and those who follow them, in this process and in others."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from crdt.bus import Bus, Frame, Kind
from crdt.json import Json
from crdt.redis_sender import RedisSender
from crdt.rooms import Rooms
from jobs.run import Run
from server.accounts import RunAccounts
from server.signals import RunSignals, Watch


class RunNews:
    """What a process with rooms tells and hears of runs.

    Args:
        rooms: They hear of it first, and tell other processes.
        bus: The one that the rooms use: frames come by here on their way to them.
        signals: Wakes those who follow a run here.
        accounts: Counts what ended; each process those that it ended itself.

    """

    def __init__(self, rooms: Rooms, bus: Bus, signals: RunSignals, accounts: RunAccounts) -> None:
        self._rooms = rooms
        self._bus = bus
        self._signals = signals
        self._accounts = accounts
        self._to_rooms = bus.received
        bus.received = self._received

    def hint(self, workflow_id: str, run_id: str) -> None:
        """Tell everybody that a run changed."""
        self._rooms.hint(workflow_id, run_id)
        self._signals.hint(run_id)
        self._accounts.hint(run_id)

    def report(self, workflow_id: str, payload: Mapping[str, Json]) -> None:
        """Tell everybody how far a run is."""
        self._rooms.report(workflow_id, payload)
        self._signal(payload)

    @asynccontextmanager
    async def follow(self, run: Run) -> AsyncIterator[Watch]:
        """Hear of a run while inside, also when its canvas is not open here."""
        await self._bus.join(run.workflow_id)
        try:
            with self._signals.watch(run.id) as watch:
                yield watch
        finally:
            await self._bus.leave(run.workflow_id)

    def _received(self, room: str, frame: Frame) -> None:
        if frame.kind is Kind.HINT:
            self._signals.hint(frame.payload.decode(errors="replace"))
        elif frame.kind is Kind.PROGRESS:
            self._signal(frame.told)
        self._to_rooms(room, frame)

    def _signal(self, payload: Mapping[str, Json]) -> None:
        if not payload.get("ended") and "runId" in payload:
            told = {key: value for key, value in payload.items() if key not in {"runId", "nodeId"}}
            self._signals.progress(str(payload["runId"]), told)


class DistantNews:
    """What a worker tells: it has no rooms, and nobody follows a run there."""

    def __init__(self, process_id: str, sender: RedisSender, accounts: RunAccounts) -> None:
        self._process_id = process_id
        self._sender = sender
        self._accounts = accounts

    def hint(self, workflow_id: str, run_id: str) -> None:
        """Tell everybody that a run changed."""
        self._sender.send(workflow_id, Frame(Kind.HINT, self._process_id, payload=run_id.encode()))
        self._accounts.hint(run_id)

    def report(self, workflow_id: str, payload: Mapping[str, Json]) -> None:
        """Tell everybody how far a run is."""
        self._sender.send(workflow_id, Frame.progress(self._process_id, payload))
