"""How far runs are: told at most so often per run, the latest always in the end. Hints, never the truth."""

import asyncio
import datetime as dt
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from crdt.json import Json

INTERVAL_S: Final = 0.25

Send = Callable[[str, Mapping[str, Json]], None]
"""Takes a report to the keeper of a workflow's room: `Rooms.report`."""


class ProgressReporter(Protocol):
    """Hears from attempts how far they are. Never waits, never raises."""

    def report(  # noqa: PLR0913 - what a person sees of a run at work
        self,
        workflow_id: str,
        node_id: str,
        run_id: str,
        *,
        stage: str,
        progress: float | None,
        preview_url: str | None,
        started_at: dt.datetime,
        by: str | None,
    ) -> None:
        """Tell how far a run is; `progress` is in [0, 1]."""

    def clear(self, workflow_id: str, node_id: str, run_id: str) -> None:
        """Tell that the run is no longer at work."""


@dataclass(slots=True)
class _Line:
    sent_at: float
    latest: dict[str, Json] | None = None
    timer: asyncio.TimerHandle | None = None


class Reporter:
    """Sends reports at most every `interval_s` seconds per run; one held back is sent when the time is up.

    Args:
        send: See `Send`.
        interval_s: Seconds between two reports of one run.

    """

    def __init__(self, send: Send, interval_s: float = INTERVAL_S) -> None:
        self._send = send
        self._interval_s = interval_s
        self._lines: dict[str, _Line] = {}

    def report(  # noqa: PLR0913 - see the protocol
        self,
        workflow_id: str,
        node_id: str,
        run_id: str,
        *,
        stage: str,
        progress: float | None,
        preview_url: str | None,
        started_at: dt.datetime,
        by: str | None,
    ) -> None:
        """Tell how far a run is."""
        optional: dict[str, Json] = {"previewUrl": preview_url, "by": by}
        payload: dict[str, Json] = {
            "nodeId": node_id,
            "runId": run_id,
            "stage": stage,
            "progress": progress,
            "startedAt": started_at.isoformat(),
            **{key: value for key, value in optional.items() if value is not None},
        }
        loop = asyncio.get_running_loop()
        line = self._lines.get(run_id)
        if line is None or (line.timer is None and loop.time() >= line.sent_at + self._interval_s):
            self._lines[run_id] = _Line(loop.time())
            self._send(workflow_id, payload)
            return
        line.latest = payload
        if line.timer is None:
            line.timer = loop.call_at(line.sent_at + self._interval_s, self._send_latest, workflow_id, run_id)

    def clear(self, workflow_id: str, node_id: str, run_id: str) -> None:
        """Tell that the run is no longer at work."""
        line = self._lines.pop(run_id, None)
        if line is not None and line.timer is not None:
            line.timer.cancel()
        self._send(workflow_id, {"nodeId": node_id, "runId": run_id, "ended": True})

    def _send_latest(self, workflow_id: str, run_id: str) -> None:
        line = self._lines[run_id]
        payload, line.latest, line.timer = line.latest, None, None
        if payload is not None:
            line.sent_at = asyncio.get_running_loop().time()
            self._send(workflow_id, payload)
