"""
Twenty pictures of 60 MB at once, from a host, through the workshop, into the store: how much memory that takes.

Run: `.venv/bin/python -m tests.soak.downloads`; exits 1 when the peak is over its bound.
"""

import asyncio
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

import pyvips  # type: ignore[import-untyped]

from jobs.gallery import Gallery
from jobs.images import ImageWorkshop
from jobs.policy import RetryPolicy
from jobs.storage import DiskStore
from providers.base import ImageResult
from providers.http import fetch_image
from tests.providers.builders import PictureHost

AT_ONCE = 20
MOST_MB = 200
"""More than before the first of them."""


def rss_mb() -> float:
    """The largest memory this process ever had (MB)."""
    # Not getrusage: that begins with what the parent had.
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) / 1024


def large_picture() -> bytes:
    """A valid PNG of about 60 MB: noise, stored without compression."""
    noise = pyvips.Image.gaussnoise(4_500, 4_480, sigma=60, mean=128).cast("uchar")
    return bytes(noise.bandjoin([noise, noise]).copy(interpretation="srgb").pngsave_buffer(compression=0))


async def fetch_all(origin: str, folder: Path) -> None:
    """What a worker does with twenty answers at once."""
    fetch = partial(fetch_image, allow=("127.0.0.1",))
    async with ImageWorkshop() as workshop:
        store = DiskStore(folder / "pictures", "http://test")
        gallery = Gallery(workshop, store, fetch, folder, RetryPolicy(), sleep=asyncio.sleep, jitter=lambda: 0.5)

        async def one(number: int) -> None:
            with gallery.scratch() as path:
                content = await gallery.fetched(ImageResult(None, url=f"{origin}/large"), path)
                await gallery.prepare(content)
                await store.put(f"wf/{number}.png", content, "image/png")

        before = rss_mb()
        await asyncio.gather(*(one(number) for number in range(AT_ONCE)))
        grown = rss_mb() - before
    sys.stdout.write(f"{AT_ONCE} downloads of 60 MB at once: {before:.0f} MB before, {grown:.0f} MB more at the peak\n")
    sys.exit(grown > MOST_MB)


async def serve() -> int:
    """Host the picture here, and let a process of its own download it."""
    data = large_picture()
    sys.stdout.write(f"the picture has {len(data) / 1024 / 1024:.1f} MB\n")
    sys.stdout.flush()
    async with PictureHost(pages={"/large": (200, {}, data)}).serving() as host:
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-m", "tests.soak.downloads", host.origin, folder]
            return (await asyncio.to_thread(subprocess.run, command, check=False)).returncode


if __name__ == "__main__":
    if sys.argv[1:]:
        asyncio.run(fetch_all(sys.argv[1], Path(sys.argv[2])))
    else:
        sys.exit(asyncio.run(serve()))
