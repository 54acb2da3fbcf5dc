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
    # The part of the processor that limits, pauses and budgets go by.
    sa.Column("provider", sa.String(64), nullable=False, server_default=""),
    # Who asked, as access tokens name them; fairness, budgets and bulk cancels go by it.
    sa.Column("user_id", sa.String(256)),
    sa.Column("priority", sa.Integer, nullable=False),
    # Among runs of one priority the lower rank goes first; moved to the front or back by changing it.
    sa.Column("rank", sa.Integer, nullable=False, server_default="0"),
    # Given a place at its provider; NULL while it waits for one.
    sa.Column("admitted_at", UtcDateTime),
    # The moment reserved for its call: never before it.
    sa.Column("start_at", UtcDateTime),
    sa.Column("deadline_at", UtcDateTime),
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
    # What it was expected to cost when it was asked for, and how much of that is still held back from budgets.
    sa.Column("estimate_usd_micros", sa.BigInteger),
    sa.Column("reserved_usd_micros", sa.BigInteger, nullable=False, server_default="0"),
    # Part of the address its provider calls back: nobody can guess it.
    sa.Column("webhook_token", sa.String(64)),
    sa.Column("webhook_promised", sa.Boolean, nullable=False, server_default=sa.false()),
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
    sa.Index("ix_runs_subject_id_created_at", "subject_id", "created_at"),
    sa.Index("ix_runs_user_id_created_at", "user_id", "created_at"),
    sa.Index("ix_runs_provider_remote_id", "provider", "remote_id"),
    sa.Index("ix_runs_status_admitted_at", "status", "admitted_at"),
    # The list of everything, and what budgets have held back: read from the index alone, which holds few rows.
    sa.Index("ix_runs_created_at_id", "created_at", "id"),
    sa.Index(
        "ix_runs_reserved",
        "reserved_usd_micros",
        "provider",
        "user_id",
        "subject_id",
        "id",
        sqlite_where=sa.text("reserved_usd_micros > 0"),
        postgresql_where=sa.text("reserved_usd_micros > 0"),
    ),
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
    # Attempts it can be at, at once.
    sa.Column("concurrency", sa.Integer, nullable=False, server_default="100"),
)

admissions = sa.Table(
    "admissions",
    metadata,
    # One row for each call that was let through; limits on calls in a time are counted here. Old rows are deleted.
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("run_id", sa.String(64), nullable=False),
    sa.Column("provider", sa.String(64), nullable=False),
    sa.Column("model", sa.String(192), nullable=False),
    sa.Column("workflow_id", sa.String(128), nullable=False),
    sa.Column("user_id", sa.String(256)),
    sa.Column("start_at", UtcDateTime, nullable=False, index=True),
)

pauses = sa.Table(
    "pauses",
    metadata,
    # scope: all | provider | workflow; kind: operator | rate_limit. Nothing is let through while one holds.
    sa.Column("scope", sa.String(16), primary_key=True),
    sa.Column("key", sa.String(256), primary_key=True),
    sa.Column("kind", sa.String(16), primary_key=True),
    # NULL: until somebody resumes it.
    sa.Column("until", UtcDateTime),
    sa.Column("reason", sa.String(500), nullable=False),
    sa.Column("by", sa.String(256)),
    sa.Column("at", UtcDateTime, nullable=False),
)

run_costs = sa.Table(
    "run_costs",
    metadata,
    # What was billed, one row for each bill. No foreign key: money stays spent when its canvas is deleted.
    sa.Column("run_id", sa.String(64), primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("attempt", sa.Integer, nullable=False),
    sa.Column("provider", sa.String(64), nullable=False),
    sa.Column("model", sa.String(192), nullable=False),
    sa.Column("workflow_id", sa.String(128), nullable=False),
    sa.Column("user_id", sa.String(256)),
    sa.Column("usd_micros", sa.BigInteger, nullable=False),
    sa.Column("source", sa.String(16), nullable=False),
    sa.Column("detail", JSON, nullable=False),
    sa.Column("billed_at", UtcDateTime, nullable=False),
    # With the amount: budgets sum up what they hold without a look at the rows.
    sa.Index("ix_run_costs_spent", "billed_at", "usd_micros"),
    sa.Index("ix_run_costs_workflow_id_spent", "workflow_id", "billed_at", "usd_micros"),
    sa.Index("ix_run_costs_user_id_spent", "user_id", "billed_at", "usd_micros"),
    sa.Index("ix_run_costs_provider_spent", "provider", "billed_at", "usd_micros"),
)

budgets = sa.Table(
    "budgets",
    metadata,
    # scope: all | workflow | user | provider; period: day | month | total (UTC).
    sa.Column("scope", sa.String(16), primary_key=True),
    sa.Column("key", sa.String(256), primary_key=True),
    sa.Column("period", sa.String(16), primary_key=True),
    sa.Column("limit_usd_micros", sa.BigInteger, nullable=False),
    sa.Column("by", sa.String(256)),
    sa.Column("updated_at", UtcDateTime, nullable=False),
)

outgoing_calls = sa.Table(
    "outgoing_calls",
    metadata,
    # Calls to the webhookUrl of a request, written with the event they tell of. The body is kept: it was signed.
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("run_id", sa.String(64), nullable=False, index=True),
    sa.Column("url", sa.Text, nullable=False),
    # Of the address; calls to one host are bounded, so that a slow one holds up no other.
    sa.Column("host", sa.String(300), nullable=False, server_default=""),
    sa.Column("body", sa.Text, nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False, server_default="0"),
    # When to try (again); NULL once it was delivered or given up.
    sa.Column("next_at", UtcDateTime, index=True),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Column("delivered_at", UtcDateTime),
    sa.Column("last_status", sa.Integer),
    sa.Column("last_error", sa.String(500)),
)

secrets = sa.Table(
    "secrets",
    metadata,
    # Made by the server itself at its first need, the same for every process: what signs outgoing calls.
    sa.Column("name", sa.String(64), primary_key=True),
    sa.Column("value", sa.String(256), nullable=False),
    sa.Column("created_at", UtcDateTime, nullable=False),
)
