"""What a maker says of a run it took: learnt from its calls, or by asking it, and told in one way."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from jobs.deliveries import Kept
from jobs.run import Run
from jobs.runs import Runs
from jobs.trouble import log_trouble
from providers.base import Finished, ImageProvider, Waiting
from providers.errors import ProviderError
from providers.webhooks import Heard, HearsWebhooks, believed

logger = logging.getLogger(__name__)

SILENT: Final = "webhook_silent"
"""Code of the incident that a maker which promised to call did not."""

Ask: TypeAlias = Callable[[], Awaitable[Finished | Waiting]]
CallsAbout: TypeAlias = Callable[[Run], Awaitable[Sequence[Kept]]]


@dataclass(frozen=True, slots=True)
class Callbacks:
    """Where makers call back.

    Attributes:
        address: The address for a run, where its maker can call and would be believed; else None.
        grace_s: A maker that promised to call is asked itself after so long a silence.

    """

    address: Callable[[Run], str | None] = field(default=lambda _: None)
    grace_s: float = 120.0

    def of(self, run: Run, provider: ImageProvider) -> str | None:
        """The address a maker is given with a run; None for one that does not call."""
        return self.address(run) if isinstance(provider, HearsWebhooks) else None


@dataclass(frozen=True, slots=True)
class Learnt:
    """What is known of a run.

    Attributes:
        answer: What became of it.
        heard: The calls that were considered; None where its maker makes none.
        asked: Whether its maker was asked.

    """

    answer: Finished | Waiting
    heard: Sequence[str] | None
    asked: bool


async def learn(run: Run, provider: ImageProvider, calls_about: CallsAbout, ask: Ask, silent: Ask) -> Learnt:
    """Learn what became of a run: its maker is asked only where no call of it says enough.

    Args:
        run: It has a remote id.
        provider: Its maker.
        calls_about: Reads its calls.
        ask: Asks the maker.
        silent: As `ask`, after telling that a call was promised and did not come.

    Raises:
        ProviderError: It failed, as a call or the maker says.

    """
    if not isinstance(provider, HearsWebhooks):
        return Learnt(await ask(), None, asked=True)
    calls = await calls_about(run)
    heard = [call.id for call in calls]
    told = verdict(provider, calls)
    if isinstance(told, ProviderError):
        raise told
    if told is not None:
        return Learnt(told, heard, asked=False)
    first_look = run.polls == 0 and run.failures == 0
    if not calls and run.webhook_promised and first_look:
        return Learnt(await silent(), heard, asked=True)
    return Learnt(await ask(), heard, asked=True)


async def forget_old_calls(runs: Runs, every_s: float = 3600.0) -> None:
    """Forget, for ever, the calls that are too old to come again."""
    while True:
        try:
            async with asyncio.timeout(every_s):
                gone = await runs.prune_deliveries()
            if gone:
                logger.info("calls forgotten", extra={"action": "calls_forgotten", "calls": gone})
        except Exception as error:  # noqa: BLE001 - the edge of a task that must not end
            log_trouble(logger, "calls_not_forgotten", error)
        await asyncio.sleep(every_s)


def verdict(provider: HearsWebhooks, calls: Sequence[Kept]) -> Finished | Waiting | ProviderError | None:
    """What calls say together, in whatever order they came: the first end that one tells; None: the maker is asked."""
    thin = False
    progress: Waiting | None = None
    for call in calls:
        answer = None if call.cut else understood(provider, call).answer
        if isinstance(answer, Finished | ProviderError):
            if believed(provider.webhook):
                return answer
            answer = None
        thin |= answer is None
        progress = answer or progress
    return None if thin else progress


def understood(provider: HearsWebhooks, call: Kept) -> Heard:
    """What a call says; one of a shape that nobody foresaw says nothing, so its maker is asked."""
    try:
        return provider.heard(call.payload, call.headers)
    except Exception as error:  # noqa: BLE001 - a genuine call may have any shape, and must not break the run
        log_trouble(logger, "call_not_understood", error, delivery=call.id)
        return Heard(None, None, call.state)
