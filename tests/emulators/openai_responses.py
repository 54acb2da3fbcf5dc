"""
OpenAI's Responses API in background mode on loopback, with the calls it makes, beside its Images API.

Strict about what it is asked. A response stays `queued` until `finish` says what becomes of it, which also calls the
address that was registered, signed by an independent library.
"""

import base64
import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import httpx2
from standardwebhooks.webhooks import Webhook

from tests.emulators.http import Exchange, Received
from tests.emulators.openai import FREE_SIZES, MODELS, STANDARD_SIZES, Asked, Objection, OpenAIEmulator

PATH = "/v1/responses"
FIELDS = frozenset({"model", "input", "background", "store", "tools", "tool_choice", "metadata"})
TOOL_FIELDS = frozenset(
    {"type", "model", "size", "quality", "output_format", "action", "background", "moderation", "input_image_mask"}
)


@dataclass
class Background:
    """A response as OpenAI keeps it."""

    id: str
    asked: Mapping[str, Any]
    status: str = "queued"
    more: dict[str, Any] = field(default_factory=dict)
    output: list[Any] = field(default_factory=list)
    retrieved: int = 0

    @property
    def body(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": "response",
            "created_at": 1_795_000_000,
            "status": self.status,
            "background": True,
            "model": self.asked["model"],
            "output": self.output,
            "error": None,
            "an_unknown_field": {},
            **self.more,
        }


@dataclass
class OpenAIResponsesEmulator(OpenAIEmulator):
    """`responses` holds what was asked for, `sent` the answers to its calls; `..._answers` stand in for the truth."""

    responses: dict[str, Background] = field(default_factory=dict)
    secret: str = ""
    hook: str = ""
    sent: list[int] = field(default_factory=list)
    create_answers: list[tuple[int, Any, dict[str, str]]] = field(default_factory=list)
    retrieve_answers: list[tuple[int, Any, dict[str, str]]] = field(default_factory=list)
    automatic: str = ""
    """What becomes of every response at once, if anything."""
    cancelled: list[str] = field(default_factory=list)

    async def handle(self, request: Received, exchange: Exchange) -> None:
        if not request.path.startswith(PATH):
            await super().handle(request, exchange)
            return
        try:
            await self._respond(request, exchange)
        except Objection as objection:
            await exchange.answer(objection.status, objection.body)

    async def _respond(self, request: Received, exchange: Exchange) -> None:
        if not re.fullmatch(r"Bearer sk-\S+", request.headers.get("authorization", "")):
            raise Objection(401, "invalid_api_key", "Incorrect API key provided.")
        match request.method, request.path.removeprefix(PATH).strip("/").split("/"):
            case "POST", [""]:
                await self._create(request, exchange)
            case "GET", [known]:
                await self._retrieve(self._known(known), exchange)
            case "POST", [known, "cancel"]:
                response = self._known(known)
                self.cancelled.append(known)
                if response.status in {"queued", "in_progress"}:
                    response.status = "cancelled"
                await exchange.answer(200, response.body)
            case _:
                raise Objection(404, "not_found", f"Invalid URL ({request.method} {request.path})")

    async def _create(self, request: Received, exchange: Exchange) -> None:
        asked = _understood(request)
        if self.create_answers:
            await _told(exchange, self.create_answers.pop(0))
            return
        response = Background(f"resp_{len(self.responses) + 1:08d}", asked)
        self.responses[response.id] = response
        if self.automatic:
            # The call may well be there before the answer is.
            await self.finish(response.id, self.automatic)
        early = {**response.body, "status": "queued", "output": []}
        await exchange.answer(200, early)

    async def _retrieve(self, response: Background, exchange: Exchange) -> None:
        response.retrieved += 1
        if self.retrieve_answers:
            await _told(exchange, self.retrieve_answers.pop(0))
            return
        await exchange.answer(200, response.body)

    def _known(self, response_id: str) -> Background:
        if response_id not in self.responses:
            raise Objection(404, "not_found", f"Response with id '{response_id}' not found.")
        return self.responses[response_id]

    def settle(self, response_id: str, how: str) -> str:
        """Decide what becomes of a response, without telling; returns the type of the event."""
        response = self.responses[response_id]
        item: dict[str, Any] = {"type": "image_generation_call", "id": "ig_1", "status": "completed", "result": None}
        response.status = how.partition(":")[0]
        match how.split(":"):
            case ["completed"]:
                tool = response.asked["tools"][0]
                picture = self._picture(Asked({"size": tool["size"], "prompt": ""}, 0, edit=False))
                item |= {"result": base64.b64encode(picture).decode(), "size": tool["size"], "revised_prompt": "x"}
                response.output = [{"type": "reasoning", "id": "rs_1", "summary": []}, item]
                usage = {"input_tokens": 10, "output_tokens": 1000, "total_tokens": 1010}
                response.more = {"tool_usage": {"image_gen": usage}, "usage": {"input_tokens": 99}}
            case ["completed", "words"]:
                response.output = [{"type": "message", "role": "assistant", "content": []}]
            case ["completed", "moderated"]:
                error = {"code": "moderation_blocked", "message": "No.", "type": "image_generation_user_error"}
                response.output = [{**item, "status": "failed", "error": error}]
            case ["completed", "empty"]:
                response.output = [item]
            case ["completed", "garbage"]:
                response.output = [{**item, "result": "%%%"}, "text", 5]
            case ["failed", code]:
                response.more = {"error": {"code": code, "message": "It did not work."}}
            case ["incomplete", reason]:
                response.more = {"incomplete_details": {"reason": reason}}
        return f"response.{response.status}"

    async def finish(self, response_id: str, how: str = "completed", *, times: int = 1) -> None:
        """Decide what becomes of a response, and call."""
        kind = self.settle(response_id, how)
        await self.tell(kind, response_id, times=times)

    async def tell(self, kind: str, response_id: str, *, event_id: str = "", times: int = 1) -> None:
        """Call the registered address, signed."""
        event_id = event_id or f"evt_{response_id}_{kind}"
        event = {"id": event_id, "object": "event", "created_at": int(time.time()), "type": kind}
        body = json.dumps({**event, "data": {"id": response_id}})
        now = datetime.now(UTC)
        signature = Webhook(self.secret).sign(event_id.replace(".", "_"), now, body)
        headers = {
            "content-type": "application/json",
            "user-agent": "OpenAI/1.0 (+https://platform.openai.com/docs/webhooks)",
            "webhook-id": event_id.replace(".", "_"),
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": signature,
        }
        async with httpx2.AsyncClient(trust_env=False) as client:
            for _ in range(times):
                self.sent.append((await client.post(self.hook, content=body, headers=headers)).status_code)


