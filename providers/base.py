"""What Darkroom asks of an image maker, and what it gets back. Pure: no clock, no randomness, no I/O."""

import datetime as dt
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, Self, TypeAlias

from providers.errors import InvalidSpec
from providers.json import Json

Size: TypeAlias = tuple[int, int]
"""Width and height in px."""

MAX_PROMPT_CHARS = 32_000
MAX_MODIFIERS = 64
MAX_MODIFIER_CHARS = 1_000
MAX_URL_CHARS = 4_096
MAX_QUALITY_CHARS = 64
MAX_EDGE_PX = 16_384
MAX_IMAGES = 16
MAX_SEED = 2**53 - 1
"""The largest whole number that every JSON reader keeps exact."""

_SIZE = re.compile(r"([1-9]\d{0,4})\s*[x\u00d7*]\s*([1-9]\d{0,4})", re.IGNORECASE)  # People type the sign too.
_SIGNATURES = {
    b"\x89PNG\r\n\x1a\n": "image/png",
    b"\xff\xd8\xff": "image/jpeg",
    b"GIF87a": "image/gif",
    b"GIF89a": "image/gif",
}
_RATIO = re.compile(r"(\d{1,5}(?:\.\d{1,4})?)\s*[:/]\s*(\d{1,5}(?:\.\d{1,4})?)")


@dataclass(frozen=True, slots=True)
class PromptSpec:
    """
    What a person asked for, independent of who makes it.

    Attributes:
        size: Wins over `aspect_ratio` where both are given.
        aspect_ratio: "16:9"; the maker picks the nearest size it offers.
        previous_image: URL of the picture to edit.
        n: How many pictures.
    """

    base_prompt: str
    style_modifiers: tuple[str, ...] = ()
    size: Size | None = None
    aspect_ratio: str | None = None
    quality: str | None = None
    seed: int | None = None
    negative_prompt: str | None = None
    previous_image: str | None = None
    n: int = 1

    @property
    def prompt(self) -> str:
        """The base prompt with its style modifiers, as one text."""
        parts = (self.base_prompt.strip(), *(modifier.strip() for modifier in self.style_modifiers))
        return ", ".join(part for part in parts if part)

    def to_json(self) -> dict[str, Json]:
        """Its camelCase JSON; what was left out stays out."""
        optional: dict[str, Json] = {
            "styleModifiers": list(self.style_modifiers) or None,
            "size": format_size(self.size) if self.size else None,
            "aspectRatio": self.aspect_ratio,
            "quality": self.quality,
            "seed": self.seed,
            "negativePrompt": self.negative_prompt,
            "previousImage": self.previous_image,
            "n": None if self.n == 1 else self.n,
        }
        return {"basePrompt": self.base_prompt} | {key: value for key, value in optional.items() if value is not None}

    @classmethod
    def from_json(cls, value: Mapping[str, Json]) -> Self:
        """
        Read the camelCase JSON; unknown fields are ignored, null means left out.

        Raises:
            InvalidSpec: A field has the wrong type or is out of range.
        """
        if not isinstance(value, Mapping):
            raise InvalidSpec("promptSpec", "must be an object")
        prompt = _text(value, "basePrompt", MAX_PROMPT_CHARS)
        if prompt is None:
            raise InvalidSpec("basePrompt", "is required")
        n = _whole(value, "n", 1, MAX_IMAGES)
        return cls(
            base_prompt=prompt,
            style_modifiers=_modifiers(value.get("styleModifiers")),
            size=_size(value.get("size")),
            aspect_ratio=_aspect_ratio(value),
            quality=_text(value, "quality", MAX_QUALITY_CHARS) or None,
            seed=_whole(value, "seed", 0, MAX_SEED),
            negative_prompt=_text(value, "negativePrompt", MAX_PROMPT_CHARS) or None,
            previous_image=_previous_image(value),
            n=1 if n is None else n,
        )


@dataclass(frozen=True, slots=True)
class ImageInput:
    """Picture bytes as they were received; `content_type` is a MIME type without parameters."""

    data: bytes
    content_type: str


