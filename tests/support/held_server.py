"""
The real server with a provider and stores that wait while a file in the data folder says so.

Run as `python -m tests.support.held_server serve`: `touch <data>/hold-uploading` holds every picture on its way into
the store, and so on for each point in `POINTS`. While one waits there, `<data>/at-<point>` exists.
"""

import asyncio
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import pyvips  # type: ignore[import-untyped]

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
from server.wiring import CountedStore, Parts

POINTS: Final = ("generating", "accepted", "uploading", "commit")
DATA: Final = Path(os.environ.get("DARKROOM_DATA", "."))
_LOOK_S: Final = 0.01


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


class HeldDocuments(CountedStore):
    """A log that can be slow, while the rest of the database is not."""

    async def append(self, updates: Mapping[str, Sequence[bytes]]) -> dict[str, int]:
        """Commit once the gate is open, or fail while it is said to fail."""
        await hold("commit")
        if (DATA / "fail-commit").exists():
            raise OSError("the log cannot be written")
        return await super().append(updates)


def picture() -> bytes:
    """A small PNG."""
    pixels = np.full((64, 64, 3), (200, 90, 60), dtype=np.uint8)
    encoded: bytes = pyvips.Image.new_from_array(pixels).copy(interpretation="srgb").write_to_buffer(".png")
    return encoded


if __name__ == "__main__":
    held = Parts(providers=(HeldProvider(),), images=HeldImages, documents=HeldDocuments)
    sys.exit(main(parts=held))
