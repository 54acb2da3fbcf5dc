"""What the API answers with: models for the OpenAPI document, and mappers that fill them."""

import datetime as dt
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, JsonValue
from pydantic.alias_generators import to_camel

from crdt.json import Json
from crdt.rows import WorkflowSummary
from jobs.records import RunEvent
from jobs.run import MICROS, Run
from jobs.state import RunError


class Record(BaseModel):
    """Base of every answer: camelCase names."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)


class ImageRecord(Record):
    """A picture of a job."""

    url: str
    thumbnail_url: str
    width: int
    height: int
    seed: int | None = None


class ErrorRecord(Record):
    """Why a job failed."""

    code: str
    message: str
    retryable: bool
    action: str
    class_: str = Field(alias="class")
    kind: str | None = None
    stage: str | None = None


class ImageJobRecord(Record):
    """A job: one request for pictures on one node."""

    job_id: str
    node_id: str
    workflow_id: str
    provider: str
    model: str
    status: str = Field(description="pending, running, completed, failed or cancelled")
    stage: str
    seq: int
    attempt: int
    after: str | None
    parent_id: str | None = None
    batch_id: str | None = None
    created_at: dt.datetime
    started_at: dt.datetime | None = None
    finished_at: dt.datetime | None = None
    image_url: str | None = None
    thumbnail_url: str | None = None
    images: list[ImageRecord] | None = None
    adapted: list[str] | None = Field(None, description="what was changed for the provider")
    cost_usd: float | None = None
    requested_by: dict[str, str] | None = None
    prompt_spec: dict[str, JsonValue]
    metadata: dict[str, JsonValue] | None = None
    error: ErrorRecord | None = None


class JobAccepted(Record):
    """A job that will be worked on."""

    job_id: str
    status: str
    node_id: str
    workflow_id: str


class BatchAccepted(Record):
    """A batch that will be worked on."""

    batch_id: str
    jobs: list[JobAccepted]


class RunList(Record):
    """Jobs of a node, newest first."""

    runs: list[ImageJobRecord]


class EventRecord(Record):
    """A recorded step of a job."""

    seq: int
    ts: dt.datetime
    kind: str
    payload: dict[str, JsonValue]


class EventList(Record):
    """Recorded steps of a job, oldest first."""

    events: list[EventRecord]


class PauseRecord(Record):
    """What is paused."""

    scope: str = Field(description="all, provider or workflow")
    provider: str | None = None
    workflow_id: str | None = None
    kind: str = Field(description="operator, or rate_limit where the provider asked for it")
    at: dt.datetime
    until: dt.datetime | None = Field(None, description="left out: until it is resumed")
    reason: str | None = None
    by: str | None = None


class ProviderQueueRecord(Record):
    """The queue of one provider."""

    name: str
    state: str = Field(description="open, paused or rate_limit")
    paused_until: dt.datetime | None = None
    reason: str | None = None
    waiting: int
    running: int
    limits: dict[str, str] = Field(description="by provider or provider:model, as DARKROOM_LIMITS has them")


class QueueRecord(Record):
    """What waits and what is at work."""

    paused: list[PauseRecord]
    providers: list[ProviderQueueRecord]


class FlowRecord(Record):
    """A workflow in React Flow's shape."""

    id: str
    title: str
    nodes: list[dict[str, JsonValue]]
    edges: list[dict[str, JsonValue]]


class SummaryRecord(Record):
    """A workflow in the list."""

    id: str
    title: str
    created_at: dt.datetime
    updated_at: dt.datetime
    node_count: int
    thumbnails: list[str]


class WorkflowList(Record):
    """Workflows, last changed first; `next` continues the list as `?before=`."""

    workflows: list[SummaryRecord]
    next: str | None = None


class TitleRecord(Record):
    """A workflow's title."""

    id: str
    title: str


class TokenRecord(Record):
    """An access token."""

    token: str
    expires_at: dt.datetime
    id: str = Field(description="its `jti`, by which it can be called back")