@dataclass(frozen=True, slots=True)
class ImageRequest:
    """One run's request to one model; `inputs` are the pictures to edit, already downloaded."""

    run_id: str
    model: str
    spec: PromptSpec
    inputs: tuple[ImageInput, ...] = ()
    webhook_url: str | None = None


@dataclass(frozen=True, slots=True)
class ImageResult:
    """One picture: its bytes, or the URL to fetch it from."""

    content_type: str | None
    data: bytes | None = None
    url: str | None = None
    seed: int | None = None
    revised_prompt: str | None = None

    def __post_init__(self) -> None:
        if (self.data is None) == (self.url is None):
            raise ValueError("an ImageResult has either data or a url")


@dataclass(frozen=True, slots=True)
class Cost:
    """What a run cost, in micro-dollars; `detail` holds the counts it was computed from."""

    usd_micros: int
    source: Literal["usage", "price", "free"]
    detail: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Finished:
    """The pictures are made; `adapted` tells, in sentences, what was changed for the maker."""

    images: tuple[ImageResult, ...]
    cost: Cost | None
    adapted: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Accepted:
    """The maker took the request and will finish later."""

    remote_id: str
    webhook_promised: bool = False
    poll_after_s: float = 5.0


@dataclass(frozen=True, slots=True)
class Waiting:
    """A poll found the request unfinished; `progress` is in [0, 1]."""

    progress: float | None = None
    poll_after_s: float = 5.0


Submission: TypeAlias = Finished | Accepted


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a picture is, in [0, 1], and what it looks like so far."""

    fraction: float | None
    preview: ImageInput | None = None


ProgressSink: TypeAlias = Callable[[Progress], Awaitable[None]]

Feature: TypeAlias = Literal["edit", "seed", "negative_prompt", "n", "quality", "previews"]


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """
    What a model offers.

    Attributes:
        sizes: Sizes to offer in a menu; a maker may take others (its `check` says).
        supports: Any of `Feature`.
        estimate_usd_micros: A usual picture at the default size; None where unknown.
        priced_on: The date of that price.
    """

    id: str
    label: str
    sizes: tuple[Size, ...]
    supports: frozenset[str]
    estimate_usd_micros: int | None
    default_size: Size
    max_n: int = 1
    priced_on: dt.date | None = None


class ImageProvider(Protocol):
    """An outside maker of pictures. `models[0]` is its default."""

    name: str
    label: str
    models: tuple[ModelInfo, ...]

    def check(self, request: ImageRequest) -> None:
        """
        Refuse what this maker does not offer, before anything is sent or billed.

        Raises:
            RequestRefused: Names the field and what is offered instead.
        """

    async def submit(self, request: ImageRequest, progress: ProgressSink) -> Submission:
        """
        Ask for the pictures, exactly once: no hidden retries.

        Raises:
            RequestRefused: As `check`.
            ProviderError: Everything else that can go wrong.
        """

    async def poll(self, remote_id: str) -> Finished | Waiting:
        """
        Ask how an accepted request is doing.

        Raises:
            ProviderError: It failed, or is not known (any more).
        """

    async def cancel(self, remote_id: str) -> None:
        """Ask the maker to stop; one that cannot stop, or has finished, is no error."""

    async def aclose(self) -> None:
        """Close every connection; safe to call twice."""


def format_size(size: Size) -> str:
    """A size as "1024x1024"."""
    return f"{size[0]}x{size[1]}"


def parse_ratio(text: str) -> float:
    """
    Width divided by height of "16:9".

    Raises:
        ValueError: Not two positive numbers with a colon between.
    """
    match = _RATIO.fullmatch(text.strip())
    if match is None:
        raise ValueError(text)
    width, height = float(match[1]), float(match[2])
    if width <= 0 or height <= 0:
        raise ValueError(text)
    return width / height


def size_for_ratio(ratio: float, pixels: int, multiple: int) -> Size:
    """
    The size of about `pixels` with that aspect ratio, both edges multiples of `multiple`.

    Args:
        ratio: Width divided by height.
        pixels: Wanted area; the result lies within one `multiple` of it on each edge.
        multiple: At least 1.
    """
    width = (pixels * ratio) ** 0.5
    rounded_width = max(multiple, round(width / multiple) * multiple)
    rounded_height = max(multiple, round(rounded_width / ratio / multiple) * multiple)
    return rounded_width, rounded_height


def offered_size(ratio: float, sizes: Sequence[Size], tolerance: float = 0.01) -> Size | None:
    """The first of the sizes with that aspect ratio, width by height, or None."""
    return next((size for size in sizes if abs(size[0] / size[1] / ratio - 1) <= tolerance), None)


def picture_type(data: bytes) -> str | None:
    """The MIME type that a picture's first bytes tell, whatever it was said to be, or None."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    if data[4:8] == b"ftyp" and data[8:12] in {b"avif", b"avis"}:
        return "image/avif"
    return next((kind for start, kind in _SIGNATURES.items() if data.startswith(start)), None)


