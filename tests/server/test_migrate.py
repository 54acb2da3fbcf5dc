import asyncio
import importlib

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from crdt.database import create_engine
from crdt.tables import metadata
from server.errors import StartupError
from server.migrate import config, migrate

importlib.import_module("jobs.tables")


def difference(connection: sa.Connection) -> list[object]:
    # SQLite gives defaults back as it was told them, quotes and all.
    defaults = connection.dialect.name == "postgresql"
    context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": defaults})
    found: list[object] = list(compare_metadata(context, metadata))
    return found


async def test_the_migrations_make_exactly_the_tables_of_the_code(database_url: str) -> None:
    engine = create_engine(database_url)
    await migrate(engine)
    async with engine.connect() as connection:
        assert await connection.run_sync(difference) == []
    await engine.dispose()


async def test_several_servers_may_start_at_once(database_url: str) -> None:
    engines = [create_engine(database_url) for _ in range(4)]
    await asyncio.gather(*(migrate(engine) for engine in engines))
    async with engines[0].connect() as connection:
        versions = (await connection.execute(sa.text("SELECT version_num FROM alembic_version"))).scalars().all()
    assert versions == [ScriptDirectory.from_config(config()).get_current_head()]
    for engine in engines:
        await engine.dispose()


async def test_a_second_start_changes_nothing(sqlite_url: str) -> None:
    engine = create_engine(sqlite_url)
    await migrate(engine)
    await migrate(engine)
    async with engine.connect() as connection:
        assert await connection.run_sync(difference) == []
    await engine.dispose()


async def test_a_database_of_a_later_release_is_refused_in_one_line(database_url: str) -> None:
    engine = create_engine(database_url)
    await migrate(engine)
    async with engine.begin() as connection:
        await connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(StartupError, match=r"^DATABASE_URL: .*another release[^\n]*$"):
        await migrate(engine)
    await engine.dispose()


async def test_a_database_that_does_not_answer_is_told_without_its_password() -> None:
    engine = create_engine("postgresql+asyncpg://darkroom:hunter2@127.0.0.1:1/none")
    with pytest.raises(StartupError, match=r"^DATABASE_URL: cannot use [^\n]*$") as refused:
        await migrate(engine)
    assert "hunter2" not in str(refused.value)
    await engine.dispose()
