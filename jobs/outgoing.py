"""Calls to those who asked to be told of the end of a run: written with the event, made afterwards."""

import json
import uuid
from typing import Final
from urllib.parse import urlsplit

import sqlalchemy as sa

from crdt.json import Json
from jobs.run import MICROS, Run
from jobs.state import RunError
from jobs.tables import outgoing_calls

_MAX_HOST_CHARS: Final = 300


def announce(connection: sa.Connection, run: Run) -> None:
    """Write the call that tells of a run's end, in the transaction that ends it.

    Args:
        connection: The transaction.
        run: It has ended; one without a `webhook_url` is announced to nobody.

    """
    if run.webhook_url is None:
        return
    row = {
        "id": f"msg_{uuid.uuid4().hex}",
        "run_id": run.id,
        "url": run.webhook_url,
        "host": urlsplit(run.webhook_url).netloc.lower()[:_MAX_HOST_CHARS],
        "body": json.dumps(message_of(run), separators=(",", ":")),
        "next_at": run.updated_at,
        "created_at": run.updated_at,
    }
    connection.execute(sa.insert(outgoing_calls).values(**row))


def message_of(run: Run) -> dict[str, Json]:
    """What a call says: {type: "job.completed" | "job.failed" | "job.cancelled", timestamp, data}."""
    data: dict[str, Json] = {
        "jobId": run.id,
        "workflowId": run.workflow_id,
        "nodeId": run.node_id,
        "provider": run.provider,
        "model": run.model,
        "status": run.status.value,
        "metadata": dict(run.metadata),
        "costUsd": None if run.cost_usd_micros is None else run.cost_usd_micros / MICROS,
        **dict(run.payload),
    }
    if run.error is not None:
        data["error"] = _error_json(run.error)
    return {"type": f"job.{run.status.value}", "timestamp": run.updated_at.isoformat(), "data": data}


def _error_json(error: RunError) -> dict[str, Json]:
    return {
        "code": error.code,
        "message": error.message,
        "retryable": error.retryable,
        "action": error.action.value,
    }