def _modifiers(value: Json) -> tuple[str, ...]:
    if value is None:
        return ()
    if isinstance(value, str) or not isinstance(value, list | tuple):
        raise InvalidSpec("styleModifiers", "must be a list of texts")
    if len(value) > MAX_MODIFIERS:
        raise InvalidSpec("styleModifiers", f"holds at most {MAX_MODIFIERS} texts")
    texts = []
    for item in value:
        if not isinstance(item, str):
            raise InvalidSpec("styleModifiers", "must be a list of texts")
        if len(item) > MAX_MODIFIER_CHARS:
            raise InvalidSpec("styleModifiers", f"each text has at most {MAX_MODIFIER_CHARS:,} characters")
        texts.append(item)
    return tuple(texts)


def _size(value: Json) -> Size | None:
    if value is None or value in {"", "auto"}:
        return None
    match = _SIZE.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        raise InvalidSpec("size", 'must be a text such as "1024x1024"')
    size = int(match[1]), int(match[2])
    if max(size) > MAX_EDGE_PX:
        raise InvalidSpec("size", f"each edge has at most {MAX_EDGE_PX:,} px")
    return size


def _aspect_ratio(value: Mapping[str, Json]) -> str | None:
    text = _text(value, "aspectRatio", MAX_QUALITY_CHARS)
    if not text or text == "auto":
        return None
    try:
        parse_ratio(text)
    except ValueError:
        raise InvalidSpec("aspectRatio", 'must be a text such as "16:9"') from None
    return text


def _previous_image(value: Mapping[str, Json]) -> str | None:
    raw = value.get("previousImage")
    if isinstance(raw, str) and raw[:5].lower() == "data:":
        raise InvalidSpec(
            "previousImage", "must be an http(s) URL; upload the picture first instead of sending its data"
        )
    url = _text(value, "previousImage", MAX_URL_CHARS)
    if not url:
        return None
    if not url.lower().startswith(("http://", "https://", "/")):
        raise InvalidSpec("previousImage", "must be an http(s) URL")
    return url


def _text(value: Mapping[str, Json], key: str, max_chars: int) -> str | None:
    text = value.get(key)
    if text is None:
        return None
    if not isinstance(text, str):
        raise InvalidSpec(key, "must be a text")
    if len(text) > max_chars:
        raise InvalidSpec(key, f"has at most {max_chars:,} characters")
    return text


def _whole(value: Mapping[str, Json], key: str, low: int, high: int) -> int | None:
    number = _number(value.get(key), key)
    if number is not None and not low <= number <= high:
        raise InvalidSpec(key, f"must be between {low} and {high}")
    return number


def _number(value: Json, key: str) -> int | None:
    """A whole number; JavaScript sends floats, forms send digits."""
    if value is None or value == "":
        return None
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, float) and value.is_integer() and abs(value) <= MAX_SEED:
        return int(value)
    if isinstance(value, str) and re.fullmatch(r"-?[0-9]{1,20}", value.strip()):
        return int(value)
    raise InvalidSpec(key, "must be a whole number")
