"""Run by Alembic for every command; the connection comes from `server.migrate`."""

from alembic import context

from crdt.tables import metadata
from jobs import tables as _jobs_tables
from server import tables as _server_tables

__all__ = ["_jobs_tables", "_server_tables"]


def run() -> None:
    """Migrate inside the caller's transaction."""
    connection = context.config.attributes.get("connection")
    if connection is None:
        raise RuntimeError("migrations run through server.migrate, which brings the connection")
    context.configure(
        connection=connection,
        target_metadata=metadata,
        compare_type=True,
        compare_server_default=True,
        # SQLite cannot alter most of a table: Alembic copies it instead.
        render_as_batch=connection.dialect.name == "sqlite",
    )
    with context.begin_transaction():
        context.run_migrations()


run()
