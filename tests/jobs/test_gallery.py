import asyncio
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from jobs.errors import StorageUnavailable
from jobs.gallery import Gallery
from jobs.images import ImageWorkshop
from jobs.policy import RetryPolicy
from jobs.storage import DiskStore
from providers.base import ImageResult
from providers.errors import ErrorClass, ProviderError
from providers.http import fetch_image
from tests.emulators.http import Exchange, HttpEmulator, Received
from tests.jobs.builders import png

MIB = 1024 * 1024


@dataclass
class LargeHost(HttpEmulator):
    """Serves pictures of so many bytes, made while they are sent."""

    size: int = 16 * MIB

    async def handle(self, request: Received, exchange: Exchange) -> None:
        await exchange.start(200, {"content-type": "image/png"})
        await exchange.chunk(b"\x89PNG\r\n\x1a\n" + b"\0" * 8)
        for _ in range(self.size // 65_536):
            if exchange.left:
                return
            await exchange.chunk(bytes(65_536))
        await exchange.end()


@asynccontextmanager
async def gallery(folder: Path) -> AsyncIterator[Gallery]:
    fetch = partial(fetch_image, allow=("127.0.0.1",))
    async with ImageWorkshop() as workshop:
        store = DiskStore(folder / "pictures", "http://test")
        policy = RetryPolicy(upload_tries=1)
        scratch = folder / "scratch"
        await asyncio.to_thread(scratch.mkdir)
        yield Gallery(workshop, store, fetch, scratch, policy, sleep=asyncio.sleep, jitter=lambda: 0.0)


async def test_pictures_on_their_way_are_on_the_disk_and_not_in_memory(tmp_path: Path) -> None:
    async with LargeHost().serving() as host, gallery(tmp_path) as made:

        async def one() -> int:
            with made.scratch() as path:
                content = await made.fetched(ImageResult(None, url=f"{host.origin}/x"), path)
                assert content == path
                return path.stat().st_size

        tracemalloc.start()
        try:
            sizes = await asyncio.gather(*(one() for _ in range(4)))
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert min(sizes) > 16 * MIB
    assert peak < 16 * MIB
    assert list((tmp_path / "scratch").iterdir()) == []


async def test_a_picture_is_checked_and_stored_from_its_file_which_is_gone_afterwards(tmp_path: Path) -> None:
    async with gallery(tmp_path) as made:
        with made.scratch() as path:
            await asyncio.to_thread(path.write_bytes, png(64, 48))
            prepared = await made.prepare(path)
            url = await made._store.put("wf/a.png", path, "image/png")
    assert (prepared.picture.width, prepared.picture.bytes) == (64, len(png(64, 48)))
    assert url.endswith("/images/wf/a.png")
    assert (tmp_path / "pictures" / "wf" / "a.png").read_bytes() == png(64, 48)
    assert list((tmp_path / "scratch").iterdir()) == []


async def test_a_picture_that_is_too_large_leaves_nothing_behind(tmp_path: Path) -> None:
    async with LargeHost(size=65 * MIB).serving() as host, gallery(tmp_path) as made:
        with made.scratch() as path, pytest.raises(ProviderError) as refused:
            await made.fetched(ImageResult(None, url=host.origin), path)
    assert refused.value.error_class is ErrorClass.PERMANENT
    assert "larger than 64 MiB" in refused.value.message
    assert list((tmp_path / "scratch").iterdir()) == []


async def test_a_disk_that_cannot_take_a_download_is_an_outage_of_the_store(tmp_path: Path) -> None:
    async with LargeHost(size=MIB).serving() as host, gallery(tmp_path) as made:
        await asyncio.to_thread((tmp_path / "scratch").rmdir)
        with made.scratch() as path, pytest.raises(StorageUnavailable):
            await made.fetched(ImageResult(None, url=host.origin), path)
