"""The host of an outgoing call."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the change."""
    op.add_column("outgoing_calls", sa.Column("host", sa.String(length=300), server_default="", nullable=False))


def downgrade() -> None:
    """Take it back."""
    with op.batch_alter_table("outgoing_calls") as batch:
        batch.drop_column("host")
