"""A run as a value, what an event makes of it, and what its node shows of it. Pure."""

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from crdt.json import Json
from jobs.state import (
    Accepted,
    Answered,
    Cancelled,
    Completed,
    Event,
    Failed,
    FellBack,
    Heard,
    Incident,
    Interrupted,
    Restored,
    RetryScheduled,
    RunError,
    Stage,
    StageEntered,
    Started,
    Status,
    image_json,
    transition,
)
from providers.base import Cost, PromptSpec

MICROS: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Run:
    """One request for pictures on one node, as SQL has it.

    Attributes:
        after: The run it was requested after; None when it is the node's first.
        ordinal: Its place in the node's chain of runs, from 1; the largest is the node's current run.
        seq: Number of its latest event, from 1 without a gap.
        attempt: Raised whenever a worker begins anew or takes over; writes name theirs.
        failures: Attempts that failed and were, or may be, tried again.
        crashes: Attempts begun since the last that ended in an orderly way.
        worker: Who works on it now; None while it is queued or parked.
        processor: "provider:model".
        user_id: Who asked for it, where that is known.
        rank: Among runs of one priority the lower goes first.
        admitted_at: Since when it has a place at its maker; None while it waits for one.
        start_at: The moment reserved for its call.
        deadline_at: A run that has not ended by then has failed.
        estimate_usd_micros: What it was expected to cost, per maker it is at; None where nobody knows.
        reserved_usd_micros: Held back from budgets until it ends.
        webhook_token: The part of its callback address that nobody can guess.
        webhook_promised: Its maker said that it would call back.
        payload: What the run made: {imageUrl, thumbnailUrl, images, adapted}; until then at most `adapted`.
        shown: The payload of the last completed run of the node before this one: what the node shows meanwhile.

    """

    id: str
    kind: str
    workflow_id: str
    node_id: str
    after: str | None
    ordinal: int
    parent_id: str | None
    batch_id: str | None
    status: Status
    stage: Stage
    seq: int
    attempt: int
    failures: int
    crashes: int
    polls: int
    worker: str | None
    processor: str
    user_id: str | None
    priority: int
    rank: int
    admitted_at: dt.datetime | None
    start_at: dt.datetime | None
    deadline_at: dt.datetime | None
    idempotency_key: str | None
    request_hash: str
    request: Mapping[str, Json]
    requested_by: Mapping[str, str]
    remote_id: str | None
    created_at: dt.datetime
    updated_at: dt.datetime
    started_at: dt.datetime | None
    finished_at: dt.datetime | None
    resume_at: dt.datetime | None
    payload: Mapping[str, Json]
    shown: Mapping[str, Json]
    cost_usd_micros: int | None
    cost_source: str | None
    estimate_usd_micros: int | None
    reserved_usd_micros: int
    webhook_token: str | None
    webhook_promised: bool
    error: RunError | None

    @property
    def provider(self) -> str:
        """Name of the maker."""
        return self.processor.partition(":")[0]

    @property
    def model(self) -> str:
        """Model of the maker; it may hold colons itself."""
        return self.processor.partition(":")[2]

    @property
    def spec(self) -> PromptSpec:
        """What was asked for."""
        spec = self.request.get("spec")
        return PromptSpec.from_json(spec if isinstance(spec, Mapping) else {})

    @property
    def metadata(self) -> Mapping[str, Json]:
        """What the caller attached to the request."""
        metadata = self.request.get("metadata")
        return metadata if isinstance(metadata, Mapping) else {}

    @property
    def webhook_url(self) -> str | None:
        """Where the caller wants to hear of the end."""
        url = self.request.get("webhookUrl")
        return url if isinstance(url, str) else None

    @property
    def image_url(self) -> str | None:
        """The first picture it made."""
        url = self.payload.get("imageUrl")
        return url if isinstance(url, str) else None

    @property
    def thumbnail_url(self) -> str | None:
        """The thumbnail of the first picture it made."""
        url = self.payload.get("thumbnailUrl")
        return url if isinstance(url, str) else None

    @property
    def images(self) -> tuple[Mapping[str, Json], ...]:
        """Every picture it made: {url, thumbnailUrl, width, height, seed?}."""
        images = self.payload.get("images")
        return tuple(image for image in images if isinstance(image, Mapping)) if isinstance(images, list) else ()

    @property
    def fallbacks(self) -> tuple[tuple[str, str], ...]:
        """Who is asked when its maker cannot: (provider, model), in order, those asked already included."""
        makers = self.request.get("fallbacks")
        named = [maker for maker in makers if isinstance(maker, Mapping)] if isinstance(makers, list) else []
        return tuple((str(maker.get("provider")), str(maker.get("model"))) for maker in named)

    @property
    def parked_remotely(self) -> bool:
        """Whether it waits for its maker, its last attempt having ended in an orderly way."""
        return self.worker is None and self.remote_id is not None and self.stage is Stage.WAITING