async def _told(exchange: Exchange, answer: tuple[int, Any, dict[str, str]]) -> None:
    status, body, headers = answer
    if status == 0:
        exchange.reset()
        return
    await exchange.answer(status, body.encode() if isinstance(body, str) else body, headers)


def _understood(request: Received) -> Mapping[str, Any]:
    """Hold a request against everything the real API is known to insist on."""
    if request.headers.get("content-type") != "application/json":
        raise Objection(400, "invalid_content_type", "Send application/json.")
    asked: dict[str, Any] = json.loads(request.body)
    if unknown := set(asked) - FIELDS:
        raise Objection(400, "unknown_parameter", f"Unknown parameter: '{min(unknown)}'.", min(unknown))
    if asked.get("background") is not True or asked.get("store") is not True or not asked.get("model"):
        raise Objection(400, "invalid_value", "Background needs store and a model.")
    tools = asked.get("tools")
    if not isinstance(tools, list) or len(tools) != 1 or set(tools[0]) - TOOL_FIELDS:
        raise Objection(400, "invalid_value", "Name one picture tool.", "tools")
    tool = tools[0]
    if tool.get("type") != "image_generation" or tool.get("model") not in MODELS:
        raise Objection(400, "invalid_value", "Unknown model.", "tools[0].model")
    if tool.get("size", "auto") not in STANDARD_SIZES and tool["model"] not in FREE_SIZES:
        raise Objection(400, "invalid_value", "Invalid size.", "tools[0].size")
    if asked.get("tool_choice") != {"type": "image_generation"}:
        raise Objection(400, "invalid_value", "The tool has to be called.", "tool_choice")
    _check_input(asked.get("input"), tool)
    return asked


def _check_input(given: Any, tool: Mapping[str, Any]) -> None:
    if not isinstance(given, list) or len(given) != 1 or given[0].get("role") != "user":
        raise Objection(400, "invalid_value", "Send one message of the user.", "input")
    parts = [part.get("type") for part in given[0]["content"]]
    pictures = parts.count("input_image")
    if parts.count("input_text") != 1 or len(parts) != 1 + pictures:
        raise Objection(400, "invalid_value", "Send a text and pictures.", "input")
    if (tool.get("action") == "edit") != bool(pictures):
        raise Objection(400, "invalid_value", "An edit needs a picture.", "tools[0].action")
