"""OpenAI's image models, through the official SDK: streamed with previews where one picture is asked for."""

import asyncio
import base64
import binascii
import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import httpx2
import openai

from providers.base import (
    Cost,
    Finished,
    ImageInput,
    ImageRequest,
    ImageResult,
    ModelInfo,
    Progress,
    ProgressSink,
    PromptSpec,
    Waiting,
    format_size,
    picture_type,
)
from providers.errors import ErrorClass, ErrorKind, ProviderError, RequestRefused
from providers.http import CONNECT_TIMEOUT_S, tls_context
from providers.json import Json
from providers.openai_errors import stream_error, to_provider_error, took_too_long, unreadable_answer
from providers.openai_models import (
    INPUT_TYPES,
    MAX_IMAGES,
    MAX_INPUT_BYTES,
    MAX_INPUTS,
    MAX_PROMPT_CHARS,
    OFFERS,
    RETIRED,
    Offer,
    choose_size,
    expected_cost,
    table_cost,
    usage_cost,
)
from providers.prices import Estimate

BASE_URL = "https://api.openai.com/v1"
TIMEOUT_S = 300.0
"""Complex prompts take up to two minutes; twice that, and a margin."""
PARTIAL_IMAGES = 2
LABEL = "OpenAI"

_PARTIAL = frozenset({"image_generation.partial_image", "image_edit.partial_image"})
_COMPLETED = frozenset({"image_generation.completed", "image_edit.completed"})


@dataclass(frozen=True, slots=True)
class Call:
    """
    A request as the Images API takes it.

    Attributes:
        files: The pictures to edit, as (name, bytes, content type); without any, a picture is generated.
        stream: The API streams one picture only: a completed event has no index.
        adapted: Sentences telling what was changed for OpenAI.
    """

    model: str
    prompt: str
    size: str
    quality: str | None
    n: int
    files: tuple[tuple[str, bytes, str], ...] = ()
    adapted: tuple[str, ...] = ()

    @property
    def stream(self) -> bool:
        """Whether previews can be had."""
        return self.n == 1

    def arguments(self) -> dict[str, Any]:
        """Keyword arguments of `images.generate` or `images.edit`, without `stream`."""
        arguments: dict[str, Any] = {"model": self.model, "prompt": self.prompt, "size": self.size, "n": self.n}
        if self.quality is not None:
            arguments["quality"] = self.quality
        if self.stream:
            arguments["partial_images"] = PARTIAL_IMAGES
        if self.files:
            arguments["image"] = self.files[0] if len(self.files) == 1 else list(self.files)
        return arguments


def build_request(request: ImageRequest) -> Call:
    """
    Map a request to OpenAI's terms.

    Raises:
        RequestRefused: OpenAI does not offer what is asked for; the message names what it does.
    """
    offer = _offer(request.model)
    spec = request.spec
    prompt = spec.prompt
    if not prompt:
        raise RequestRefused("basePrompt", "Write a prompt first.")
    adapted = []
    if spec.negative_prompt:
        prompt = f"{prompt.rstrip('. ')}. Do not show: {spec.negative_prompt.strip()}."
        adapted.append(f"{LABEL} has no negative prompt, so it was added to the prompt as a sentence.")
    if len(prompt) > MAX_PROMPT_CHARS:
        raise RequestRefused("basePrompt", f"{LABEL} takes prompts of at most {MAX_PROMPT_CHARS:,} characters.")
    if spec.seed is not None:
        adapted.append(f"{LABEL} takes no seed, so it was left out.")
    if not 1 <= spec.n <= MAX_IMAGES:
        raise RequestRefused("n", f"{LABEL} makes 1 to {MAX_IMAGES} pictures at a time.")
    if spec.quality is not None and spec.quality not in offer.qualities:
        offered = ", ".join(offer.qualities)
        raise RequestRefused("quality", f"{offer.info.label} does not offer {spec.quality}. Offered: {offered}.")
    size, nearest = choose_size(offer, spec)
    if nearest is not None:
        adapted.append(nearest)
    return Call(
        model=request.model,
        prompt=prompt,
        size=format_size(size),
        quality=spec.quality,
        n=spec.n,
        files=_files(request.inputs),
        adapted=tuple(adapted),
    )


