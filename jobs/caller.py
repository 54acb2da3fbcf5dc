"""Makes the calls that `jobs.outgoing` wrote: signed, tried again by a plan, slow receivers apart from the others."""

import asyncio
import datetime as dt
import logging
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from enum import StrEnum
from types import TracebackType
from typing import Final, Self

import httpx2

from jobs import signing
from jobs.calls import Call, Calls, Room
from jobs.outage import Patience, outlast, uncancelled
from jobs.reading import utcnow
from jobs.trouble import log_trouble
from providers.addresses import AllowList
from providers.errors import AddressRefused
from providers.guarded import Guard, Resolver, parse_url, resolve_host
from providers.http import create_client
from providers.retry_after import parse_retry_after

logger = logging.getLogger(__name__)

PLAN_S: Final = (5, 300, 1_800, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400)
"""Seconds before each further try, three days in all: the plan that Standard Webhooks suggests."""
SPREAD: Final = 0.2
"""Each wait is up to so much longer or shorter, so that what failed together does not come back together."""
MAX_ASKED_S: Final = 86_400.0
"""A receiver that asks for more time is not believed."""
ANSWER_BYTES: Final = 4 * 1024
"""Read of an answer at most; it says nothing to us, but a connection closed too early looks like an error."""
KEEP: Final = dt.timedelta(days=30)
"""So long a call that ended can be looked at."""
_GONE: Final = 410
_BUSY: Final = frozenset({429, 502, 503, 504})
_PATIENCE: Final = Patience(total_s=20.0)
_MAX_RESTING: Final = 500


class Outcome(StrEnum):
    """What came of a try."""

    DELIVERED = "delivered"
    FAILED = "failed"
    GONE = "gone"
    GIVEN_UP = "given_up"


@dataclass(frozen=True, slots=True)
class CallPace:
    """How a caller goes about its work (seconds).

    Attributes:
        limit_s: Time one try may take, from the name to the answer.
        claim_s: A call whose process has died is tried again after so long; longer than a try can last.
        tick_s: Between two looks at what is due; a poke makes the next look come at once.
        gather_s: Least time between two looks.
        trouble_s: After a failure of the database.
        forget_s: Between two removals of what ended long ago.
        calls: At once.
        per_host: At once to one host, so that a slow receiver holds up nobody else.

    """

    limit_s: float = 15.0
    claim_s: float = 60.0
    tick_s: float = 2.0
    gather_s: float = 0.1
    trouble_s: float = 2.0
    forget_s: float = 3_600.0
    calls: int = 32
    per_host: int = 4


def wait_s(failures: int, jitter: float, asked_s: float | None = None) -> float | None:
    """Seconds before the next try, or None when there is none; pure.

    Args:
        failures: Tries that have failed, from 1.
        jitter: In [0, 1); the caller draws it.
        asked_s: What the receiver asked for: it is never tried before.

    """
    if failures > len(PLAN_S):
        return None
    own = PLAN_S[failures - 1] * (1 - SPREAD + 2 * SPREAD * jitter)
    return own if asked_s is None else max(own, asked_s * (1 + SPREAD * jitter))


@dataclass(frozen=True, slots=True)
class _Answer:
    """What a try met: a status, or in its place the reason why there is none."""

    status: int | None
    error: str | None = None
    asked_s: float | None = None

    @property
    def delivered(self) -> bool:
        return self.status is not None and httpx2.codes.is_success(self.status)


