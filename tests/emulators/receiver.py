"""A back end that asked to be told of the end of its jobs: checks signatures as others do, and misbehaves as told."""

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from standardwebhooks import Webhook, WebhookVerificationError

from tests.emulators.http import Exchange, HttpEmulator, Received


@dataclass
class Receiver(HttpEmulator):
    """Answers with `statuses` one after the other, the last for ever; a dict holds headers besides "status".

    Attributes:
        secrets: What this receiver checks signatures with; it takes a call that any of them fits.
        verified: (webhook-id, body) of each call whose signature fits.
        gate: Calls to /slow wait for it.

    """

    secrets: tuple[str, ...] = ()
    statuses: list[int | dict[str, Any]] = field(default_factory=lambda: [204])
    verified: list[tuple[str, Any]] = field(default_factory=list)
    forged: list[str] = field(default_factory=list)
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    _heard: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def handle(self, request: Received, exchange: Exchange) -> None:
        self._verify(request)
        async with self._heard:
            self._heard.notify_all()
        if request.path == "/slow":
            await self.gate.wait()
        if request.path == "/endless":
            await exchange.start(200, {"content-type": "text/plain"})
            while not exchange.left:
                await exchange.chunk(b"x" * 1024)
            return
        told = self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]
        headers: Mapping[str, str] = {} if isinstance(told, int) else told["headers"]
        await exchange.answer(told if isinstance(told, int) else told["status"], b"", headers)

    async def heard(self, count: int = 1, timeout_s: float = 20.0) -> None:
        """Wait until so many calls have come."""
        await self.until(lambda: len(self.journal) >= count, timeout_s)

    async def until(self, condition: Callable[[], bool], timeout_s: float = 20.0) -> None:
        """Wait until the condition holds; looked at after every call."""
        async with asyncio.timeout(timeout_s), self._heard:
            await self._heard.wait_for(condition)

    def _verify(self, request: Received) -> None:
        for secret in self.secrets:
            try:
                Webhook(secret).verify(request.body, dict(request.headers))
            except WebhookVerificationError:
                continue
            self.verified.append((request.headers["webhook-id"], json.loads(request.body)))
            return
        self.forged.append(request.headers.get("webhook-id", ""))
