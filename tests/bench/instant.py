"""The real server with a provider that takes no time: what is left is the road itself.

Run as `python -m tests.bench.instant serve`.
"""

import sys
from typing import Final

import pyvips  # type: ignore[import-untyped]

from providers.base import Cost, Finished, ImageRequest, ImageResult, ModelInfo, ProgressSink, Waiting
from server.__main__ import main
from server.parts import Parts

MODEL: Final = ModelInfo("instant-1", "Instant 1", ((64, 64),), frozenset({"seed"}), 0, (64, 64))


class Instant:
    """Answers at once, always with the same picture."""

    name: str = "instant"
    label: str = "Instant"
    models: tuple[ModelInfo, ...] = (MODEL,)

    def __init__(self) -> None:
        self._picture: bytes = (pyvips.Image.gaussnoise(64, 64, seed=1) + 128).cast("uchar").pngsave_buffer()

    def check(self, request: ImageRequest) -> None:
        """Make everything."""

    async def submit(self, request: ImageRequest, progress: ProgressSink) -> Finished:
        """The picture."""
        return Finished((ImageResult("image/png", data=self._picture),), Cost(0, "free"))

    async def poll(self, remote_id: str) -> Finished | Waiting:
        """Never asked."""
        raise AssertionError(remote_id)

    async def cancel(self, remote_id: str) -> None:
        """Nothing to stop."""

    async def aclose(self) -> None:
        """Nothing to close."""


if __name__ == "__main__":
    sys.exit(main(parts=Parts(providers=(Instant(),))))