class RevocationRecord(Record):
    """What is called back."""

    jti: str | None = None
    sub: str | None = None
    revoked_at: dt.datetime = Field(description="tokens of a `sub` made later are good")


class ShareRecord(TokenRecord):
    """A link into one workflow, and the token in it."""

    url: str


class NodeRecord(BaseModel):
    """A node in React Flow's shape."""

    model_config = ConfigDict(extra="allow")

    id: str
    type: str
    position: dict[str, float]
    data: dict[str, JsonValue]


class EdgeRecord(BaseModel):
    """An edge in React Flow's shape."""

    model_config = ConfigDict(extra="allow")

    id: str
    source: str
    target: str


class ProviderList(Record):
    """Who can make pictures here."""

    providers: list[dict[str, JsonValue]]
    default: dict[str, str]


class HealthRecord(Record):
    """Whether the parts work."""

    status: str
    checks: dict[str, str] = Field(default_factory=dict)


class FieldProblem(Record):
    """What is wrong with one field."""

    field: str
    message: str


class ProblemRecord(Record):
    """Problem details, RFC 9457."""

    type: str
    title: str
    status: int
    detail: str
    request_id: str
    errors: list[FieldProblem] | None = None
    current: ImageJobRecord | None = Field(None, description="the node's current job, where it stood in the way")


def job_record(run: Run) -> dict[str, Json]:
    """A run as an `ImageJobRecord`; what there is not stays out."""
    record: dict[str, Json] = {
        "jobId": run.id,
        "nodeId": run.node_id,
        "workflowId": run.workflow_id,
        "provider": run.provider,
        "model": run.model,
        "status": run.status.value,
        "stage": run.stage.value,
        "seq": run.seq,
        "attempt": run.attempt,
        "after": run.after,
        "createdAt": iso(run.created_at),
        "promptSpec": run.spec.to_json(),
    }
    optional: dict[str, Json] = {
        "parentId": run.parent_id,
        "batchId": run.batch_id,
        "startedAt": iso(run.started_at) if run.started_at else None,
        "finishedAt": iso(run.finished_at) if run.finished_at else None,
        "imageUrl": run.image_url,
        "thumbnailUrl": run.thumbnail_url,
        "images": list(run.images) or None,
        "adapted": run.payload.get("adapted"),
        "costUsd": None if run.cost_usd_micros is None else run.cost_usd_micros / MICROS,
        "requestedBy": dict(run.requested_by) or None,
        "metadata": dict(run.metadata) or None,
        "error": _error(run.error) if run.error else None,
    }
    return record | {key: value for key, value in optional.items() if value is not None}


def event_record(event: RunEvent) -> dict[str, Json]:
    """A recorded event as an `EventRecord`."""
    return {"seq": event.seq, "ts": iso(event.ts), "kind": event.kind, "payload": event.payload}


def summary_record(summary: WorkflowSummary) -> dict[str, Json]:
    """A line of the list as a `SummaryRecord`."""
    return {
        "id": summary.id,
        "title": summary.title,
        "createdAt": iso(summary.created_at),
        "updatedAt": iso(summary.updated_at),
        "nodeCount": summary.node_count,
        "thumbnails": list(summary.thumbnails),
    }


def iso(at: dt.datetime) -> str:
    """A time as ISO 8601 in UTC, with microseconds, as `?before=` takes it back."""
    return at.astimezone(dt.UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def accepted_record(run: Run) -> dict[str, Json]:
    """A run as a `JobAccepted`."""
    return {"jobId": run.id, "status": run.status.value, "nodeId": run.node_id, "workflowId": run.workflow_id}


def _error(error: RunError) -> Mapping[str, Any]:
    record = {
        "code": error.code,
        "message": error.message,
        "retryable": error.retryable,
        "action": error.action.value,
        "class": error.error_class.value,
    }
    kind = {"kind": error.kind.value} if error.kind else {}
    stage = {"stage": error.stage.value} if error.stage else {}
    return {**record, **kind, **stage}
