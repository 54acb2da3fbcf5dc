"""OpenAI's pictures made in the background: asked for at once, told of by a call, fetched when it comes.

The Responses API stands in front of the image models: a main model takes the prompt and calls the picture tool once.
"""

import base64
import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final

import httpx2
import openai

from providers.base import (
    Accepted,
    Finished,
    ImageRequest,
    ModelInfo,
    ProgressSink,
    Submission,
    Waiting,
)
from providers.errors import ErrorClass, ErrorKind, ProviderError, RequestRefused
from providers.json import Json
from providers.openai import LABEL, Call, OpenAIProvider, build_request, parse_image
from providers.openai_errors import stream_error, to_provider_error, unreadable_answer
from providers.openai_models import OFFERS, usage_cost
from providers.webhooks import Heard, Standard, WebhookScheme

MAIN_MODEL: Final = "gpt-5.4-mini"
"""Takes the prompt to the picture tool (openai 3.52, 2026-11); its own tokens are few and are not counted."""
SUFFIX: Final = "-background"
POLL_AFTER_S: Final = 5.0
_MODELS: Final = ("gpt-image-2.6-flare", "gpt-image-2.6-sunburst", "gpt-image-2")
_REQUEST_CODES: Final = frozenset(
    {
        "invalid_image",
        "invalid_image_format",
        "invalid_base64_image",
        "invalid_image_url",
        "image_too_large",
        "image_too_small",
        "image_parse_error",
        "invalid_image_mode",
        "image_file_too_large",
        "unsupported_image_media_type",
        "empty_image_file",
        "failed_to_download_image",
        "image_file_not_found",
    }
)


def _offered(model: str) -> ModelInfo:
    info = OFFERS[model].info
    label, supports = f"{info.label} (background)", info.supports - {"n", "previews"}
    return replace(info, id=model + SUFFIX, label=label, supports=supports, max_n=1)


MODELS: Final[tuple[ModelInfo, ...]] = tuple(_offered(model) for model in _MODELS)
_IDS: Final = frozenset(model.id for model in MODELS)


def build_background(request: ImageRequest) -> Call:
    """
    Map a request for a background model to OpenAI's terms.

    Raises:
        RequestRefused: OpenAI does not offer what is asked for.
    """
    if request.spec.n != 1:
        raise RequestRefused("n", f"{LABEL} makes one picture at a time in the background.")
    return build_request(replace(request, model=request.model.removesuffix(SUFFIX)))


def arguments(call: Call) -> dict[str, Any]:
    """Keyword arguments of `responses.create`."""
    tool: dict[str, Any] = {
        "type": "image_generation",
        "model": call.model,
        "size": call.size,
        "action": "edit" if call.files else "generate",
        "output_format": "png",
    }
    if call.quality is not None:
        tool["quality"] = call.quality
    content: list[dict[str, Any]] = [{"type": "input_text", "text": call.prompt}]
    for _, data, content_type in call.files:
        url = f"data:{content_type};base64,{base64.b64encode(data).decode()}"
        content.append({"type": "input_image", "image_url": url, "detail": "auto"})
    return {
        "model": MAIN_MODEL,
        "input": [{"role": "user", "content": content}],
        "background": True,
        # Without it some accounts forget the result after minutes.
        "store": True,
        "tools": [tool],
        "tool_choice": {"type": "image_generation"},
    }


def parse_background(payload: Json) -> Finished | Waiting:
    """
    What became of a response.

    Raises:
        ProviderError: It failed, was refused, or holds no picture.
    """
    if not isinstance(payload, Mapping):
        raise unreadable_answer("the answer is not an object")
    status = payload.get("status")
    if status in {"queued", "in_progress"}:
        return Waiting(poll_after_s=POLL_AFTER_S)
    if status == "completed":
        return _completed(payload)
    raise _ended(status, payload)


def remote_id(payload: Json) -> str:
    """
    The id of a new response.

    Raises:
        ProviderError: It names none.
    """
    found = payload.get("id") if isinstance(payload, Mapping) else None
    if not isinstance(found, str) or not found:
        raise unreadable_answer("the response has no id")
    return found


