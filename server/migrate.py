"""Bringing the database to the schema of this release, from the package itself, before anything else uses it."""

import logging
from pathlib import Path
from typing import Final

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from server.errors import StartupError

logger = logging.getLogger(__name__)

_SCRIPTS: Final = Path(__file__).parent / "migrations"
_LOCK: Final = 0x6461726B
"""Key of the advisory lock on Postgres: of two servers that start at once, the second waits and finds nothing to do."""


def config() -> Config:
    """Alembic's configuration; it needs no ini file."""
    made = Config()
    made.set_main_option("script_location", str(_SCRIPTS).replace("%", "%%"))
    made.set_main_option("path_separator", "os")
    return made


async def migrate(engine: AsyncEngine) -> None:
    """Commit every missing migration in one transaction.

    Raises:
        StartupError: The database does not answer, or a newer release has written it.

    """
    try:
        # On SQLite `begin` takes the write lock, so a second server waits here as well.
        async with engine.begin() as connection:
            if engine.dialect.name == "postgresql":
                await connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK)))
            await connection.run_sync(upgrade)
    except CommandError as error:
        raise StartupError(
            f"DATABASE_URL: the database was written by another release of Darkroom ({error}); install that release"
        ) from error
    except (SQLAlchemyError, OSError) as error:
        where = engine.url.render_as_string(hide_password=True)
        raise StartupError(f"DATABASE_URL: cannot use {where}: {reason(error)}") from error


def upgrade(connection: sa.Connection, revision: str = "head") -> None:
    """Run the migrations on a connection, inside its transaction."""
    made = config()
    made.attributes["connection"] = connection
    command.upgrade(made, revision)


def reason(error: BaseException) -> str:
    """The first line of the driver's own words."""
    origin = getattr(error, "orig", None) or error
    lines = str(origin).strip().splitlines()
    return lines[0] if lines else type(origin).__name__