def applied(run: Run, event: Event, at: dt.datetime) -> Run:  # noqa: C901, PLR0911, PLR0912 - one case for each event
    """The run after an event.

    Args:
        run: As it is.
        event: Anything but `Requested`.
        at: When it happened, aware UTC.

    Raises:
        IllegalTransition: The event cannot happen to a run in this status.

    """
    status = transition(run.status, event)
    run = replace(run, status=status, seq=run.seq + 1, updated_at=at)
    if status.terminal:
        run = replace(run, worker=None, resume_at=None, finished_at=at, reserved_usd_micros=0)
    match event:
        case Started(worker):
            return replace(
                run,
                stage=Stage.WAITING if run.remote_id else Stage.SUBMITTING,
                attempt=run.attempt + 1,
                crashes=run.crashes + 1,
                worker=worker,
                resume_at=None,
                started_at=run.started_at or at,
            )
        case StageEntered(stage):
            return replace(run, stage=stage)
        case Accepted(remote_id, webhook_promised, resume_at):
            waiting = replace(run, stage=Stage.WAITING, remote_id=remote_id, resume_at=resume_at)
            waiting = replace(waiting, webhook_promised=webhook_promised)
            return replace(waiting, worker=None, failures=0, crashes=0, polls=0)
        case Heard() | Incident():
            return run
        case FellBack(provider, model, _, estimate, adapted):
            moved = replace(run, processor=f"{provider}:{model}", stage=Stage.QUEUED, remote_id=None, resume_at=None)
            moved = replace(moved, webhook_promised=False, admitted_at=None, start_at=None)
            moved = replace(moved, estimate_usd_micros=estimate, reserved_usd_micros=estimate or 0)
            moved = replace(moved, payload=_adapted(run.payload, adapted))
            return replace(moved, worker=None, failures=0, crashes=0, polls=0)
        case Answered(cost):
            # The bill is written with this event: what was held back for it is free again.
            return replace(_billed(run, cost), reserved_usd_micros=0)
        case RetryScheduled(_, resume_at):
            stage = Stage.WAITING if run.remote_id else Stage.QUEUED
            failed = replace(run, stage=stage, failures=run.failures + 1, resume_at=resume_at)
            return replace(failed, worker=None, crashes=0)
        case Interrupted():
            stage = Stage.WAITING if run.remote_id else Stage.QUEUED
            return replace(run, stage=stage, worker=None, crashes=0, resume_at=None)
        case Completed(images, cost, adapted):
            made = payload(Completed(images, cost))
            return replace(_billed(run, cost), payload=made | _adapted(run.payload, adapted), error=None)
        case Restored(_, earlier):
            return replace(run, payload=dict(earlier))
        case Failed(error):
            return replace(run, error=error)
        case Cancelled():
            return run
    raise AssertionError(event)  # pragma: no cover - `transition` refused it


def resumed(run: Run, worker: str, at: dt.datetime) -> Run:
    """The parked run in the hands of a worker that goes on with the same attempt: no event, nothing was lost."""
    return replace(run, worker=worker, crashes=run.crashes + 1, resume_at=None, updated_at=at)


def parked(run: Run, resume_at: dt.datetime, at: dt.datetime) -> Run:
    """The run after a poll that found it unfinished: no event, polls are not worth one each."""
    waiting = replace(run, worker=None, failures=0, crashes=0, polls=run.polls + 1)
    return replace(waiting, resume_at=resume_at, updated_at=at)


def payload(completed: Completed) -> dict[str, Json]:
    """What `runs.payload` keeps of a completed run."""
    if not completed.images:
        return {}
    first = completed.images[0]
    value: dict[str, Json] = {
        "imageUrl": first.url,
        "thumbnailUrl": first.thumbnail_url,
        "images": [image_json(image) for image in completed.images],
    }
    return {**value, "adapted": list(completed.adapted)} if completed.adapted else value


def node_patch(run: Run) -> dict[str, Json]:
    """The server-owned keys of a node whose current run this is.

    The picture of the last completed run stays until this one completes. `runSeq`, `updatedAt` and `costUsd` change at
    pending and at the end only: every write of a key leaves a tombstone in the document.
    """
    picture = run.payload if run.status is Status.COMPLETED else run.shown
    changed_at = run.finished_at or run.created_at
    ended = run.status.terminal
    return {
        "status": run.status.value,
        "runId": run.id,
        "runSeq": run.seq if ended else 1,
        "imageUrl": picture.get("imageUrl"),
        "thumbnailUrl": picture.get("thumbnailUrl"),
        "images": picture.get("images", []),
        "error": _node_error(run.error) if run.error is not None and run.status is Status.FAILED else None,
        "costUsd": run.cost_usd_micros / MICROS if ended and run.cost_usd_micros is not None else None,
        "updatedAt": int(changed_at.timestamp() * 1000),
    }


def changes_node(event: Event) -> bool:
    """Whether an event changes what the node shows."""
    return isinstance(event, Started | Completed | Restored | Failed | Cancelled)


def _node_error(error: RunError) -> dict[str, Json]:
    return {
        "code": error.code,
        "message": error.message,
        "retryable": error.retryable,
        "action": error.action.value,
    }


def _adapted(before: Mapping[str, Json], more: Sequence[str]) -> dict[str, Json]:
    """What was changed for a maker, with what was changed for those before it."""
    known = before.get("adapted")
    told: list[Json] = [*(known if isinstance(known, list) else []), *more]
    return {"adapted": told} if told else {}


def _billed(run: Run, cost: Cost | None) -> Run:
    if cost is None:
        return run
    # Added, not replaced: an attempt whose answer was lost in a crash was billed too.
    return replace(run, cost_usd_micros=(run.cost_usd_micros or 0) + cost.usd_micros, cost_source=cost.source)
