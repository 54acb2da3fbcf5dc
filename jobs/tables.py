"""Tables of durable runs. Only `jobs.runs` writes runs and their events; see ARCHITECTURE.md."""

import sqlalchemy as sa

from crdt.tables import JSON, UtcDateTime, metadata

runs = sa.Table(
    "runs",
    metadata,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("kind", sa.String(32), nullable=False),
    sa.Column("subject_id", sa.String(128), nullable=False),
    sa.Column("node_id", sa.String(256), nullable=False),
    # The run that was the node's current one when this was asked for; "" = none. Two equal requests make one run.
    sa.Column("after", sa.String(64), nullable=False),
    # The place in the node's chain of runs: the current run of a node is the one with the largest.
    sa.Column("ordinal", sa.Integer, nullable=False),
    sa.Column("parent_id", sa.String(64)),
    sa.Column("batch_id", sa.String(64), index=True),
    sa.Column("status", sa.String(16), nullable=False),
    sa.Column("stage", sa.String(16), nullable=False),
    sa.Column("seq", sa.Integer, nullable=False),
    # Fences late writers: every takeover raises it.
    sa.Column("attempt", sa.Integer, nullable=False),
    sa.Column("failures", sa.Integer, nullable=False),
    # Begun and never ended in an orderly way: how often the run may have brought its worker down.
    sa.Column("crashes", sa.Integer, nullable=False),
    sa.Column("polls", sa.Integer, nullable=False),
    # Who works on it at this moment; NULL while it is queued or parked.
    sa.Column("worker", sa.String(64)),
    sa.Column("processor", sa.String(256), nullable=False),
    sa.Column("priority", sa.Integer, nullable=False),
    sa.Column("idempotency_key", sa.String(256), unique=True),
    sa.Column("request_hash", sa.String(64), nullable=False),
    sa.Column("request", JSON, nullable=False),
    sa.Column("requested_by", JSON, nullable=False),
    sa.Column("remote_id", sa.String(512)),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Column("updated_at", UtcDateTime, nullable=False),
    sa.Column("started_at", UtcDateTime),
    sa.Column("finished_at", UtcDateTime),
    sa.Column("resume_at", UtcDateTime),
    sa.Column("payload", JSON),
    # The payload the node shows until this run completes: that of the last completed run before it.
    sa.Column("shown", JSON),
    sa.Column("cost_usd_micros", sa.BigInteger),
    sa.Column("cost_source", sa.String(16)),
    sa.Column("error_code", sa.String(64)),
    sa.Column("error_class", sa.String(32)),
    sa.Column("error_kind", sa.String(32)),
    sa.Column("error_message", sa.Text),
    sa.Column("error_retryable", sa.Boolean),
    sa.Column("error_action", sa.String(32)),
    sa.Column("failure_stage", sa.String(16)),
    sa.ForeignKeyConstraint(
        ["subject_id", "node_id"],
        ["workflow_nodes.workflow_id", "workflow_nodes.id"],
        name="fk_runs_subject_id_workflow_nodes",
        ondelete="CASCADE",
    ),
    sa.UniqueConstraint("subject_id", "node_id", "after"),
    sa.UniqueConstraint("subject_id", "node_id", "ordinal"),
    sa.Index("ix_runs_status_id", "status", "id"),
    sa.Index("ix_runs_subject_id_seq", "subject_id", "seq"),
)

run_events = sa.Table(
    "run_events",
    metadata,
    sa.Column("run_id", sa.String(64), sa.ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("seq", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("ts", UtcDateTime, nullable=False),
    sa.Column("kind", sa.String(32), nullable=False),
    sa.Column("payload", JSON, nullable=False),
)

generated_images = sa.Table(
    "generated_images",
    metadata,
    sa.Column("run_id", sa.String(64), sa.ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("index", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("workflow_id", sa.String(128), nullable=False),
    sa.Column("node_id", sa.String(256), nullable=False),
    sa.Column("key", sa.String(512), nullable=False, unique=True),
    sa.Column("url", sa.Text, nullable=False),
    sa.Column("thumbnail_key", sa.String(512), nullable=False),
    sa.Column("thumbnail_url", sa.Text, nullable=False),
    sa.Column("width", sa.Integer, nullable=False),
    sa.Column("height", sa.Integer, nullable=False),
    sa.Column("content_type", sa.String(64), nullable=False),
    sa.Column("bytes", sa.BigInteger, nullable=False),
    sa.Column("sha256", sa.String(64), nullable=False),
    sa.Column("seed", sa.BigInteger),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Index("ix_generated_images_workflow_id_created_at", "workflow_id", "created_at"),
)

webhook_deliveries = sa.Table(
    "webhook_deliveries",
    metadata,
    # Stored first, settled after: a delivery that comes twice, or before its run knows the remote id, does no harm.
    sa.Column("provider", sa.String(64), primary_key=True),
    sa.Column("id", sa.String(256), primary_key=True),
    sa.Column("remote_id", sa.String(512), index=True),
    sa.Column("run_id", sa.String(64), index=True),
    sa.Column("payload", JSON, nullable=False),
    sa.Column("received_at", UtcDateTime, nullable=False, index=True),
    sa.Column("settled_at", UtcDateTime),
)

workers = sa.Table(
    "workers",
    metadata,
    # One row per worker that has started and not stopped; one that no longer beats has died.
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("host", sa.String(256), nullable=False),
    sa.Column("pid", sa.Integer, nullable=False),
    sa.Column("process", sa.String(64), nullable=False),
    sa.Column("seen_at", UtcDateTime, nullable=False),
)
