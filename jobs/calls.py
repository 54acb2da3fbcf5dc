"""Outgoing calls as rows: what is due, who has taken it, how it ended. Every commit is one short transaction."""

import datetime as dt
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine

from crdt.database import read_only
from crdt.transactions import Transactions
from jobs.reading import utcnow
from jobs.tables import outgoing_calls

MAX_ERROR_CHARS: Final = 500
MAX_LISTED: Final = 100
_calls = outgoing_calls.c


@dataclass(frozen=True, slots=True)
class Call:
    """One call that somebody asked for.

    Attributes:
        id: Sent as `webhook-id`, the same at every try.
        host: Where it goes: name, and port where that is unusual.
        attempts: Tries begun. It fences: what came of an older try is not written.
        next_at: When it is tried (again); None once it was delivered or given up.

    """

    id: str
    run_id: str
    host: str
    url: str
    body: str
    attempts: int
    created_at: dt.datetime
    next_at: dt.datetime | None
    delivered_at: dt.datetime | None
    last_status: int | None
    last_error: str | None


@dataclass(frozen=True, slots=True)
class Room:
    """How many more calls there is room for.

    Attributes:
        calls: At most so many.
        per_host: At most so many for one host, those in `busy` included.
        busy: How many calls each host has from us now.
        resting: Hosts that are left alone for now.

    """

    calls: int
    per_host: int
    busy: Mapping[str, int]
    resting: Collection[str] = ()


class Calls:
    """The rows of `outgoing_calls`; `jobs.outgoing.announce` writes new ones.

    Args:
        engine: From `crdt.database.create_engine`.
        clock: The time, aware UTC.
        transactions: Those of this process, shared with whoever else writes.

    """

    def __init__(
        self,
        engine: AsyncEngine,
        clock: Callable[[], dt.datetime] = utcnow,
        *,
        transactions: Transactions | None = None,
    ) -> None:
        self._reading = read_only(engine)
        self._clock = clock
        self._transactions = transactions or Transactions(engine)

    async def due(self) -> bool:
        """Whether there is any call to make now; takes no lock."""
        query = sa.select(_calls.id).where(_calls.next_at <= self._clock()).limit(1)
        async with self._reading.connect() as connection:
            return (await connection.execute(query)).first() is not None

    async def take(self, room: Room, claim_s: float) -> list[Call]:
        """Commit that due calls are ours until the claim lapses; a process that dies in between loses nothing."""
        return await self._transactions.run(lambda connection: self._take(connection, room, claim_s))

    def _take(self, connection: sa.Connection, room: Room, claim_s: float) -> list[Call]:
        full = set(room.resting) | {host for host, count in room.busy.items() if count >= room.per_host}
        counts, taken, now = dict(room.busy), list[Call](), self._clock()
        while (wanted := room.calls - len(taken)) > 0:
            found = _due(connection, now, wanted, full)
            for row in found:
                if counts.get(row.host, 0) >= room.per_host:
                    # Nobody waits behind a host with many calls: the next look leaves it out.
                    full.add(row.host)
                    continue
                counts[row.host] = counts.get(row.host, 0) + 1
                claim = {"attempts": row.attempts + 1, "next_at": now + dt.timedelta(seconds=claim_s)}
                connection.execute(sa.update(outgoing_calls).where(_calls.id == row.id).values(**claim))
                taken.append(_call(row, **claim))
            if len(found) < wanted:
                break
        return taken

    async def delivered(self, call: Call, status: int) -> bool:
        """Commit that the receiver has it; returns whether this try was still the latest."""
        return await self._write(call, next_at=None, delivered_at=self._clock(), last_status=status, last_error=None)

    async def put_off(self, call: Call, until: dt.datetime, status: int | None, error: str | None) -> bool:
        """Commit that the try failed and when the next follows; returns as `delivered`."""
        return await self._write(call, next_at=until, last_status=status, last_error=_short(error))

    async def ended(self, call: Call, status: int | None, error: str | None) -> bool:
        """Commit that nobody tries again, though it was not delivered; returns as `delivered`."""
        return await self._write(call, next_at=None, last_status=status, last_error=_short(error))

    async def released(self, call: Call) -> bool:
        """Commit that the try was broken off before its end, and that any process may begin it anew."""
        return await self._write(call, next_at=self._clock(), attempts=call.attempts - 1)

    async def of_run(self, run_id: str) -> list[Call]:
        """The calls that tell of a run, oldest first."""
        query = sa.select(outgoing_calls).where(_calls.run_id == run_id).order_by(_calls.created_at, _calls.id)
        async with self._reading.connect() as connection:
            return [_call(row) for row in await connection.execute(query.limit(MAX_LISTED))]

    async def forget(self, before: dt.datetime) -> int:
        """Commit the removal of calls that ended and were written before then; returns how many."""
        old = sa.delete(outgoing_calls).where(_calls.next_at.is_(None), _calls.created_at < before)
        return await self._transactions.run(lambda connection: connection.execute(old).rowcount)

    async def _write(self, call: Call, **values: Any) -> bool:
        mine = sa.and_(_calls.id == call.id, _calls.attempts == call.attempts, _calls.next_at.is_not(None))
        update = sa.update(outgoing_calls).where(mine).values(**values)
        return await self._transactions.run(lambda connection: connection.execute(update).rowcount == 1)


def _due(connection: sa.Connection, now: dt.datetime, limit: int, full: Collection[str]) -> list[sa.Row[Any]]:
    query = sa.select(outgoing_calls).where(_calls.next_at <= now, _calls.host.not_in(sorted(full)))
    query = query.order_by(_calls.next_at, _calls.id).limit(limit).with_for_update(skip_locked=True)
    return list(connection.execute(query))


def _call(row: Any, **changed: Any) -> Call:
    columns = ("id", "run_id", "host", "url", "body", "attempts", "created_at", "next_at", "delivered_at")
    known = {name: getattr(row, name) for name in (*columns, "last_status", "last_error")}
    return Call(**(known | changed))


def _short(error: str | None) -> str | None:
    return None if error is None else error[:MAX_ERROR_CHARS]