def _completed(payload: Mapping[str, Json]) -> Finished:
    output = payload.get("output")
    items = [item for item in output if isinstance(item, Mapping)] if isinstance(output, list) else []
    calls = [item for item in items if item.get("type") == "image_generation_call"]
    pictures = (parse_image({**item, "b64_json": item.get("result")}) for item in calls)
    images = tuple(picture for picture in pictures if picture is not None)
    if images:
        used = payload.get("tool_usage")
        usage = used.get("image_gen") if isinstance(used, Mapping) else None
        return Finished(images, usage_cost(usage) if isinstance(usage, Mapping) else None)
    errors = (item.get("error") for item in calls)
    told = next((error for error in errors if isinstance(error, Mapping)), None)
    if told is not None:
        raise _failed(told)
    if calls:
        failure = unreadable_answer("the picture call holds no picture")
        failure.ended = True
        raise failure
    raise ProviderError(
        f"{LABEL} answered in words instead of making a picture. Change the prompt and try again.",
        ErrorClass.PERMANENT,
        ErrorKind.POLICY,
    )


def _ended(status: Json, payload: Mapping[str, Json]) -> ProviderError:
    error, details = payload.get("error"), payload.get("incomplete_details")
    if status == "failed" and isinstance(error, Mapping):
        return _failed(error)
    if status == "cancelled":
        return ProviderError(f"The picture was cancelled at {LABEL}.", ErrorClass.PERMANENT, vendor_code="cancelled")
    reason = details.get("reason") if isinstance(details, Mapping) else None
    if status == "incomplete" and reason == "content_filter":
        return _failed({"code": "moderation_blocked", "message": "content_filter"})
    failure = ProviderError(f"{LABEL} did not finish the picture.", ErrorClass.TEMPORARY, vendor_code=str(status))
    # A status that nobody knows may still change; these two do not.
    failure.ended = status in {"failed", "incomplete"}
    return failure


def _failed(error: Mapping[str, Json]) -> ProviderError:
    code = error.get("code")
    known = {**error, "type": "invalid_request_error"} if code in _REQUEST_CODES else error
    failure = stream_error(known)
    failure.ended = True
    return failure


class OpenAIBackgroundProvider(OpenAIProvider):
    """OpenAI with models that work in the background, for servers that it can call."""

    models: tuple[ModelInfo, ...] = (*OpenAIProvider.models, *MODELS)
    webhook: WebhookScheme = Standard()

    def check(self, request: ImageRequest) -> None:
        """Refuse what OpenAI does not offer."""
        if request.model in _IDS:
            build_background(request)
        else:
            super().check(request)

    async def submit(self, request: ImageRequest, progress: ProgressSink) -> Submission:  # type: ignore[override]
        """
        Ask for the picture; a background model answers at once, and calls.

        Raises:
            RequestRefused: As `check`.
            ProviderError: Everything else that can go wrong.
        """
        if request.model not in _IDS:
            return await super().submit(request, progress)
        call = build_background(request)
        if request.spec.previous_image and not call.files:
            raise RequestRefused("previousImage", "The picture to edit is missing.")
        try:
            answer = await self._client.responses.with_raw_response.create(**arguments(call))
            payload: Json = json.loads(answer.http_response.content)
        except (openai.OpenAIError, httpx2.HTTPError, ValueError, OSError) as error:
            raise to_provider_error(error, datetime.now(UTC)) from error
        promised = request.webhook_url is not None
        return Accepted(remote_id(payload), webhook_promised=promised, poll_after_s=POLL_AFTER_S)

    async def poll(self, remote_id: str) -> Finished | Waiting:
        """
        Ask what became of a response.

        Raises:
            ProviderError: It failed, or is not known (any more).
        """
        try:
            answer = await self._client.responses.with_raw_response.retrieve(remote_id)
            payload: Json = json.loads(answer.http_response.content)
        except openai.NotFoundError as error:
            message = f"{LABEL} does not keep the picture any more."
            raise ProviderError(message, ErrorClass.PERMANENT, ErrorKind.EXPIRED, vendor_code="404") from error
        except (openai.OpenAIError, httpx2.HTTPError, ValueError, OSError) as error:
            raise to_provider_error(error, datetime.now(UTC)) from error
        return parse_background(payload)

    async def cancel(self, remote_id: str) -> None:
        """Ask OpenAI to stop a response; one that has ended already is left."""
        try:
            await self._client.responses.with_raw_response.cancel(remote_id)
        except (openai.BadRequestError, openai.NotFoundError, openai.ConflictError):
            return
        except (openai.OpenAIError, httpx2.HTTPError, OSError) as error:
            raise to_provider_error(error, datetime.now(UTC)) from error

    def heard(self, payload: Mapping[str, Json], headers: Mapping[str, str]) -> Heard:
        """Calls hold an id and nothing else: what became of the response has to be fetched."""
        inner = payload.get("data")
        known = inner.get("id") if isinstance(inner, Mapping) else None
        kind = payload.get("type")
        state = kind if isinstance(kind, str) else "unknown"
        about = known if isinstance(known, str) and state.startswith("response.") else None
        return Heard(headers.get("webhook-id"), about, state)
