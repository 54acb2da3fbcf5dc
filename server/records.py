"""What the API answers with: models for the OpenAPI document, and mappers that fill them."""

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, JsonValue
from pydantic.alias_generators import to_camel

from crdt.json import Json
from crdt.rows import WorkflowSummary
from jobs.records import RunEvent
from jobs.restoring import RESTORE
from jobs.run import MICROS, Run
from jobs.spending import Bill
from jobs.state import RunError, Status


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


class BillRecord(Record):
    """What was billed for one call, or may have been."""

    provider: str
    model: str
    attempt: int
    usd: float
    source: str = Field(description="usage, price, free; ambiguous: the answer was lost, it may not have been billed")
    billed_at: dt.datetime


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
    kind: str = Field(description="image, or restore: the pictures of an earlier job shown again")
    retry_of: str | None = Field(None, description="the job that this one tries again")
    restored_from: str | None = Field(None, description="the job whose pictures this one shows again")
    retried_as: list[str] | None = Field(None, description="jobs that try this one again; of a single job read only")
    bills: list[BillRecord] | None = Field(None, description="what was billed for it; of a single job read only")
    fallbacks: list[dict[str, str]] | None = Field(None, description="who is asked when a provider cannot")
    estimate_usd: float | None = Field(None, description="what it was expected to cost")
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


class JobList(Record):
    """Jobs, newest first; `next` continues the list as `?cursor=`."""

    jobs: list[ImageJobRecord]
    next: str | None = None


class BatchJob(JobAccepted):
    """A job of a batch, shortly."""

    image_url: str | None = None
    thumbnail_url: str | None = None
    cost_usd: float | None = None
    error: ErrorRecord | None = None


class BatchRecord(Record):
    """How far a batch is."""

    batch_id: str
    total: int
    pending: int
    running: int
    completed: int
    failed: int
    cancelled: int
    cost_usd: float
    jobs: list[BatchJob]


class CancelledRecord(Record):
    """What was cancelled."""

    cancelled: int
    jobs: list[str] = Field(description="ids of the first 1000")
    remaining: int = Field(description="matching jobs that have not ended; ask again while there are any")


class PriceRecord(Record):
    """What a job is expected to cost."""

    provider: str
    model: str
    usd: float | None = Field(description="null where no price is known")
    as_of: dt.date | None = Field(description="the date of the price it was computed from")


class EstimateRecord(Record):
    """What jobs are expected to cost."""

    estimate_usd: float | None = Field(description="of those whose price is known")
    unknown: int = Field(description="jobs whose price is not known")
    prices: list[PriceRecord]


class CostTotal(Record):
    """What bills come to."""

    cost_usd: float
    bills: int
    ambiguous_usd: float = Field(description="part of costUsd: estimates for calls whose answer was lost")
    ambiguous_bills: int


class ModelCost(CostTotal):
    """What a model cost."""

    provider: str
    model: str


class DayCost(CostTotal):
    """What a day cost (UTC)."""

    day: dt.date


class CostsRecord(CostTotal):
    """What was spent."""

    reserved_usd: float = Field(description="held back for jobs that have not ended; not part of costUsd")
    by_model: list[ModelCost]
    by_day: list[DayCost]


class BudgetRecord(Record):
    """A budget, and what is used of it in its period."""

    scope: str
    key: str
    period: str
    limit_usd: float
    spent_usd: float
    reserved_usd: float
    left_usd: float
    by: str | None = Field(None, description="who set it")


class BudgetList(Record):
    """Budgets."""

    budgets: list[BudgetRecord]


class RefusedBudget(Record):
    """The budget that has no room."""

    scope: str
    key: str
    period: str
    limit_usd: float
    spent_usd: float
    reserved_usd: float
    asked_usd: float | None


class RunList(Record):
    """Jobs of a node, newest first; `next` continues the list as `?before=`."""

    runs: list[ImageJobRecord]
    next: str | None = None


class EventRecord(Record):
    """A recorded step of a job."""

    seq: int
    ts: dt.datetime
    kind: str
    payload: dict[str, JsonValue]


class EventList(Record):
    """Recorded steps of a job, oldest first."""

    events: list[EventRecord]


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
    budget: RefusedBudget | None = Field(None, description="the budget that has no room")


def job_record(run: Run) -> dict[str, Json]:
    """A run as an `ImageJobRecord`; what there is not stays out."""
    record: dict[str, Json] = {
        "jobId": run.id,
        "kind": run.kind,
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
        "retryOf": run.parent_id if run.kind != RESTORE else None,
        "restoredFrom": run.parent_id if run.kind == RESTORE else None,
        "fallbacks": [{"provider": provider, "model": model} for provider, model in run.fallbacks] or None,
        "estimateUsd": None if run.estimate_usd_micros is None else run.estimate_usd_micros / MICROS,
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


def bill_record(bill: Bill) -> dict[str, Json]:
    """A bill as a `BillRecord`."""
    return {
        "provider": bill.provider,
        "model": bill.model,
        "attempt": bill.attempt,
        "usd": bill.usd_micros / MICROS,
        "source": bill.source,
        "billedAt": iso(bill.billed_at),
    }


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


def batch_record(batch_id: str, runs: Sequence[Run]) -> dict[str, Json]:
    """The runs of a batch as a `BatchRecord`."""
    counts: dict[str, Json] = {status.value: sum(1 for run in runs if run.status is status) for status in Status}
    jobs: list[Json] = [_batch_job(run) for run in runs]
    cost = sum(run.cost_usd_micros or 0 for run in runs) / MICROS
    return {"batchId": batch_id, "total": len(runs), **counts, "costUsd": cost, "jobs": jobs}


def _batch_job(run: Run) -> dict[str, Json]:
    whole = job_record(run)
    return accepted_record(run) | {
        name: whole[name] for name in ("imageUrl", "thumbnailUrl", "costUsd", "error") if name in whole
    }


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
