"""Where pictures live: a folder here, or an object store elsewhere."""

import asyncio
import contextlib
import os
import re
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol, TypeAlias, TypeVar

from jobs.errors import BadKey, StorageUnavailable
from providers.base import ImageInput

T = TypeVar("T")

Content: TypeAlias = bytes | Path
"""A picture's file: its bytes, or where it lies on this machine's disk."""
CONTENT_TYPES: Final = {
    "png": "image/png",
    "jpg": "image/jpeg",
    "webp": "image/webp",
    "gif": "image/gif",
    "avif": "image/avif",
}
"""By extension; nothing else is stored."""
IMAGES_PATH: Final = "/images/"
_SEGMENT: Final = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,150}"
_KEY: Final = re.compile(rf"{_SEGMENT}/{_SEGMENT}\.(?:{'|'.join(CONTENT_TYPES)})")


def check_key(key: str) -> str:
    """The key, if a picture can have it: "{workflow}/{name}.{extension}".

    Raises:
        BadKey: Anything else: no path leads out of the store.

    """
    if _KEY.fullmatch(key) is None:
        raise BadKey(key)
    return key


def content_type_of(key: str) -> str:
    """The MIME type of a stored picture, by the extension its content gave it."""
    return CONTENT_TYPES[check_key(key).rpartition(".")[2]]


def image_key(workflow_id: str, run_id: str, index: int, extension: str) -> str:
    """Where a run's picture is kept; made of ids only, so storing it again replaces it by the same."""
    suffix = f"-{index}" if index else ""
    return check_key(f"{workflow_id}/{run_id}{suffix}.{extension}")


def thumbnail_key(workflow_id: str, run_id: str, index: int) -> str:
    """Where the thumbnail of a run's picture is kept."""
    suffix = f"-{index}" if index else ""
    return check_key(f"{workflow_id}/{run_id}{suffix}-thumb.webp")


def preview_key(workflow_id: str, run_id: str, attempt: int, number: int) -> str:
    """Where a picture in the making is kept; a new key each, because readers may keep what they have read."""
    return check_key(f"{workflow_id}/{run_id}-preview-{attempt}-{number}.webp")


def upload_key(workflow_id: str, sha256: str, extension: str) -> str:
    """Where a picture that a person brought is kept: named by its content."""
    return check_key(f"{workflow_id}/upload-{sha256}.{extension}")


class ImageStore(Protocol):
    """Keeps pictures under keys. Methods raise `BadKey`, and `StorageUnavailable` where they do I/O."""

    async def put(self, key: str, data: Content, content_type: str) -> str:
        """Keep a picture, whole or not at all, in place of what was there; returns its URL."""

    async def get(self, key: str) -> ImageInput | None:
        """The picture under this key; None when there is none."""

    async def delete(self, key: str) -> None:
        """Forget the picture; one that is not there is no error."""

    def url(self, key: str) -> str:
        """Where browsers find it."""

    def key_of(self, url: str) -> str | None:
        """The key behind a URL of this store; None for a URL of anything else."""


class DiskStore:
    """Pictures in a folder, served by our own `/images/{key}` route.

    Args:
        root: The folder; made when missing.
        base_url: Public address of the server, without a slash at its end.

    """

    def __init__(self, root: Path, base_url: str) -> None:
        self._root = root
        self._prefix = base_url.rstrip("/") + IMAGES_PATH

    def path(self, key: str) -> Path:
        """The file of a key, whether it exists or not.

        Raises:
            BadKey: No picture can have this key.

        """
        return self._root / check_key(key)

    def url(self, key: str) -> str:
        """Where browsers find it."""
        return self._prefix + check_key(key)

    def key_of(self, url: str) -> str | None:
        """The key behind a URL of this store, absolute or beginning at the root of the server."""
        for prefix in (self._prefix, IMAGES_PATH):
            key = url.removeprefix(prefix)
            if key != url and _KEY.fullmatch(key) is not None:
                return key
        return None

    async def put(self, key: str, data: Content, content_type: str) -> str:
        """Keep a picture: written beside its place, flushed to the disk, then put in place in one step.

        Raises:
            BadKey: The key is malformed, or its extension is not that of the content type.
            StorageUnavailable: The disk is full or refuses.

        """
        if content_type_of(key) != content_type:
            raise BadKey(key)
        await self._off_the_loop(key, lambda: _write(self.path(key), data))
        return self.url(key)

    async def get(self, key: str) -> ImageInput | None:
        """The picture under this key; None when there is none.

        Raises:
            StorageUnavailable: The disk refuses.

        """
        content_type = content_type_of(key)
        try:
            data = await self._off_the_loop(key, self.path(key).read_bytes)
        except FileNotFoundError:
            return None
        return ImageInput(data, content_type)

    async def delete(self, key: str) -> None:
        """Forget the picture; one that is not there is no error.

        Raises:
            StorageUnavailable: The disk refuses.

        """
        path = self.path(key)
        await self._off_the_loop(key, lambda: path.unlink(missing_ok=True))

    async def _off_the_loop(self, key: str, work: Callable[[], T]) -> T:
        try:
            return await asyncio.to_thread(work)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise StorageUnavailable(key, error.strerror or type(error).__name__) from error


def _write(path: Path, data: Content) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{uuid.uuid4().hex}.part")
    try:
        if isinstance(data, Path):
            _copy(data, temporary)
        else:
            temporary.write_bytes(data)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    _flush_folder(path.parent)


def _copy(source: Path, to: Path) -> None:
    """A second name for the same file where one disk has both: the bytes are not moved."""
    try:
        os.link(source, to)
    except FileNotFoundError:
        raise
    except OSError:
        shutil.copyfile(source, to)


def _flush_folder(folder: Path) -> None:
    """Make the new name itself durable; systems that cannot open a folder do it by themselves."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
