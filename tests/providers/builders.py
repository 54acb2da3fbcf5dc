"""What the tests of providers build with: requests, pictures, an ear for progress, a picture host."""

import asyncio
from dataclasses import dataclass, field

import pyvips  # type: ignore[import-untyped]

from providers.base import ImageInput, ImageRequest, Progress, PromptSpec
from tests.emulators.http import Exchange, HttpEmulator, Received

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def image_request(
    prompt: str = "a lake", *, model: str = "gpt-image-2", run_id: str = "run-1", inputs: tuple[ImageInput, ...] = (),
    **spec: object,
) -> ImageRequest:  # fmt: skip
    """A request; `spec` takes fields of PromptSpec."""
    return ImageRequest(run_id, model, PromptSpec(prompt, **spec), inputs)  # type: ignore[arg-type]


def picture(width: int = 32, height: int = 24, kind: str = "png") -> ImageInput:
    """A small picture with something to see in it."""
    image = pyvips.Image.xyz(width, height).bandjoin(pyvips.Image.black(width, height)).cast("uchar")
    encoded: bytes = image.copy(interpretation="srgb").write_to_buffer(f".{kind}")
    return ImageInput(encoded, "image/jpeg" if kind == "jpg" else f"image/{kind}")


def dimensions(data: bytes) -> tuple[int, int]:
    image = pyvips.Image.new_from_buffer(data, "")
    return image.width, image.height


@dataclass
class Heard:
    """A progress sink that remembers."""

    progress: list[Progress] = field(default_factory=list)

    async def __call__(self, progress: Progress) -> None:
        self.progress.append(progress)

    @property
    def previews(self) -> list[bytes]:
        return [each.preview.data for each in self.progress if each.preview is not None]


@dataclass
class PictureHost(HttpEmulator):
    """Serves whatever a path was given: status, headers, body; or misbehaves."""

    pages: dict[str, tuple[int, dict[str, str], bytes]] = field(default_factory=dict)

    async def handle(self, request: Received, exchange: Exchange) -> None:
        if request.path == "/reset":
            exchange.reset()
            return
        if request.path == "/drip":
            await exchange.start(200, {"content-type": "image/png"})
            while not exchange.left:
                await exchange.chunk(PNG_SIGNATURE + b"x" * 1000)
            return
        if request.path == "/never":
            await asyncio.Event().wait()
        status, headers, body = self.pages.get(request.path, (404, {}, b""))
        await exchange.answer(status, body, {"content-type": "image/png", **headers})
