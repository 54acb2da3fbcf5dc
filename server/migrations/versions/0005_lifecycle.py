"""Places at makers, limits, pauses, bills, budgets, and calls to those who asked to be told."""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")
_INDEXES = (
    ("subject_id", "created_at"),
    ("user_id", "created_at"),
    ("provider", "remote_id"),
    ("status", "admitted_at"),
)


def _columns() -> tuple[sa.Column[Any], ...]:
    return (
        sa.Column("provider", sa.String(length=64), server_default="", nullable=False),
        sa.Column("user_id", sa.String(length=256), nullable=True),
        sa.Column("rank", sa.Integer(), server_default="0", nullable=False),
        sa.Column("admitted_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("start_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("deadline_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("estimate_usd_micros", sa.BigInteger(), nullable=True),
        sa.Column("reserved_usd_micros", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("webhook_token", sa.String(length=64), nullable=True),
        sa.Column("webhook_promised", sa.Boolean(), server_default=sa.false(), nullable=False),
    )


def upgrade() -> None:
    """Make the change."""
    for column in _columns():
        op.add_column("runs", column)
    # "provider:model" of the runs there are; the text before the colon is the same function nowhere.
    colon = "strpos(processor, ':')" if op.get_bind().dialect.name == "postgresql" else "instr(processor, ':')"
    op.execute(f"UPDATE runs SET provider = substr(processor, 1, {colon} - 1) WHERE {colon} > 1")  # noqa: S608 - ours
    for columns in _INDEXES:
        op.create_index("ix_runs_" + "_".join(columns), "runs", list(columns), unique=False)
    op.add_column("workers", sa.Column("concurrency", sa.Integer(), server_default="100", nullable=False))
    _queue()
    _money()
    op.create_table(
        "outgoing_calls",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("run_id", sa.String(length=64), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("next_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("delivered_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_status", sa.Integer(), nullable=True),
        sa.Column("last_error", sa.String(length=500), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_outgoing_calls")),
    )
    op.create_index(op.f("ix_outgoing_calls_run_id"), "outgoing_calls", ["run_id"], unique=False)
    op.create_index(op.f("ix_outgoing_calls_next_at"), "outgoing_calls", ["next_at"], unique=False)
    op.create_table(
        "secrets",
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("value", sa.String(length=256), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_secrets")),
    )


def downgrade() -> None:
    """Take it back."""
    for table in ("secrets", "outgoing_calls", "budgets", "run_costs", "pauses", "admissions"):
        op.drop_table(table)
    op.drop_column("workers", "concurrency")
    for columns in reversed(_INDEXES):
        op.drop_index("ix_runs_" + "_".join(columns), "runs")
    for column in reversed(_columns()):
        op.drop_column("runs", column.name)


def _queue() -> None:
    op.create_table(
        "admissions",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("run_id", sa.String(length=64), nullable=False),
        sa.Column("provider", sa.String(length=64), nullable=False),
        sa.Column("model", sa.String(length=192), nullable=False),
        sa.Column("workflow_id", sa.String(length=128), nullable=False),
        sa.Column("user_id", sa.String(length=256), nullable=True),
        sa.Column("start_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_admissions")),
    )
    op.create_index(op.f("ix_admissions_start_at"), "admissions", ["start_at"], unique=False)
    op.create_table(
        "pauses",
        sa.Column("scope", sa.String(length=16), nullable=False),
        sa.Column("key", sa.String(length=256), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("reason", sa.String(length=500), nullable=False),
        sa.Column("by", sa.String(length=256), nullable=True),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("scope", "key", "kind", name=op.f("pk_pauses")),
    )


def _money() -> None:
    op.create_table(
        "run_costs",
        sa.Column("run_id", sa.String(length=64), nullable=False),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("provider", sa.String(length=64), nullable=False),
        sa.Column("model", sa.String(length=192), nullable=False),
        sa.Column("workflow_id", sa.String(length=128), nullable=False),
        sa.Column("user_id", sa.String(length=256), nullable=True),
        sa.Column("usd_micros", sa.BigInteger(), nullable=False),
        sa.Column("source", sa.String(length=16), nullable=False),
        sa.Column("detail", JSON, nullable=False),
        sa.Column("billed_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("run_id", "number", name=op.f("pk_run_costs")),
    )
    for columns in (["billed_at"], ["workflow_id", "billed_at"], ["user_id", "billed_at"], ["provider", "billed_at"]):
        op.create_index("ix_run_costs_" + "_".join(columns), "run_costs", columns, unique=False)
    op.create_table(
        "budgets",
        sa.Column("scope", sa.String(length=16), nullable=False),
        sa.Column("key", sa.String(length=256), nullable=False),
        sa.Column("period", sa.String(length=16), nullable=False),
        sa.Column("limit_usd_micros", sa.BigInteger(), nullable=False),
        sa.Column("by", sa.String(length=256), nullable=True),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("scope", "key", "period", name=op.f("pk_budgets")),
    )