def parse_response(payload: Json, call: Call) -> Finished:
    """
    The pictures and the cost of a whole answer; a picture that cannot be read is left out and told.

    Raises:
        ProviderError: Not one picture can be read.
    """
    if not isinstance(payload, Mapping):
        raise unreadable_answer("the answer is not an object")
    error = payload.get("error")
    if isinstance(error, Mapping):
        raise stream_error(error)
    entries = payload.get("data")
    entries = entries if isinstance(entries, list) else []
    images = tuple(image for image in map(parse_image, entries) if image is not None)
    if not images:
        raise unreadable_answer(f"{len(entries)} entries, no picture")
    adapted = call.adapted
    if len(images) < call.n:
        adapted = (*adapted, f"{LABEL} returned {len(images)} of {call.n} pictures.")
    return Finished(images, _cost(payload, call, len(images)), adapted)


def parse_completed(event: Mapping[str, Json], call: Call) -> Finished:
    """The picture and the cost of a stream's last event."""
    return parse_response({**event, "data": [event]}, call)


def parse_image(entry: Json) -> ImageResult | None:
    """One picture of an answer; its type is what its bytes tell."""
    data = _decoded(entry.get("b64_json")) if isinstance(entry, Mapping) else None
    content_type = picture_type(data) if data else None
    if not isinstance(entry, Mapping) or content_type is None:
        return None
    revised = entry.get("revised_prompt")
    return ImageResult(content_type, data=data, revised_prompt=revised if isinstance(revised, str) else None)


def parse_partial(event: Mapping[str, Json]) -> Progress | None:
    """A preview and how far it is; None where the picture cannot be read."""
    image = parse_image(event)
    if image is None or image.data is None or image.content_type is None:
        return None
    index = event.get("partial_image_index")
    step = index if isinstance(index, int) and 0 <= index < PARTIAL_IMAGES else PARTIAL_IMAGES - 1
    return Progress((step + 1) / (PARTIAL_IMAGES + 1), ImageInput(image.data, image.content_type))


class OpenAIProvider:
    """
    Asks OpenAI, once for every submit: retries are the caller's to decide.

    Args:
        api_key: Sent as a bearer token.
        base_url: With its version, such as "https://gateway.example/v1".
        timeout_s: For a whole request, the stream included.
    """

    name = "openai"
    label = LABEL
    models: tuple[ModelInfo, ...] = tuple(offer.info for offer in OFFERS.values())
    retired: Mapping[str, str] = RETIRED

    def __init__(self, api_key: str, base_url: str | None = None, timeout_s: float = TIMEOUT_S) -> None:
        self._timeout_s = timeout_s
        timeout = httpx2.Timeout(timeout_s, connect=min(timeout_s, CONNECT_TIMEOUT_S))
        self._client = openai.AsyncOpenAI(
            api_key=api_key,
            base_url=base_url or BASE_URL,
            max_retries=0,
            timeout=timeout,
            http_client=openai.DefaultAsyncHttpx2Client(timeout=timeout, verify=tls_context()),
        )

    def check(self, request: ImageRequest) -> None:
        """Refuse what OpenAI does not offer; see `build_request`."""
        build_request(request)

    def estimate(self, model: str, spec: PromptSpec) -> Estimate | None:
        """What a request is expected to cost; see `expected_cost`."""
        return expected_cost(model, spec)

    async def submit(self, request: ImageRequest, progress: ProgressSink) -> Finished:
        """
        Ask for the pictures and wait for them; partial pictures go to `progress` as they come.

        Raises:
            RequestRefused: As `check`.
            ProviderError: Everything else that can go wrong.
        """
        call = build_request(request)
        if request.spec.previous_image and not call.files:
            raise RequestRefused("previousImage", "The picture to edit is missing.")
        deadline = asyncio.timeout(self._timeout_s)
        try:
            async with deadline, aclosing(self._updates(call)) as updates:
                async for update in updates:
                    if isinstance(update, Finished):
                        return update
                    await progress(update)
        except TimeoutError as error:
            if not deadline.expired():
                raise
            raise took_too_long(self._timeout_s) from error
        raise unreadable_answer("the stream ended before the picture was complete")

    async def poll(self, remote_id: str) -> Finished | Waiting:
        """Nothing can be asked for: the Images API gives no id."""
        raise ProviderError(
            "OpenAI keeps no pictures to ask for.", ErrorClass.PERMANENT, ErrorKind.EXPIRED, vendor_code=remote_id
        )

    async def cancel(self, remote_id: str) -> None:
        """Cancelling the `submit` closes the connection; OpenAI offers nothing more."""

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.close()

    async def _updates(self, call: Call) -> AsyncGenerator[Progress | Finished]:
        """Previews, then the result. Only foreign errors are translated here, never those of the caller's sink."""
        try:
            if not call.stream:
                yield parse_response(await self._whole(call), call)
                return
            async with await self._opened(call) as stream:
                if "text/event-stream" not in stream.response.headers.get("content-type", ""):
                    # A gateway that does not stream answers in one piece: a picture that is paid for is kept.
                    yield parse_response(json.loads(await stream.response.aread()), call)
                    return
                async for event in stream:
                    update = _update(_fields(event), call)
                    if update is not None:
                        yield update
        except (openai.OpenAIError, httpx2.HTTPError, ValueError, OSError) as error:
            raise to_provider_error(error, datetime.now(UTC)) from error

    async def _whole(self, call: Call) -> Json:
        images = self._client.images.with_raw_response
        ask = images.edit if call.files else images.generate
        answer = await ask(**call.arguments())
        payload: Json = json.loads(answer.http_response.content)
        return payload

    async def _opened(self, call: Call) -> openai.AsyncStream[Any]:
        images = self._client.images
        ask = images.edit if call.files else images.generate
        stream: openai.AsyncStream[Any] = await ask(stream=True, **call.arguments())
        return stream


