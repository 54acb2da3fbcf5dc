"""The state machine of a run: statuses, stages, events and which event may follow which status. Pure.

          Started           RetryScheduled, Interrupted, FellBack, Accepted, Heard, Incident, Answered,
pending ----------> running --+                                                  StageEntered, Started
   |  FellBack         |  ^---+
   | Cancelled, Failed | Completed, Failed, Cancelled
   | Restored          |
   v                   v
   completed | failed | cancelled: terminal, they never change
"""

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import ClassVar, Final, TypeAlias

from crdt.json import Json
from jobs.errors import IllegalTransition
from providers.base import Cost
from providers.errors import ErrorClass, ErrorKind


class Status(StrEnum):
    """Where a run is in its life."""

    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def terminal(self) -> bool:
        """Whether the run has ended; it will never change again."""
        return self in TERMINAL


TERMINAL: Final = frozenset({Status.COMPLETED, Status.FAILED, Status.CANCELLED})


class Stage(StrEnum):
    """What an unfinished run is doing, or was doing when it ended."""

    QUEUED = "queued"
    SUBMITTING = "submitting"
    GENERATING = "generating"
    WAITING = "waiting"
    DOWNLOADING = "downloading"
    PROCESSING = "processing"
    UPLOADING = "uploading"


class Action(StrEnum):
    """What a person can do about a failed run."""

    RETRY = "retry"
    WAIT = "wait"
    CHANGE_PROMPT = "change_prompt"
    CHANGE_SETTINGS = "change_settings"
    CHECK_KEY = "check_key"
    ADD_CREDIT = "add_credit"


@dataclass(frozen=True, slots=True)
class RunError:
    """Why an attempt or a run failed.

    Attributes:
        code: Stable and lower-case: "policy", "rate_limit", "bad_image", "worker_lost"...
        message: One plain sentence for people.
        retryable: Whether asking again unchanged may succeed.
        billing_ambiguous: The maker may have billed a picture that never reached us.

    """

    code: str
    message: str
    retryable: bool
    action: Action
    error_class: ErrorClass
    kind: ErrorKind | None = None
    stage: Stage | None = None
    vendor_code: str | None = None
    billing_ambiguous: bool = False


@dataclass(frozen=True, slots=True)
class StoredImage:
    """A picture in the image store; `index` counts from 0 within its run."""

    index: int
    key: str
    url: str
    thumbnail_key: str
    thumbnail_url: str
    width: int
    height: int
    content_type: str
    bytes: int
    sha256: str
    seed: int | None = None


@dataclass(frozen=True, slots=True)
class Requested:
    """The run came into being."""

    kind: ClassVar[str] = "requested"
    by: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Started:
    """A worker began an attempt."""

    kind: ClassVar[str] = "started"
    worker: str


@dataclass(frozen=True, slots=True)
class StageEntered:
    """An attempt has been in a stage long enough to be worth telling."""

    kind: ClassVar[str] = "stage"
    stage: Stage


@dataclass(frozen=True, slots=True)
class Accepted:
    """The maker took the request and will finish later; the attempt is parked until `resume_at`."""

    kind: ClassVar[str] = "accepted"
    remote_id: str
    webhook_promised: bool
    resume_at: dt.datetime


@dataclass(frozen=True, slots=True)
class Heard:
    """The maker called back about the run; `state` is what it said, in its words."""

    kind: ClassVar[str] = "heard"
    delivery_id: str
    state: str


@dataclass(frozen=True, slots=True)
class Incident:
    """Something that should not happen and is worth a look; the run goes on."""

    kind: ClassVar[str] = "incident"
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class FellBack:
    """The run goes on with another maker, because of `error` at the one before.

    Attributes:
        estimate_usd_micros: What it is expected to cost there; None where nobody knows.
        adapted: What was changed for the new maker, in sentences.

    """

    kind: ClassVar[str] = "fell_back"
    provider: str
    model: str
    error: RunError
    estimate_usd_micros: int | None = None
    adapted: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Answered:
    """The maker delivered and billed; recorded before anything else can go wrong, so that no cost is lost."""

    kind: ClassVar[str] = "answered"
    cost: Cost


@dataclass(frozen=True, slots=True)
class RetryScheduled:
    """The attempt failed and another follows at `resume_at`."""

    kind: ClassVar[str] = "retry_scheduled"
    error: RunError
    resume_at: dt.datetime


@dataclass(frozen=True, slots=True)
class Interrupted:
    """The worker stopped in an orderly way in the middle of an attempt; any worker may go on."""

    kind: ClassVar[str] = "interrupted"
    billing_ambiguous: bool = False


@dataclass(frozen=True, slots=True)
class Completed:
    """The pictures are stored. `cost` is given unless an `Answered` told it."""

    kind: ClassVar[str] = "completed"
    images: tuple[StoredImage, ...]
    cost: Cost | None = None
    adapted: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Restored:
    """The node goes back to what an earlier run made; nothing is asked of a maker, and nothing billed."""

    kind: ClassVar[str] = "restored"
    run_id: str
    payload: Mapping[str, Json]


