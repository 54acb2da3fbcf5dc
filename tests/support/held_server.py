"""
The real server with a provider and stores that wait while a file in the data folder says so.

Run as `python -m tests.support.held_server serve`: `touch <data>/hold-uploading` holds every picture on its way into
the store, and so on for each point in `POINTS`. While one waits there, `<data>/at-<point>` exists.
"""

import asyncio
import os
import sqlite3
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyvips  # type: ignore[import-untyped]
import sqlalchemy as sa
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.util import await_only

from crdt.sqlite_writer import SqliteWriter
from crdt.transactions import Transactions
from jobs.storage import DiskStore
from providers.base import (
    Accepted,
    Cost,
    Finished,
    ImageRequest,
    ImageResult,
    ModelInfo,
    Progress,
    ProgressSink,
    Submission,
    Waiting,
)
from server.__main__ import main
from server.metrics import Metrics
from server.parts import CountedStore, Parts

POINTS: Final = (
    "generating",
    "accepted",
    "uploading",
    "commit",  # Before edits are appended to the log.
    "appending",  # In that transaction, with nothing committed.
    "committed",  # After it, before anybody hears of it.
    "snapshot",  # With the state of a room in hand, before it is stored.
    "snapshotted",  # After it was.
    "trimming",  # In the transaction of a snapshot, before the log it covers is dropped.
)
DATA: Final = Path(os.environ.get("DARKROOM_DATA", "."))
_LOOK_S: Final = 0.01
_LOOK: Final = threading.Event()


async def hold(point: str) -> None:
    """Wait while the file for this point exists."""
    gate, sign = DATA / f"hold-{point}", DATA / f"at-{point}"
    while gate.exists():
        sign.touch()
        await asyncio.sleep(_LOOK_S)


class HeldProvider:
    """Paints one colour. The models differ in how the picture comes: at once, by an address, or later."""

    name = "held"
    label = "Held"
    models = tuple(
        ModelInfo(
            id=name, label=name, sizes=((64, 64),), supports=frozenset(), estimate_usd_micros=7, default_size=(64, 64)
        )
        for name in ("bytes", "url", "later")
    )

    def check(self, request: ImageRequest) -> None:
        """Anything goes."""

    async def submit(self, request: ImageRequest, progress: ProgressSink) -> Submission:
        """Answer once the gate is open; every call is noted, as a maker would bill it."""
        with (DATA / "billed").open("a") as bill:
            bill.write(f"{request.run_id}\n")
        await progress(Progress(0.5))
        if request.model == "later":
            return Accepted(remote_id=f"remote-{request.run_id}", poll_after_s=0.1)
        await hold("generating")
        return self._finished(request.model)

    async def poll(self, remote_id: str) -> Finished | Waiting:
        """Waiting until the gate opens."""
        if (DATA / "hold-accepted").exists():
            (DATA / "at-accepted").touch()
            return Waiting(poll_after_s=0.1)
        return self._finished("bytes")

    async def cancel(self, remote_id: str) -> None:
        """Nothing to stop."""

    async def aclose(self) -> None:
        """Nothing to close."""

    def _finished(self, model: str) -> Finished:
        cost = Cost(7, "price")
        if model == "url":
            address = os.environ["HELD_PICTURE_URL"]
            return Finished((ImageResult(content_type=None, url=address),), cost)
        return Finished((ImageResult("image/png", data=picture()),), cost)


class HeldImages(DiskStore):
    """A disk that can be slow."""

    async def put(self, key: str, data: bytes, content_type: str) -> str:
        """Store once the gate is open."""
        await hold("uploading")
        return await super().put(key, data, content_type)


class HeldWriter(SqliteWriter):
    """SQLite's own short way into the log, with a gate inside the transaction."""

    def _connected(self) -> sqlite3.Connection:
        connection = super()._connected()
        connection.set_trace_callback(_hold_append)
        return connection


class HeldDocuments(CountedStore):
    """A log that can be slow or out of order, while the rest of the database is not.

    While `<data>/fail-commit` exists every commit of edits fails as one does when the database is gone.
    """

    def __init__(
        self, engine: AsyncEngine, process_id: str, metrics: Metrics, transactions: Transactions | None = None
    ) -> None:
        super().__init__(engine, process_id, metrics, transactions)
        if self._transactions.writer is not None:
            self._transactions.writer = HeldWriter(str(engine.url.database))
        sa.event.listen(engine.sync_engine, "before_cursor_execute", _hold_statement)

    async def append(self, updates: Mapping[str, Sequence[bytes]]) -> dict[str, int]:
        """Commit once the gate is open, or fail while it is said to fail."""
        await hold("commit")
        if (DATA / "fail-commit").exists():
            raise OperationalError("append to the log", None, OSError("out of order for a test"))
        numbers = await super().append(updates)
        await hold("committed")
        return numbers

    async def snapshot(self, room: str, state: bytes, seq: int, fence: int, guard: bytes | None = None) -> bool:
        """Store once the gate is open."""
        await hold("snapshot")
        stored = await super().snapshot(room, state, seq, fence, guard)
        await hold("snapshotted")
        return stored


def _hold_append(statement: str) -> None:
    """Wait inside SQLite's transaction, on the thread that it has for itself."""
    if statement.startswith("INSERT INTO document_updates"):
        gate, sign = DATA / "hold-appending", DATA / "at-appending"
        while gate.exists():
            sign.touch()
            _LOOK.wait(_LOOK_S)


def _hold_statement(*call: Any) -> None:
    """Wait inside a transaction of SQLAlchemy, before the statement that names the point."""
    statement = str(call[2])
    if statement.startswith("INSERT INTO document_updates"):
        await_only(hold("appending"))
    elif statement.startswith("DELETE FROM document_updates"):
        await_only(hold("trimming"))


def picture() -> bytes:
    """A small PNG."""
    pixels = np.full((64, 64, 3), (200, 90, 60), dtype=np.uint8)
    encoded: bytes = pyvips.Image.new_from_array(pixels).copy(interpretation="srgb").write_to_buffer(".png")
    return encoded


if __name__ == "__main__":
    held = Parts(providers=(HeldProvider(),), images=HeldImages, documents=HeldDocuments)
    sys.exit(main(parts=held))
