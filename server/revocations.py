"""Access tokens that were called back: kept in SQL, known by heart, so that asking costs nothing."""

import asyncio
import datetime as dt
import logging
from collections.abc import Callable, Mapping
from typing import Final, Literal, TypeAlias

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from crdt.database import read_only
from server.tables import revoked_tokens

logger = logging.getLogger(__name__)

Claim: TypeAlias = Literal["jti", "sub"]

READ_EVERY_S: Final = 1.0
"""How soon a process learns of what was called back at another one."""
KEPT: Final = dt.timedelta(days=400)
"""Longer than any token of ours lives; whoever signs longer ones has the secret, and can change it."""


class Revocations:
    """What was called back, as this process knows it.

    `watchers` are called after every change, on the event loop.
    """

    def __init__(self) -> None:
        self.watchers: set[Callable[[], None]] = set()
        self._tokens: frozenset[str] = frozenset()
        self._people: Mapping[str, float] = {}

    def cover(self, token_id: str, person: str, issued_at: float | None) -> bool:
        """Whether a token was called back; its `jti`, `sub` and `iat`."""
        if token_id in self._tokens:
            return True
        revoked_at = self._people.get(person)
        # A token that does not say when it was made may be an old one.
        return revoked_at is not None and (issued_at or 0.0) <= revoked_at

    def know(self, tokens: frozenset[str], people: Mapping[str, float]) -> None:
        """From now on these are called back.

        Args:
            tokens: Their `jti`.
            people: By `sub`, until when (Unix seconds) their tokens were made.

        """
        if (tokens, people) == (self._tokens, self._people):
            return
        self._tokens, self._people = tokens, people
        for watcher in tuple(self.watchers):
            watcher()


class RevocationLog:
    """The table behind `Revocations`.

    Args:
        engine: From `crdt.database.create_engine`.
        known: Kept up to date.
        read_every_s: How often.

    """

    def __init__(self, engine: AsyncEngine, known: Revocations, read_every_s: float = READ_EVERY_S) -> None:
        self._engine = engine
        self._reading = read_only(engine)
        self._known = known
        self._read_every_s = read_every_s

    async def revoke(self, claim: Claim, value: str) -> dt.datetime:
        """Commit that a token, or all tokens of a person, are called back; at once here, soon elsewhere.

        Returns:
            When: tokens made later are good.

        """
        now = dt.datetime.now(dt.UTC)
        insert = sqlite.insert if self._engine.dialect.name == "sqlite" else postgresql.insert
        statement = insert(revoked_tokens).values(claim=claim, value=value, revoked_at=now)
        keys = ["claim", "value"]
        async with self._engine.begin() as connection:
            await connection.execute(sa.delete(revoked_tokens).where(revoked_tokens.c.revoked_at < now - KEPT))
            await connection.execute(statement.on_conflict_do_update(index_elements=keys, set_={"revoked_at": now}))
        await self.read()
        return now

    async def read(self) -> None:
        """Learn what was called back anywhere."""
        since = dt.datetime.now(dt.UTC) - KEPT
        tokens: set[str] = set()
        people: dict[str, float] = {}
        async with self._reading.connect() as connection:
            for row in await connection.execute(sa.select(revoked_tokens).where(revoked_tokens.c.revoked_at >= since)):
                if row.claim == "jti":
                    tokens.add(row.value)
                else:
                    people[row.value] = row.revoked_at.timestamp()
        self._known.know(frozenset(tokens), people)

    async def run(self) -> None:
        """Learn of others' until cancelled; while the database is away, what is known stays."""
        while True:
            await asyncio.sleep(self._read_every_s)
            try:
                await self.read()
            except (SQLAlchemyError, OSError) as error:
                facts = {"action": "revocations_not_read", "reason": type(error).__name__}
                logger.warning("what was called back elsewhere is not known", extra=facts)
