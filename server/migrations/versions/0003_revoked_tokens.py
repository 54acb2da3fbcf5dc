"""Access tokens that were called back before their end."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "revoked_tokens",
        sa.Column("claim", sa.String(length=8), nullable=False),
        sa.Column("value", sa.String(length=128), nullable=False),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("claim", "value", name=op.f("pk_revoked_tokens")),
    )


def downgrade() -> None:
    """Drop it."""
    op.drop_table("revoked_tokens")
