"""One attempt at a run as a straight story: begin, ask the maker, fetch, check, store, tell.

Nothing here waits for the next poll or the next try: an attempt that has to wait says when to come back, and ends.
"""

import asyncio
import datetime as dt
import logging
import math
import random
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, TypeAlias, TypeVar

from jobs import fallback
from jobs import policy as rules
from jobs.deliveries import Kept
from jobs.dispatcher import Places
from jobs.errors import (
    BadImage,
    BudgetExceeded,
    DatabaseAway,
    PlaceLost,
    RunBusy,
    RunFinished,
    RunNotFound,
    StorageUnavailable,
    WriteRefused,
)
from jobs.gallery import PREVIEW_INTERVAL_S, Fetch, Gallery
from jobs.images import ImageWorkshop
from jobs.outage import Patience, outlast
from jobs.policy import Retry, RetryPolicy
from jobs.progress import ProgressReporter
from jobs.reading import utcnow
from jobs.run import Run
from jobs.runs import Runs
from jobs.settlement import SILENT, Callbacks, Learnt, learn
from jobs.state import (
    Accepted,
    Answered,
    Completed,
    Event,
    Failed,
    Incident,
    Interrupted,
    RetryScheduled,
    RunError,
    Stage,
    StageEntered,
    Status,
    StoredImage,
)
from jobs.storage import ImageStore
from jobs.trouble import log_trouble
from providers import base
from providers.base import Finished, ImageProvider, ImageRequest, ImageResult, Progress, PromptSpec, Waiting
from providers.errors import (
    ErrorClass,
    ErrorKind,
    InvalidSpec,
    ProviderError,
    RequestRefused,
    UnknownModel,
    UnknownProvider,
)
from providers.registry import Registry

T = TypeVar("T")
logger = logging.getLogger(__name__)

ONE_TRY: Final = Patience(total_s=0.0, write_limit_s=5.0)
MAX_ANSWERS: Final = 64
BUSY_MARGIN: Final = dt.timedelta(milliseconds=200)
"""Added to the moment at which another worker will have shown whether it lives."""


@dataclass(frozen=True, slots=True)
class Done:
    """Nothing more to do for this run here."""


@dataclass(frozen=True, slots=True)
class Later:
    """Come back at this time.

    Attributes:
        waits: It has no place at its maker till then, and needs one first.

    """

    when: dt.datetime
    waits: bool = False


Next: TypeAlias = Done | Later


Measured: TypeAlias = Callable[[Run, Stage, float, bool], None]
"""Hears of a stage of a run how many seconds it took and whether it succeeded."""


def unmeasured(_run: Run, _stage: Stage, _seconds: float, _succeeded: bool) -> None:  # noqa: FBT001 - a callback
    """Nobody wants to know."""


@dataclass(slots=True)
class _Attempt:
    """What an attempt at work knows of itself."""

    run: Run
    stage: Stage
    provider: ImageProvider | None = None
    answer: Finished | None = None
    preview_url: str | None = None
    previewed_at: float = -math.inf
    preview_keys: list[str] = field(default_factory=list)
    stored_keys: list[str] = field(default_factory=list)

    @property
    def label(self) -> str:
        """The maker's name for people."""
        return self.provider.label if self.provider else self.run.provider

    @property
    def billing_ambiguous(self) -> bool:
        """Whether a maker that does not say so may be making, and billing, a picture for it right now."""
        return self.run.remote_id is None and self.stage in {Stage.SUBMITTING, Stage.GENERATING}