@dataclass(frozen=True, slots=True)
class Failed:
    """The run ended without a picture."""

    kind: ClassVar[str] = "failed"
    error: RunError


@dataclass(frozen=True, slots=True)
class Cancelled:
    """Somebody cancelled the run."""

    kind: ClassVar[str] = "cancelled"
    by: Mapping[str, str] = field(default_factory=dict)


Event: TypeAlias = (
    Requested
    | Started
    | StageEntered
    | Accepted
    | Heard
    | Incident
    | FellBack
    | Answered
    | RetryScheduled
    | Interrupted
    | Completed
    | Restored
    | Failed
    | Cancelled
)

TRANSITIONS: Final[Mapping[tuple[Status, type[Event]], Status]] = {
    (Status.PENDING, Started): Status.RUNNING,
    (Status.PENDING, Failed): Status.FAILED,
    (Status.PENDING, Cancelled): Status.CANCELLED,
    (Status.PENDING, FellBack): Status.PENDING,
    (Status.PENDING, Restored): Status.COMPLETED,
    (Status.RUNNING, Started): Status.RUNNING,
    (Status.RUNNING, StageEntered): Status.RUNNING,
    (Status.RUNNING, Accepted): Status.RUNNING,
    (Status.RUNNING, Heard): Status.RUNNING,
    (Status.RUNNING, Incident): Status.RUNNING,
    (Status.RUNNING, FellBack): Status.RUNNING,
    (Status.RUNNING, Answered): Status.RUNNING,
    (Status.RUNNING, RetryScheduled): Status.RUNNING,
    (Status.RUNNING, Interrupted): Status.RUNNING,
    (Status.RUNNING, Completed): Status.COMPLETED,
    (Status.RUNNING, Failed): Status.FAILED,
    (Status.RUNNING, Cancelled): Status.CANCELLED,
}
"""Every transition there is; what is not listed cannot happen. `Requested` only begins a run."""


def transition(status: Status, event: Event) -> Status:
    """The status after an event.

    Raises:
        IllegalTransition: The event cannot happen to a run in this status.

    """
    try:
        return TRANSITIONS[status, type(event)]
    except KeyError:
        raise IllegalTransition(status, event.kind) from None


def event_payload(event: Event) -> dict[str, Json]:  # noqa: C901, PLR0911, PLR0912 - one case for each event
    """What `run_events.payload` keeps of an event: camelCase JSON without picture bytes."""
    match event:
        case Requested(by) | Cancelled(by):
            return {"by": dict(by)} if by else {}
        case Started(worker):
            return {"worker": worker}
        case StageEntered(stage):
            return {"stage": stage}
        case Accepted(remote_id, webhook_promised, resume_at):
            return {
                "remoteId": remote_id,
                "webhookPromised": webhook_promised,
                "resumeAt": resume_at.isoformat(),
            }
        case Heard(delivery_id, state):
            return {"deliveryId": delivery_id, "state": state}
        case Incident(code, message):
            return {"code": code, "message": message}
        case FellBack(provider, model, error, _, adapted):
            told = {"adapted": list(adapted)} if adapted else {}
            return {"provider": provider, "model": model, "error": error_json(error), **told}
        case Answered(cost):
            return cost_json(cost)
        case RetryScheduled(error, resume_at):
            return {"error": error_json(error), "resumeAt": resume_at.isoformat()}
        case Interrupted(billing_ambiguous):
            return {"billingAmbiguous": True} if billing_ambiguous else {}
        case Completed(images, cost, adapted):
            return {
                "images": [image_json(image) for image in images],
                **(cost_json(cost) if cost else {}),
                **({"adapted": list(adapted)} if adapted else {}),
            }
        case Restored(run_id, payload):
            return {"from": run_id, **payload}
        case Failed(error):
            return {"error": error_json(error)}


def cost_json(cost: Cost) -> dict[str, Json]:
    """A cost as camelCase JSON."""
    return {"costUsdMicros": cost.usd_micros, "costSource": cost.source, "costDetail": dict(cost.detail)}


def image_json(image: StoredImage) -> dict[str, Json]:
    """A stored picture as people and clients see it."""
    value: dict[str, Json] = {
        "url": image.url,
        "thumbnailUrl": image.thumbnail_url,
        "width": image.width,
        "height": image.height,
    }
    return value if image.seed is None else {**value, "seed": image.seed}


def error_json(error: RunError) -> dict[str, Json]:
    """An error as camelCase JSON, with what operators want to know."""
    value: dict[str, Json] = {
        "code": error.code,
        "message": error.message,
        "retryable": error.retryable,
        "action": error.action,
        "class": error.error_class,
    }
    optional: dict[str, Json] = {
        "kind": error.kind,
        "stage": error.stage,
        "vendorCode": error.vendor_code,
        "billingAmbiguous": error.billing_ambiguous or None,
    }
    return value | {key: item for key, item in optional.items() if item is not None}
