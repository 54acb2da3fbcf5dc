"""Pictures from outside: told by their content, checked whole, and made small, off the event loop."""

import asyncio
import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TypeVar

import pyvips  # type: ignore[import-untyped]

from jobs.errors import BadImage
from jobs.storage import Content

T = TypeVar("T")

MAX_BYTES: Final = 64 * 1024 * 1024
MAX_PIXELS: Final = 36_000_000
"""More than any maker delivers today; a bomb of a few kB can claim a million times that."""
MAX_EDGE_PX: Final = 16_384
THUMBNAIL_PX: Final = 300
_THUMBNAIL_QUALITY: Final = 80
_HEAD_BYTES: Final = 64


@dataclass(frozen=True, slots=True)
class Format:
    """A kind of picture we accept; `loader` is the libvips loader that alone may read it, from a file."""

    content_type: str
    extension: str
    loader: str


PNG = Format("image/png", "png", "pngload")
JPEG = Format("image/jpeg", "jpg", "jpegload")
WEBP = Format("image/webp", "webp", "webpload")
GIF = Format("image/gif", "gif", "gifload")
AVIF = Format("image/avif", "avif", "heifload")
FORMATS: Final = (PNG, JPEG, WEBP, GIF, AVIF)


@dataclass(frozen=True, slots=True)
class Picture:
    """What a picture is: its size as it is looked at, in px, and its bytes' length and SHA-256 (hex)."""

    width: int
    height: int
    format: Format
    bytes: int
    sha256: str

    @property
    def content_type(self) -> str:
        """Its MIME type, from its content."""
        return self.format.content_type


@dataclass(frozen=True, slots=True)
class Prepared:
    """A picture fit to be stored, and its thumbnail (WebP, without metadata)."""

    picture: Picture
    thumbnail: bytes


def sniff(data: bytes) -> Format:
    """The kind of picture these bytes begin like; what a sender calls them counts for nothing.

    Raises:
        BadImage: None that we accept. SVG and HTML are among those we do not: they are programs, not pictures.

    """
    head = data[:_HEAD_BYTES]
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return PNG
    if head.startswith(b"\xff\xd8\xff"):
        return JPEG
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return WEBP
    if head.startswith((b"GIF87a", b"GIF89a")):
        return GIF
    if head[4:12] in {b"ftypavif", b"ftypavis"}:
        return AVIF
    raise BadImage(_what_it_is(head))


def inspect(data: Content, *, max_pixels: int = MAX_PIXELS) -> Picture:
    """Check a picture by decoding it whole, a few rows at a time.

    Args:
        data: The file. One on disk is read as it is decoded, never as a whole.
        max_pixels: Width times height that is accepted; decided by the header, before anything is decoded.

    Raises:
        BadImage: Not a picture, too large, cut off or broken.

    """
    return _checked(data, max_pixels, lambda image: image.avg())[0]


def thumbnail(data: Content, edge: int = THUMBNAIL_PX, *, max_pixels: int = MAX_PIXELS) -> bytes:
    """A WebP that fits into `edge` x `edge` px, keeps the shape and carries no metadata; nothing is made larger.

    Raises:
        BadImage: As `inspect`.

    """
    return _checked(data, max_pixels, lambda image: _shrunk(image, edge))[1]


def prepare(data: Content, edge: int = THUMBNAIL_PX, *, max_pixels: int = MAX_PIXELS) -> Prepared:
    """`inspect` and `thumbnail` in one pass over the pixels.

    Raises:
        BadImage: As `inspect`.

    """
    return Prepared(*_checked(data, max_pixels, lambda image: _shrunk(image, edge)))


class ImageWorkshop:
    """Does the above off the event loop, a bounded number at a time; the rest wait their turn.

    Args:
        hands: Pictures worked on at once.
        max_pixels: As `inspect`.

    """

    def __init__(self, hands: int = 2, *, max_pixels: int = MAX_PIXELS) -> None:
        # One thread of libvips for each of ours: many pictures at once use the cores better than one split up.
        pyvips.concurrency_set(1)
        pyvips.cache_set_max(0)
        pyvips.block_untrusted_set(True)  # noqa: FBT003 - a C function
        self._max_pixels = max_pixels
        self._threads = ThreadPoolExecutor(hands, thread_name_prefix="images")

    async def inspect(self, data: Content) -> Picture:
        """See `inspect`."""
        return await self._off_the_loop(lambda: inspect(data, max_pixels=self._max_pixels))

    async def thumbnail(self, data: Content, edge: int = THUMBNAIL_PX) -> bytes:
        """See `thumbnail`."""
        return await self._off_the_loop(lambda: thumbnail(data, edge, max_pixels=self._max_pixels))

    async def prepare(self, data: Content) -> Prepared:
        """See `prepare`."""
        return await self._off_the_loop(lambda: prepare(data, max_pixels=self._max_pixels))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Take no more work; what is being done is finished."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _off_the_loop(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)


def _checked(data: Content, max_pixels: int, consume: Callable[[Any], T]) -> tuple[Picture, T]:
    size = data.stat().st_size if isinstance(data, Path) else len(data)
    if size > MAX_BYTES:
        raise BadImage(f"it is larger than {MAX_BYTES // 1024 // 1024} MB")
    kind = sniff(_head(data))
    try:
        image = _opened(data, kind)
        width, height = _looked_at(image)
        if width * height > max_pixels or max(width, height) > MAX_EDGE_PX:
            raise BadImage(f"{width} x {height} px is too large")
        made = consume(image)
    except pyvips.Error as error:
        raise BadImage(f"the {kind.extension.upper()} file is cut off or broken") from error
    return Picture(width, height, kind, size, _sha256(data)), made


def _opened(data: Content, kind: Format) -> Any:
    """The picture, its header read; rows are decoded as they are asked for."""
    how = {"access": "sequential", "fail_on": "truncated"}
    if isinstance(data, Path):
        return getattr(pyvips.Image, kind.loader)(str(data), **how)
    return getattr(pyvips.Image, f"{kind.loader}_buffer")(data, **how)


def _head(data: Content) -> bytes:
    if not isinstance(data, Path):
        return data[:_HEAD_BYTES]
    with data.open("rb") as file:
        return file.read(_HEAD_BYTES)


def _sha256(data: Content) -> str:
    if not isinstance(data, Path):
        return hashlib.sha256(data).hexdigest()
    with data.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _looked_at(image: Any) -> tuple[int, int]:
    """Width and height once its EXIF orientation is applied."""
    turned = image.get_typeof("orientation") != 0 and image.get("orientation") in range(5, 9)
    return (image.height, image.width) if turned else (image.width, image.height)


def _shrunk(image: Any, edge: int) -> bytes:
    # Turned after it was shrunk: turning needs every row at once, and the rows of a large picture come one by one.
    small = image.thumbnail_image(edge, height=edge, size="down", no_rotate=True).copy_memory().autorot()
    return bytes(small.webpsave_buffer(Q=_THUMBNAIL_QUALITY, keep="none"))


def _what_it_is(head: bytes) -> str:
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith((b"<!doctype html", b"<html", b"<head", b"<body")):
        return "it is a web page"
    if start.startswith((b"<svg", b"<?xml", b"<!doctype svg")):
        return "SVG is not accepted"
    if start.startswith((b"{", b"[")):
        return "it is JSON"
    return "it is empty" if not head else "it is no PNG, JPEG, WebP, GIF or AVIF"
