"""What holds runs up: operators who paused something, and makers that asked for fewer calls."""

import datetime as dt
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

import sqlalchemy as sa

from crdt.database import insert_into
from jobs.tables import pauses

FIRST_S: Final = 5.0
"""A maker that says "too many" and not for how long is left alone for so long; doubled while it goes on."""
LONGEST_S: Final = 60.0
MAX_ASKED_S: Final = 300.0
"""A maker that asks for more is asked again after so long."""
SHORTEST_S: Final = 0.2
MAX_REASON_CHARS: Final = 500


class Scope(StrEnum):
    """What is paused."""

    ALL = "all"
    PROVIDER = "provider"
    WORKFLOW = "workflow"


class Kind(StrEnum):
    """Who paused it."""

    OPERATOR = "operator"
    RATE_LIMIT = "rate_limit"


@dataclass(frozen=True, slots=True)
class Pause:
    """Nothing new of this scope is let through until then; None: until somebody resumes it.

    Attributes:
        key: Name of the provider, or id of the workflow; "" of all.

    """

    scope: Scope
    key: str
    kind: Kind
    until: dt.datetime | None
    reason: str
    by: str | None
    at: dt.datetime

    @property
    def held(self) -> str:
        """What a run that it holds up is told."""
        return "rate_limit" if self.kind is Kind.RATE_LIMIT else "paused"


@dataclass(frozen=True, slots=True)
class Held:
    """Which runs the pauses of this moment hold up."""

    pauses: tuple[Pause, ...] = ()

    def of(self, provider: str, workflow_id: str) -> Pause | None:
        """What holds up a run of this maker on this canvas; an operator's pause before a maker's."""
        wanted = {(Scope.ALL, ""), (Scope.PROVIDER, provider), (Scope.WORKFLOW, workflow_id)}
        found = [pause for pause in self.pauses if (pause.scope, pause.key) in wanted]
        return min(found, key=lambda pause: pause.kind is Kind.RATE_LIMIT, default=None)

    def names(self, scope: Scope) -> list[str]:
        """Keys of what is paused of one scope."""
        return sorted({pause.key for pause in self.pauses if pause.scope is scope})

    @property
    def everything(self) -> bool:
        """Whether nothing at all is let through."""
        return any(pause.scope is Scope.ALL for pause in self.pauses)

    @property
    def next_end(self) -> dt.datetime | None:
        """When the first of them ends by itself."""
        return min((pause.until for pause in self.pauses if pause.until is not None), default=None)


def read_pauses(connection: sa.Connection, now: dt.datetime) -> Held:
    """The pauses that hold now."""
    rows = connection.execute(sa.select(pauses).order_by(pauses.c.scope, pauses.c.key, pauses.c.kind))
    found = (
        Pause(Scope(row.scope), row.key, Kind(row.kind), row.until, row.reason, row.by, row.at)
        for row in rows
        if row.until is None or row.until > now
    )
    return Held(tuple(found))


def put_pause(connection: sa.Connection, pause: Pause) -> None:
    """Pause something, in place of an earlier pause of the same kind."""
    values = {
        "scope": pause.scope.value,
        "key": pause.key,
        "kind": pause.kind.value,
        "until": pause.until,
        "reason": pause.reason[:MAX_REASON_CHARS],
        "by": pause.by,
        "at": pause.at,
    }
    insert = insert_into(connection.dialect.name, pauses).values(**values)
    changed = {name: insert.excluded[name] for name in ("until", "reason", "by", "at")}
    connection.execute(insert.on_conflict_do_update(index_elements=["scope", "key", "kind"], set_=changed))


def drop_pauses(connection: sa.Connection, scope: Scope, key: str) -> int:
    """Resume something: whoever paused it; returns how many pauses that ended."""
    mine = sa.and_(pauses.c.scope == scope.value, pauses.c.key == key)
    return (connection.execute(sa.delete(pauses).where(mine))).rowcount


def refuse(
    connection: sa.Connection, provider: str, retry_after_s: float | None, now: dt.datetime, jitter: float
) -> dt.datetime:
    """Leave a maker alone that asked for fewer calls; returns until when.

    Calls that left before it said so are refused as well: they make the pause longer only where the maker asks for
    it. One that refuses again right after a pause is left alone twice as long as before.

    Args:
        connection: The transaction.
        provider: The maker.
        retry_after_s: What it asked for.
        now: By the clock that all processes share.
        jitter: In [0, 1), so that several servers of one account do not come back in one moment.

    """
    mine = sa.and_(
        pauses.c.scope == Scope.PROVIDER.value, pauses.c.key == provider, pauses.c.kind == Kind.RATE_LIMIT.value
    )
    row = (connection.execute(sa.select(pauses).where(mine).with_for_update())).one_or_none()
    seconds = _pause_s(row, retry_after_s, now, jitter)
    until = now + dt.timedelta(seconds=seconds)
    if row is not None and row.until is not None and row.until > now and row.until >= until:
        standing: dt.datetime = row.until
        return standing
    at = row.at if row is not None and row.until is not None and row.until > now else now
    reason = "The provider asked for fewer calls."
    put_pause(connection, Pause(Scope.PROVIDER, provider, Kind.RATE_LIMIT, until, reason, None, at))
    return until


def _pause_s(row: Any, asked_s: float | None, now: dt.datetime, jitter: float) -> float:
    if asked_s is not None:
        return min(max(asked_s, SHORTEST_S), MAX_ASKED_S) + 0.2 * jitter
    if row is None or row.until is None:
        return FIRST_S * (1 + 0.2 * jitter)
    if row.until > now:
        return float((row.until - now).total_seconds())
    length = (row.until - row.at).total_seconds()
    again = (now - row.until).total_seconds() < max(length, FIRST_S)
    seconds = min(max(2 * length, FIRST_S), LONGEST_S) if again else FIRST_S
    return float(seconds * (1 + 0.2 * jitter))
