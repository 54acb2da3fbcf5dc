"""
OpenAI's Images API on loopback: strict about what it is asked, scripted about what it answers.

In a test: `async with OpenAIEmulator().serving() as openai: openai.script(Behaviour.refuse(429)) ...`
As a process: `python -m tests.emulators.openai --port 9001`, which prints its address when it listens, with
`POST /admin/script {"behaviours": [...]}`, `POST /admin/release`, `POST /admin/reset`, `GET /admin/journal` and
`GET /admin/state`.

A request takes the first scripted behaviour whose `match` is part of its prompt; without one it succeeds.
"""

import argparse
import asyncio
import base64
import json
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any, Self

import pyvips  # type: ignore[import-untyped]

from tests.emulators.http import Exchange, HttpEmulator, Received, parse_multipart

GENERATIONS, EDITS = "/v1/images/generations", "/v1/images/edits"
FREE_SIZES = frozenset(
    {
        "gpt-image-2",
        "gpt-image-2-2026-04-21",
        "gpt-image-2.5-sunburst",
        "gpt-image-2.5-sunburst-2026-09-08",
        "gpt-image-2.5-flare",
        "gpt-image-2.5-flare-2026-09-08",
    }
)
MODELS = FREE_SIZES | {"gpt-image-2.6-sunburst", "gpt-image-2.6-flare"}
STANDARD_SIZES = frozenset({"auto", "1024x1024", "1536x1024", "1024x1536"})
COMMON_FIELDS = frozenset(
    {
        "prompt", "model", "n", "size", "quality", "background", "moderation", "output_format", "output_compression",
        "stream", "partial_images", "complexity", "safety_identifier", "user",
    }
)  # fmt: skip
EDIT_FIELDS = COMMON_FIELDS | {"image", "image[]", "mask", "markup"}
SIGNATURES = {"image/png": b"\x89PNG", "image/jpeg": b"\xff\xd8\xff", "image/webp": b"RIFF"}


class Kind(StrEnum):
    """What an answer looks like."""

    SUCCEED = "succeed"
    REFUSE = "refuse"  # `status` and `body`, JSON or text
    RESET = "reset"  # before a byte of the answer
    BREAK_OFF = "break_off"  # after the head of the answer, and after the previews of a stream
    CUT = "cut"  # a stream that ends in good order, without its result
    STREAM_ERROR = "stream_error"  # previews, then `body` as an error event
    PLAIN = "plain"  # one JSON answer although a stream was asked for
    DRIP = "drip"  # the head at once, then a byte now and then, for ever


class Hold(StrEnum):
    """Where an answer waits until it is released."""

    ANSWER = "answer"
    RESULT = "result"  # of a stream, after its previews


@dataclass(frozen=True, slots=True)
class Behaviour:
    """How one request is answered."""

    kind: Kind = Kind.SUCCEED
    status: int = 200
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    match: str = ""
    hold: Hold | None = None
    previews: int | None = None
    """How many previews really come; None: as many as were asked for."""
    images: Sequence[Any] | None = None
    """The `b64_json` of each entry, in place of the real ones."""
    usage: bool = True

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        fields = dict(value) | {"kind": Kind(value.get("kind", Kind.SUCCEED))}
        if fields.get("hold") is not None:
            fields["hold"] = Hold(fields["hold"])
        return cls(**fields)

    @classmethod
    def refuse(cls, status: int, code: str | None = None, message: str = "No.", **extra: Any) -> Self:
        """An error as OpenAI words it; `headers`, `match` and further fields of the error may be given."""
        headers, match = extra.pop("headers", {}), extra.pop("match", "")
        error = {"message": message, "type": "invalid_request_error", "param": None, "code": code, **extra}
        return cls(Kind.REFUSE, status=status, body={"error": error}, headers=headers, match=match)

    @classmethod
    def moderated(cls, *categories: str, stage: str = "input") -> Self:
        """A prompt, or a result, that the moderation stopped."""
        return cls.refuse(
            400,
            "moderation_blocked",
            f"Your request was rejected by the safety system. safety_violations=[{', '.join(categories)}].",
            type="image_generation_user_error",
            moderation_details={"moderation_stage": stage, "categories": list(categories)},
        )

    @classmethod
    def text(cls, body: str, status: int = 200, content_type: str = "application/json", **headers: str) -> Self:
        """A body sent as it stands."""
        return cls(Kind.REFUSE, status=status, body=body, headers={"content-type": content_type, **headers})


