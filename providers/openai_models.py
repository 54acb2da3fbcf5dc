"""What OpenAI's image models offer and cost. Pure; every fact has its date."""

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass

from providers.base import Cost, ModelInfo, PromptSpec, Size, format_size, offered_size, parse_ratio, size_for_ratio
from providers.errors import RequestRefused
from providers.json import Json
from providers.prices import Estimate

MAX_PROMPT_CHARS = 32_000
MAX_IMAGES = 10
MAX_INPUTS = 16
MAX_INPUT_BYTES = 50 * 1024 * 1024 - 1
INPUT_TYPES: Mapping[str, str] = {"image/png": "png", "image/jpeg": "jpg", "image/webp": "webp"}
"""Content types an edit takes, with their file endings."""

# Sizes as of 2026-11: openai 3.52 states the free rule for 2 and 2.5 only, so 2.6 gets the three standard sizes.
MULTIPLE_PX = 16
MAX_RATIO = 3
MIN_PIXELS, MAX_PIXELS = 655_360, 8_294_400
MAX_EDGE_PX = 3840
STANDARD_SIZES: tuple[Size, ...] = ((1024, 1024), (1536, 1024), (1024, 1536))
FREE_SIZES: tuple[Size, ...] = (*STANDARD_SIZES, (1536, 864), (864, 1536), (2048, 2048), (2560, 1440), (1440, 2560))
STANDARD_QUALITIES = ("auto", "low", "medium", "high")
WIDE_QUALITIES = (*STANDARD_QUALITIES, "xhigh", "max")

PICTURES_PRICED_ON = dt.date(2026, 7, 9)
"""When prices by the picture were read."""

FEATURES = frozenset({"edit", "n", "quality", "previews"})


@dataclass(frozen=True, slots=True)
class Offer:
    """One model: its description, and which sizes and qualities it takes."""

    info: ModelInfo
    free_sizes: bool
    qualities: tuple[str, ...]


def _offer(
    model: str, label: str, *, free_sizes: bool = True, qualities: tuple[str, ...] = STANDARD_QUALITIES,
    estimate: int | None = None,
) -> Offer:  # fmt: skip
    sizes = FREE_SIZES if free_sizes else STANDARD_SIZES
    priced_on = None if estimate is None else PICTURES_PRICED_ON
    info = ModelInfo(model, label, sizes, FEATURES, estimate, STANDARD_SIZES[0], MAX_IMAGES, priced_on)
    return Offer(info, free_sizes, qualities)


# Names as of openai 3.52 (2026-11). The estimate is a medium 1024x1024 picture, known for gpt-image-2 only.
OFFERS: Mapping[str, Offer] = {
    offer.info.id: offer
    for offer in (
        _offer("gpt-image-2", "GPT Image 2", estimate=53_000),
        _offer("gpt-image-2.6-sunburst", "GPT Image 2.6 Sunburst", free_sizes=False),
        _offer("gpt-image-2.6-flare", "GPT Image 2.6 Flare", free_sizes=False),
        _offer("gpt-image-2.5-sunburst", "GPT Image 2.5 Sunburst", qualities=WIDE_QUALITIES),
        _offer("gpt-image-2.5-flare", "GPT Image 2.5 Flare", qualities=WIDE_QUALITIES),
        _offer("gpt-image-2-2026-04-21", "GPT Image 2 (2026-04-21)", estimate=53_000),
        _offer("gpt-image-2.5-sunburst-2026-09-08", "GPT Image 2.5 Sunburst (2026-09-08)", qualities=WIDE_QUALITIES),
        _offer("gpt-image-2.5-flare-2026-09-08", "GPT Image 2.5 Flare (2026-09-08)", qualities=WIDE_QUALITIES),
    )
}

RETIRED: Mapping[str, str] = {
    "dall-e-2": "gpt-image-2",
    "dall-e-3": "gpt-image-2",
    "gpt-image-1": "gpt-image-2.5-sunburst",
    "gpt-image-1-mini": "gpt-image-2.5-flare",
    "gpt-image-1.5": "gpt-image-2.5-sunburst",
    "chatgpt-image-latest": "gpt-image-2.6-sunburst",
}
"""Models that are gone, or go on 2026-12-01, and what to use instead."""


@dataclass(frozen=True, slots=True)
class TokenPrices:
    """Micro-dollars for a token; dollars for a million are the same number."""

    text_in: int
    image_in: int
    image_out: int


PRICES = TokenPrices(text_in=5, image_in=8, image_out=30)
"""gpt-image-2, 2.5 and 2.6, as of 2026-11-21."""

PICTURE_PRICES: Mapping[tuple[str, str], int] = {
    ("1024x1024", "low"): 6_000,
    ("1024x1024", "medium"): 53_000,
    ("1024x1024", "high"): 211_000,
    ("1024x1536", "low"): 5_000,
    ("1024x1536", "medium"): 41_000,
    ("1024x1536", "high"): 165_000,
}
"""gpt-image-2 in micro-dollars by size and quality, as of 2026-07: for answers that tell no usage."""


