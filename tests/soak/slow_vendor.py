"""The OpenAI emulator with the delays of a real vendor, which remembers who called when."""

import asyncio
import random
from dataclasses import dataclass, field, replace
from time import monotonic

from tests.emulators.http import Exchange, Received
from tests.emulators.openai import Asked, Behaviour, OpenAIEmulator


@dataclass(slots=True)
class Call:
    """One request that the vendor takes money for, from the moment it understood it."""

    caller: str
    prompt: str
    begun: float
    ended: float | None = None


@dataclass
class SlowVendor(OpenAIEmulator):
    """Callers are told apart by their base URL: `base_url_of("worker-1")`."""

    billed: list[Call] = field(default_factory=list)
    least_s: float = 0.5
    most_s: float = 6.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._callers: dict[asyncio.Task[None] | None, str] = {}

    def base_url_of(self, caller: str) -> str:
        return f"{self.origin}/{caller}/v1"

    async def handle(self, request: Received, exchange: Exchange) -> None:
        _, caller, rest = request.path.split("/", 2)
        self._callers[asyncio.current_task()] = caller
        await super().handle(replace(request, path=f"/{rest}"), exchange)

    async def _behave(self, behaviour: Behaviour, asked: Asked, exchange: Exchange) -> None:
        call = Call(self._callers[asyncio.current_task()], str(asked.fields["prompt"]), monotonic())
        self.billed.append(call)
        try:
            await asyncio.sleep(random.uniform(self.least_s, self.most_s))  # noqa: S311 - not a secret
            await super()._behave(behaviour, asked, exchange)
        finally:
            call.ended = monotonic()
            self.made.clear()
