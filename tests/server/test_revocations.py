import datetime as dt
import time

import pytest
import sqlalchemy as sa

from crdt.database import create_engine
from server.access import Access
from server.errors import Unauthenticated
from server.migrate import migrate
from server.revocations import KEPT, RevocationLog, Revocations
from server.tables import revoked_tokens
from tests.server.tokens import SECRET, token


async def test_what_one_process_calls_back_another_learns_and_remembers(database_url: str) -> None:
    engine = create_engine(database_url)
    await migrate(engine)
    here, there = Access(SECRET), Access(SECRET)
    log = RevocationLog(engine, here.revocations)
    said = token(jti="t1", iat=time.time() - 5)
    heard: list[str] = []
    there.revocations.watchers.add(lambda: heard.append("changed"))
    await log.revoke("jti", "t1")
    await log.revoke("jti", "t1")
    with pytest.raises(Unauthenticated, match="called back"):
        here.read(said)
    assert there.read(said).token_id == "t1"
    for _ in range(2):
        await RevocationLog(engine, there.revocations).read()
    with pytest.raises(Unauthenticated, match="called back"):
        there.read(said)
    assert heard == ["changed"]
    await engine.dispose()


async def test_a_person_called_back_is_let_in_with_a_token_made_later(sqlite_url: str) -> None:
    engine = create_engine(sqlite_url)
    await migrate(engine)
    access = Access(SECRET)
    before = token(iat=time.time())
    await RevocationLog(engine, access.revocations).revoke("sub", "u1")
    for old in (before, token()):
        with pytest.raises(Unauthenticated) as refused:
            access.read(old)
        assert refused.value.why == "revoked"
    assert access.read(token(iat=time.time() + 0.001)).id == "u1"
    assert access.read(token(sub="u2")).id == "u2"
    await engine.dispose()


async def test_what_outlived_every_token_is_forgotten(sqlite_url: str) -> None:
    engine = create_engine(sqlite_url)
    await migrate(engine)
    long_ago = dt.datetime.now(dt.UTC) - KEPT - dt.timedelta(days=1)
    async with engine.begin() as connection:
        await connection.execute(sa.insert(revoked_tokens).values(claim="jti", value="old", revoked_at=long_ago))
    known = Revocations()
    log = RevocationLog(engine, known)
    await log.read()
    assert not known.cover("old", "", None)
    await log.revoke("jti", "new")
    async with engine.connect() as connection:
        assert (await connection.execute(sa.select(revoked_tokens.c.value))).scalars().all() == ["new"]
    await engine.dispose()
