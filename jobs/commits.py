"""Events told once they are committed, by the process that committed them and by no other."""

from collections.abc import Callable
from typing import TypeAlias, TypeVar

import sqlalchemy as sa

from crdt.transactions import Transactions
from jobs.run import Run
from jobs.state import Event

T = TypeVar("T")
Told: TypeAlias = Callable[[Run | None, Run, Event], None]
"""Hears the run before an event (None: there was none), the run after it, and the event; must not wait or raise."""


def nobody(_before: Run | None, _after: Run, _event: Event) -> None:
    """Told by nobody who listens."""


class NotedTransactions:
    """Transactions whose events are told after the commit; those of one that fails are not.

    Args:
        transactions: That do the work.
        told: Hears every event.

    """

    def __init__(self, transactions: Transactions, told: Told) -> None:
        self._transactions = transactions
        self._told = told
        self._open: dict[sa.Connection, list[tuple[Run | None, Run, Event]]] = {}

    async def run(self, work: Callable[[sa.Connection], T]) -> T:
        """Commit what `work` does, as `Transactions.run`, then tell what it noted."""
        noted: list[tuple[Run | None, Run, Event]] = []

        def whole(connection: sa.Connection) -> T:
            # It may be done again from its start: only the last time counts.
            noted.clear()
            self._open[connection] = noted
            try:
                return work(connection)
            finally:
                del self._open[connection]

        result = await self._transactions.run(whole)
        for facts in noted:
            self._told(*facts)
        return result

    def note(self, connection: sa.Connection, before: Run | None, after: Run, event: Event) -> None:
        """Note an event that the transaction of this connection has written; one that is not ours is not told."""
        noted = self._open.get(connection)
        if noted is not None:
            noted.append((before, after, event))