class Objection(Exception):
    """A request the real API would not take."""

    def __init__(self, status: int, code: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.body = {"error": {"message": message, "type": "invalid_request_error", "param": param, "code": code}}


@dataclass(frozen=True, slots=True)
class Asked:
    """A request that was understood."""

    fields: Mapping[str, Any]
    inputs: int
    edit: bool

    @property
    def prefix(self) -> str:
        return "image_edit" if self.edit else "image_generation"

    @property
    def size(self) -> tuple[int, int]:
        text = self.fields.get("size") or "auto"
        width, _, height = ("1024x1024" if text == "auto" else text).partition("x")
        return int(width), int(height)


@dataclass
class OpenAIEmulator(HttpEmulator):
    """One API; `made` holds every picture it gave away, `asked` every request it took."""

    made: list[bytes] = field(default_factory=list)
    asked: list[Asked] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._script: list[Behaviour] = []
        self._release = asyncio.Event()
        self._holding = asyncio.Condition()
        self.held = 0

    @property
    def base_url(self) -> str:
        return f"{self.origin}/v1"

    @property
    def calls(self) -> list[Received]:
        """The requests that could have cost money."""
        return [request for request in self.journal if not request.path.startswith("/admin/")]

    def script(self, *behaviours: Behaviour) -> None:
        """Queue behaviours for the requests to come."""
        self._script.extend(behaviours)

    def release(self) -> None:
        """Let every held answer go on; later ones are held again."""
        self._release.set()
        self._release = asyncio.Event()

    async def wait_held(self, count: int = 1) -> None:
        """Until so many answers are held."""
        async with self._holding:
            await self._holding.wait_for(lambda: self.held >= count)

    async def handle(self, request: Received, exchange: Exchange) -> None:
        if request.path.startswith("/admin/"):
            await self._administer(request, exchange)
            return
        try:
            asked = _understood(request)
        except Objection as objection:
            await exchange.answer(objection.status, objection.body, _headers())
            return
        self.asked.append(asked)
        await self._behave(self._next(str(asked.fields["prompt"])), asked, exchange)

    def _next(self, prompt: str) -> Behaviour:
        for behaviour in self._script:
            if behaviour.match in prompt:
                self._script.remove(behaviour)
                return behaviour
        return Behaviour()

    async def _behave(self, behaviour: Behaviour, asked: Asked, exchange: Exchange) -> None:
        if behaviour.hold is Hold.ANSWER:
            await self._hold()
        streams = asked.fields.get("stream") is True and behaviour.kind is not Kind.PLAIN
        match behaviour.kind:
            case Kind.REFUSE:
                body = behaviour.body.encode() if isinstance(behaviour.body, str) else behaviour.body
                await exchange.answer(behaviour.status, body, {**_headers(), **behaviour.headers})
            case Kind.RESET:
                exchange.reset()
            case Kind.DRIP:
                await self._drip(exchange, streams=streams)
            case _ if streams:
                await self._stream(behaviour, asked, exchange)
            case Kind.BREAK_OFF:
                await exchange.start(200, {"content-type": "application/json"})
                await exchange.chunk(b'{"created": 17')
                exchange.break_off()
            case _:
                await exchange.answer(200, self._answer(behaviour, asked), _headers())

    async def _stream(self, behaviour: Behaviour, asked: Asked, exchange: Exchange) -> None:
        await exchange.start(200, {**_headers(), "content-type": "text/event-stream; charset=utf-8"})
        wanted = int(asked.fields.get("partial_images", 0))
        for index in range(wanted if behaviour.previews is None else behaviour.previews):
            event = {**_described(asked), "b64_json": _encoded(self._picture(asked)), "partial_image_index": index}
            await exchange.chunk(_event(f"{asked.prefix}.partial_image", event))
        if behaviour.hold is Hold.RESULT:
            await self._hold()
        if behaviour.kind is Kind.BREAK_OFF:
            exchange.break_off()
            return
        if behaviour.kind is Kind.STREAM_ERROR:
            await exchange.chunk(f"event: error\ndata: {json.dumps(behaviour.body)}\n\n".encode())
        elif behaviour.kind is not Kind.CUT:
            answer = self._answer(behaviour, asked)
            event = {**_described(asked), **answer["data"][0], "usage": answer["usage"]}
            await exchange.chunk(_event(f"{asked.prefix}.completed", event))
        await exchange.end()

    async def _drip(self, exchange: Exchange, *, streams: bool) -> None:
        await exchange.start(200, {"content-type": "text/event-stream" if streams else "application/json"})
        release = self._release
        while not release.is_set() and not exchange.left:
            await exchange.chunk(b": still here\n\n" if streams else b" ")
            try:
                await asyncio.wait_for(release.wait(), 0.02)
            except TimeoutError:
                continue
        exchange.break_off()

    async def _hold(self) -> None:
        release = self._release
        async with self._holding:
            self.held += 1
            self._holding.notify_all()
        try:
            await release.wait()
        finally:
            self.held -= 1

    def _answer(self, behaviour: Behaviour, asked: Asked) -> dict[str, Any]:
        count = int(asked.fields.get("n") or 1)
        images = behaviour.images
        if images is None:
            images = [_encoded(self._picture(asked)) for _ in range(count)]
        usage = _usage(asked, count) if behaviour.usage else None
        data = [{"b64_json": image, "an_unknown_field": 1} for image in images]
        return {"created": 1_795_000_000, "data": data, "usage": usage, **_described(asked), "an_unknown_field": {}}

    def _picture(self, asked: Asked) -> bytes:
        """A small PNG of the wanted aspect, unlike every one before it."""
        width, height = asked.size
        scale = 64 / max(width, height)
        number = len(self.made) + 1
        colour = [number * 37 % 256, number * 101 % 256, number * 151 % 256]
        image = pyvips.Image.black(max(1, round(width * scale)), max(1, round(height * scale)), bands=3) + colour
        data: bytes = image.cast("uchar").copy(interpretation="srgb").pngsave_buffer()
        self.made.append(data)
        return data

    async def _administer(self, request: Received, exchange: Exchange) -> None:
        match (request.method, request.path):
            case ("POST", "/admin/script"):
                self.script(*(Behaviour.from_json(each) for each in request.json()["behaviours"]))
                await exchange.answer(200, self._state())
            case ("POST", "/admin/release"):
                released = self.held
                self.release()
                await exchange.answer(200, {"released": released})
            case ("POST", "/admin/reset"):
                self._script.clear()
                self.journal.clear()
                self.asked.clear()
                self.release()
                await exchange.answer(200, self._state())
            case ("GET", "/admin/journal"):
                await exchange.answer(200, {"calls": [_logged(call) for call in self.calls]})
            case ("GET", "/admin/state"):
                await exchange.answer(200, self._state())
            case _:
                await exchange.answer(404, {"error": "no such admin route"})

    def _state(self) -> dict[str, Any]:
        scripted = [asdict(behaviour) for behaviour in self._script]
        return {"held": self.held, "calls": len(self.calls), "made": len(self.made), "scripted": scripted}


def _understood(request: Received) -> Asked:
    """Hold a request against everything the real API is known to insist on."""
    if not re.fullmatch(r"Bearer sk-\S+", request.headers.get("authorization", "")):
        raise Objection(401, "invalid_api_key", "Incorrect API key provided.")
    if request.method != "POST" or request.path not in {GENERATIONS, EDITS}:
        raise Objection(404, "not_found", f"Invalid URL ({request.method} {request.path})")
    asked = _edit(request) if request.path == EDITS else _generation(request)
    _check_fields(asked)
    return asked


def _generation(request: Received) -> Asked:
    if request.headers.get("content-type") != "application/json":
        raise Objection(400, "invalid_content_type", "Send application/json.")
    try:
        fields = json.loads(request.body)
    except ValueError:
        fields = None
    if not isinstance(fields, dict):
        raise Objection(400, "invalid_json", "The body is not a JSON object.")
    return Asked(fields, 0, edit=False)


def _edit(request: Received) -> Asked:
    try:
        parts = parse_multipart(request.headers.get("content-type", ""), request.body)
    except ValueError as error:
        raise Objection(400, "invalid_content_type", f"Send a multipart form: {error}.") from error
    pictures = [part for part in parts if part.name in {"image", "image[]"}]
    names = {part.name for part in pictures}
    if not 1 <= len(pictures) <= 16 or len(names) > 1 or (len(pictures) > 1 and names == {"image"}):
        raise Objection(400, "invalid_value", "Send 1 to 16 pictures, as image or as image[].", "image")
    for part in pictures:
        signature = SIGNATURES.get(part.content_type or "")
        if signature is None or not part.data.startswith(signature) or not part.filename:
            raise Objection(400, "invalid_image_file", "A picture is not what it says it is.", "image")
    fields: dict[str, Any] = {part.name: part.data.decode() for part in parts if part.name not in names}
    for name in ("n", "partial_images"):
        if fields.get(name, "").isdigit():
            fields[name] = int(fields[name])
    if "stream" in fields:
        fields["stream"] = fields["stream"] == "true"
    return Asked(fields, len(pictures), edit=True)


def _check_fields(asked: Asked) -> None:
    fields = asked.fields
    unknown = set(fields) - (EDIT_FIELDS if asked.edit else COMMON_FIELDS)
    if unknown:
        name = min(unknown)
        raise Objection(400, "unknown_parameter", f"Unknown parameter: '{name}'.", name)
    prompt = fields.get("prompt")
    if not isinstance(prompt, str) or not 1 <= len(prompt) <= 32_000:
        raise Objection(400, "invalid_value", "The prompt has 1 to 32000 characters.", "prompt")
    model = fields.get("model")
    if model not in MODELS:
        raise Objection(404, "model_not_found", f"The model '{model}' does not exist.", "model")
    qualities = {"auto", "low", "medium", "high"} | ({"xhigh", "max"} if "-2.5-" in str(model) else set())
    if fields.get("quality", "auto") not in qualities:
        raise Objection(400, "invalid_value", "Unknown quality.", "quality")
    _check_size(str(model), fields.get("size", "auto"))
    _check_counts(fields)


def _check_size(model: str, size: object) -> None:
    match = re.fullmatch(r"(\d+)x(\d+)", str(size))
    if size in STANDARD_SIZES:
        return
    if match is None or model not in FREE_SIZES:
        raise Objection(400, "invalid_value", f"Invalid size '{size}'.", "size")
    width, height = int(match[1]), int(match[2])
    fits = width % 16 == 0 and height % 16 == 0 and max(width, height) <= min(3 * min(width, height), 3840)
    if not fits or not 655_360 <= width * height <= 8_294_400:
        raise Objection(400, "invalid_value", f"Invalid size '{size}'.", "size")


def _check_counts(fields: Mapping[str, Any]) -> None:
    n, partials, stream = fields.get("n", 1), fields.get("partial_images"), fields.get("stream", False)
    if not isinstance(n, int) or isinstance(n, bool) or not 1 <= n <= 10:
        raise Objection(400, "invalid_value", "n is 1 to 10.", "n")
    if not isinstance(stream, bool):
        raise Objection(400, "invalid_type", "stream is true or false.", "stream")
    if stream and n != 1:
        raise Objection(400, "invalid_value", "Streaming makes one picture.", "n")
    if partials is not None and (not stream or not isinstance(partials, int) or not 0 <= partials <= 3):
        raise Objection(400, "invalid_value", "partial_images is 0 to 3, with stream only.", "partial_images")


def _described(asked: Asked) -> dict[str, Any]:
    width, height = asked.size
    quality = asked.fields.get("quality") or "auto"
    return {
        "created_at": 1_795_000_000,
        "size": f"{width}x{height}",
        "quality": "medium" if quality == "auto" else quality,
        "background": "opaque",
        "output_format": "png",
    }


def _usage(asked: Asked, count: int) -> dict[str, Any]:
    text, images = len(str(asked.fields["prompt"])) // 4 + 1, 300 * asked.inputs
    output = 1056 * count + 100 * int(asked.fields.get("partial_images") or 0)
    return {
        "input_tokens": text + images,
        "input_tokens_details": {"text_tokens": text, "image_tokens": images, "an_unknown_field": 0},
        "output_tokens": output,
        "total_tokens": text + images + output,
    }


def _event(kind: str, fields: Mapping[str, Any]) -> bytes:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **fields})}\n\n".encode()


def _encoded(picture: bytes) -> str:
    return base64.b64encode(picture).decode()


def _headers() -> dict[str, str]:
    return {
        "x-request-id": "req_emulated",
        "x-ratelimit-limit-requests": "5",
        "x-ratelimit-remaining-requests": "4",
        "x-ratelimit-reset-requests": "12s",
    }


def _logged(call: Received) -> dict[str, Any]:
    is_json = call.headers.get("content-type") == "application/json"
    shown = {name: value for name, value in call.headers.items() if name != "authorization"}
    body = call.body.decode() if is_json else f"{len(call.body)} bytes"
    return {"method": call.method, "path": call.path, "headers": shown, "body": body, "at": call.at}


async def main() -> None:
    parser = argparse.ArgumentParser(description="OpenAI's Images API on loopback.")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    async with OpenAIEmulator().serving(parser.parse_args().port) as emulator:
        sys.stdout.write(f"{emulator.base_url}\n")
        sys.stdout.flush()
        await asyncio.Event().wait()


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except KeyboardInterrupt:
        sys.exit(0)
