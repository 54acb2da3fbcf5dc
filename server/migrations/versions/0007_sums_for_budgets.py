"""Indexes from which budgets sum up what is spent and held back, and the list of all runs is read."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_BILLED = (["billed_at"], ["workflow_id", "billed_at"], ["user_id", "billed_at"], ["provider", "billed_at"])
_HELD = sa.text("reserved_usd_micros > 0")


def upgrade() -> None:
    """Make the change."""
    for columns in _BILLED:
        op.drop_index("ix_run_costs_" + "_".join(columns), "run_costs")
        name = "_".join([*columns[:-1], "spent"])
        op.create_index(f"ix_run_costs_{name}", "run_costs", [*columns, "usd_micros"], unique=False)
    op.create_index("ix_runs_created_at_id", "runs", ["created_at", "id"], unique=False)
    op.create_index(
        "ix_runs_reserved",
        "runs",
        ["reserved_usd_micros", "provider", "user_id", "subject_id", "id"],
        unique=False,
        sqlite_where=_HELD,
        postgresql_where=_HELD,
    )


def downgrade() -> None:
    """Take it back."""
    op.drop_index("ix_runs_reserved", "runs")
    op.drop_index("ix_runs_created_at_id", "runs")
    for columns in reversed(_BILLED):
        name = "_".join([*columns[:-1], "spent"])
        op.drop_index(f"ix_run_costs_{name}", "run_costs")
        op.create_index("ix_run_costs_" + "_".join(columns), "run_costs", columns, unique=False)
