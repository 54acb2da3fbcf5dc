"""What a program that embeds the server may put in place of the usual parts."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy.ext.asyncio import AsyncEngine

from crdt.store import SqlStore
from crdt.transactions import Transactions
from jobs.storage import DiskStore
from providers.base import ImageProvider
from server.metrics import Metrics


class CountedStore(SqlStore):
    """The store, with every committed update counted."""

    def __init__(
        self, engine: AsyncEngine, process_id: str, metrics: Metrics, transactions: Transactions | None = None
    ) -> None:
        super().__init__(engine, process_id, transactions=transactions)
        self._metrics = metrics

    async def append(self, updates: Mapping[str, Sequence[bytes]]) -> dict[str, int]:
        """Commit updates, and count them."""
        numbers = await super().append(updates)
        self._metrics.updates_committed(sum(map(len, updates.values())))
        return numbers


@dataclass(frozen=True, slots=True)
class Parts:
    """What a program that embeds the server may put in place of the usual parts.

    Attributes:
        providers: Offered besides those that settings configure.
        images: Makes the image store from its folder and the public address.
        documents: Makes the document store.

    """

    providers: tuple[ImageProvider, ...] = ()
    images: Callable[[Path, str], DiskStore] = DiskStore
    documents: Callable[[AsyncEngine, str, Metrics, Transactions], SqlStore] = CountedStore
