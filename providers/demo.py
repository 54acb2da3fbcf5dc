"""
The demo provider: free, local and without a key; it draws what a prompt's words suggest.

It knows landscapes, the sea, cities, space, flowers and silk, and a palette for most moods. It is no model: it is here
so that a canvas works in the first minute, and so that tests have a real provider. For trying out the error state, it
refuses every prompt that contains the word "forbidden", as an outside maker refuses for reasons of policy.
"""

import asyncio
import hashlib
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

import pyvips  # type: ignore[import-untyped]

from providers.base import (
    Cost,
    Finished,
    ImageInput,
    ImageRequest,
    ImageResult,
    ModelInfo,
    Progress,
    ProgressSink,
    Size,
    Waiting,
    format_size,
    offered_size,
    parse_ratio,
    picture_type,
    size_for_ratio,
)
from providers.drawing.finish import encode
from providers.drawing.picture import Wish, draw, recolour
from providers.errors import ErrorClass, ErrorKind, ProviderError, RequestRefused

T = TypeVar("T")

SIZES: tuple[Size, ...] = (
    (1024, 1024), (1536, 1024), (1024, 1536), (1280, 720), (720, 1280), (768, 768), (512, 512),
)  # fmt: skip
MODEL = ModelInfo(
    id="darkroom-1",
    label="Darkroom 1",
    sizes=SIZES,
    supports=frozenset({"edit", "seed", "negative_prompt", "n", "previews"}),
    estimate_usd_micros=0,
    default_size=SIZES[0],
    max_n=4,
)
MIN_EDGE_PX, MAX_EDGE_PX = 64, 2048
MAX_RATIO = 4
MAX_INPUT_PIXELS = 64_000_000
EDITABLE = frozenset({"image/png", "image/jpeg", "image/webp"})
REFUSED_WORD = "forbidden"

PREVIEW_EDGE_PX = 256
PREVIEWS: tuple[tuple[float, float], ...] = ((0.22, 14), (0.42, 8), (0.62, 4), (0.82, 1.6))
"""When previews are shown, as shares of the delay, and how blurred they are, in px."""


class DemoProvider:
    """
    Draws pictures in a thread of its own.

    Args:
        delay_s: How long a picture takes to develop; with 0 it is there as soon as it is drawn, without previews.
    """

    name = "demo"
    label = "Demo"
    models: tuple[ModelInfo, ...] = (MODEL,)

    def __init__(self, delay_s: float = 2.0) -> None:
        self._delay_s = delay_s
        self._threads = ThreadPoolExecutor(max_workers=2, thread_name_prefix="demo")

    def check(self, request: ImageRequest) -> None:
        """Refuse an empty prompt, an unknown model, and sizes too small, too large or too narrow."""
        if request.model != MODEL.id:
            raise RequestRefused("model", f"The demo offers {MODEL.id}, not {request.model}.")
        spec = request.spec
        if not spec.prompt:
            raise RequestRefused("basePrompt", "Write a prompt first.")
        if not 1 <= spec.n <= MODEL.max_n:
            raise RequestRefused("n", f"The demo makes 1 to {MODEL.max_n} pictures at a time.")
        if spec.size and not all(MIN_EDGE_PX <= edge <= MAX_EDGE_PX for edge in spec.size):
            offered = ", ".join(format_size(size) for size in SIZES)
            raise RequestRefused(
                "size",
                f"The demo draws edges of {MIN_EDGE_PX} to {MAX_EDGE_PX} px, not {format_size(spec.size)}. "
                f"Usual sizes: {offered}.",
            )
        if spec.aspect_ratio and not 1 / MAX_RATIO <= parse_ratio(spec.aspect_ratio) <= MAX_RATIO:
            raise RequestRefused("aspectRatio", f"The demo draws aspect ratios from 1:{MAX_RATIO} to {MAX_RATIO}:1.")

    async def submit(self, request: ImageRequest, progress: ProgressSink) -> Finished:
        """
        Draw the pictures; previews come up while the delay runs.

        Raises:
            RequestRefused: As `check`.
            ProviderError: The prompt contains the word "forbidden", or the picture to edit cannot be read.
        """
        self.check(request)
        if REFUSED_WORD in re.findall(r"\w+", request.spec.prompt.lower()):
            raise ProviderError(
                f'The demo refused this prompt: it contains the word "{REFUSED_WORD}". Change it and try again.',
                ErrorClass.PERMANENT,
                ErrorKind.POLICY,
                vendor_code="forbidden_word",
            )
        if request.spec.previous_image and not request.inputs:
            raise RequestRefused("previousImage", "The picture to edit is missing.")
        ready_at = asyncio.get_running_loop().time() + self._delay_s
        await progress(Progress(0.05))
        seed = _seed(request)
        images = [await self._in_thread(partial(_make, request, seed + i)) for i in range(request.spec.n)]
        if self._delay_s > 0:
            await self._develop(images[0], ready_at, progress)
        return Finished(tuple(images), Cost(0, "free"), _adapted(request))

    async def poll(self, remote_id: str) -> Finished | Waiting:
        """Nothing is ever left to ask for: a submitted picture is finished."""
        raise ProviderError(
            "The demo keeps no pictures to ask for.", ErrorClass.PERMANENT, ErrorKind.EXPIRED, vendor_code=remote_id
        )

    async def cancel(self, remote_id: str) -> None:
        """Nothing runs elsewhere."""

    async def aclose(self) -> None:
        """Let the picture being drawn end, and the threads with it."""
        await asyncio.to_thread(self._threads.shutdown, cancel_futures=True)

    async def _develop(self, image: ImageResult, ready_at: float, progress: ProgressSink) -> None:
        previews = await self._in_thread(partial(_previews, image))
        for (share, _), preview in zip(PREVIEWS, previews, strict=True):
            await _until(ready_at - self._delay_s * (1 - share))
            await progress(Progress(share, preview))
        await _until(ready_at)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)


