"""Tables of the shared document and of the canvas it is mirrored into. SQL is the truth; see ARCHITECTURE.md."""

import datetime as dt

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

metadata = sa.MetaData(
    naming_convention={
        "ix": "ix_%(column_0_N_label)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)

JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")
"""JSON on SQLite, JSONB on Postgres."""


class UtcDateTime(sa.types.TypeDecorator[dt.datetime]):
    """An aware UTC datetime; SQLite, which has no zones, stores it naive and gives it back aware."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: dt.datetime | None, dialect: sa.Dialect) -> dt.datetime | None:
        """Refuse naive times and convert the rest to UTC."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("naive datetime: give an aware one, in UTC")
        value = value.astimezone(dt.UTC)
        return value.replace(tzinfo=None) if dialect.name == "sqlite" else value

    def process_result_value(self, value: dt.datetime | None, dialect: sa.Dialect) -> dt.datetime | None:
        """Make SQLite's naive times aware again."""
        if value is None:
            return None
        return value.replace(tzinfo=dt.UTC) if dialect.name == "sqlite" else value.astimezone(dt.UTC)


workflows = sa.Table(
    "workflows",
    metadata,
    sa.Column("id", sa.String(128), primary_key=True),
    sa.Column("title", sa.String(200), nullable=False, server_default=""),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Column("updated_at", UtcDateTime, nullable=False, index=True),
)

workflow_nodes = sa.Table(
    "workflow_nodes",
    metadata,
    sa.Column("workflow_id", sa.String(128), sa.ForeignKey("workflows.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("id", sa.String(256), primary_key=True),
    sa.Column("node_type", sa.String(64), nullable=False),
    sa.Column("node_data", JSON, nullable=False),
    sa.Column("position", JSON, nullable=False),
    # False once the node has left the document: its runs keep a row to hang on, and an undo brings it back.
    sa.Column("present", sa.Boolean, nullable=False, server_default=sa.true()),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Column("updated_at", UtcDateTime, nullable=False),
)

workflow_edges = sa.Table(
    "workflow_edges",
    metadata,
    sa.Column("workflow_id", sa.String(128), sa.ForeignKey("workflows.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("id", sa.String(256), primary_key=True),
    sa.Column("source", sa.String(256), nullable=False),
    sa.Column("target", sa.String(256), nullable=False),
    sa.Column("edge_data", JSON, nullable=False),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Column("updated_at", UtcDateTime, nullable=False),
)

documents = sa.Table(
    "documents",
    metadata,
    sa.Column("id", sa.String(128), sa.ForeignKey("workflows.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("seq", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("snapshot", sa.LargeBinary),
    sa.Column("snapshot_seq", sa.BigInteger, nullable=False, server_default="0"),
    # How far `workflow_nodes` follows the document: behind `seq` after a crash, then it is written anew at open.
    sa.Column("mirror_seq", sa.BigInteger, nullable=False, server_default="0"),
    # The process that alone projects, snapshots and mirrors this room, and how often the room was taken.
    sa.Column("keeper", sa.String(64), index=True),
    sa.Column("fence", sa.BigInteger, nullable=False, server_default="0"),
    # What a compacted document watches for (`crdt.guard`); NULL while it was never compacted.
    sa.Column("guard", sa.LargeBinary),
    # Numbers of heals given out: committed before one is used, so no client id of a heal is ever used twice.
    sa.Column("heals", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("compacted_at", UtcDateTime),
)

# State vectors a room had, about one a day: what everybody who was there since has seen.
document_frontiers = sa.Table(
    "document_frontiers",
    metadata,
    sa.Column("room", sa.String(128), sa.ForeignKey("documents.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("at", UtcDateTime, primary_key=True),
    sa.Column("vector", sa.LargeBinary, nullable=False),
)

# One row per compaction: what it retired, and how large it left the document.
document_archives = sa.Table(
    "document_archives",
    metadata,
    sa.Column("room", sa.String(128), sa.ForeignKey("documents.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("at", UtcDateTime, nullable=False),
    sa.Column("archive", sa.LargeBinary, nullable=False),
    sa.Column("bytes", sa.BigInteger, nullable=False),
    sa.Column("structs", sa.BigInteger, nullable=False),
    sa.Column("map_keys", sa.BigInteger, nullable=False),
    sa.Column("units", sa.BigInteger, nullable=False),
)

document_updates = sa.Table(
    "document_updates",
    metadata,
    sa.Column("room", sa.String(128), sa.ForeignKey("documents.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("seq", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("update", sa.LargeBinary, nullable=False),
    sa.Column("at", UtcDateTime, nullable=False),
)

# Updates that a document could not take, a few of each room.
quarantined_updates = sa.Table(
    "quarantined_updates",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("room", sa.String(128), nullable=False, index=True),
    sa.Column("at", UtcDateTime, nullable=False),
    sa.Column("why", sa.String(16), nullable=False),
    sa.Column("reason", sa.String(500), nullable=False),
    sa.Column("update", sa.LargeBinary, nullable=False),
)

processes = sa.Table(
    "processes",
    metadata,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("seen_at", UtcDateTime, nullable=False),
)
