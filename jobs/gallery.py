"""The way of a run's pictures: from the maker, or from an address, through the workshop, into the store."""

import asyncio
import contextlib
import logging
import uuid
from collections.abc import Awaitable, Callable, Iterable, Iterator
from pathlib import Path
from typing import Final, TypeAlias, TypeVar

from jobs.errors import BadImage, BadKey, StorageUnavailable
from jobs.images import ImageWorkshop, Picture, Prepared
from jobs.policy import RetryPolicy, backoff_s
from jobs.run import Run
from jobs.state import StoredImage
from jobs.storage import Content, ImageStore, image_key, preview_key, thumbnail_key
from providers.base import ImageInput, ImageResult
from providers.errors import ProviderError, RequestRefused

T = TypeVar("T")
logger = logging.getLogger(__name__)

Fetch: TypeAlias = Callable[[str, Path], Awaitable[None]]
"""Downloads a picture from an address somebody else chose into a file: `providers.http.fetch_image`."""
DOWNLOADS: Final = 32
"""At once; the others wait. Each holds up to 64 MB of the disk, and little of the memory."""
PREVIEW_PX: Final = 512
PREVIEW_INTERVAL_S: Final = 0.5
"""Seconds between two of one attempt; those between are skipped."""
STORE_LIMIT_S: Final = 60.0
"""Time one try to store or read a picture may take."""
_SHORT: Final = RetryPolicy(base_s=0.5, cap_s=4.0)
"""Between tries to fetch and to store. They wait in place: the bytes are in this process, and were paid for."""


class Gallery:
    """Fetches, checks and stores pictures, each try bounded in time, the passing failures tried again.

    Args:
        images: Checks and shrinks them.
        store: Keeps them.
        fetch: See `Fetch`.
        scratch: The folder of files that are being downloaded.
        policy: How many tries.
        sleep: Waits so many seconds.
        jitter: Draws from [0, 1).

    """

    def __init__(  # noqa: PLR0913 - the seams of the way
        self,
        images: ImageWorkshop,
        store: ImageStore,
        fetch: Fetch,
        scratch: Path,
        policy: RetryPolicy,
        *,
        sleep: Callable[[float], Awaitable[None]],
        jitter: Callable[[], float],
    ) -> None:
        self._images = images
        self._store = store
        self._fetch = fetch
        self._scratch = scratch
        self._downloads = asyncio.Semaphore(DOWNLOADS)
        self._tries = policy.upload_tries
        self._sleep = sleep
        self._jitter = jitter

    async def previous(self, url: str) -> ImageInput:
        """The picture to edit: from our own store where the URL is ours, else downloaded under guard.

        Raises:
            RequestRefused: It is gone, or no picture we accept.
            ProviderError: It cannot be downloaded.
            StorageUnavailable: Our store does not answer.

        """
        key = self._store.key_of(url)
        if key is None:
            with self.scratch() as path:
                await self._download(url, path)
                data = await asyncio.to_thread(path.read_bytes)
        else:
            found = await self._patiently(lambda: self._in_time(key, self._store.get(key)))
            if found is None:
                raise RequestRefused("previousImage", "The picture to edit is no longer there.")
            data = found.data
        try:
            picture = await self._images.inspect(data)
        except BadImage as error:
            raise RequestRefused("previousImage", f"The picture to edit cannot be used: {error.reason}.") from error
        return ImageInput(data, picture.content_type)

    @contextlib.contextmanager
    def scratch(self) -> Iterator[Path]:
        """Where one picture may be downloaded to; what is there afterwards is deleted."""
        path = self._scratch / f"{uuid.uuid4().hex}.part"
        try:
            yield path
        finally:
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)

    async def fetched(self, result: ImageResult, path: Path) -> Content:
        """A maker's picture: its bytes where the maker sent them, else downloaded to `path`.

        Raises:
            ProviderError: It cannot be downloaded.
            StorageUnavailable: The disk is full.

        """
        if result.data is not None:
            return result.data
        await self._download(result.url or "", path)
        return path

    async def prepare(self, data: Content) -> Prepared:
        """Check a picture and make its thumbnail.

        Raises:
            BadImage: It is none that we accept.

        """
        return await self._images.prepare(data)

    def place(self, run: Run, index: int, picture: Picture, seed: int | None) -> StoredImage:
        """Where a run's picture will be; made of the run's id, so a second attempt puts it in the same place."""
        key = image_key(run.workflow_id, run.id, index, picture.format.extension)
        small = thumbnail_key(run.workflow_id, run.id, index)
        return StoredImage(
            index=index,
            key=key,
            url=self._store.url(key),
            thumbnail_key=small,
            thumbnail_url=self._store.url(small),
            width=picture.width,
            height=picture.height,
            content_type=picture.content_type,
            bytes=picture.bytes,
            sha256=picture.sha256,
            seed=seed,
        )

    async def store(self, place: StoredImage, data: Content, thumbnail: bytes) -> None:
        """Put a picture and its thumbnail in their place.

        Raises:
            StorageUnavailable: Every try failed.

        """
        await self._put(place.key, data, place.content_type)
        await self._put(place.thumbnail_key, thumbnail, "image/webp")

    async def preview(self, run: Run, number: int, picture: ImageInput) -> tuple[str, str] | None:
        """Store a picture in the making; returns (key, url), or None where that fails."""
        try:
            small = await self._images.thumbnail(picture.data, PREVIEW_PX)
            key = preview_key(run.workflow_id, run.id, run.attempt, number)
            return key, await self._in_time(key, self._store.put(key, small, "image/webp"))
        except (BadImage, BadKey, StorageUnavailable) as error:
            facts = {"action": "preview_dropped", "run_id": run.id, "reason": type(error).__name__}
            logger.info("a preview was dropped", extra=facts)
            return None

    async def forget(self, keys: Iterable[str]) -> None:
        """Delete pictures that nobody needs; what cannot be deleted stays."""
        for key in keys:
            with contextlib.suppress(StorageUnavailable):
                await self._in_time(key, self._store.delete(key))

    async def _download(self, url: str, path: Path) -> None:
        async def fetch() -> None:
            try:
                await self._fetch(url, path)
            except OSError as error:
                raise StorageUnavailable(path.name, error.strerror or type(error).__name__) from error

        async with self._downloads:
            await self._patiently(fetch)

    async def _put(self, key: str, data: Content, content_type: str) -> None:
        await self._patiently(lambda: self._in_time(key, self._store.put(key, data, content_type)))

    async def _in_time(self, key: str, work: Awaitable[T]) -> T:
        try:
            async with asyncio.timeout(STORE_LIMIT_S):
                return await work
        except TimeoutError as error:
            raise StorageUnavailable(key, f"no answer within {STORE_LIMIT_S:g} s") from error

    async def _patiently(self, work: Callable[[], Awaitable[T]]) -> T:
        tries = 1
        while True:
            try:
                return await work()
            except (StorageUnavailable, ProviderError) as error:
                if tries >= self._tries or (isinstance(error, ProviderError) and not error.retryable):
                    raise
            await self._sleep(backoff_s(tries, _SHORT, self._jitter()))
            tries += 1
