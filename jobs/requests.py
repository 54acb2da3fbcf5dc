"""What is asked of `Runs.request_run`, and what it answers. Pure."""

import datetime as dt
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from crdt.json import Json
from crdt.rows import NodeRow
from crdt.values import REMOVED, without_data_urls
from jobs.doors import clean_people
from jobs.run import Run, applied
from jobs.state import Event, FellBack, Stage, Status
from jobs.state import Requested as RequestedEvent
from providers.base import PromptSpec


class Unset(Enum):
    """The type of `UNSET`."""

    UNSET = "unset"


UNSET: Final = Unset.UNSET
"""As `after`: whatever run is the node's current one."""


@dataclass(frozen=True, slots=True)
class Fallback:
    """A maker to turn to when the one before cannot."""

    provider: str
    model: str


@dataclass(frozen=True, slots=True)
class RunRequest:
    """A request for pictures on a node.

    Attributes:
        after: The run seen as the node's current one; None when none was seen.
        node: Inserted into `workflow_nodes` when that has no such row yet.
        parent_id: The run this one retries or varies.
        priority: The higher goes first.
        deadline_s: Seconds from the request after which the run has failed.
        estimate_usd_micros: Reserved in budgets until the run ends.
        fallbacks: Who is asked, in order, when the maker before cannot.
        fell_back: Makers passed over already when it is made, as their budgets have no room.

    """

    workflow_id: str
    node_id: str
    spec: PromptSpec
    provider: str
    model: str
    after: str | Unset | None
    node: NodeRow
    requested_by: Mapping[str, str] = field(default_factory=dict)
    idempotency_key: str | None = None
    metadata: Mapping[str, Json] = field(default_factory=dict)
    webhook_url: str | None = None
    parent_id: str | None = None
    batch_id: str | None = None
    priority: int = 0
    deadline_s: float | None = None
    estimate_usd_micros: int | None = None
    fallbacks: tuple[Fallback, ...] = ()
    fell_back: tuple[FellBack, ...] = ()

    def to_json(self) -> dict[str, Json]:
        """What `runs.request` keeps: never picture bytes."""
        optional: dict[str, Json] = {
            "metadata": without_data_urls(dict(self.metadata)) if self.metadata else None,
            "webhookUrl": self.webhook_url,
            "deadlineS": self.deadline_s,
            "fallbacks": [{"provider": maker.provider, "model": maker.model} for maker in self.fallbacks] or None,
        }
        # At the door a promptSpec with picture bytes is refused; whoever comes another way finds this one.
        spec = {key: _cleaned(value) for key, value in self.spec.to_json().items()}
        return {"spec": spec} | {key: value for key, value in optional.items() if value is not None}

    def hash(self) -> str:
        """SHA-256 (hex) of everything that makes this request another one than that."""
        body = {
            "workflow": self.workflow_id,
            "node": self.node_id,
            "provider": self.provider,
            "model": self.model,
            "after": "\x00unset" if isinstance(self.after, Unset) else self.after,
            "parent": self.parent_id,
            **({"priority": self.priority} if self.priority else {}),
            **self.to_json(),
        }
        return hashlib.sha256(json.dumps(body, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def key_of_batch(key: str) -> str:
    """The idempotency key a batch was sent with, from that of one of its requests: "key index"."""
    return key.partition(" ")[0]


def key_in_batch(key: str, index: int) -> str:
    """The idempotency key of one request of a batch: nobody can send it, as a space cannot be in a key."""
    return f"{key} {index}"


def _cleaned(value: Json) -> Json:
    clean = without_data_urls(value)
    return REMOVED if clean is None and value is not None else clean


@dataclass(frozen=True, slots=True)
class Requested:
    """The run that answers a request; `created` is False when an equal request had made it before."""

    run: Run
    created: bool


def first_steps(
    request: RunRequest, run_id: str, current: Run | None, at: dt.datetime, webhook_token: str
) -> list[tuple[Run, Event]]:
    """The run a request makes, and its events, each with the run as it left it; see `first_state`."""
    run = first_state(request, run_id, current, at, webhook_token)
    steps: list[tuple[Run, Event]] = [(run, RequestedEvent(run.requested_by))]
    for event in request.fell_back:
        run = applied(run, event, at)
        steps.append((run, event))
    return steps


def first_state(request: RunRequest, run_id: str, current: Run | None, at: dt.datetime, webhook_token: str) -> Run:
    """The pending run a request makes.

    Args:
        request: The request.
        run_id: A fresh id.
        current: The node's current run, which has ended.
        at: Now, aware UTC.
        webhook_token: Fresh and not to be guessed.

    """
    shown: Mapping[str, Json] = {}
    if current is not None:
        shown = current.payload if current.status is Status.COMPLETED else current.shown
    return Run(
        id=run_id,
        kind="image",
        workflow_id=request.workflow_id,
        node_id=request.node_id,
        after=current.id if current else None,
        ordinal=current.ordinal + 1 if current else 1,
        parent_id=request.parent_id,
        batch_id=request.batch_id,
        status=Status.PENDING,
        stage=Stage.QUEUED,
        seq=1,
        attempt=0,
        failures=0,
        crashes=0,
        polls=0,
        worker=None,
        processor=f"{request.provider}:{request.model}",
        user_id=clean_people(request.requested_by).get("id"),
        priority=request.priority,
        rank=0,
        admitted_at=None,
        start_at=None,
        deadline_at=None if request.deadline_s is None else at + dt.timedelta(seconds=request.deadline_s),
        idempotency_key=request.idempotency_key,
        request_hash=request.hash(),
        request=request.to_json(),
        requested_by=clean_people(request.requested_by),
        remote_id=None,
        created_at=at,
        updated_at=at,
        started_at=None,
        finished_at=None,
        resume_at=None,
        payload={},
        shown=shown,
        cost_usd_micros=None,
        cost_source=None,
        estimate_usd_micros=request.estimate_usd_micros,
        reserved_usd_micros=request.estimate_usd_micros or 0,
        webhook_token=webhook_token,
        webhook_promised=False,
        error=None,
    )