async def _until(moment: float) -> None:
    """Wait for a moment of the loop's clock."""
    await asyncio.sleep(max(0, moment - asyncio.get_running_loop().time()))


def picture_size(request: ImageRequest) -> Size:
    """The size a request gets: the one asked for, else the nearest to its aspect ratio, else the default."""
    spec = request.spec
    if spec.size:
        return spec.size
    if not spec.aspect_ratio:
        return MODEL.default_size
    ratio = parse_ratio(spec.aspect_ratio)
    width, height = MODEL.default_size
    return offered_size(ratio, SIZES) or size_for_ratio(ratio, width * height, 8)


def _seed(request: ImageRequest) -> int:
    """The seed asked for, else one of the run: a repeated attempt draws the same picture, a new run another one."""
    if request.spec.seed is not None:
        return request.spec.seed
    return int.from_bytes(hashlib.sha256(request.run_id.encode()).digest()[:4])


def _adapted(request: ImageRequest) -> tuple[str, ...]:
    sentences = []
    if request.spec.quality:
        sentences.append("The demo has one quality, so the quality was left out.")
    if len(request.inputs) > 1:
        sentences.append("The demo edits one picture, so only the first was used.")
    return tuple(sentences)


def _make(request: ImageRequest, seed: int) -> ImageResult:
    spec = request.spec
    wish = Wish(spec.prompt, spec.negative_prompt or "", seed)
    pixels = recolour(_opened(request), wish) if request.inputs else draw(wish, *picture_size(request))
    return ImageResult(content_type="image/jpeg", data=encode(pixels), seed=seed)


def _opened(request: ImageRequest) -> pyvips.Image:
    """The picture to edit, sRGB without transparency: cropped to a size that was asked for, else only made to fit."""
    data = request.inputs[0].data
    unreadable = ProviderError(
        "The picture to edit cannot be read: send a PNG, JPEG or WebP.", ErrorClass.PERMANENT, ErrorKind.BAD_REQUEST
    )
    if picture_type(data) not in EDITABLE:
        raise unreadable
    try:
        header = pyvips.Image.new_from_buffer(data, "")
        if header.width * header.height > MAX_INPUT_PIXELS:
            raise unreadable
        if request.spec.size or request.spec.aspect_ratio:
            width, height = picture_size(request)
            image = pyvips.Image.thumbnail_buffer(data, width, height=height, crop="centre")
        else:
            image = pyvips.Image.thumbnail_buffer(data, MAX_EDGE_PX, height=MAX_EDGE_PX, size="down")
        image = image.colourspace("srgb")
        if image.hasalpha():
            image = image.flatten(background=[255, 255, 255])
        return image.cast("uchar").extract_band(0, n=3).copy_memory()
    except pyvips.Error as error:
        raise unreadable from error


def _previews(image: ImageResult) -> list[ImageInput]:
    """Small pictures of a result, ever less blurred."""
    small = pyvips.Image.thumbnail_buffer(
        image.data, PREVIEW_EDGE_PX, height=PREVIEW_EDGE_PX, size="down"
    ).copy_memory()
    return [
        ImageInput(small.gaussblur(blur, min_ampl=0.05).webpsave_buffer(Q=72, effort=2, keep="none"), "image/webp")
        for _, blur in PREVIEWS
    ]