def _offer(model: str) -> Offer:
    offer = OFFERS.get(model)
    if offer is not None:
        return offer
    if model in RETIRED:
        raise RequestRefused("model", f"{LABEL} retires {model}. Use {RETIRED[model]}.")
    raise RequestRefused("model", f"{LABEL} does not offer {model}. Offered: {', '.join(OFFERS)}.")


def _files(inputs: tuple[ImageInput, ...]) -> tuple[tuple[str, bytes, str], ...]:
    if len(inputs) > MAX_INPUTS:
        raise RequestRefused("previousImage", f"{LABEL} edits at most {MAX_INPUTS} pictures at a time.")
    files = []
    for index, picture in enumerate(inputs):
        # The bytes decide: a wrong label would be sent on as a wrong label.
        content_type = picture_type(picture.data) or picture.content_type
        if content_type not in INPUT_TYPES:
            raise RequestRefused("previousImage", f"{LABEL} edits PNG, JPEG and WebP, not {content_type}.")
        if len(picture.data) > MAX_INPUT_BYTES:
            raise RequestRefused("previousImage", f"{LABEL} edits pictures of less than 50 MB.")
        files.append((f"picture-{index}.{INPUT_TYPES[content_type]}", picture.data, content_type))
    return tuple(files)


def _fields(event: object) -> Mapping[str, Json]:
    """An event as a mapping; the SDK builds its models without checking them, so nothing about them is believed."""
    if isinstance(event, openai.BaseModel):
        fields: Mapping[str, Any] = event.to_dict(warnings=False)
        return fields
    return event if isinstance(event, Mapping) else {}


def _update(event: Mapping[str, Json], call: Call) -> Progress | Finished | None:
    kind = event.get("type")
    if kind in _COMPLETED:
        return parse_completed(event, call)
    if kind in _PARTIAL:
        return parse_partial(event)
    if kind == "error":
        raise stream_error(event)
    return None


def _decoded(text: Json) -> bytes | None:
    if not isinstance(text, str):
        return None
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None


def _cost(payload: Mapping[str, Json], call: Call, pictures: int) -> Cost | None:
    usage = payload.get("usage")
    from_usage = usage_cost(usage) if isinstance(usage, Mapping) else None
    size, quality = payload.get("size") or call.size, payload.get("quality") or call.quality
    return from_usage or table_cost(call.model, size, quality, pictures)
