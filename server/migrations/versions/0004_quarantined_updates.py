"""Updates that a document could not take."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "quarantined_updates",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("room", sa.String(length=128), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("why", sa.String(length=16), nullable=False),
        sa.Column("reason", sa.String(length=500), nullable=False),
        sa.Column("update", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_quarantined_updates")),
    )
    op.create_index(op.f("ix_quarantined_updates_room"), "quarantined_updates", ["room"])


def downgrade() -> None:
    """Drop it."""
    op.drop_table("quarantined_updates")
