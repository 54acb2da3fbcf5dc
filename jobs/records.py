"""Runs, events and pictures as rows, and back. Pure mappers."""

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from crdt.json import Json
from jobs.run import Run
from jobs.state import Action, Event, RunError, Stage, Status, StoredImage, event_payload
from providers.errors import ErrorClass, ErrorKind

MAX_MESSAGE_CHARS = 2_000
_SAME = (
    "id", "kind", "node_id", "ordinal", "parent_id", "batch_id", "seq", "attempt", "failures", "crashes", "polls",
    "worker", "processor", "user_id", "priority", "rank", "admitted_at", "start_at", "deadline_at",
    "idempotency_key", "request_hash", "request", "requested_by", "remote_id",
    "created_at", "updated_at", "started_at", "finished_at", "resume_at", "cost_usd_micros", "cost_source",
    "estimate_usd_micros", "reserved_usd_micros", "webhook_token", "webhook_promised",
)  # fmt: skip
"""Fields of a run that are columns under the same name."""


@dataclass(frozen=True, slots=True)
class RunEvent:
    """A recorded event of a run; `payload` is camelCase JSON."""

    run_id: str
    seq: int
    ts: dt.datetime
    kind: str
    payload: Mapping[str, Json]


def run_columns(run: Run) -> dict[str, Any]:
    """A run as the columns of `runs`."""
    error = run.error
    return {name: getattr(run, name) for name in _SAME} | {
        "subject_id": run.workflow_id,
        "provider": run.provider,
        "after": run.after or "",
        "status": run.status.value,
        "stage": run.stage.value,
        "payload": dict(run.payload) or None,
        "shown": dict(run.shown) or None,
        "error_code": error and error.code,
        "error_class": error and error.error_class.value,
        "error_kind": error.kind.value if error and error.kind else None,
        "error_message": error and error.message[:MAX_MESSAGE_CHARS],
        "error_retryable": error and error.retryable,
        "error_action": error and error.action.value,
        "failure_stage": error.stage.value if error and error.stage else None,
    }


def changed_columns(before: Run, after: Run) -> dict[str, Any]:
    """The columns in which two states of a run differ."""
    old, new = run_columns(before), run_columns(after)
    return {name: value for name, value in new.items() if value != old[name]}


def run_from_row(row: Any) -> Run:
    """A row of `runs` as a run."""
    return Run(
        **{name: getattr(row, name) for name in _SAME},
        workflow_id=row.subject_id,
        after=row.after or None,
        status=Status(row.status),
        stage=Stage(row.stage),
        payload=row.payload or {},
        shown=row.shown or {},
        error=_error(row),
    )


def event_columns(run: Run, event: Event) -> dict[str, Any]:
    """The event that made a run what it is, as the columns of `run_events`."""
    return {
        "run_id": run.id,
        "seq": run.seq,
        "ts": run.updated_at,
        "kind": event.kind,
        "payload": event_payload(event),
    }


def image_columns(run: Run, image: StoredImage) -> dict[str, Any]:
    """A picture of a run as the columns of `generated_images`."""
    return {
        "run_id": run.id,
        "index": image.index,
        "workflow_id": run.workflow_id,
        "node_id": run.node_id,
        "key": image.key,
        "url": image.url,
        "thumbnail_key": image.thumbnail_key,
        "thumbnail_url": image.thumbnail_url,
        "width": image.width,
        "height": image.height,
        "content_type": image.content_type,
        "bytes": image.bytes,
        "sha256": image.sha256,
        "seed": image.seed,
        "created_at": run.updated_at,
    }


def _error(row: Any) -> RunError | None:
    if row.error_code is None:
        return None
    return RunError(
        code=row.error_code,
        message=row.error_message,
        retryable=row.error_retryable,
        action=Action(row.error_action),
        error_class=ErrorClass(row.error_class),
        kind=ErrorKind(row.error_kind) if row.error_kind else None,
        stage=Stage(row.failure_stage) if row.failure_stage else None,
    )
