"""What keeps documents small: frontiers, archives of compactions, and the guard of a compacted document."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the change."""
    op.add_column("documents", sa.Column("guard", sa.LargeBinary(), nullable=True))
    op.add_column("documents", sa.Column("heals", sa.BigInteger(), server_default="0", nullable=False))
    op.add_column("documents", sa.Column("compacted_at", sa.DateTime(timezone=True), nullable=True))
    op.create_table(
        "document_frontiers",
        sa.Column("room", sa.String(length=128), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("vector", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(
            ["room"], ["documents.id"], name=op.f("fk_document_frontiers_room_documents"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("room", "at", name=op.f("pk_document_frontiers")),
    )
    op.create_table(
        "document_archives",
        sa.Column("room", sa.String(length=128), nullable=False),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("archive", sa.LargeBinary(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("structs", sa.BigInteger(), nullable=False),
        sa.Column("map_keys", sa.BigInteger(), nullable=False),
        sa.Column("units", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["room"], ["documents.id"], name=op.f("fk_document_archives_room_documents"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("room", "number", name=op.f("pk_document_archives")),
    )


def downgrade() -> None:
    """Take it back."""
    op.drop_table("document_archives")
    op.drop_table("document_frontiers")
    op.drop_column("documents", "compacted_at")
    op.drop_column("documents", "heals")
    op.drop_column("documents", "guard")