class Caller:
    """Makes calls while the context is entered.

    Args:
        calls: The rows.
        keys: Awaited once, when the first call is made: what signs them.
        allow: Hosts and CIDRs that may be called though they are not public.
        told: Hears what came of each try.
        pace: See there.
        clock: The time, aware UTC.
        jitter: Draws from [0, 1).
        resolve: How names become addresses.

    """

    def __init__(  # noqa: PLR0913 - the seams of a part that talks to strangers
        self,
        calls: Calls,
        keys: Callable[[], Awaitable[Sequence[bytes]]],
        *,
        allow: Collection[str] = (),
        told: Callable[[Outcome], None] = lambda _: None,
        pace: CallPace | None = None,
        clock: Callable[[], dt.datetime] = utcnow,
        jitter: Callable[[], float] = random.random,
        resolve: Resolver = resolve_host,
    ) -> None:
        self._calls = calls
        self._read_keys = keys
        self._keys: Sequence[bytes] = ()
        self._allow = AllowList.parse(allow)
        self._told = told
        self._pace = pace or CallPace()
        self._clock = clock
        self._jitter = jitter
        self._resolve = resolve
        self._woken = asyncio.Event()
        self._busy: Counter[str] = Counter()
        self._resting: dict[str, float] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._stack = AsyncExitStack()

    @property
    def at_work(self) -> int:
        """Calls that are being made."""
        return len(self._tasks)

    def poke(self) -> None:
        """Tell that there may be a call to make; never waits."""
        self._woken.set()

    async def __aenter__(self) -> Self:
        self._client = await self._stack.enter_async_context(create_client(self._pace.limit_s))
        self._loop = asyncio.create_task(self._run(), name="calls")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Break off what is being called; any process may begin it anew at once."""
        tasks = [self._loop, *self._tasks]
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        await self._stack.aclose()

    async def _run(self) -> None:
        now = asyncio.get_running_loop().time
        forget_at = now() + self._pace.forget_s
        while True:
            try:
                await self._look()
                if now() >= forget_at:
                    forget_at = now() + self._pace.forget_s
                    await self._calls.forget(self._clock() - KEEP)
            except Exception as error:  # noqa: BLE001 - the edge of a task that must not end
                log_trouble(logger, "calls_not_read", error)
                await asyncio.sleep(self._pace.trouble_s)
            await asyncio.sleep(self._pace.gather_s)
            try:
                async with asyncio.timeout(self._pace.tick_s):
                    await self._woken.wait()
            except TimeoutError:
                continue

    async def _look(self) -> None:
        """Begin every call that is due and that there is room for."""
        self._woken.clear()
        room = self._room()
        if room.calls <= 0 or not await self._calls.due():
            return
        if not self._keys:
            self._keys = await self._read_keys()
        for call in await self._calls.take(room, self._pace.claim_s):
            self._busy[call.host] += 1
            task = asyncio.create_task(self._make(call), name="call")
            self._tasks.add(task)
            task.add_done_callback(self._made)

    def _room(self) -> Room:
        now = asyncio.get_running_loop().time()
        self._resting = {host: until for host, until in self._resting.items() if until > now}
        free = self._pace.calls - len(self._tasks)
        return Room(free, self._pace.per_host, dict(self._busy), tuple(self._resting))

    def _made(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self.poke()

    async def _make(self, call: Call) -> None:
        try:
            answer = await self._try(call)
            await self._settle(call, answer)
        except asyncio.CancelledError:
            await self._released(call)
            raise
        except Exception as error:  # noqa: BLE001 - the claim lapses, and the call is made again
            log_trouble(logger, "call_not_settled", error, call_id=call.id, run_id=call.run_id)
        finally:
            self._busy[call.host] -= 1
            if self._busy[call.host] <= 0:
                del self._busy[call.host]

    async def _try(self, call: Call) -> _Answer:
        body = call.body.encode()
        signed = signing.headers(self._keys, call.id, int(self._clock().timestamp()), body)
        headers = {"content-type": "application/json", "user-agent": "Darkroom", **signed}
        try:
            async with asyncio.timeout(self._pace.limit_s):
                guard = Guard(self._client, self._allow, self._resolve)
                response = await guard.send("POST", parse_url(call.url), headers, body)
                try:
                    await _read_a_little(response)
                finally:
                    await response.aclose()
        except AddressRefused as error:
            return _Answer(None, str(error))
        except (TimeoutError, httpx2.TimeoutException):
            return _Answer(None, f"no answer within {self._pace.limit_s:g} s")
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as error:
            return _Answer(None, f"the connection failed ({type(error).__name__})")
        asked_s = (
            parse_retry_after(response.headers, self._clock(), MAX_ASKED_S) if response.status_code in _BUSY else None
        )
        return _Answer(response.status_code, None, asked_s)

    async def _settle(self, call: Call, answer: _Answer) -> None:
        if answer.delivered:
            outcome, level = Outcome.DELIVERED, logging.INFO
        elif answer.status == _GONE:
            outcome, level = Outcome.GONE, logging.WARNING
        else:
            outcome, level = Outcome.FAILED, logging.INFO
        after_s = wait_s(call.attempts, self._jitter(), answer.asked_s) if outcome is Outcome.FAILED else None
        if outcome is Outcome.FAILED and after_s is None:
            outcome, level = Outcome.GIVEN_UP, logging.WARNING
        if answer.asked_s is not None and len(self._resting) < _MAX_RESTING:
            self._resting[call.host] = asyncio.get_running_loop().time() + answer.asked_s
        written = await outlast(lambda _: self._write(call, answer, outcome, after_s), _PATIENCE)
        if written:
            self._told(outcome)
            self._log(call, answer, outcome, level, after_s)

    async def _write(self, call: Call, answer: _Answer, outcome: Outcome, after_s: float | None) -> bool:
        if outcome is Outcome.DELIVERED:
            return await self._calls.delivered(call, answer.status or 0)
        error = answer.error or f"answered {answer.status}"
        if after_s is None:
            return await self._calls.ended(call, answer.status, error)
        until = self._clock() + dt.timedelta(seconds=after_s)
        return await self._calls.put_off(call, until, answer.status, error)

    async def _released(self, call: Call) -> None:
        try:
            await uncancelled(self._calls.released(call))
        except Exception as error:  # noqa: BLE001 - the claim lapses by itself
            log_trouble(logger, "call_not_released", error, call_id=call.id, run_id=call.run_id)

    def _log(self, call: Call, answer: _Answer, outcome: Outcome, level: int, after_s: float | None) -> None:
        # The address is left out: its path and query may be what lets people in.
        facts: dict[str, object] = {"action": f"call_{outcome}"}
        facts |= {"call_id": call.id, "run_id": call.run_id, "host": call.host}
        facts |= {"attempt": call.attempts, "status": answer.status, "reason": answer.error}
        if after_s is not None:
            facts["retry_s"] = round(after_s, 1)
        logger.log(level, "outgoing call %s", outcome.replace("_", " "), extra=facts)


async def _read_a_little(response: httpx2.Response) -> None:
    size = 0
    async for chunk in response.aiter_raw():
        size += len(chunk)
        if size >= ANSWER_BYTES:
            return