def check_size(offer: Offer, size: Size) -> None:
    """
    Hold a size against the model's rules.

    Raises:
        RequestRefused: Says which rule, and what is offered.
    """
    problem = None if size in offer.info.sizes else _size_problem(offer, size)
    if problem is not None:
        offered = ", ".join(format_size(each) for each in offer.info.sizes)
        raise RequestRefused(
            "size", f"{offer.info.label} cannot make {format_size(size)}: {problem}. Offered: {offered}."
        )


def _size_problem(offer: Offer, size: Size) -> str | None:
    if not offer.free_sizes:
        return "it has fixed sizes"
    width, height = size
    if width % MULTIPLE_PX or height % MULTIPLE_PX:
        return f"both edges must be multiples of {MULTIPLE_PX}"
    if max(size) > MAX_RATIO * min(size):
        return f"the aspect ratio must be between 1:{MAX_RATIO} and {MAX_RATIO}:1"
    if max(size) > MAX_EDGE_PX:
        return f"an edge has at most {MAX_EDGE_PX} px"
    if not MIN_PIXELS <= width * height <= MAX_PIXELS:
        return f"a picture has {MIN_PIXELS:,} to {MAX_PIXELS:,} pixels"
    return None


def choose_size(offer: Offer, spec: PromptSpec) -> tuple[Size, str | None]:
    """
    The size to ask for, and a sentence where it is not quite what was wanted.

    Raises:
        RequestRefused: Size or aspect ratio are not offered.
    """
    if spec.size is not None:
        check_size(offer, spec.size)
        return spec.size, None
    if spec.aspect_ratio is None:
        return offer.info.default_size, None
    ratio = parse_ratio(spec.aspect_ratio)
    if not 1 / MAX_RATIO <= ratio <= MAX_RATIO:
        raise RequestRefused(
            "aspectRatio",
            f"{offer.info.label} makes aspect ratios from 1:{MAX_RATIO} to {MAX_RATIO}:1, not {spec.aspect_ratio}.",
        )
    exact = offered_size(ratio, offer.info.sizes)
    if exact is not None:
        return exact, None
    if not offer.free_sizes:
        near = min(offer.info.sizes, key=lambda size: _apart(size[0] / size[1], ratio))
        return near, f"{offer.info.label} does not offer {spec.aspect_ratio}; {format_size(near)} comes nearest."
    return _free_size(ratio), None


def _apart(first: float, second: float) -> float:
    return max(first / second, second / first)


def _free_size(ratio: float) -> Size:
    """About a megapixel and a third, never past 3:1 where rounding would lead there."""
    width, height = size_for_ratio(ratio, 1_310_720, MULTIPLE_PX)
    longest = MAX_RATIO * min(width, height)
    return min(width, longest), min(height, longest)


def usage_cost(usage: Mapping[str, Json]) -> Cost | None:
    """What the answer's token counts come to; None where it tells none."""
    details = usage.get("input_tokens_details")
    split = details if isinstance(details, Mapping) else {}
    image_in = _count(split.get("image_tokens"))
    text_in = _count(split.get("text_tokens")) if split else _count(usage.get("input_tokens"))
    image_out = _count(usage.get("output_tokens"))
    if not text_in + image_in + image_out:
        return None
    micros = text_in * PRICES.text_in + image_in * PRICES.image_in + image_out * PRICES.image_out
    detail = {"inputTextTokens": text_in, "inputImageTokens": image_in, "outputTokens": image_out}
    return Cost(micros, "usage", detail)


def table_cost(model: str, size: Json, quality: Json, pictures: int) -> Cost | None:
    """The list price of so many pictures; None where no price is known."""
    if not model.startswith("gpt-image-2") or model.startswith("gpt-image-2."):
        return None
    each = PICTURE_PRICES.get((str(size), str(quality)))
    return None if each is None else Cost(each * pictures, "price", {"pictures": pictures})


def expected_cost(model: str, spec: PromptSpec) -> Estimate | None:
    """
    What a request is expected to cost, from list prices by size and quality; None where none is known.

    "auto" counts as medium, which is what it mostly is. A size without a price counts as the square one, and as many
    times that as it has more pixels.
    """
    offer = OFFERS.get(model)
    if offer is None or not model.startswith("gpt-image-2") or model.startswith("gpt-image-2."):
        return None
    try:
        size, _ = choose_size(offer, spec)
    except RequestRefused:
        return None
    quality = spec.quality if spec.quality in STANDARD_QUALITIES[1:] else "medium"
    upright = format_size((min(size), max(size)))
    each = PICTURE_PRICES.get((upright, quality))
    if each is None:
        square = STANDARD_SIZES[0]
        larger = max(1.0, size[0] * size[1] / (square[0] * square[1]))
        each = round(PICTURE_PRICES[format_size(square), quality] * larger)
    return Estimate(each * spec.n, PICTURES_PRICED_ON)


def _count(value: Json) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0