class Actor:
    """Makes attempts.

    Args:
        runs: The truth.
        registry: The makers.
        images: Checks and shrinks pictures.
        store: Keeps pictures.
        progress: Hears how far attempts are.
        fetch: Downloads a picture, see `Fetch`.
        worker_id: Whose attempts these are.
        policy: Limits.
        places: Gives runs their turn at makers; None: each may go at once.
        patience: How long an outcome waits for the database.
        clock: The time, aware UTC.
        jitter: Draws from [0, 1).
        sleep: Waits so many seconds.
        stage_after_s: How long a stage lasts before it is worth an event.
        scratch: The folder of files that are being downloaded.
        measured: Hears how long each stage took and whether it succeeded; see `Measured`.

    """

    def __init__(  # noqa: PLR0913, PLR0917 - the seams of the whole road
        self,
        runs: Runs,
        registry: Registry,
        images: ImageWorkshop,
        store: ImageStore,
        progress: ProgressReporter,
        fetch: Fetch,
        worker_id: str,
        policy: RetryPolicy | None = None,
        *,
        places: Places | None = None,
        patience: Patience | None = None,
        callbacks: Callbacks | None = None,
        clock: Callable[[], dt.datetime] = utcnow,
        jitter: Callable[[], float] = random.random,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        stage_after_s: float = 0.5,
        scratch: Path | None = None,
        measured: Measured = unmeasured,
    ) -> None:
        self.worker_id = worker_id
        self.policy = policy or RetryPolicy()
        self._runs = runs
        self._registry = registry
        folder = scratch or Path(tempfile.gettempdir())
        self._gallery = Gallery(images, store, fetch, folder, self.policy, sleep=sleep, jitter=jitter)
        # What makers answered to attempts that failed afterwards: the next one here need not pay again.
        self._answers: dict[str, Finished] = {}
        self._progress = progress
        self._places = places
        self._measured = measured
        self._patience = patience or Patience()
        self._callbacks = callbacks or Callbacks()
        self._clock = clock
        self._jitter = jitter
        self._sleep = sleep
        self._stage_after_s = stage_after_s

    async def advance(self, run_id: str, began: Callable[[Run], None] | None = None) -> Next:
        """Make one attempt, or take the next step of one that waits for its maker.

        Args:
            run_id: Of the run.
            began: Told the run once it is in our hands.

        Returns:
            When to come back.

        """
        placed = self._places is not None
        try:
            run = await outlast(lambda _: self._runs.begin_attempt(run_id, self.worker_id, placed=placed), ONE_TRY)
        except RunBusy as busy:
            return Later(busy.retry_at + BUSY_MARGIN)
        except DatabaseAway:
            return Later(self._after(0.5 + self._jitter()))
        if run is None:
            return Done()
        if began is not None:
            began(run)
        attempt = _Attempt(run, run.stage)
        self._log("attempt_started", attempt)
        try:
            return await self._attempt(attempt)
        except PlaceLost:
            return Done()
        except WriteRefused as refused:
            await self._overtaken(attempt, refused)
            return Done()
        except asyncio.CancelledError:
            await self._interrupted(attempt)
            raise

    async def abandon(self, run_id: str) -> None:
        """Tell the maker of a run that ended without it to stop; best effort, in bounded time."""
        try:
            run = await self._runs.get(run_id)
        except RunNotFound:
            return
        if run.status in {Status.CANCELLED, Status.FAILED} and run.remote_id is not None:
            await self._tell_maker(run, run.remote_id)

    async def _attempt(self, attempt: _Attempt) -> Next:
        try:
            return await self._steps(attempt)
        except ProviderError as error:
            return await self._failed_attempt(attempt, error)
        except (RequestRefused, InvalidSpec, UnknownModel, UnknownProvider) as error:
            return await self._fail(attempt, rules.refused(str(error), attempt.stage))
        except BadImage as error:
            return await self._fail(attempt, rules.bad_image(attempt.label, error.reason, attempt.stage))
        except StorageUnavailable as error:
            self._log("storage_failed", attempt, reason=error.reason, level=logging.ERROR)
            return await self._fail(attempt, rules.storage_failed(attempt.stage))
        except (WriteRefused, DatabaseAway, PlaceLost):
            raise
        except Exception as error:  # noqa: BLE001 - the edge of the attempt: a bug of ours must not leave the run open
            log_trouble(logger, "attempt_crashed", error, run_id=attempt.run.id, attempt=attempt.run.attempt)
            message = "Something went wrong inside the server."
            ambiguous = attempt.billing_ambiguous
            unexpected = ProviderError(message, ErrorClass.TEMPORARY, billing_ambiguous=ambiguous)
            return await self._failed_attempt(attempt, unexpected, code="internal")

    async def _steps(self, attempt: _Attempt) -> Next:
        run = attempt.run
        attempt.provider = provider = self._registry.get(run.provider)
        answer: Finished | base.Accepted | Waiting | None = self._answers.pop(run.id, None)
        learnt: Learnt | None = None
        if answer is not None:
            self._log("answer_kept", attempt)
        elif run.remote_id is None:
            answer = await self._adopted(attempt, provider) or await self._submit(attempt, provider)
        else:
            learnt = await self._learn(attempt, provider, run.remote_id)
            answer = learnt.answer
        if isinstance(answer, Finished):
            await self._settle(attempt, answer)
            return Done()
        self._report(attempt, answer.progress if isinstance(answer, Waiting) else None, Stage.WAITING)
        called = answer.webhook_promised if isinstance(answer, base.Accepted) else learnt and not learnt.asked
        wait_s = self._callbacks.grace_s if called else rules.poll_after_s(answer.poll_after_s, self.policy)
        resume_at = self._after(wait_s)
        if isinstance(answer, base.Accepted):
            event = Accepted(answer.remote_id, answer.webhook_promised, resume_at)
            try:
                await self._record(attempt, event)
            except RunFinished:
                # Cancelled while the maker was taking the request: nobody else knows its id.
                await self._tell_maker(run, answer.remote_id)
                raise
            self._log("run_accepted", attempt)
        else:
            attempt.run = await self._park(attempt, resume_at, learnt)
        # Sooner than that where its maker has called meanwhile.
        return Later(attempt.run.resume_at or resume_at)

    async def _park(self, attempt: _Attempt, resume_at: dt.datetime, learnt: Learnt | None) -> Run:
        run = attempt.run
        polled, heard = (True, None) if learnt is None else (learnt.asked, learnt.heard)

        async def park(_again: bool) -> Run:  # noqa: FBT001 - as `outlast` calls it
            return await self._runs.park(run.id, run.attempt, resume_at, polled=polled, heard=heard)

        return await outlast(park, self._patience, self._sleep)

    async def _adopted(self, attempt: _Attempt, provider: ImageProvider) -> base.Accepted | None:
        """A job that the maker took though our record of it was lost, as a call of it tells: no second one is paid."""
        run = attempt.run
        if run.attempt == 1 or self._callbacks.of(run, provider) is None:
            return None
        known = await outlast(lambda _: self._runs.adopted_id(run), self._patience, self._sleep)
        if known is not None:
            self._log("job_adopted", attempt)
        return None if known is None else base.Accepted(known, webhook_promised=True)

    async def _learn(self, attempt: _Attempt, provider: ImageProvider, remote_id: str) -> Learnt:
        async def ask() -> Finished | Waiting:
            return await self._poll(attempt, provider, remote_id)

        async def silent() -> Finished | Waiting:
            self._log("webhook_silent", attempt, provider=provider.name, level=logging.WARNING)
            message = f"{provider.label} promised to call and did not within {self._callbacks.grace_s:g} s."
            await self._record(attempt, Incident(SILENT, message))
            return await ask()

        async def calls_about(run: Run) -> Sequence[Kept]:
            return await outlast(lambda _: self._runs.calls_about(run), self._patience, self._sleep)

        return await learn(attempt.run, provider, calls_about, ask, silent)

    async def _submit(self, attempt: _Attempt, provider: ImageProvider) -> Finished | base.Accepted:
        run = attempt.run
        self._report(attempt, None, Stage.SUBMITTING)
        spec = self._spec(run, provider)
        inputs = (await self._gallery.previous(spec.previous_image),) if spec.previous_image else ()
        request = ImageRequest(run.id, run.model, spec, inputs, self._callbacks.of(run, provider))
        provider.check(request)
        if self._places is not None and not await self._places.enter(run):
            raise PlaceLost(run.id)

        async def hear(progress: Progress) -> None:
            await self._hear(attempt, progress)

        call = self._in_time(provider.submit(request, hear), provider, billing_ambiguous=True)
        # A call that lasts is a picture in the making, whether or not the maker tells how far it is.
        return await self._lasting(attempt, Stage.GENERATING, call)

    def _spec(self, run: Run, provider: ImageProvider) -> PromptSpec:
        """What is asked for; as far as a maker can take it that it was not meant for."""
        if (run.provider, run.model) not in run.fallbacks:
            return run.spec
        fitting = fallback.fitted(provider, self._registry.resolve(run.provider, run.model)[1], run.spec)
        return fitting[0] if fitting is not None else run.spec

    async def _poll(self, attempt: _Attempt, provider: ImageProvider, remote_id: str) -> Finished | Waiting:
        attempt.stage = Stage.WAITING
        answer = await self._in_time(provider.poll(remote_id), provider, billing_ambiguous=False)
        if isinstance(answer, Waiting) and attempt.run.polls + 1 >= self.policy.poll_limit:
            await self._tell_maker(attempt.run, remote_id)
            raise ProviderError(
                f"{provider.label} took too long: it was asked {self.policy.poll_limit} times.",
                ErrorClass.PERMANENT,
                ErrorKind.TIMEOUT,
                billing_ambiguous=True,
            )
        return answer

    async def _settle(self, attempt: _Attempt, answer: Finished) -> None:
        """Turn the maker's answer into stored pictures and a completed run. One way for answers and for polls."""
        cost = answer.cost
        if cost is not None and cost.usd_micros > 0:
            # At once: whatever happens from here on, this was billed. A job that is asked about twice was billed once.
            if not await outlast(lambda _: self._runs.billed(attempt.run), self._patience, self._sleep):
                await self._record(attempt, Answered(cost))
            cost = None
        attempt.answer = replace(answer, cost=cost)
        if not answer.images:
            raise BadImage("it holds no picture")
        stored: list[StoredImage] = []
        lost: list[BadImage | ProviderError] = []
        for index, result in enumerate(answer.images):
            try:
                stored.append(await self._keep(attempt, index, result))
            except (BadImage, ProviderError) as error:
                if isinstance(error, ProviderError) and self._tries_left(attempt, error):
                    raise
                lost.append(error)
        if not stored:
            raise lost[0]
        told = tuple(f"{len(lost)} of {len(answer.images)} pictures could not be used: {error}" for error in lost[:1])
        await self._record(attempt, Completed(tuple(stored), cost, (*answer.adapted, *told)))
        self._log("run_completed", attempt)
        await self._end(attempt)

    async def _keep(self, attempt: _Attempt, index: int, result: ImageResult) -> StoredImage:
        """Fetch, check and store one picture of the answer."""
        with self._gallery.scratch() as path:
            work = self._gallery.fetched(result, path)
            data = await (self._lasting(attempt, Stage.DOWNLOADING, work) if result.url else work)
            prepared = await self._lasting(attempt, Stage.PROCESSING, self._gallery.prepare(data))
            place = self._gallery.place(attempt.run, index, prepared.picture, result.seed)
            attempt.stored_keys += [place.key, place.thumbnail_key]
            upload = self._gallery.store(place, data, prepared.thumbnail)
            await self._lasting(attempt, Stage.UPLOADING, upload)
        return place

    def _tries_left(self, attempt: _Attempt, error: ProviderError) -> bool:
        return isinstance(rules.decide(error, attempt.run.failures + 1, self.policy, 0.0), Retry)

    async def _failed_attempt(self, attempt: _Attempt, error: ProviderError, code: str | None = None) -> Next:
        if error.error_class is ErrorClass.RATE_LIMIT and attempt.run.remote_id is None:
            return await self._refused_attempt(attempt, error)
        failures = attempt.run.failures + 1
        decision = rules.decide(error, failures, self.policy, self._jitter())
        told = rules.run_error(error, attempt.stage, code)
        anew = error.ended and attempt.run.remote_id is not None
        # Each job that is taken clears `failures`; what bounds jobs that end badly is the number of attempts.
        if not isinstance(decision, Retry) or (anew and attempt.run.attempt >= self.policy.max_attempts):
            return await self._fall_back(attempt, told)
        return await self._try_again(attempt, told, self._after(decision.after_s), anew=anew)

    async def _refused_attempt(self, attempt: _Attempt, error: ProviderError) -> Next:
        """The maker has no time: everybody leaves it alone for a while, and the run waits without losing an attempt."""
        first = attempt.run.started_at or attempt.run.created_at
        waited_s = (self._clock() - first).total_seconds()
        if waited_s > self.policy.refusals_limit_s:
            return await self._fall_back(attempt, rules.too_busy(attempt.label, waited_s, attempt.stage))
        if self._places is None:
            resume_at = self._after(self.policy.base_s if error.retry_after_s is None else error.retry_after_s)
        else:
            resume_at = await self._places.refused(attempt.run, error.retry_after_s)
        return await self._try_again(attempt, rules.run_error(error, attempt.stage), resume_at)

    async def _try_again(
        self, attempt: _Attempt, told: RunError, resume_at: dt.datetime, *, anew: bool = False
    ) -> Next:
        await self._record(attempt, RetryScheduled(told, resume_at, anew))
        if attempt.answer is not None:
            self._answers[attempt.run.id] = attempt.answer
            if len(self._answers) > MAX_ANSWERS:
                del self._answers[next(iter(self._answers))]
        retry_s = (resume_at - self._clock()).total_seconds()
        self._log("attempt_failed", attempt, reason=told.code, retry_s=round(retry_s, 2))
        self._report(attempt, None, Stage.WAITING if attempt.run.remote_id else Stage.QUEUED)
        await self._gallery.forget(attempt.preview_keys)
        return Later(resume_at, waits=attempt.run.waits)

    async def _fall_back(self, attempt: _Attempt, error: RunError) -> Next:
        """Turn to the next maker that can and may; the run has failed where there is none."""
        run = attempt.run
        asked = (run.provider, run.model)
        for event in (
            fallback.steps(asked, run.fallbacks, run.spec, error, self._registry) if fallback.helps(error) else ()
        ):
            try:
                await self._record(attempt, event)
            except BudgetExceeded as no_room:
                self._log("fallback_without_budget", attempt, provider=event.provider, reason=no_room.scope)
                continue
            self._log("run_fell_back", attempt, provider=event.provider, reason=error.code, level=logging.WARNING)
            self._answers.pop(run.id, None)
            self._report(attempt, None, Stage.QUEUED)
            await self._gallery.forget(attempt.preview_keys)
            return Later(self._after(0.0), waits=attempt.run.waits)
        return await self._fail(attempt, error)

    async def _fail(self, attempt: _Attempt, error: RunError) -> Next:
        await self._record(attempt, Failed(error))
        self._log("run_failed", attempt, reason=error.code, level=logging.WARNING)
        await self._gallery.forget(attempt.stored_keys)
        await self._end(attempt)
        return Done()

    async def _overtaken(self, attempt: _Attempt, refused: WriteRefused) -> None:
        """The run went on, or ended, without us: leave no trace, unless the traces are another attempt's now."""
        self._log("attempt_overtaken", attempt, reason=type(refused).__name__)
        if refused.run.status in {Status.CANCELLED, Status.FAILED}:
            await self._gallery.forget(attempt.stored_keys)
        if refused.run.status.terminal:
            await self._end(attempt)

    async def _interrupted(self, attempt: _Attempt) -> None:
        """Cancelled, or the worker stops: let another worker go on at once, if there is anything to go on with."""
        event = Interrupted(attempt.billing_ambiguous)
        try:
            await outlast(lambda _: self._runs.record(attempt.run.id, attempt.run.attempt, event), ONE_TRY)
        except WriteRefused as refused:
            await self._overtaken(attempt, refused)
        except Exception as error:  # noqa: BLE001 - the sweep and the lease do without it
            self._log("interruption_not_recorded", attempt, reason=type(error).__name__, level=logging.WARNING)
        else:
            self._log("attempt_interrupted", attempt)

    async def _end(self, attempt: _Attempt) -> None:
        run = attempt.run
        self._progress.clear(run.workflow_id, run.node_id, run.id)
        await self._gallery.forget(attempt.preview_keys)

    async def _record(self, attempt: _Attempt, event: Event) -> None:
        run = attempt.run

        async def write(again: bool) -> Run:  # noqa: FBT001 - the one fact there is
            return await self._runs.record(run.id, run.attempt, event, after_seq=run.seq if again else None)

        attempt.run = await outlast(write, self._patience, self._sleep)

    async def _lasting(self, attempt: _Attempt, stage: Stage, work: Awaitable[T]) -> T:
        """Do work that is a stage of the attempt; told to watchers at once, recorded only if it lasts."""
        if stage is not Stage.GENERATING:
            self._report(attempt, None, stage)
        task = asyncio.ensure_future(work)
        now = asyncio.get_running_loop().time
        begun = now()
        try:
            done, _ = await asyncio.wait([task], timeout=self._stage_after_s)
            if not done:
                if attempt.stage is not stage:
                    self._report(attempt, None, stage)
                await self._record(attempt, StageEntered(stage))
            return await task
        finally:
            if not task.done():
                task.cancel()
                await asyncio.wait([task])
            if not task.cancelled():
                self._measured(attempt.run, stage, now() - begun, task.exception() is None)

    async def _in_time(self, call: Awaitable[T], provider: ImageProvider, *, billing_ambiguous: bool) -> T:
        try:
            async with asyncio.timeout(self.policy.attempt_limit_s):
                return await call
        except TimeoutError as error:
            message = f"{provider.label} did not answer within {self.policy.attempt_limit_s:g} s."
            raise ProviderError(
                message, ErrorClass.TEMPORARY, ErrorKind.TIMEOUT, billing_ambiguous=billing_ambiguous
            ) from error

    async def _hear(self, attempt: _Attempt, progress: Progress) -> None:
        attempt.stage = Stage.GENERATING
        now = asyncio.get_running_loop().time()
        if progress.preview is not None and now >= attempt.previewed_at + PREVIEW_INTERVAL_S:
            attempt.previewed_at = now
            shown = await self._gallery.preview(attempt.run, len(attempt.preview_keys), progress.preview)
            if shown is not None:
                key, attempt.preview_url = shown
                attempt.preview_keys.append(key)
        self._report(attempt, progress.fraction, Stage.GENERATING)

    async def _tell_maker(self, run: Run, remote_id: str) -> None:
        facts = {"action": "maker_told", "run_id": run.id, "provider": run.provider}
        try:
            async with asyncio.timeout(self.policy.notice_limit_s):
                await self._registry.get(run.provider).cancel(remote_id)
            logger.info("told the maker to stop", extra=facts)
        except Exception as error:  # noqa: BLE001 - the run has ended; the maker may do what it likes
            reason = {"action": "maker_not_told", "reason": type(error).__name__}
            logger.warning("could not tell the maker to stop", extra=facts | reason)

    def _report(self, attempt: _Attempt, fraction: float | None, stage: Stage) -> None:
        run = attempt.run
        attempt.stage = stage
        self._progress.report(
            run.workflow_id,
            run.node_id,
            run.id,
            stage=stage.value,
            progress=fraction,
            preview_url=attempt.preview_url,
            started_at=run.started_at or run.created_at,
            by=run.requested_by.get("name"),
        )

    def _after(self, seconds: float) -> dt.datetime:
        return self._clock() + dt.timedelta(seconds=seconds)

    def _log(
        self,
        action: str,
        attempt: _Attempt,
        *,
        level: int = logging.INFO,
        **facts: str | float,
    ) -> None:
        run = attempt.run
        known = {"run_id": run.id, "attempt": run.attempt, "room": run.workflow_id, "stage": attempt.stage.value}
        logger.log(level, action.replace("_", " "), extra={"action": action, **known, **facts})
