"""The way of a run's pictures: from the maker, or from an address, through the workshop, into the store."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import Final, TypeVar

from jobs.errors import BadImage, BadKey, StorageUnavailable
from jobs.images import ImageWorkshop, Picture, Prepared
from jobs.policy import RetryPolicy, backoff_s
from jobs.run import Run
from jobs.state import StoredImage
from jobs.storage import ImageStore, image_key, preview_key, thumbnail_key
from providers.base import ImageInput, ImageResult
from providers.errors import ProviderError, RequestRefused

T = TypeVar("T")
logger = logging.getLogger(__name__)

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
        fetch: Downloads one.
        policy: How many tries.
        sleep: Waits so many seconds.
        jitter: Draws from [0, 1).

    """

    def __init__(
        self,
        images: ImageWorkshop,
        store: ImageStore,
        fetch: Callable[[str], Awaitable[ImageInput]],
        policy: RetryPolicy,
        *,
        sleep: Callable[[float], Awaitable[None]],
        jitter: Callable[[], float],
    ) -> None:
        self._images = images
        self._store = store
        self._fetch = fetch
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
            data = (await self._patiently(lambda: self._fetch(url))).data
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

    async def bytes_of(self, result: ImageResult) -> bytes:
        """The bytes of a maker's picture.

        Raises:
            ProviderError: It cannot be downloaded.

        """
        if result.data is not None:
            return result.data
        url = result.url or ""
        return (await self._patiently(lambda: self._fetch(url))).data

    async def prepare(self, data: bytes) -> Prepared:
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

    async def store(self, place: StoredImage, data: bytes, thumbnail: bytes) -> None:
        """Put a picture and its thumbnail in their place.

        Raises:
            StorageUnavailable: Every try failed.

        """
        for key, content, kind in (
            (place.key, data, place.content_type),
            (place.thumbnail_key, thumbnail, "image/webp"),
        ):
            await self._put(key, content, kind)

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

    async def _put(self, key: str, data: bytes, content_type: str) -> None:
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
